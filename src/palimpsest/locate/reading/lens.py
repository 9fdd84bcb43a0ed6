"""The logit lens (nostalgebraist 2020): what each layer's residual stream would say if the network ended there.

    logits(t, l) = W_U norm(h(t, l))        h(t, l) the residual stream after layer l at token t

with the network's own final norm, head and whatever scaling it applies to its logits; at the last layer it is the model's
own output (to rounding: states are decoded in batches of another shape). It reads a state in the basis of the output: a
low rank says that the answer is linearly readable there in that basis, not that the model uses it, and a high rank does
not say that the state lacks it (`probes` reads in other bases).

In a profile over facts, each answer's control is the answers of other facts of its relation read from the same states:
what the relation alone, or the likeliest words of a language, would give.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.answers import prompt_and_token
from palimpsest.locate.precision import at_least_float32
from palimpsest.locate.reading.profile import Profile, ask, nested, scored_token
from palimpsest.locate.saving import save_json
from palimpsest.model import Model, Site, pad
from palimpsest.model.tokens import token_strings
from palimpsest.runs import Progress

STATES_AT_ONCE = 128  # states whose logits are held together: 25 MB with a vocabulary of 49,152
FACTS_AT_ONCE = 16
POSITIONS = ("subject_last", "last")
MEASURES = ("probability", "reciprocal_rank")


@dataclass(frozen=True, eq=False)
class Lens:
    """What every state of one prompt says through the final norm and head.

    Attributes:
        text: the prompt.
        tokens: its tokens as text.
        subject: positions [first, end) of the subject's tokens; None for a bare text.
        answer, foil: whose first tokens are read, as text; `foil` may be None.
        rank: 1 + the number of likelier tokens, of the answer, shape (tokens, layers).
        log_p: log-probability of the answer in nats, same shape.
        foil_rank, foil_log_p: of the foil; None without one.
        top: the k likeliest tokens, likeliest first, shape (tokens, layers, k).
        top_p: their probabilities.
        top_text: per token, layer and place, the token as text.
        settings: how it was made.
    """

    text: str
    tokens: tuple[str, ...]
    subject: tuple[int, int] | None
    answer: str
    foil: str | None
    rank: Int[np.ndarray, "tokens layers"]
    log_p: Float[np.ndarray, "tokens layers"]
    foil_rank: Int[np.ndarray, "tokens layers"] | None
    foil_log_p: Float[np.ndarray, "tokens layers"] | None
    top: Int[np.ndarray, "tokens layers k"]
    top_p: Float[np.ndarray, "tokens layers k"]
    top_text: tuple[tuple[tuple[str, ...], ...], ...]
    settings: dict[str, object]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "text": self.text,
            "tokens": list(self.tokens),
            "subject": list(self.subject) if self.subject else None,
            "answer": self.answer,
            "foil": self.foil,
            "rank": self.rank.tolist(),
            "log_p": nested(self.log_p),
            "foil_rank": None if self.foil_rank is None else self.foil_rank.tolist(),
            "foil_log_p": None if self.foil_log_p is None else nested(self.foil_log_p),
            "top": self.top_text,
            "top_p": nested(self.top_p),
            "settings": self.settings,
        }

    def save(self, path: str) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), path)

    def plot(self) -> object:
        """A matplotlib figure: tokens down, layers across, colour the answer's log-probability, text the top token."""
        from palimpsest.locate.reading.plot import plot_lens

        return plot_lens(self)


