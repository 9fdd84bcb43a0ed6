"""What is asked of a model in a patching experiment: prompts, their subjects, and the tokens whose scores are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.errors import FactError, OutputError, PalimpsestError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.answers import prompt_and_token
from palimpsest.locate.precision import at_least_float32
from palimpsest.locate.tracing.corruption import Corrupted, embedding_taps
from palimpsest.locate.tracing.patching import Ran, run_all
from palimpsest.model import Batch, Model, Site, Tap, align
from palimpsest.model.tokens import Encoded, token_strings

Question = TypeVar("Question")


@dataclass(frozen=True)
class Asked:
    """One fact as tokens.

    Attributes:
        fact: what is asked.
        encoded: its prompt.
        subject: positions of the subject's tokens.
        scored: the tokens of answer and foil (the answer twice where there is no foil).
        foil: whether there is one.
        known: whether it passed its gate.
    """

    fact: Fact
    encoded: Encoded
    subject: range
    scored: tuple[int, int]
    foil: bool
    known: bool

    def texts(self, model: Model) -> tuple[str, str, tuple[str, ...]]:
        """Answer, foil ("" where there is none) and tokens as text."""
        answer, foil = (model.tokenizer.decode([token]) for token in self.scored)
        return answer, foil if self.foil else "", tuple(token_strings(model.tokenizer, self.encoded.ids))


def ask(
    model: Model,
    fact: Fact,
    *,
    answer: str | None = None,
    foil: str | None = None,
    argmax: bool = False,
    score: str = "probability",
    gate: str = "first",
) -> Asked:
    """Encode one fact and choose what is scored.

    The answer is `answer`, else `target_true`, else the model's own first choice (always, with `argmax`); the foil is `foil`,
    else `target_new` where its first token differs from the answer's. The fact is known when the answer's first token is the
    first choice (gate "first"; with `argmax`, as in the published code, when the first choice is the whole answer), or
    likelier than the foil's ("foil").

    Raises:
        FactError: answer and given foil begin with the same token, one of them has no token, or the score is a
            "logit-difference" and there is no foil.
    """
    wanted, other = answer or fact.target_true, foil or fact.target_new
    encoded, true = (model.encode(fact.text), None) if wanted is None else prompt_and_token(model, fact.text, wanted)
    subject = encoded.tokens_of(*fact.subject_span)
    with torch.no_grad():
        logits = at_least_float32(model.last_logits(align([encoded.ids], [0]))[0])
    best = int(logits.argmax())
    token = best if argmax or true is None else true
    against = None
    if other is not None:
        asked, against = prompt_and_token(model, fact.text, other)
        if asked.ids != encoded.ids:
            raise FactError(
                f"The foil {other!r} and the answer {wanted!r} end {fact.text!r} at different tokens; change one."
            )
    if against == token and foil is not None:
        raise FactError(
            f"The foil {foil!r} begins with {model.tokenizer.decode([token])!r}, the token that is scored as the answer to "
            f"{fact.text!r}; give one that begins otherwise."
        )
    has_foil = against is not None and against != token
    if score == "logit-difference" and not has_foil:
        raise FactError(
            f"The fact {fact.id} ({fact.text!r}) has no foil that begins otherwise than its answer "
            f"{model.tokenizer.decode([token])!r}; give it a target_new, or name one with foil."
        )
    if gate == "foil":
        known = against is not None and bool(logits[best if true is None else true] > logits[against])
    elif argmax and wanted is not None:  # the published filter
        known = model.tokenizer.decode([best]).strip() == wanted
    else:
        known = true in (None, best)
    opponent = against if has_foil and against is not None else token
    return Asked(fact, encoded, subject, (token, opponent), has_foil, known)


def checked_gate(gate: str) -> str:
    """`gate` if it is one."""
    if gate not in ("first", "foil"):
        raise SettingError(f"A gate is 'first' or 'foil', got {gate!r}.")
    return gate


def ask_each_of(
    model: Model, facts: Sequence[Fact], function: Callable[[Model, Fact], Question]
) -> tuple[list[Question], dict[int, PalimpsestError]]:
    """`function` of every fact it has an answer for, in order, and by position why it has none for the others."""
    questions, failures = list[Question](), dict[int, PalimpsestError]()
    for i, fact in enumerate(facts):
        try:
            questions.append(function(model, fact))
        except (OutputError, SettingError):  # no fault of the fact
            raise
        except PalimpsestError as error:
            failures[i] = error
    return questions, failures


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of several facts that all end in one column.

    Attributes:
        ran: their run.
        of: per fact the slice of its rows.
        offset: per fact the column of its first token.
    """

    ran: Ran
    of: tuple[slice, ...]
    offset: tuple[int, ...]


def run_clean(model: Model, asked: Sequence[Asked], sites: Sequence[Site]) -> Rows:
    """One clean row per fact."""
    alone = [Corrupted((one.encoded.ids,), tuple(one.subject)) for one in asked]
    return run_corrupted(model, asked, alone, sites)


def run_corrupted(model: Model, asked: Sequence[Asked], corrupted: Sequence[Corrupted], sites: Sequence[Site]) -> Rows:
    """S rows per fact, each corrupted in its own way."""
    rows = [(i, sample) for i, how in enumerate(corrupted) for sample in range(len(how.ids))]
    batch = right_aligned([corrupted[i].ids[sample] for i, sample in rows])
    columns = batch.ids.shape[1]
    offset = tuple(columns - len(one.encoded) for one in asked)
    taps: Callable[[int], Sequence[Tap]] = embedding_taps(
        [(corrupted[i], sample, offset[i]) for i, sample in rows], model.anatomy.width, columns
    )
    scored = scored_tokens([asked[i] for i, _ in rows])
    begins = np.cumsum([0, *(len(how.ids) for how in corrupted)])
    of = tuple(slice(int(a), int(b)) for a, b in zip(begins, begins[1:], strict=False))
    return Rows(run_all(model, batch, sites, scored, taps=taps), of, offset)


def right_aligned(rows: Sequence[Sequence[int]]) -> Batch:
    """Rows of ids as a batch, padded on the left, so that all end in the same column."""
    return align(rows, [len(row) - 1 for row in rows])


def scored_tokens(asked: Sequence[Asked]) -> Int[Tensor, "rows 2"]:
    """Tokens of answer and foil, one row a fact."""
    return torch.tensor([one.scored for one in asked])


def clean_log_p(rows: Rows, i: int) -> Float[np.ndarray, "2"]:
    """log p of answer and foil of the one clean row of fact i."""
    return rows.ran.log_p[rows.of[i].start]
