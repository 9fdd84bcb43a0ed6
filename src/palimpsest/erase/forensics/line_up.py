"""`line_up`: which of some candidate subjects a model was edited about, and in which layers, without its base.

    found = line_up(model, subjects)
    found.flagged            # candidates that stand out, the edited one and those much like it
    found.subject.first      # the one whom the strongest edit is about
    found.layers             # where the model was edited about it; () where no candidate stands out
    found.to_rows()

A closed-form editor adds Lambda r^T to W, and r is C^-1 k* to scale (Meng et al. 2022, equation 2). An edit that was spread over
layers is smaller in each than what training wrote there, and no spectrum shows it (`scan`). But what r would be for a candidate s
is known from the edited model itself, so each layer l can be asked what it answers to just that input:

    r_sl = C_l^-1 k_sl / |C_l^-1 k_sl|        T_l = (R_l R_l^T + I)^-1 R_l        y_sl = W_l t_sl / |t_sl|

T is R less what the other candidates' r explain of each (the residual of a ridge regression, to scale): an edit about China answers
to India too, whose keys are alike, but not to what is India's alone. Training left no particular answer to such inputs, which
ordinary text hardly holds: the candidates' answers are about equally long, and those of one candidate in different layers are
unrelated. An edit about s adds a multiple of Lambda to the layers it is in:

    strength      (|y_sl|^2 - median over s) / (1.4826 MAD over s)         in one layer
    agreement     (A - 1) / sqrt(2 (n - 1) / (n d)),    A = |sum_l y_sl|^2 / sum_l |y_sl|^2      in a run of n adjacent layers

A is 1 for unrelated directions and n for parallel ones (MEMIT writes nearly one Lambda into all its layers), and the root is its
standard deviation for n random directions of d dimensions. With both as shares of their thresholds, score_s is the largest over
layers and runs. The candidate's direction is y_sl of that layer, or the sum of that run. Its layers are the one that goes furthest
along that direction and all others that go further than other candidates do, by `ALONG` robust standard deviations.

The largest score says that there was an edit, where, and in which direction. Whom it was about is asked once more, for where many
candidates have nearly one key ("... Bridge", "... Tower") an edit of one is an edit of all: the subject is that whose r itself,
not what is its own in it, is answered to furthest along that direction.

The edited subject has to be among the candidates, and the others are the comparison: give as many as there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.moments import SecondMoment, cached_moments
from palimpsest.erase.forensics.decode import Ranking, check_candidates, subject_keys
from palimpsest.erase.forensics.scan import own_moment, readable_down
from palimpsest.errors import AnatomyError, InputError, SettingError
from palimpsest.facts import shipped_text
from palimpsest.model import Model

STRENGTH = 15.0
AGREEMENT = 12.0
ALONG = 8.0
RUNS = (3, 5)
FEWEST = 20  # candidates: a median and a MAD of fewer say little of what is usual


@dataclass(frozen=True)
class Candidate:
    """What the layers answer to one candidate.

    Attributes:
        score: the larger reading over its threshold; above 1 the candidate is flagged.
        strength, agreement: the largest over layers, and over runs (0 in a model with too few layers for a run).
        run: first and last layer of where the score is from; twice the same for one layer.
        suspect: the layer that goes furthest along the candidate's direction.
        layers: that one and all that go further than other candidates do; () unless the candidate is flagged.
    """

    name: str
    score: float
    flagged: bool
    strength: float
    agreement: float
    run: tuple[int, int]
    suspect: int
    layers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LineUp:
    """What `line_up` found.

    Attributes:
        model: its name.
        candidates: in the order given.
        thresholds: of the two readings.
        along: how far the layers answer to each candidate's r along the direction of the one with the largest score, summed over
            that one's layers; () where none is flagged.
    """

    model: str
    candidates: tuple[Candidate, ...]
    thresholds: dict[str, float]
    along: tuple[float, ...]

    @property
    def subject(self) -> Ranking:
        """The candidates by `along`; by their scores where none is flagged."""
        scores = self.along or [one.score for one in self.candidates]
        return Ranking(tuple(one.name for one in self.candidates), np.array(scores))

    @property
    def flagged(self) -> tuple[str, ...]:
        """Candidates above the threshold, the largest score first: edited ones and, after a strong edit, some much like them."""
        some = sorted((one for one in self.candidates if one.flagged), key=lambda one: -one.score)
        return tuple(one.name for one in some)

    @property
    def layers(self) -> tuple[int, ...]:
        """Where the model was edited; () where none is flagged."""
        return max(self.candidates, key=lambda one: one.score).layers

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each candidate, the largest score first."""
        return [{**vars(one)} for one in sorted(self.candidates, key=lambda one: -one.score)]

    def to_json(self, count: int = 10) -> dict[str, Any]:
        """The flagged candidates and the first `count`, as plain data."""
        some = max(count, len(self.flagged))
        return {
            "model": self.model,
            "compared": len(self.candidates),
            "flagged": list(self.flagged),
            "subject": self.subject.first if self.flagged else None,
            "layers": list(self.layers),
            "thresholds": self.thresholds,
            "candidates": self.to_rows()[:some],
        }


