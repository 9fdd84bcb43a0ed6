"""How far an answer stands above others after a text, every token of it counted: the score of a readout at the final output.

    log p(o | x) = sum_t log p(o_t | x, o_<t)
    advantage    = log p(answer | x) - mean over others of log p(other | x)        in nats

As in a pair (`palimpsest.erase.residue.pair`), but with whole answers, so that "New York" and "New Delhi" are told apart. The
answers of one text share a single run of it; what is longer than a token goes on from its cached keys and values.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.errors import FactError, WeightError
from palimpsest.locate.answers import PADDING, by_length
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model
from palimpsest.model.taps import Tap, tapped
from palimpsest.model.tokens import align

Ids = tuple[int, ...]
TapsOf = Callable[[Int[Tensor, "rows"]], Iterable[Tap]]


@dataclass(frozen=True)
class Asked:
    """A text, the answer whose advantage is wanted after it, and the answers it is compared with."""

    text: str
    answer: str
    others: tuple[str, ...]


def advantages(model: Model, asked: Sequence[Asked | None], taps: TapsOf | None = None) -> Float[np.ndarray, "asked"]:
    """The advantage of each answer asked for; NaN where nothing is asked.

    Args:
        model: as it stands now; read, never changed.
        asked: what to read.
        taps: given the numbers (in `asked`) of the rows that run, what acts on these rows; then no two numbers share a row.

    Raises:
        FactError: a text or an answer has no token of its own.
        InputError: a text with its answer is longer than the model reads.
        WeightError: the model's output is not finite.
    """
    here = [i for i, one in enumerate(asked) if one is not None]
    told = log_likelihoods(
        model,
        [(one.text, (one.answer, *one.others)) for one in asked if one is not None],
        None if taps is None else lambda rows: taps(torch.tensor(here)[rows]),
    )
    scores = np.full(len(asked), np.nan)
    scores[here] = [values[0] - values[1:].mean() for values in told]
    return scores


@torch.no_grad()
def log_likelihoods(
    model: Model, asked: Sequence[tuple[str, Sequence[str]]], taps: TapsOf | None = None
) -> list[Float[np.ndarray, "answers"]]:
    """log p of each answer after its text, in nats, all its tokens summed."""
    prompts: dict[tuple[int, Ids], dict[Ids, list[tuple[int, int]]]] = {}
    for number, (text, answers) in enumerate(asked):
        for place, answer in enumerate(answers):
            ids, begin = model.encode_answer(text, answer)
            if not 0 < begin < len(ids):
                raise FactError(f"The text {text!r} and the answer {answer!r} must have a token each; change them.")
            own = 0 if taps is None else number
            prompts.setdefault((own, ids[:begin]), {}).setdefault(ids[begin:], []).append((number, place))
    found = [np.full(len(answers), np.nan) for _, answers in asked]
    rows = list(prompts.items())
    for group in by_length([len(ids) for (_, ids), _ in rows], padding=PADDING):
        owners = torch.tensor([rows[i][0][0] for i in group])
        tails = [rows[i][1] for i in group]
        for row_tails, values in zip(
            tails, _read(model, [rows[i][0][1] for i in group], owners, tails, taps), strict=True
        ):
            for places, value in zip(row_tails.values(), values, strict=True):
                for number, place in places:
                    found[number][place] = value
    require_finite(np.concatenate([*found, np.zeros(1)]), "output", model)
    return found


def require_finite(values: np.ndarray, what: str, model: Model) -> None:
    """Raise `WeightError` unless all numbers read from a model are finite."""
    if not np.isfinite(values).all():
        raise WeightError(
            f"The {what} of {model.name} is not finite; its weights hold NaN or its number type overflows: load it in float32 "
            "or undo the edit that broke it."
        )


def _read(
    model: Model, prompts: Sequence[Ids], owners: Tensor, tails: Sequence[Iterable[Ids]], taps: TapsOf | None
) -> list[list[float]]:
    """log p of every tail of every prompt: one run of the prompts, then one for the tails longer than a token."""
    batch = align(prompts, [len(ids) - 1 for ids in prompts])
    with model.evaluating(), tapped(model.anatomy, taps(owners) if taps else ()):
        logits, prefix = model.run_on(batch, torch.full((len(batch), 1), batch.column))
    log_p = at_least_float32(logits[:, 0]).log_softmax(-1).cpu()
    told = [{tail: float(log_p[row, tail[0]]) for tail in of_row} for row, of_row in enumerate(tails)]
    longer = [(row, tail) for row, of_row in enumerate(tails) for tail in of_row if len(tail) > 1]
    for group in by_length([prefix.length + len(tail) for _, tail in longer]):
        part = [longer[i] for i in group]
        chosen = torch.tensor([row for row, _ in part])
        texts = [(*prompts[row], *tail[:-1]) for row, tail in part]
        # the longest prompt may have no longer tail, but the columns that are cached reach as far as it does
        holder, pivots = (0,) * prefix.length, [len(prompts[row]) - 1 for row, _ in part]
        whole = align([*texts, holder], [*pivots, prefix.length - 1]).take(slice(0, len(part)))
        most = max(len(tail) for _, tail in part) - 1
        at = prefix.length + torch.arange(most).expand(len(part), most)
        with model.evaluating(), tapped(model.anatomy, taps(owners[chosen]) if taps else ()):
            logits = model.run(whole, prefix=prefix.take(chosen.to(model.device)), at=at.to(model.device))
        rest = at_least_float32(logits).log_softmax(-1).cpu()
        for i, (row, tail) in enumerate(part):
            wanted = torch.tensor(tail[1:])
            told[row][tail] += float(rest[i, torch.arange(len(wanted)), wanted].double().sum())
    return [list(of_row.values()) for of_row in told]