@torch.no_grad()
def logit_lens(
    model: Model, fact: Fact | str, *, answer: str | None = None, foil: str | None = None, top: int = 5
) -> Lens:
    """Read every state of one prompt.

    Args:
        model: read, never changed.
        fact: a fact, whose prompt is read, or a bare text.
        answer: read by its first token; `target_true` when None, or the model's own first choice where there is none.
        foil: a second answer to read beside it; `target_new` when None (none for a bare text).
        top: how many of the likeliest tokens to keep.

    Raises:
        SettingError: `top` is not between 1 and the size of the vocabulary.
        InputError: the text has no token or more than the model reads, or an answer has no token.
    """
    text = fact if isinstance(fact, str) else fact.text
    if isinstance(fact, Fact):
        answer, foil = answer or fact.target_true, foil or fact.target_new
    encoded, token = prompt_and_token(model, text, answer) if answer else (model.encode(text), None)
    subject: tuple[int, int] | None = None
    if isinstance(fact, Fact):
        places = encoded.tokens_of(*fact.subject_span)
        subject = (places[0], places[-1] + 1)
    foil_token = scored_token(model, text, foil) if foil else None
    with model.evaluating():
        batch = pad([encoded.ids])
        token = int(model.last_logits(batch)[0].argmax()) if token is None else token
        sites = [Site("resid_out", l) for l in range(model.n_layers)]
        states = model.record(batch, sites)
        stacked = torch.stack([states[site][0] for site in sites], dim=1)  # (tokens, layers, width)
        wanted = [token] + ([foil_token] if foil_token is not None else [])
        ranks, log_p, best, best_p = [], [], [], []
        for logits in decode(model, stacked.flatten(0, 1)):
            if not 1 <= top <= logits.shape[1]:
                raise SettingError(f"The lens keeps 1 to {logits.shape[1]} top tokens, got {top}.")
            several = torch.tensor(wanted, device=logits.device).expand(len(logits), -1)
            rank, lp = _ranks(logits, several)
            highest = logits.log_softmax(-1).topk(top, dim=-1)
            ranks.append(rank)
            log_p.append(lp)
            best.append(highest.indices.cpu().numpy())
            best_p.append(highest.values.exp().cpu().double().numpy())
    shape = stacked.shape[:2]
    rank_of = np.concatenate(ranks).reshape(*shape, -1)
    log_p_of = np.concatenate(log_p).reshape(*shape, -1)
    top_ids = np.concatenate(best).reshape(*shape, -1)
    settings: dict[str, object] = {
        "model": model.name,
        "site": "residual stream after each layer",
        "score": "first token of the answer, through the network's own final norm and head",
    }
    return Lens(
        text,
        tuple(token_strings(model.tokenizer, encoded.ids)),
        subject,
        model.tokenizer.decode([token]),
        None if foil_token is None else model.tokenizer.decode([foil_token]),
        rank_of[..., 0],
        log_p_of[..., 0],
        rank_of[..., 1] if foil else None,
        log_p_of[..., 1] if foil else None,
        top_ids,
        np.concatenate(best_p).reshape(*shape, -1),
        tuple(tuple(tuple(token_strings(model.tokenizer, ids.tolist())) for ids in row) for row in top_ids),
        settings,
    )


def lens_profile(
    model: Model, facts: Sequence[Fact], *, controls: int = 5, seed: int = 0, progress: Progress | None = None
) -> Profile:
    """How readable the answer is at each layer, over facts, at the subject's last token and at the last token.

    Curves are "probability/last", "reciprocal_rank/last" (1 / rank) and the same at "subject_last"; each has its control,
    such as "probability/last/control": the mean over `controls` answers of other facts of the same relation in the call,
    read from the very same states. An answer that begins with the same token as the fact's own (or an alias) is no control.

    Args:
        model: read, never changed.
        facts: asked in their own prompt; unknown ones are measured and summarised apart.
        controls: at most so many other answers a fact.
        seed: of the choice among other answers.
        progress: called with (done, total, label).

    Returns:
        A `Profile`; a fact without another answer in its relation has NaN for its control.

    Raises:
        SettingError: `controls` is below 1.
        InputError: no fact could be asked.
    """
    if controls < 1:
        raise SettingError(f"A lens profile needs at least one control answer, got controls={controls}.")
    asked, failures = ask(model, facts)
    by_relation: dict[str, set[str]] = {}
    for fact, _ in asked:
        by_relation.setdefault(fact.relation, set()).add(str(fact.target_true))
    ready: list[tuple[Fact, bool, tuple[int, ...], list[int], list[int]]] = []
    for fact, known in asked:
        try:
            encoded, _ = prompt_and_token(model, fact.text, str(fact.target_true))
            places = [encoded.tokens_of(*fact.subject_span)[-1], len(encoded) - 1]
            wanted = _candidates(model, fact, by_relation[fact.relation], controls, seed)
        except InputError as error:
            failures.append((fact.id, str(error)))
        else:
            ready.append((fact, known, encoded.ids, places, wanted))
    if not ready:
        reason = failures[0][1] if failures else "there are no facts"
        raise InputError(f"None of the {len(facts)} facts could be asked; the first reason: {reason}")
    rows: list[dict[str, np.ndarray]] = []
    with torch.no_grad(), model.evaluating():
        for begin in range(0, len(ready), FACTS_AT_ONCE):
            chunk = ready[begin : begin + FACTS_AT_ONCE]
            rows += _read(model, [(ids, places, wanted) for _, _, ids, places, wanted in chunk])
            if progress:
                progress(len(rows), len(ready), "facts read")
    own = [f"{measure}/{place}" for measure in MEASURES for place in POSITIONS]
    return Profile(
        "logit lens",
        tuple(item[0] for item in ready),
        tuple(item[1] for item in ready),
        {curve: np.stack([row[curve] for row in rows]) for curve in rows[0]},
        tuple((curve, f"{curve}/control") for curve in own),
        tuple(failures),
        {"model": model.name, "controls": controls, "seed": seed, "score": "first token of the answer"},
    )


