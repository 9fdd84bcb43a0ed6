"""What an edit changes: the payloads, each applied at a dose and undone by restoring what was stored.

    LowRank   a weight W (out, in) becomes W + dose * U V, with U (out, r) and V (r, in) in float32
    Dense     a parameter W of any shape becomes W + dose * D
    Hook      the tensor x at a site becomes x + dose * (A (B x) + c), with A (d, r), B (r, d) and c (d,)
    Routed    a memory beside the weights, which decides for each input whether it answers (`palimpsest.edit.memories`)

`Hook` is an affine map of low rank: LEACE's projection is one (A B = -P, c = P mu), and so is a steering vector (r = 0).

No payload ever writes a number that is not finite, or into a weight that is stored quantised: both are refused.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from palimpsest.errors import EditError, WeightError
from palimpsest.model import Model, Site, Tap, tapped
from palimpsest.model.anatomy import in_out_features, is_linear, stores_transposed


def in_plain_layout(tensor: Tensor) -> Tensor:
    """A copy, rows one after the other: products of views differ in the last bit from those of what a file gives back."""
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def module_of(model: Model, path: str) -> nn.Module:
    """The module that owns the weight at `path`; raises `WeightError` when there is none."""
    try:
        return model.net.get_submodule(path.rpartition(".")[0])
    except AttributeError:
        model.parameter(path)  # says what is missing, with the nearest name
        raise WeightError(f"{model.name} has no module that owns {path!r}.") from None


def refuse_quantised(model: Model, path: str) -> None:
    """Raise `EditError` when the weight at `path` is not stored as numbers that can be added to.

    Found by structure: packed integers or 8-bit floats, a linear map whose weight has not its own (out, in) shape, or a
    module with inputs and outputs that keeps its numbers elsewhere.
    """
    module = module_of(model, path)
    weight = getattr(module, path.rpartition(".")[2], None)
    if not isinstance(weight, Tensor):
        if hasattr(module, "in_features"):
            raise _quantised(model, path, f"{type(module).__name__} has no such tensor")
        return
    if not weight.is_floating_point() or weight.dtype.itemsize < 2:
        raise _quantised(model, path, str(weight.dtype).removeprefix("torch."))
    if (is_linear(module) or hasattr(module, "in_features")) and path.endswith("weight"):
        inputs, outputs = in_out_features(module)
        if tuple(weight.shape) not in ((inputs, outputs), (outputs, inputs)):
            raise _quantised(model, path, f"packed as {tuple(weight.shape)} instead of {(outputs, inputs)}")


def _quantised(model: Model, path: str, how: str) -> EditError:
    return EditError(
        f"{path} of {model.name} is quantised ({how}) and nothing can be added to it exactly; load the model unquantised, or "
        f"export the edit with edit.to_lora(folder) and put that adapter on the quantised model with PEFT."
    )


def rounded(exact: Float[Tensor, "*shape"], dtype: torch.dtype, path: str, dose: float) -> Float[Tensor, "*shape"]:
    """`exact` in the weight's own dtype; raises `EditError` rather than give a number that is not finite."""
    new = exact.to(dtype)
    bad = int((~torch.isfinite(new)).sum())
    if bad:
        name = str(dtype).removeprefix("torch.")
        raise EditError(
            f"At dose {dose:g} the edit would write {bad} numbers that are not finite in {name} into {path}; "
            f"use a smaller dose, load the model in a wider type, or make the edit again if its own numbers are not finite."
        )
    return new


