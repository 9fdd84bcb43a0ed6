"""`line_up`: which of some candidate subjects a model was edited about, and in which layers, without its base.

    found = line_up(model, subjects)
    found.flagged            # candidates that stand out: the edited one, and often some that are much like it
    found.layers             # where the strongest edit is; () where no candidate stands out
    found.subject.first      # whom it is about

A closed-form editor adds Lambda r^T to W, and r is C^-1 k* to scale (Meng et al. 2022, equation 2). An edit that was spread over
layers is smaller in each than what training wrote there, and no spectrum shows it (`scan`). But what r would be for a candidate s
is known from the edited model itself, so each layer l can be asked what it answers to nearly that input:

    r_sl = C_l^-1 k_sl / |C_l^-1 k_sl|        T_l = (R_l R_l^T + I)^-1 R_l        y_sl = W_l t_sl / |t_sl|

T is R less what the other candidates' r explain of each (the residual of a ridge regression, to scale; of rows of length 1 the
penalty 1 takes half of what two equal rows share, so that a candidate whose key others share is not lost): an edit about China is
answered to at China's r and at India's, whose keys are alike, and less at India's t. Training left no particular answer to such
inputs, which ordinary text hardly holds: the candidates' answers are about equally long, and those of one candidate in different
layers have unrelated directions. An edit about s adds a multiple of Lambda to the layers it is in:

    strength      (|y_sl|^2 - median over s) / (1.4826 MAD over s)         in one layer
    agreement     (A - 1) / sqrt(2 (n - 1) / (n d)),    A = |sum_l y_sl|^2 / sum_l |y_sl|^2      in a run of n adjacent layers

A is 1 for unrelated directions and n for parallel ones (MEMIT writes nearly one Lambda into all its layers), and the root is its
standard deviation for n random directions of d dimensions. With both as shares of their thresholds, score_s is the largest over
layers and runs. The candidate's direction is y_sl of that layer, or the sum of that run. Its layers are that of the run which goes
furthest along the direction and all others that go further than other candidates do, by `ALONG` robust standard deviations. A
layer in which half of the candidates have one key, as the first may be, says nothing of strength.

The largest score says that there was an edit, where, and in which direction. Whom it was about is asked once more, for where many
candidates have nearly one key ("... Bridge", "... Tower") an edit of one is an edit of all: the subject is that whose r itself,
not t, is answered to furthest along that direction.

The edited subject has to be among the candidates, and the others are the comparison: give as many as there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.moments import SecondMoment, cached_moments
from palimpsest.erase.forensics.decode import Ranking, check_candidates, subject_keys
from palimpsest.erase.forensics.reading import check_settings, down_layers, own_moment, readable_down
from palimpsest.errors import AnatomyError, InputError, WeightError
from palimpsest.facts import shipped_text
from palimpsest.model import Model

STRENGTH = 15.0
AGREEMENT = 12.0
ALONG = 8.0
RUNS = (3, 5)
FEWEST = 20  # candidates: a median and a MAD of fewer say little of what is usual
SPREAD = 1e-6  # of the size of what is compared: a smaller MAD is that of rounding


@dataclass(frozen=True)
class Candidate:
    """What the layers answer to one candidate.

    Attributes:
        score: the larger reading over its threshold; above 1 the candidate is flagged.
        strength, agreement: the largest over layers, and over runs (0 in a model with too few layers for a run).
        run: first and last layer of where the score is from; twice the same for one layer.
        suspect: the layer of the run that goes furthest along the candidate's direction.
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


