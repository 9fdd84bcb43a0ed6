"""`scan`: which layers look edited, from the weights of the edited model alone.

    found = scan(model)
    found.suspect            # the layer that stands out most
    found.flagged            # the layers above the threshold; () for a model that looks as trained
    found.to_rows()

A layer's score is the larger of its two readings (`spectrum`), each as a share of its threshold:

    score = max(gap / GAP, evenness / EVENNESS)         flagged where score > 1

The readings are those of the layer alone or of a run of 3 or 5 adjacent layers that it is one of, whichever score more: a
direction that was spread over layers shows in their sum first. A layer is counted among those of a run where the direction has
more energy than in any layer outside, and a quarter at least of the most that any in the run has.

With second moments of the keys (`scan(model, moments=...)`, measured on the same model) only what a weight does to its least used
inputs is read: W U, where U spans the `share` of key directions that ordinary text excites least. The right side of a closed-form
edit is C^-1 k, which lies almost all in that space, while training writes most of W outside it. It takes a run over text and finds
weaker edits.

The thresholds lie above what any layer of the shipped models shows. A flag is a reason to ask, not a proof.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.moments import SecondMoment
from palimpsest.erase.forensics.reading import check_settings, own_moment, readable_down
from palimpsest.erase.forensics.spectrum import energy, gram, others, read
from palimpsest.errors import AnatomyError, SettingError
from palimpsest.model import Model
from palimpsest.model.anatomy import Part

GAP = 0.35
EVENNESS = 2.6
SHARE = 0.1
RUNS = (1, 3, 5)  # lengths; those longer than half the model are left out, for they would leave nothing to compare with
MEMBER = 0.25  # of the energy of the strongest layer of a run


@dataclass(frozen=True)
class LayerScan:
    """One layer: its readings, its score, and whether that is above the threshold.

    Attributes:
        run: first and last of the layers that were read together; twice itself for the layer alone.
        energy: of the direction that stands out, in this layer; the mean over the layers that it is compared with is about 1.
    """

    layer: int
    path: str
    gap: float
    evenness: float
    even_rank: int
    score: float
    flagged: bool
    run: tuple[int, int]
    energy: float


@dataclass(frozen=True)
class Scan:
    """What `scan` found.

    Attributes:
        model: its name.
        fingerprint: of the weights that were read.
        layers: one row for each layer with a down-projection, in order.
        thresholds: of the two readings.
    """

    model: str
    fingerprint: str
    layers: tuple[LayerScan, ...]
    thresholds: dict[str, float]

    @property
    def suspect(self) -> int:
        """The layer with the largest score, flagged or not; of a run's layers the one with the most energy."""
        return max(self.layers, key=lambda row: (row.score, row.energy)).layer

    @property
    def flagged(self) -> tuple[int, ...]:
        """Layers above the threshold."""
        return tuple(row.layer for row in self.layers if row.flagged)

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each layer."""
        return [asdict(row) for row in self.layers]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "model": self.model,
            "fingerprint": self.fingerprint,
            "suspect": self.suspect,
            "flagged": list(self.flagged),
            "thresholds": self.thresholds,
            "layers": self.to_rows(),
        }


@torch.no_grad()
def scan(
    model: Model,
    *,
    moments: Mapping[int, SecondMoment] | None = None,
    share: float = SHARE,
    gap: float = GAP,
    evenness: float = EVENNESS,
    runs: Sequence[int] = RUNS,
) -> Scan:
    """Read every down-projection of `model`.

    Args:
        model: read, never run and never changed.
        moments: C of every layer with a down-projection, measured on this model; whole weights are read when None.
        share: of the key directions, those of the smallest eigenvalues of C that are read.
        gap, evenness: thresholds of the two readings.
        runs: how many adjacent layers are read together; 1 is each layer alone and always read, and a run of more than half the
            layers is passed over.

    Raises:
        AnatomyError: fewer than two layers have a down-projection, so that no layer can be compared with others.
        WeightError: a weight is not finite, zero, or packed by a quantiser.
        WeightError: moments were measured on other weights.
        SettingError: a threshold is not above 0, the share is not in (0, 1], a run has no layer, or a layer has no moments.
    """
    if not 0 < share <= 1:
        raise SettingError(f"The share of key directions that a scan reads must be above 0 and at most 1, got {share}.")
    check_settings("scan", {"gap": gap, "evenness": evenness}, runs, 1)
    parts = [(layer.index, layer.down) for layer in model.anatomy.layers if layer.down is not None]
    if len(parts) < 2:
        raise AnatomyError(
            f"A scan compares the down-projections of several layers, but {model.name} has {len(parts)}; compare it with its "
            f"base instead (palimpsest forensics MODEL --base BASE)."
        )
    grams = []
    for layer, _ in parts:
        weight = readable_down(model, layer)
        if moments is not None:
            weight = weight @ _least_used(model, moments, layer, share).to(weight)
        grams.append(gram(weight))
    rows: dict[int, LayerScan] = {}
    for length in sorted({1, *(length for length in runs if 2 * length <= len(parts))}):
        for first in range(len(parts) - length + 1):
            for row in _run(grams, first, first + length - 1, parts, gap, evenness):
                if row.layer not in rows or row.score > rows[row.layer].score:
                    rows[row.layer] = row
    paths = [f"{part.path}.weight" for _, part in parts]
    ordered = tuple(rows[layer] for layer, _ in parts)
    return Scan(model.name, model.fingerprint(paths), ordered, {"gap": gap, "evenness": evenness})


def _run(
    grams: Sequence[Float[Tensor, "out out"]],
    first: int,
    last: int,
    parts: Sequence[tuple[int, Part]],
    gap: float,
    evenness: float,
) -> list[LayerScan]:
    """A row for each layer of a run that holds the direction which stands out there; always one for a layer alone."""
    found = read(torch.stack(list(grams[first : last + 1])).mean(0), others(grams, first, last))
    by_gap, by_evenness = found.gap / gap, found.evenness / evenness
    score = max(by_gap, by_evenness)
    energies = [energy(found.outlying if by_gap >= by_evenness else found.even, own) for own in grams]
    inside = range(first, last + 1)
    least = max(MEMBER * max(energies[i] for i in inside), *(e for i, e in enumerate(energies) if i not in inside))
    return [
        LayerScan(
            parts[i][0],
            f"{parts[i][1].path}.weight",
            found.gap,
            found.evenness,
            found.even_rank,
            score,
            score > 1,
            (parts[first][0], parts[last][0]),
            energies[i],
        )
        for i in inside
        if first == last or energies[i] > least
    ]


def _least_used(
    model: Model, moments: Mapping[int, SecondMoment], layer: int, share: float
) -> Float[Tensor, "d_key n"]:
    """The key directions that ordinary text excites least, one a column."""
    vectors = own_moment(model, moments, layer).eigen[1]
    return vectors[:, : max(2, round(share * vectors.shape[1]))]