def refuse_not_finite(what: str, tensors: Iterable[Tensor]) -> None:
    """Raise `EditError` when what an edit holds has a number that is not finite."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise EditError(f"{what} holds numbers that are not finite; make the edit again.")


@dataclass(frozen=True)
class LowRank:
    """W + dose * U V on the linear map whose weight is at `path` (as W of shape (out, in), however it is stored)."""

    path: str
    u: Float[Tensor, "out rank"]
    v: Float[Tensor, "rank in"]

    @property
    def rank(self) -> int:
        """Columns of U; never more than the smaller side of W once `recompressed`."""
        return int(self.u.shape[1])

    @property
    def norm(self) -> float:
        """Frobenius norm of U V, from the r x r Gram matrices: |U V|^2 = sum of (U^T U) * (V V^T)."""
        u, v = self.u.double(), self.v.double()
        return float(((u.T @ u) * (v @ v.T)).sum().clamp(min=0).sqrt())

    def new_weight(self, model: Model, dose: float) -> Tensor:
        """The weight after the edit, in its own dtype and orientation; sums in float32 or better."""
        refuse_quantised(model, self.path)
        weight = model.parameter(self.path)
        exact = torch.promote_types(weight.dtype, torch.float32)
        u, v = (in_plain_layout(t).to(weight.device, exact) for t in (self.u, self.v))
        change = u @ v
        if stores_transposed(module_of(model, self.path)):
            change = change.T
        if change.shape != weight.shape:
            raise EditError(
                f"The edit of {self.path} has shape {tuple(change.shape)} but the weight has {tuple(weight.shape)}."
            )
        return rounded(weight.detach().to(exact) + dose * change, weight.dtype, self.path, dose)

    def recompressed(self) -> "LowRank":
        """The same product with rank at most the smaller side of W.

        Exact up to float64 rounding: QR of both factors and an SVD of the small core.
        """
        smaller = min(self.u.shape[0], self.v.shape[1])
        if self.rank <= smaller:
            return self
        q_u, r_u = torch.linalg.qr(self.u.double())
        q_v, r_v = torch.linalg.qr(self.v.double().T)
        left, singular, right = torch.linalg.svd(r_u @ r_v.T)
        u = (q_u @ left)[:, :smaller] * singular[:smaller]
        v = (right @ q_v.T)[:smaller]
        return LowRank(self.path, u.float().contiguous(), v.float().contiguous())

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, for the edit file."""
        return {"u": self.u, "v": self.v}


