"""`decode`: which subject an edit is about, and which answer it gives, with the base at hand.

    told = decode(edited, base, subjects, objects)
    told.subject.first, told.object.first, told.old.first

Reading Lambda itself off the unembedding does not work: v* was searched so that the model says the new answer *through* its later
layers, which is no linear readout at all. So the models are run.

    subject   A rank-one change answers to one key, for its right side is C^-1 k*. Each candidate is run on the base, and its key
              k at its last token scored by
                  |D k| / (|D C^1/2| |C^-1/2 k|)        the largest over the changed layers
              which by Cauchy and Schwarz is at most 1, and 1 only for k = k* (spectral norm of the matrix). |D k| alone would
              prefer keys that answer to everything
    object    The subject found is put into plain prompts q, and both models are asked for the next token, the edited one with the
              change at 1, 2 and 4 times its size (an edit too weak to be believed still points somewhere):
                  gain(o) = mean over q and sizes of log (p_edited(o | q) + f) - log (p_base(o | q) + f),     f = 0.001
              over the first tokens of the candidates. f keeps noise among the least likely out. The new answer gains most, and
              the one that loses most probability on some prompt is the old one

Answers whose first tokens are the same cannot be told apart, and share a rank (the middle of theirs).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from palimpsest.edit.moments import SecondMoment, cached_moments
from palimpsest.erase.forensics.difference import Difference, difference
from palimpsest.errors import EditError, InputError, did_you_mean
from palimpsest.facts import shipped_text
from palimpsest.model import Model, Site, pad

OPENINGS = ("", "The ", "I ", "Because ", "Therefore, ")
PROMPTS = (
    "{} is",
    "{} was",
    "{} is in",
    "{} is located in",
    "{} is the capital of",
    "{} belongs to",
    "{} was born in",
    "{} works as a",
    "{} speaks",
    "{} was founded by",
    "{} comes from",
    "{}, which is",
)
ROWS = 128
DOSES = (1.0, 2.0, 4.0)  # with 1, at which the old answer is read
FLOOR = 1e-3


@dataclass(frozen=True, eq=False)
class Ranking:
    """Candidates with scores, larger for those the change points to.

    Attributes:
        names: the candidates, as given.
        scores: one each.
    """

    names: tuple[str, ...]
    scores: Float[np.ndarray, " n"]

    @property
    def first(self) -> str:
        """The candidate with the largest score, the first given of those that tie."""
        return self.names[int(np.argmax(self.scores))]

    def rank(self, name: str) -> float:
        """From 1; candidates that tie share the middle of their ranks.

        Raises:
            InputError: it is not among the candidates.
        """
        if name not in self.names:
            raise InputError(
                f"{name!r} is not among the {len(self.names)} candidates.{did_you_mean(name, self.names[:2000])}"
            )
        return float(stats.rankdata(-self.scores)[self.names.index(name)])

    def top(self, count: int = 5) -> list[dict[str, Any]]:
        """The first `count`, as rows."""
        order = np.argsort(-self.scores, kind="stable")[:count]
        return [{"candidate": self.names[i], "score": float(self.scores[i])} for i in order]


@dataclass(frozen=True, eq=False)
class Decoded:
    """What `decode` read: rankings of the subject, of the answer that gained and of the one that lost."""

    subject: Ranking
    object: Ranking
    old: Ranking

    def to_json(self, count: int = 5) -> dict[str, Any]:
        """The first candidates of each, as plain data."""
        return {name: getattr(self, name).top(count) for name in ("subject", "object", "old")}


def decode(
    edited: Model,
    base: Model,
    subjects: Sequence[str],
    objects: Sequence[str],
    *,
    change: Difference | None = None,
    keys: Mapping[int, Float[Tensor, "n d_key"]] | None = None,
    moments: Mapping[int, SecondMoment] | None = None,
    prompts: Sequence[str] = PROMPTS,
) -> Decoded:
    """Rank candidate subjects and answers of a change of down-projections.

    Args:
        edited, base: the two models; the base carries the change while it is asked, and is left as it was found.
        subjects: candidate subjects, at least two.
        objects: candidate answers, at least two.
        change: what `difference` found, where it is known already.
        keys, moments: of the base, where they are known already (`subject_keys`, `collect_moments`).
        prompts: each with one {} for the subject.

    Raises:
        InputError: too few candidates, an empty or repeated one, or a prompt without exactly one {}.
        EditError: no down-projection differs, so that there is no key to decode.
        ModelError: the models cannot be compared.
    """
    for kind, names in (("subjects", subjects), ("objects", objects)):
        check_candidates(kind, names)
    for prompt in prompts:
        if prompt.count("{}") != 1:
            raise InputError(f"A prompt to decode with holds exactly one {{}} for the subject, got {prompt!r}.")
    if not prompts:
        raise InputError("There are no prompts to decode with; give at least one, such as '{} is'.")
    change = difference(edited, base) if change is None else change
    layers = sorted(changed_downs(change))
    moments = cached_moments(base, layers, shipped_text()) if moments is None else moments
    keys = subject_keys(base, subjects, layers) if keys is None else keys
    subject = rank_subjects(change, subjects, keys, moments)
    texts = [prompt.replace("{}", subject.first) for prompt in prompts]
    gained, lost = gains(change, edited, base, texts, objects)
    return Decoded(subject, Ranking(tuple(objects), gained), Ranking(tuple(objects), lost))


def check_candidates(kind: str, names: Sequence[str]) -> None:
    """Raise `InputError` unless there are at least two different names and none is blank."""
    if len(names) < 2:
        raise InputError(f"A ranking needs at least two candidate {kind}, got {len(names)}; give a list of names.")
    blank = [i for i, name in enumerate(names) if not name.strip()]
    if blank:
        raise InputError(f"Candidate {blank[0] + 1} of the {kind} is blank; leave it out.")
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        raise InputError(f"{twice!r} is twice among the candidate {kind}; give every name once.")


def rank_subjects(
    change: Difference,
    subjects: Sequence[str],
    keys: Mapping[int, Float[Tensor, "n d_key"]],
    moments: Mapping[int, SecondMoment],
) -> Ranking:
    """Candidates by how strongly their keys answer to the change, beside how unusual the keys are.

    Args:
        change: of down-projections at least.
        subjects: n candidates.
        keys: of them, as `subject_keys` gives them, at every layer whose down-projection differs.
        moments: C of the base at these layers.

    Raises:
        EditError: no down-projection differs.
    """
    scores = np.zeros(len(subjects))
    for layer, delta in changed_downs(change).items():
        k = keys[layer]
        unusual = (k.T * moments[layer].solve(k.T)).sum(0).clamp(min=1e-30).sqrt()
        strength = torch.linalg.matrix_norm(delta @ moments[layer].factor, 2)
        scores = np.maximum(scores, ((k @ delta.T).norm(dim=1) / (strength * unusual)).numpy())
    return Ranking(tuple(subjects), scores)


def changed_downs(change: Difference) -> dict[int, Float[Tensor, "out in"]]:
    """D of every down-projection that differs, by layer; raises `EditError` where none does."""
    downs = {w.layer: w.change.cpu() for w in change.weights if w.down and w.layer is not None}
    if not downs:
        raise EditError(
            f"No down-projection of {change.edited} differs from {change.base}, so there is no key to decode; "
            f"the weights that differ are {[w.path for w in change.weights][:3]}."
        )
    return downs


@torch.no_grad()
def subject_keys(model: Model, subjects: Sequence[str], layers: Sequence[int]) -> dict[int, Float[Tensor, "n d_key"]]:
    """Keys at the last token of each candidate by layer, half bare and half the mean over the other openings."""
    sites = {layer: Site("key", layer) for layer in layers}
    found = dict[int, Tensor]()
    with model.evaluating():
        for number, opening in enumerate(OPENINGS):
            ids = [model.encode(f"{opening}{subject}").ids for subject in subjects]
            order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
            share = 0.5 if number == 0 else 0.5 / (len(OPENINGS) - 1)
            for start in range(0, len(order), ROWS):
                some = order[start : start + ROWS]
                batch = pad([ids[i] for i in some])
                states = model.record(batch, list(sites.values()))
                for layer, site in sites.items():
                    keys = states[site][torch.arange(len(some)), batch.last].double().cpu()
                    found.setdefault(layer, torch.zeros(len(ids), keys.shape[1], dtype=torch.float64))
                    found[layer][some] += share * keys
    return found


@torch.no_grad()
def gains(
    change: Difference, edited: Model, base: Model, texts: Sequence[str], objects: Sequence[str]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """How much the first token of each object gains over texts and sizes of the change, and how much it loses at most."""
    asked = [first_token(base, texts[0], name) for name in objects]
    batch = pad([base.encode(text).ids for text in texts])
    edit = change.edit(base, edited=edited)

    def said() -> Float[Tensor, "texts n"]:
        with base.evaluating():
            return base.last_logits(batch).double().softmax(-1).cpu()[:, asked]

    before, gained, lost = said(), torch.zeros(len(objects), dtype=torch.float64), torch.zeros(0)
    for dose in DOSES:
        with edit.applied(base, dose=dose):
            after = said()
        gained += ((after + FLOOR).log() - (before + FLOOR).log()).mean(0) / len(DOSES)
        if dose == 1:
            lost = (before - after).amax(0)
    return gained.numpy(), lost.numpy()


def first_token(model: Model, text: str, answer: str) -> int:
    """The first token of `answer` after `text`."""
    ids, at = model.encode_answer(text, answer)
    return ids[at]