@dataclass(frozen=True)
class LineUp:
    """What `line_up` found.

    Attributes:
        model: its name.
        fingerprint: of the weights that were read.
        candidates: in the order given.
        thresholds: of the two readings.
        along: how far the strongest one's layers answer to each candidate's r along its direction; () where none is flagged.
    """

    model: str
    fingerprint: str
    candidates: tuple[Candidate, ...]
    thresholds: dict[str, float]
    along: tuple[float, ...]

    @property
    def strongest(self) -> Candidate:
        """The one with the largest score; the edited subject or one much like it (see `subject`), or nobody in particular."""
        return max(self.candidates, key=lambda one: one.score)

    @property
    def flagged(self) -> tuple[str, ...]:
        """Candidates above the threshold, the largest score first."""
        return tuple(one["name"] for one in self.to_rows() if one["flagged"])

    @property
    def layers(self) -> tuple[int, ...]:
        """The strongest one's: where the model was edited; () where none is flagged."""
        return self.strongest.layers

    @property
    def subject(self) -> Ranking:
        """The candidates by `along`: whom the strongest edit is about; by their scores where none is flagged."""
        scores = self.along or [one.score for one in self.candidates]
        return Ranking(tuple(one.name for one in self.candidates), np.array(scores))

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each candidate, the largest score first."""
        return [asdict(one) for one in sorted(self.candidates, key=lambda one: -one.score)]

    def to_json(self, count: int = 10) -> dict[str, Any]:
        """As plain data; of the candidates the subject, the flagged ones and the first `count`."""
        subject = self.subject.first if self.flagged else None
        rows = [row for i, row in enumerate(self.to_rows()) if i < count or row["flagged"] or row["name"] == subject]
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "compared": len(self.candidates),
            "subject": subject,
            "layers": list(self.layers),
            "flagged": list(self.flagged),
            "thresholds": self.thresholds,
            "candidates": rows,
        }


@torch.no_grad()
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
        moments: C of every layer with a down-projection, measured on this model; made from the shipped text when None, which
            takes some minutes on a model of some size the first time.
        strength, agreement: thresholds of the two readings.
        runs: numbers of adjacent layers that are read together, each 2 or more; one of more layers than there are is passed over.

    Raises:
        InputError: too few candidates, an empty or repeated one.
        AnatomyError: no layer has a down-projection.
        SettingError: a threshold is not above 0, a run has fewer than two layers, or a layer has no moments.
        EditError: moments are singular.
        WeightError: moments were measured on other weights; a down-projection is not finite, zero, or packed by a quantiser; or a
            candidate's key is not finite.
    """
    check_line_up(names)
    thresholds = {"strength": strength, "agreement": agreement}
    check_settings("line-up", thresholds, runs, 2)
    layers = down_layers(model)
    if not layers:
        raise AnatomyError(
            f"A line-up reads down-projections, but {model.name} has none; compare it with its base instead "
            f"(palimpsest forensics MODEL --base BASE)."
        )
    plain, answers = answers_of(model, names, layers, moments)
    candidates = _candidates(names, layers, answers, thresholds, runs)
    first = max(range(len(names)), key=lambda i: candidates[i].score)
    some = [layers.index(layer) for layer in candidates[first].layers]
    direction = _direction(answers[first], *map(layers.index, candidates[first].run))
    along = (plain[:, some] @ direction).sum(1).tolist() if some else ()
    paths = [f"{model.anatomy.down(layer).path}.weight" for layer in layers]
    return LineUp(model.name, model.fingerprint(paths), candidates, thresholds, tuple(along))


def check_line_up(names: Sequence[str]) -> None:
    """Raise `InputError` unless there are `FEWEST` different names and none is blank."""
    if len(names) < FEWEST:
        raise InputError(
            f"A line-up compares candidates with one another and needs at least {FEWEST}, got {len(names)}; add names of the "
            f"same kind that nobody had a reason to edit."
        )
    check_candidates("subjects", names)


