"""Gradient steps on down-projections, each pair with weights of its own, many pairs in one run, and no weight ever written to.

A down-projection maps keys k_t to v_t = W k_t. With g_t = dL/dv_t, the gradient of a loss with respect to W is a sum of outer
products over tokens, so that after J plain steps of size r

    W_J = W - r sum_j sum_t g_jt k_jt^T          v = W k - r sum_j sum_t g_jt (k_jt . k)

The right-hand side needs no W_J. Rows of a batch that each have their own W_J therefore run together, which is exact, and the
backward pass stops at the v_t: no gradient of the size of a weight is formed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.errors import EditError, FactError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Site, pad
from palimpsest.model.anatomy import in_out_features
from palimpsest.model.taps import Tap


@dataclass(frozen=True, eq=False)
class OwnChange:
    """A change of weights for each of some rows: the sum over its terms of value times key.

    Attributes:
        keys: per layer, those of each row.
        values: per layer, -r g.
    """

    keys: Mapping[int, Float[Tensor, "rows terms inner"]]
    values: Mapping[int, Float[Tensor, "rows terms width"]]

    def taps(self, rows: Int[Tensor, "some"]) -> list[Tap]:
        """What makes a batch whose rows are these run with the changed weights."""
        taps: list[Tap] = []
        for layer, keys in self.keys.items():
            chosen = rows.to(keys.device)
            taps += _changed(layer, partial(_low_rank, keys[chosen], self.values[layer][chosen]))
        return taps

    def after(self, step: "Step", rate: float) -> "OwnChange":
        """One step further."""
        return OwnChange(
            {layer: torch.cat([self.keys[layer], keys], 1) for layer, keys in step.keys.items()},
            {layer: torch.cat([self.values[layer], -rate * g], 1) for layer, g in step.gradients.items()},
        )


@dataclass(frozen=True, eq=False)
class SharedChange:
    """One change of the weights for all rows."""

    matrices: Mapping[int, Float[Tensor, "width inner"]]

    def taps(self, rows: Int[Tensor, "some"]) -> list[Tap]:
        """What makes any batch run with the changed weights."""
        return [tap for layer, matrix in self.matrices.items() for tap in _changed(layer, partial(_times, matrix))]

    def after(self, gradient: Mapping[int, Float[Tensor, "width inner"]], rate: float) -> "SharedChange":
        """One step further."""
        return SharedChange({layer: matrix - rate * gradient[layer] for layer, matrix in self.matrices.items()})


@dataclass(frozen=True, eq=False)
class Step:
    """The losses of some rows, and what their gradients are made of.

    Attributes:
        losses: -log p(answer), in nats.
        keys: per layer, k of each token.
        gradients: per layer, the gradient of the row's own loss with respect to each v.
    """

    losses: Float[Tensor, "rows"]
    keys: Mapping[int, Float[Tensor, "rows tokens inner"]]
    gradients: Mapping[int, Float[Tensor, "rows tokens width"]]

    def squared_norms(self) -> Float[Tensor, "rows"]:
        """Squared length of each row's gradient, over all layers: |sum_t g_t k_t^T|^2 = sum_ts (g_t . g_s) (k_t . k_s)."""
        parts = [
            ((g @ g.mT) * (self.keys[layer] @ self.keys[layer].mT)).sum((1, 2)) for layer, g in self.gradients.items()
        ]
        return torch.stack(parts).sum(0)

    def sums(self) -> dict[int, Float[Tensor, "width inner"]]:
        """The gradient of the sum of the losses, per layer."""
        return {layer: torch.einsum("rtw,rti->wi", g, self.keys[layer]) for layer, g in self.gradients.items()}