def line_up(
    model: Model,
    names: Sequence[str],
    *,
    moments: Mapping[int, SecondMoment] | None = None,
    strength: float = STRENGTH,
    agreement: float = AGREEMENT,
    runs: Sequence[int] = RUNS,
) -> LineUp:
    """Ask every down-projection what it answers to each candidate.

    Args:
        model: run on the candidates, and never changed.
        names: candidates, at least `FEWEST`, whose keys are read at their last token. Subjects for an edit at the subject's last
            token, as ROME and MEMIT make it; whole prompts for one at the last token.
        moments: C of every layer with a down-projection, measured on this model; made from the shipped text when None.
        strength, agreement: thresholds of the two readings.
        runs: numbers of adjacent layers that are read together, each 2 or more; one of more layers than there are is passed over.

    Raises:
        InputError: too few candidates, an empty or repeated one.
        AnatomyError: no layer has a down-projection.
        SettingError: a threshold is not above 0, a run has fewer than two layers, or a layer has no moments.
        EditError: moments are singular.
        WeightError: moments were measured on other weights; a down-projection is not finite, zero, or packed by a quantiser.
    """
    check_candidates("subjects", names)
    if len(names) < FEWEST:
        raise InputError(
            f"A line-up compares candidates with one another and needs at least {FEWEST}, got {len(names)}; add names of the "
            f"same kind that nobody had a reason to edit."
        )
    for name, value in (("strength", strength), ("agreement", agreement)):
        if not value > 0:
            raise SettingError(f"The threshold {name} of a line-up must be above 0, got {value}.")
    if not isinstance(runs, Sequence) or not all(type(length) is int and length >= 2 for length in runs):
        raise SettingError(
            f"The runs of a line-up are lengths, whole numbers of 2 or more such as (3, 5), got {runs!r}."
        )
    layers = [layer.index for layer in model.anatomy.layers if layer.down is not None]
    if not layers:
        raise AnatomyError(
            f"A line-up reads down-projections, but {model.name} has none; compare it with its base instead "
            f"(palimpsest forensics MODEL --base BASE)."
        )
    plain, answers = answers_of(model, names, layers, moments)
    thresholds = {"strength": strength, "agreement": agreement}
    candidates = _candidates(names, layers, answers, thresholds, runs)
    first = max(range(len(names)), key=lambda i: candidates[i].score)
    some = [layers.index(layer) for layer in candidates[first].layers]
    direction = _direction(answers[first], *map(layers.index, candidates[first].run))
    along = (plain[:, some] @ direction).sum(1)
    return LineUp(model.name, candidates, thresholds, tuple(along.tolist()) if some else ())