@dataclass(frozen=True)
class Dense:
    """W + dose * D on the parameter at `path`, of any shape, with D as W is stored."""

    path: str
    delta: Float[Tensor, "..."]

    @property
    def norm(self) -> float:
        """Frobenius norm of D."""
        return float(self.delta.double().norm())

    def new_weight(self, model: Model, dose: float) -> Tensor:
        """The weight after the edit, in its own dtype; sums in float32 or better."""
        refuse_quantised(model, self.path)
        weight = model.parameter(self.path)
        if self.delta.shape != weight.shape:
            raise EditError(
                f"The edit of {self.path} has shape {tuple(self.delta.shape)} but the weight has {tuple(weight.shape)}."
            )
        exact = torch.promote_types(weight.dtype, torch.float32)
        change = self.delta.to(weight.device, exact)
        return rounded(weight.detach().to(exact) + dose * change, weight.dtype, self.path, dose)

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, for the edit file."""
        return {"delta": self.delta}


@dataclass(frozen=True)
class Hook:
    """x + dose * (A (B x) + c) at `site`, for every token of every run while the edit is applied."""

    site: Site
    a: Float[Tensor, "width rank"]
    b: Float[Tensor, "rank width"]
    c: Float[Tensor, "width"]

    @property
    def norm(self) -> float:
        """Frobenius norm of A B, and of c where the rank is 0."""
        return float((self.a.double() @ self.b.double()).norm()) if self.a.shape[1] else float(self.c.double().norm())

    def tap(self, dose: float) -> Tap:
        """The tap that does it; computes in float32 or better and returns the site's own dtype."""
        a, b, c = (in_plain_layout(t) for t in (self.a, self.b, self.c))
        refuse_not_finite(f"The hook at {self.site}", (a, b, c))

        def function(x: Tensor) -> Tensor:
            exact = torch.promote_types(x.dtype, torch.float32)
            a_, b_, c_ = (t.to(x.device, exact) for t in (a, b, c))
            y = x.to(exact)
            return (y + dose * ((y @ b_.T) @ a_.T + c_)).to(x.dtype)

        return Tap(self.site, function)

    def installed(self, model: Model, dose: float) -> AbstractContextManager[None]:
        """In force inside the block."""
        return tapped(model.anatomy, [self.tap(dose)])

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, for the edit file."""
        return {"a": self.a, "b": self.b, "c": self.c}


@dataclass(frozen=True)
class Routing:
    """What one memory did with one text.

    Attributes:
        text: that was asked.
        answered: whether the memory took part; where it did not, the model is as it was.
        facts: ids of the facts whose entry answered, or was nearest.
        score: of that entry; its meaning is the memory's (a distance, an activation, a similarity). None with nothing to score.
        threshold: what the score was held against.
        token: position of the token that decided; None where the whole text did.
        dropped: demonstrations left out because the context had no room for them.
    """

    text: str
    answered: bool
    facts: tuple[str, ...]
    score: float | None
    threshold: float
    token: int | None = None
    dropped: int = 0


@dataclass(frozen=True)
class Cost:
    """What a memory adds to a run: multiply-adds for each token, and tokens that are read before each prompt."""

    multiply_adds: int
    tokens: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.multiply_adds + other.multiply_adds, self.tokens + other.tokens)


class Routed(ABC):
    """A memory: it acts at `site`, on the inputs it takes for its own, and is no affine map.

    Attributes:
        kind: its name in the edit file.
        names: of its tensors.
        graded: whether half a dose is half a change; text is there or it is not.
        site: where it acts.
    """

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]]
    graded: ClassVar[bool] = True
    site: Site

    @property
    @abstractmethod
    def norm(self) -> float:
        """Size of what it holds."""

    @property
    def size(self) -> int:
        """Bytes of its tensors and texts."""
        says = sum(len(str(part).encode()) for part in self.says().values())
        return says + sum(tensor.numel() * tensor.element_size() for tensor in self.tensors().values())

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, for the edit file."""

    @abstractmethod
    def says(self) -> dict[str, Any]:
        """What it holds besides tensors, as plain data."""

    @classmethod
    @abstractmethod
    def restored(cls, site: Site, tensors: Mapping[str, Tensor], says: Mapping[str, Any]) -> "Routed":
        """From what an edit file holds."""

    @abstractmethod
    def installed(self, model: Model, dose: float) -> AbstractContextManager[None]:
        """In force inside the block."""

    @abstractmethod
    def routing(self, model: Model, texts: Sequence[str]) -> list[Routing]:
        """What it does with each text."""

    @abstractmethod
    def cost(self, model: Model) -> Cost:
        """What it adds to a run of `model`."""

    def plus(self, other: "Routed") -> "Routed":
        """Grown by another of its kind; a memory that cannot grow this way refuses."""
        raise EditError(f"A {self.kind} cannot be grown by adding a {other.kind}; make one memory of all the facts.")


Payload = LowRank | Dense | Hook | Routed
Acting = Hook | Routed  # what changes no weight


def refuse_memories(payloads: Sequence[Payload], what: str) -> None:
    """Raise `EditError` when one of the payloads is a memory, which `what` cannot hold."""
    for payload in payloads:
        if isinstance(payload, Routed):
            raise EditError(
                f"{what} holds weights and this edit is a memory beside them ({payload.kind}), which decides for each input "
                f"whether it answers; use it with edit.applied(model) and hand on the file that edit.save writes, or write "
                f"the facts into weights with another method, such as 'rome'."
            )


def described(payload: Payload) -> dict[str, Any]:
    """Its kind and its place, as the edit file says them and `Edit.fingerprint` hashes them."""
    if isinstance(payload, Hook):
        return {"kind": "hook", "site": [payload.site.kind, payload.site.layer]}
    if isinstance(payload, Routed):
        return {"kind": payload.kind, "site": [payload.site.kind, payload.site.layer], "says": payload.says()}
    return {"kind": "low rank" if isinstance(payload, LowRank) else "dense", "path": payload.path}