@dataclass(frozen=True, eq=False)
class Lessons:
    """Prompts with their answers as rows, and the residual stream that enters the lowest changed layer."""

    batch: Batch
    resid: Float[Tensor, "rows columns width"]
    at: Int[Tensor, "rows positions"]
    answer: Int[Tensor, "rows positions"]
    counted: Float[Tensor, "rows positions"]

    @classmethod
    def of(cls, model: Model, texts: list[tuple[str, str]], start: int) -> "Lessons":
        """Rows of (prompt, answer); layers below `start` run here and never again."""
        encoded = [model.encode_answer(text, answer) for text, answer in texts]
        for (ids, begin), (text, wanted) in zip(encoded, texts, strict=True):
            if not 0 < begin < len(ids):
                raise FactError(f"The text {text!r} and the answer {wanted!r} must have a token each; change them.")
        most = max(len(ids) - begin for ids, begin in encoded)
        at, answer = torch.zeros(len(texts), most, dtype=torch.long), torch.zeros(len(texts), most, dtype=torch.long)
        counted = torch.zeros(len(texts), most)
        for row, (ids, begin) in enumerate(encoded):
            n = len(ids) - begin
            at[row, :n], answer[row, :n] = torch.arange(begin - 1, len(ids) - 1), torch.tensor(ids[begin:])
            counted[row, :n] = 1
        batch, site = pad([ids[:-1] for ids, _ in encoded]).to(model.device), Site("resid_in", start)
        with model.evaluating():
            resid = model.record(batch, [site])[site]
        return cls(batch, resid, *(each.to(model.device) for each in (at, answer, counted)))


@torch.enable_grad()
def step(model: Model, lessons: Lessons, layers: tuple[int, ...], change: OwnChange | SharedChange) -> Step:
    """Losses and gradients of some rows under a change; the first row of the change is the first row of the lessons.

    Raises:
        EditError: a loss or a gradient is not finite.
    """
    keys: dict[int, Tensor] = {}
    slack: dict[int, Tensor] = {}

    def keep(layer: int, k: Tensor) -> None:
        keys[layer] = at_least_float32(k.detach())

    def watch(layer: int, v: Tensor) -> Tensor:
        slack[layer] = torch.zeros_like(v, requires_grad=True)
        return v + slack[layer]

    rows = torch.arange(len(lessons.batch))
    taps = [*change.taps(rows)]
    for layer in layers:
        taps += [Tap(Site("key", layer), partial(keep, layer)), Tap(Site("value", layer), partial(watch, layer))]
    with model.evaluating():
        logits = model.run(lessons.batch, start=layers[0], resid=lessons.resid, at=lessons.at, taps=taps)
        log_p = at_least_float32(logits).log_softmax(-1)
        losses = -(log_p.gather(2, lessons.answer[:, :, None])[:, :, 0] * lessons.counted).sum(1)
        found = torch.autograd.grad(losses.sum(), [slack[layer] for layer in layers])
    gradients = {layer: at_least_float32(g) for layer, g in zip(layers, found, strict=True)}
    if not all(bool(torch.isfinite(values).all()) for values in (losses, *gradients.values())):
        raise EditError(
            "Relearning met a loss or a gradient that is not finite; lower the rate or load the model in float32."
        )
    return Step(losses.detach(), keys, gradients)


def no_change(model: Model, layers: tuple[int, ...], rows: int) -> OwnChange:
    """Rows whose weights are those of the model."""
    shapes = {layer: _shape(model, layer) for layer in layers}
    return OwnChange(
        {layer: torch.zeros(rows, 0, inner, device=model.device) for layer, (_, inner) in shapes.items()},
        {layer: torch.zeros(rows, 0, width, device=model.device) for layer, (width, _) in shapes.items()},
    )


def no_shared_change(model: Model, layers: tuple[int, ...]) -> SharedChange:
    """The weights of the model for all rows."""
    return SharedChange({layer: torch.zeros(*_shape(model, layer), device=model.device) for layer in layers})


def _shape(model: Model, layer: int) -> tuple[int, int]:
    inner, width = in_out_features(model.anatomy.down(layer).module)
    return width, inner


def _changed(layer: int, added: partial[Tensor]) -> list[Tap]:
    """Two taps that add to the value what a change makes of the key."""
    held: list[Tensor] = []

    def take(k: Tensor) -> None:
        held[:] = [k]

    return [
        Tap(Site("key", layer), take),
        Tap(Site("value", layer), lambda v: v + added(at_least_float32(held[0])).to(v.dtype)),
    ]


def _low_rank(keys: Tensor, values: Tensor, k: Tensor) -> Tensor:
    return (k @ keys.to(k.dtype).mT) @ values.to(k.dtype)


def _times(matrix: Tensor, k: Tensor) -> Tensor:
    return k @ matrix.to(k.dtype).T
