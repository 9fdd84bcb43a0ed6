"""`difference`: which weights two models differ in, by how much, and of what rank.

    change = difference(edited, base)
    change.weights[0]             # path, layer, relative norms, rank
    change.edit(base, edited=edited)              # the change as an `Edit` of the base
    change.reversal(edited, base=base)            # an `Edit` of the edited model that gives the base back

The rank of D = W' - W is the number of its singular values above what rounding W' alone can make (as in `numpy.linalg.matrix_rank`,
with the rounding of the stored type in place of that of the difference):

    tolerance = eps(dtype) max|W'| (sqrt(out) + sqrt(in))

An undo that adds loses the last bit of some entries, so `reversal` corrects its change until fl(W' + D') = W. In half precision
that succeeds, for sums are made in float32; in float32 an entry that the edit made much larger cannot be had by one sum, and
`notes["last_bits"]` counts those that stay off by a rounding.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import Dense, module_of
from palimpsest.errors import EditError, ModelError, WeightError
from palimpsest.model import Model
from palimpsest.model.anatomy import is_linear, stores_transposed

CORRECTIONS = 8


@dataclass(frozen=True, eq=False)
class WeightDifference:
    """One weight that differs.

    Attributes:
        path: of the weight.
        layer: it stands in; None outside of the layers.
        down: whether it is that layer's down-projection.
        norm: Frobenius norm of D.
        relative: that, as a share of the base weight's.
        spectral: spectral norm of D as a share of the base weight's; of a vector, the same as `relative`.
        rank: of D; None for what is no matrix.
        change: D in float64, as (out, in) for a linear map.
    """

    path: str
    layer: int | None
    down: bool
    norm: float
    relative: float
    spectral: float
    rank: int | None
    change: Float[Tensor, "..."]

    def to_row(self) -> dict[str, Any]:
        """All but the change itself."""
        kept = ("path", "layer", "down", "norm", "relative", "spectral", "rank")
        return {name: getattr(self, name) for name in kept}


@dataclass(frozen=True, eq=False)
class Difference:
    """What `difference` found: the weights that differ, in the order of the model, and how many there are in all."""

    edited: str
    base: str
    weights: tuple[WeightDifference, ...]
    compared: int

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers with a weight that differs."""
        return tuple(sorted({w.layer for w in self.weights if w.layer is not None}))

    @property
    def rank_one(self) -> bool:
        """Whether every change is a rank-one change of a down-projection, as ROME and MEMIT make for one fact."""
        return bool(self.weights) and all(w.rank == 1 and w.down for w in self.weights)

    def to_json(self) -> dict[str, Any]:
        """As plain data, without the changes themselves."""
        return {
            "edited": self.edited,
            "base": self.base,
            "compared": self.compared,
            "layers": list(self.layers),
            "rank_one": self.rank_one,
            "weights": [w.to_row() for w in self.weights],
        }

    def edit(self, base: Model, *, edited: Model) -> Edit:
        """The change as an `Edit` of the base: applied, it gives the weights of `edited`."""
        return _edit(self, base, edited)

    def reversal(self, edited: Model, *, base: Model) -> Edit:
        """The undo of a foreign change, as an `Edit` of the edited model: applied, it gives the base."""
        return _edit(self, edited, base)


@torch.no_grad()
def difference(edited: Model, base: Model) -> Difference:
    """Compare every weight of two models.

    Raises:
        ModelError: the models do not have the same weights by name and shape.
        WeightError: a weight of either is not finite.
    """
    ours, theirs = dict(edited.net.named_parameters()), dict(base.net.named_parameters())
    _check_alike(edited, base, ours, theirs)
    places = {f"{layer.block.path}.": layer.index for layer in base.anatomy.layers}
    downs = {f"{layer.down.path}.weight" for layer in base.anatomy.layers if layer.down is not None}
    found = []
    for path, weight in ours.items():
        before = theirs[path].to(weight.device)
        if weight.dtype == before.dtype and torch.equal(weight, before):
            continue
        for model, tensor in ((edited, weight), (base, before)):
            if not bool(torch.isfinite(tensor).all()):
                raise WeightError(f"{path} of {model.name} holds numbers that are not finite; load a sound copy.")
        module = module_of(base, path)
        matrix = weight.dim() == 2
        flip = matrix and is_linear(module) and stores_transposed(module)
        change = weight.detach().double() - before.detach().double()
        if not bool(change.any()):
            continue  # the same numbers in another type
        layer = next((index for prefix, index in places.items() if path.startswith(prefix)), None)
        found.append(_measured(path, layer, path in downs, change.T if flip else change, weight, before))
    return Difference(edited.name, base.name, tuple(found), len(ours))


def _check_alike(edited: Model, base: Model, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    kinds = [f"{type(m.net).__name__} with {m.n_layers} layers of width {m.anatomy.width}" for m in (edited, base)]
    odd = sorted(ours.keys() ^ theirs.keys())
    shapes = [path for path in ours if path in theirs and ours[path].shape != theirs[path].shape]
    if odd or shapes:
        path = (shapes or odd)[0]
        raise ModelError(
            f"{edited.name} ({kinds[0]}) cannot be compared with {base.name} ({kinds[1]}), because their weights differ in name or "
            f"shape (the first is {path}); give the base this model was made from."
        )


def _measured(
    path: str, layer: int | None, down: bool, change: Tensor, weight: Tensor, before: Tensor
) -> WeightDifference:
    norm, size = float(change.norm()), float(before.double().norm())
    relative = norm / size if size else math.inf
    if change.dim() != 2:
        return WeightDifference(path, layer, down, norm, relative, relative, None, change)
    values = torch.linalg.svdvals(change)
    eps = max(torch.finfo(weight.dtype).eps, torch.finfo(before.dtype).eps)
    tolerance = eps * float(weight.abs().max()) * sum(side**0.5 for side in change.shape)
    whole = float(torch.linalg.matrix_norm(before.double(), 2))
    rank = max(int((values > tolerance).sum()), 1)
    return WeightDifference(
        path, layer, down, norm, relative, float(values[0]) / whole if whole else math.inf, rank, change
    )


@torch.no_grad()
def _edit(change: Difference, start: Model, end: Model) -> Edit:
    if not change.weights:
        raise EditError(f"{start.name} and {end.name} have the same weights; there is nothing to take back.")
    payloads, off = [], {}
    for path in (w.path for w in change.weights):
        have, want = start.parameter(path).detach(), end.parameter(path).detach()
        delta, off[path] = _nearest(have, want.to(have.device, have.dtype))
        payloads.append(Dense(path, delta))
    notes = {"from": start.name, "to": end.name, "last_bits": off, "weights": [w.to_row() for w in change.weights]}
    return Edit.made_for(start, "difference", tuple(payloads), notes=notes)


def _nearest(have: Tensor, want: Tensor) -> tuple[Float[Tensor, "..."], int]:
    """D with fl(have + D) = want where there is one, and for how many entries there is none."""
    exact = torch.promote_types(have.dtype, torch.float32)
    start, goal = have.to(exact), want.to(exact)
    delta = goal - start
    for _ in range(CORRECTIONS):
        missing = want - (start + delta).to(have.dtype)
        if not bool(missing.any()):
            break
        delta = delta + missing.to(exact)
    return delta.contiguous(), int((want != (start + delta).to(have.dtype)).sum())
