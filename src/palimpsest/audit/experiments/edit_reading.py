"""What a model says to every stratum of a fact, read under an edit at any dose, in few batched passes.

    strata = Strata.of(model, fact)                     # prompts as tokens, made once
    with edit.applied(model, dose=0.5):
        strata.read(model)                              # one `Reading`: log-odds, probability, likeliest token

One scale serves all strata, so that what an edit was meant to move stands beside what it was not:

    log-odds(a | x) = log p(a | x) - log(1 - p(a | x))        a the first token of the stratum's answer

    target, paraphrases               a is the new answer, its rival the old one
    entailed                          a is what follows from the edit, its rival what held before
    same_subject, neighbours, far     a is what must stay; it has no rival

The log of 1 - p is summed over the other tokens, because where p is near 1 the difference 1 - p has no digits left. A success is
p(a) > p(rival), and where there is no rival that a is the likeliest token.

The control of an edit is `random_value`: the change dW = u v^T of rank one with u turned into a random direction of the same
length (null N3). It hears the same key, changes the weights as much, and says something else.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.audit.bench import Bench
from palimpsest.audit.experiments.roles import rounded
from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import LowRank
from palimpsest.errors import EditError, FactError, InputError
from palimpsest.facts import Fact, Probe
from palimpsest.locate.answers import PADDING, by_length, prompt_and_token
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, pad

TARGET, PARAPHRASES, ENTAILED = "target", "paraphrases", "entailed"
STAY = ("same_subject", "neighbours", "far")
STRATA = (TARGET, PARAPHRASES, ENTAILED, *STAY)
MOST = 5  # prompts of one stratum: the cost of a dose is bounded, and a fact weighs no more for having many
SEARCH_PASSES = (
    35  # of 64 tokens, that a value search takes as long as: 20 steps from the edited layer on, in six contexts
)


@dataclass(frozen=True, eq=False)
class Reading:
    """What the model says to each prompt of `Strata`, in their order.

    Attributes:
        log_odds: of the answer's first token.
        p, rival: probabilities of the first tokens of the answer and of its rival; NaN where it has none.
        right: 1 where the answer is found likelier than its rival, or likeliest of all.
        best: the likeliest token.
        entropy: of the next token, in nats.
    """

    log_odds: Float[np.ndarray, " prompts"]
    p: Float[np.ndarray, " prompts"]
    rival: Float[np.ndarray, " prompts"]
    right: Float[np.ndarray, " prompts"]
    best: Int[np.ndarray, " prompts"]
    entropy: Float[np.ndarray, " prompts"]


@dataclass(frozen=True)
class Prompt:
    """One prompt as tokens, the token that is asked for, and its rival."""

    stratum: str
    ids: tuple[int, ...]
    token: int
    rival: int | None = None


@dataclass(frozen=True)
class Strata:
    """The prompts of one fact."""

    prompts: tuple[Prompt, ...]

    @classmethod
    def of(cls, model: Model, fact: Fact, *, only: Sequence[str] = STRATA, most: int = MOST) -> "Strata":
        """The prompts of a fact that can be asked: a probe without an answer, or too long for the model, is passed over.

        Raises:
            FactError: the fact has no old or no new answer, or both begin with one token.
            InputError: its own prompt is too long.
        """
        if fact.target_true is None or fact.target_new is None:
            raise FactError(
                f"The fact {fact.id} ({fact.text!r}) needs target_true and target_new to be edited and read; add what lacks."
            )
        own = _prompt(model, TARGET, fact.text, fact.target_new, fact.target_true)
        if own.token == own.rival:
            raise FactError(
                f"The answers {fact.target_new!r} and {fact.target_true!r} of {fact.id} begin with the same token, so that the "
                f"first token cannot tell them apart; give another new answer."
            )
        found = [own] if TARGET in only else []
        asked: dict[str, Sequence[Probe]] = {name: getattr(fact, name) for name in (ENTAILED, *STAY)}
        asked[PARAPHRASES] = [Probe(text, fact.target_new, fact.target_true) for text in fact.paraphrases]
        for stratum in STRATA:
            if stratum in only and stratum in asked:
                found += _askable(model, stratum, asked[stratum], most)
        return cls(tuple(found))

    def at(self, stratum: str) -> Int[np.ndarray, " some"]:
        """Positions of the prompts of one stratum."""
        return np.array([i for i, prompt in enumerate(self.prompts) if prompt.stratum == stratum], dtype=int)

    @torch.no_grad()
    def read(self, model: Model) -> Reading:
        """What the model, with the edits applied to it now, says to each prompt."""
        table = np.full((6, len(self.prompts)), np.nan)
        for rows in by_length([len(prompt.ids) for prompt in self.prompts], padding=PADDING):
            prompts = [self.prompts[i] for i in rows]
            with model.evaluating():
                logits = at_least_float32(model.last_logits(pad([prompt.ids for prompt in prompts]))).cpu().double()
            table[:, rows] = _read(logits.log_softmax(-1), prompts)
        log_odds, p, rival, right, best, entropy = table
        return Reading(log_odds, p, rival, right, best.astype(int), entropy)


def _prompt(model: Model, stratum: str, text: str, answer: str, rival: str | None) -> Prompt:
    encoded, token = prompt_and_token(model, text, answer)
    return Prompt(stratum, encoded.ids, token, None if rival is None else prompt_and_token(model, text, rival)[1])


def _askable(model: Model, stratum: str, probes: Sequence[Probe], most: int) -> list[Prompt]:
    found: list[Prompt] = []
    for probe in probes:
        if probe.answer is None or len(found) == most:
            continue
        try:
            prompt = _prompt(model, stratum, probe.prompt, probe.answer, probe.before)
        except (FactError, InputError):
            continue
        if prompt.token != prompt.rival:
            found.append(prompt)
    return found


def _read(log_p: Float[Tensor, "prompts vocabulary"], prompts: Sequence[Prompt]) -> Float[np.ndarray, "6 prompts"]:
    at = torch.arange(len(prompts))
    tokens = torch.tensor([prompt.token for prompt in prompts])
    rivals = torch.tensor([prompt.token if prompt.rival is None else prompt.rival for prompt in prompts])
    alone = torch.tensor([prompt.rival is None for prompt in prompts])
    own, other, best = log_p[at, tokens], log_p[at, rivals], log_p.argmax(-1)
    others = log_p.clone()
    others[at, tokens] = -torch.inf
    right = torch.where(alone, best == tokens, own > other)
    entropy = -(log_p.exp() * log_p.clamp(min=-1e4)).sum(-1)  # p log p is 0 where p is 0
    rival = torch.where(alone, torch.nan, other.exp())
    return torch.stack([own - others.logsumexp(-1), own.exp(), rival, right, best, entropy]).numpy()


def read_at(
    model: Model, strata: Strata, edit: Edit, doses: Sequence[float], base: Reading
) -> dict[str, dict[str, Any]]:
    """Curves over doses, as a compact row: stratum to

    log_odds    mean over its prompts
    p           mean probability of the answer
    right       share of successes
    moved       mean |change of the log-odds| against `base`, the unedited reading
    kept        what is left of the answers' probability: sum of min(p, p of base) over sum of p of base

    The model is left as it was found. Dose 0 is read like any other.
    """
    readings: list[Reading] = []
    for dose in doses:
        with edit.applied(model, dose=dose):
            readings.append(strata.read(model))
    curves: dict[str, dict[str, Any]] = {}
    for stratum in STRATA:
        at = strata.at(stratum)
        if not at.size:
            continue
        p = np.stack([reading.p[at] for reading in readings])
        moved = [np.abs(reading.log_odds[at] - base.log_odds[at]).mean() for reading in readings]
        curves[stratum] = {
            "n": int(at.size),
            "log_odds": rounded([reading.log_odds[at].mean() for reading in readings]),
            "p": rounded(p.mean(axis=1)),
            "right": rounded([reading.right[at].mean() for reading in readings]),
            "moved": rounded(moved),
            "kept": rounded(np.minimum(p, base.p[at]).sum(axis=1) / max(base.p[at].sum(), 1e-300)),
        }
    return curves


def search_passes(bench: Bench) -> int:
    """What an edit at the place costs once another experiment has made it, in passes: nothing where values are kept."""
    return SEARCH_PASSES if bench.folder is None else 0


def payload_of(edit: Edit) -> LowRank:
    """The one change of rank one that an edit of one fact at one layer is.

    Raises:
        EditError: it is something else.
    """
    if len(edit.payloads) != 1 or not isinstance(edit.payloads[0], LowRank) or edit.payloads[0].rank != 1:
        raise EditError(f"An audit reads edits of one fact and one layer, of rank one, got {edit!r}.")
    return edit.payloads[0]


def random_value(model: Model, edit: Edit, *, seed: int = 0) -> Edit:
    """Null N3: the same key and as large a change, with the value in a random direction; drawn by fact, layer and seed."""
    payload = payload_of(edit)
    named = f"{seed} {payload.path} {[fact.id for fact in edit.facts]}"
    drawn = int.from_bytes(hashlib.blake2b(named.encode(), digest_size=7).digest(), "big")
    noise = torch.randn(payload.u.shape, generator=torch.Generator().manual_seed(drawn), dtype=torch.float64)
    u = noise * (payload.u.double().norm() / noise.norm())
    settings = {"like": edit.method, "seed": seed}
    return Edit.made_for(
        model, "random value", (LowRank(payload.path, u.to(payload.u), payload.v),), edit.facts, settings
    )