def answers_of(
    model: Model, names: Sequence[str], layers: Sequence[int], moments: Mapping[int, SecondMoment] | None = None
) -> tuple[Float[Tensor, "n layers d"], Float[Tensor, "n layers d"]]:
    """W r and y of every candidate in every layer; for the errors see `line_up`."""
    for layer in layers:
        readable_down(model, layer)  # before minutes are spent
    measured = cached_moments(model, layers, shipped_text()) if moments is None else moments
    inverse = {
        layer: own_moment(model, measured, layer) if moments is not None else measured[layer] for layer in layers
    }
    keys, plain, answers = subject_keys(model, names, layers), [], []
    for layer in layers:
        if not bool((finite := torch.isfinite(keys[layer]).all(1)).all()):
            raise WeightError(
                f"The key of {names[int(finite.int().argmin())]!r} in layer {layer} of {model.name} is not finite; load the model "
                f"in float32."
            )
        r = unit(inverse[layer].solve(keys[layer].T).T)
        weight = readable_down(model, layer).double().cpu()
        plain.append(r @ weight.T)
        answers.append(own(r) @ weight.T)
    return torch.stack(plain, 1), torch.stack(answers, 1)


def unit(rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows of length 1."""
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-30)


def own(r: Float[Tensor, "n d_key"]) -> Float[Tensor, "n d_key"]:
    """t / |t| of every candidate, given r of length 1: (R R^T + I)^-1 R."""
    return unit(torch.linalg.solve(r @ r.T + torch.eye(len(r)).to(r), r))


def robust(values: Float[Tensor, "n layers"]) -> Float[Tensor, "n layers"]:
    """(x - median) / (1.4826 MAD) over candidates: standard deviations of a Gaussian, whatever a few outliers do.

    0 throughout a layer whose MAD is that of rounding: half of the candidates have one key there, and no other is far from usual.
    """
    off = values - values.median(0).values
    mad = off.abs().median(0).values
    return torch.where(mad > SPREAD * values.abs().median(0).values, off / (1.4826 * mad).clamp(min=1e-30), 0.0)


def agreement_of(answers: Float[Tensor, "n layers d"], length: int) -> Float[Tensor, "n runs"]:
    """The reading of every run of `length` adjacent layers, by its first."""
    summed = (answers.unfold(1, length, 1).sum(-1) ** 2).sum(-1)
    energy = (answers**2).sum(-1).unfold(1, length, 1).sum(-1)
    ratio = summed / energy.clamp(min=1e-30)
    return (ratio - 1) / (2 * (length - 1) / (length * answers.shape[-1])) ** 0.5


def _candidates(
    names: Sequence[str],
    layers: Sequence[int],
    answers: Float[Tensor, "n layers d"],
    thresholds: Mapping[str, float],
    runs: Sequence[int],
) -> tuple[Candidate, ...]:
    """The readings of each."""
    lengths = sorted({length for length in runs if length <= len(layers)})
    strengths = robust((answers**2).sum(-1))
    agreements = [agreement_of(answers, length) for length in lengths]
    places = [(i, i + length - 1) for length in [1, *lengths] for i in range(len(layers) - length + 1)]
    shares = [strengths / thresholds["strength"], *(some / thresholds["agreement"] for some in agreements)]
    scores, where = torch.cat(shares, 1).max(1)
    largest = torch.cat(agreements, 1).amax(1) if agreements else torch.zeros(len(names))
    found = []
    for i, name in enumerate(names):
        first, last = places[int(where[i])]
        direction, flagged = _direction(answers[i], first, last), bool(scores[i] > 1)
        suspect = first + int((answers[i, first : last + 1] @ direction).argmax())
        further = robust(answers @ direction)[i] > ALONG if flagged else ()
        where_edited = tuple(layers[j] for j, far in enumerate(further) if far or j == suspect)
        run = (layers[first], layers[last])
        readings = float(strengths[i].max()), float(largest[i])
        found.append(Candidate(name, float(scores[i]), flagged, *readings, run, layers[suspect], where_edited))
    return tuple(found)


def _direction(own_answers: Float[Tensor, "layers d"], first: int, last: int) -> Float[Tensor, "d"]:
    """Of one candidate's answers in a run, with a length of 1."""
    summed = own_answers[first : last + 1].sum(0)
    return summed / summed.norm().clamp(min=1e-30)