@torch.no_grad()
def decode(model: Model, states: Float[Tensor, "states width"]) -> Iterator[Float[Tensor, "some vocabulary"]]:
    """Logits of residual states through the final norm and head, `STATES_AT_ONCE` at a time, in float32 or better.

    The network itself is run from above its last layer, so its norm, its head and its scaling are its own; the token that
    stands in for the prompt is never read.
    """
    for part in states.split(STATES_AT_ONCE):
        logits = model.run(pad([(0,)] * len(part)), start=model.n_layers, resid=part[:, None])
        yield at_least_float32(logits[:, 0])


def _ranks(
    logits: Float[Tensor, "states vocabulary"], wanted: Int[Tensor, "states answers"]
) -> tuple[Int[np.ndarray, "states answers"], Float[np.ndarray, "states answers"]]:
    """(1 + how many tokens are likelier, log-probability) of several tokens at each state."""
    own = logits.gather(1, wanted)
    likelier = torch.stack([(logits > own[:, j, None]).sum(1) for j in range(wanted.shape[1])], dim=1)
    log_p = own - logits.logsumexp(1, keepdim=True)
    return (1 + likelier).cpu().numpy(), log_p.cpu().double().numpy()


def _candidates(model: Model, fact: Fact, answers: set[str], controls: int, seed: int) -> list[int]:
    """The first token of the fact's own answer, then those of its control answers."""
    own = scored_token(model, fact.text, str(fact.target_true))
    accepted = {own} | {scored_token(model, fact.text, alias) for alias in fact.answer_aliases}
    others = sorted({scored_token(model, fact.text, answer) for answer in answers} - accepted)
    digest = hashlib.blake2b(f"{seed}\0{fact.id}".encode(), digest_size=8).digest()
    draw = np.random.default_rng(int.from_bytes(digest, "big")).permutation(len(others))[:controls]
    return [own, *(others[i] for i in sorted(draw))]


def _read(model: Model, chunk: Sequence[tuple[tuple[int, ...], list[int], list[int]]]) -> list[dict[str, np.ndarray]]:
    """Every curve of several facts, each given as (ids, positions, tokens that are read)."""
    sites = [Site("resid_out", l) for l in range(model.n_layers)]
    states = model.record(pad([ids for ids, _, _ in chunk]), sites)
    flat = torch.cat(
        [torch.stack([states[s][i, places] for s in sites], dim=1) for i, (_, places, _) in enumerate(chunk)]
    )
    most = max(len(wanted) for _, _, wanted in chunk)
    padded = torch.tensor([wanted + [wanted[0]] * (most - len(wanted)) for _, _, wanted in chunk])
    each = padded.repeat_interleave(len(POSITIONS) * len(sites), dim=0).split(STATES_AT_ONCE)
    read = [
        _ranks(logits, some.to(logits.device))
        for logits, some in zip(decode(model, flat.flatten(0, 1)), each, strict=True)
    ]
    shape = (len(chunk), len(POSITIONS), len(sites), most)
    scores = {
        "probability": np.exp(np.concatenate([log_p for _, log_p in read])).reshape(shape),
        "reciprocal_rank": 1 / np.concatenate([rank for rank, _ in read]).reshape(shape),
    }
    rows = []
    for i, (_, _, wanted) in enumerate(chunk):
        row: dict[str, np.ndarray] = {}
        for measure in MEASURES:
            for j, place in enumerate(POSITIONS):
                own, *others = np.moveaxis(scores[measure][i, j, :, : len(wanted)], 1, 0)
                row[f"{measure}/{place}"] = own
                row[f"{measure}/{place}/control"] = np.mean(others, axis=0) if others else np.full_like(own, np.nan)
        rows.append(row)
    return rows