@torch.no_grad()
def answers_of(
    model: Model, names: Sequence[str], layers: Sequence[int], moments: Mapping[int, SecondMoment] | None = None
) -> tuple[Float[Tensor, "n layers d"], Float[Tensor, "n layers d"]]:
    """W r and y of every candidate in every layer; for the errors see `line_up`."""
    weights = {layer: readable_down(model, layer).double().cpu() for layer in layers}
    if moments is None:
        moments = cached_moments(model, layers, shipped_text())
    solved = {layer: own_moment(model, moments, layer) for layer in layers}
    keys = subject_keys(model, names, layers)
    r = {layer: unit(solved[layer].solve(keys[layer].T).T) for layer in layers}
    return (
        torch.stack([r[layer] @ weights[layer].T for layer in layers], 1),
        torch.stack([own(r[layer]) @ weights[layer].T for layer in layers], 1),
    )


def unit(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows of length 1."""
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)


def own(r: Float[Tensor, "n d_key"]) -> Float[Tensor, "n d_key"]:
    """t / |t| of every candidate, given r of length 1: what the others' r do not explain of it, (R R^T + I)^-1 R."""
    return unit(torch.linalg.solve(r @ r.T + torch.eye(len(r)).to(r), r))


def robust(values: Float[Tensor, "n *rest"]) -> Float[Tensor, "n *rest"]:
    """(x - median) / (1.4826 MAD) over the first dimension: standard deviations of a Gaussian, whatever a few outliers do."""
    off = values - values.median(0).values
    return off / (1.4826 * off.abs().median(0).values).clamp(min=1e-30)


def agreement_of(answers: Float[Tensor, "n layers d"], length: int) -> Float[Tensor, "n runs"]:
    """The reading of every run of `length` adjacent layers, by its first."""
    windows = answers.unfold(1, length, 1)  # n x runs x d x length
    ratio = (windows.sum(-1) ** 2).sum(-1) / (windows**2).sum((-1, -2)).clamp(min=1e-30)
    return (ratio - 1) / (2 * (length - 1) / (length * answers.shape[-1])) ** 0.5


def _candidates(
    names: Sequence[str],
    layers: Sequence[int],
    answers: Float[Tensor, "n layers d"],
    thresholds: Mapping[str, float],
    runs: Sequence[int],
) -> tuple[Candidate, ...]:
    """The readings of each."""
    strengths = robust((answers**2).sum(-1))
    shares = [strengths / thresholds["strength"]]
    places = [(i, i) for i in range(len(layers))]
    agreements = [torch.zeros(len(names), 1, dtype=answers.dtype)]
    for length in sorted({length for length in runs if length <= len(layers)}):
        agreements.append(agreement_of(answers, length))
        shares.append(agreements[-1] / thresholds["agreement"])
        places += [(i, i + length - 1) for i in range(len(layers) - length + 1)]
    best, where = torch.cat(shares, 1).max(1)
    largest = torch.cat(agreements, 1).amax(1)
    found = []
    for i, name in enumerate(names):
        first, last = places[int(where[i])]
        along = answers @ _direction(answers[i], first, last)
        flagged = bool(best[i] > 1)
        suspect = max(range(first, last + 1), key=lambda layer: float(along[i, layer]))
        further = [j for j, off in enumerate(robust(along)[i]) if off > ALONG or j == suspect]
        found.append(
            Candidate(
                name,
                float(best[i]),
                flagged,
                float(strengths[i].max()),
                float(largest[i]),
                (layers[first], layers[last]),
                layers[suspect],
                tuple(layers[j] for j in further) if flagged else (),
            )
        )
    return tuple(found)


def _direction(own_answers: Float[Tensor, "layers d"], first: int, last: int) -> Float[Tensor, "d"]:
    """Of one candidate's answers in a run, with a length of 1."""
    summed = own_answers[first : last + 1].sum(0)
    return summed / summed.norm().clamp(min=1e-30)
