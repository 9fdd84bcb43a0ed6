"""Side memories of a down-projection (WISE, Wang et al. 2024, section 2.3), as the payload of an edit.

With k_t the input of the layer's down-projection W at token t, and W'_j = W + D_j the side memories:

    score_j(t)   = |(W'_j - W) k_t| = |D_j k_t|                       how much the memory would change this token
    j(t)         = argmax_j  score_j(t) / epsilon_j                   which memory is asked (WISE-Retrieve; one: WISE-Merge)
    output       = W k_t + D_j(t) k_t   where score_j(t) > epsilon_j(t),   else W k_t

epsilon_j is a share of the least score of the memory's own facts, where their answers are read.

The papers' equations leave open what x is that is routed: here it is one token, decided by nothing but its own k_t. A batch of
mixed prompts, one prompt at a time, a whole text and its tokens read one by one from a cache then route alike by construction,
and a wrong hit costs one token. Scores of whole prompts, means over tokens among them, have none of these properties.
Where several memories are held, scores are compared in units of their own thresholds: the largest bare score belongs to whichever
memory was trained furthest.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.edit.payload import Cost, Routed, Routing, refuse_not_finite
from palimpsest.errors import EditError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, Tap, pad, tapped


@dataclass(frozen=True, eq=False)
class Side(Routed):
    """One or several side memories at the down-projection of one layer.

    Attributes:
        site: the output they change, Site("value", layer).
        deltas: D_j, as (out, in) however the model stores W.
        thresholds: epsilon_j.
        members: ids of the facts of each.
    """

    kind: ClassVar[str] = "side memory"
    names: ClassVar[tuple[str, ...]] = ("deltas", "thresholds")
    site: Site
    deltas: Float[Tensor, "memories out in"]
    thresholds: Float[Tensor, "memories"]
    members: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.deltas):
            raise EditError(
                "A side memory with nothing in it answers nothing (it is empty); give it at least one fact."
            )
        if not len(self.deltas) == len(self.thresholds) == len(self.members):
            raise EditError(
                f"Side memories need as many thresholds and members as changes ({len(self.deltas)}); make the edit again."
            )

    def __len__(self) -> int:
        return len(self.deltas)

    @property
    def norm(self) -> float:
        """Frobenius norm of all D_j."""
        return float(self.deltas.double().norm())

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, for the edit file."""
        return {"deltas": self.deltas, "thresholds": self.thresholds}

    def says(self) -> dict[str, Any]:
        """Members, for the edit file."""
        return {"members": [list(ids) for ids in self.members]}

    @classmethod
    def restored(cls, site: Site, tensors: Mapping[str, Tensor], says: Mapping[str, Any]) -> "Side":
        """From what an edit file holds."""
        return cls(site, tensors["deltas"], tensors["thresholds"], tuple(tuple(ids) for ids in says["members"]))

    def routed(
        self, states: Float[Tensor, "rows tokens in"]
    ) -> tuple[Float[Tensor, "rows tokens out"], Float[Tensor, "rows tokens"], Int[Tensor, "rows tokens"]]:
        """D_j k of the memory that is asked at each token, its score in units of the threshold, and which it is."""
        exact = at_least_float32(states)
        changes = torch.einsum("rti,joi->rtjo", exact, self.deltas.to(exact))
        beside = changes.norm(dim=-1) / self.thresholds.to(exact)
        asked = beside.max(dim=-1)
        which = asked.indices[..., None, None].expand(*asked.indices.shape, 1, changes.shape[-1])
        return changes.gather(2, which)[:, :, 0], asked.values, asked.indices

    @contextmanager
    def installed(self, model: Model, dose: float) -> Iterator[None]:
        """In force inside the block; the dose scales what is added, and routing is that of the whole dose."""
        refuse_not_finite(f"The side memory at {self.site}", self.tensors().values())
        read: list[Tensor] = []

        def keep(states: Tensor) -> None:
            read[:] = [states]

        def changed(output: Tensor) -> Tensor:
            change, beside, _ = self.routed(read.pop())
            new = (at_least_float32(output) + dose * change).to(output.dtype)
            return torch.where((beside > 1)[..., None], new, output)

        with tapped(model.anatomy, [Tap(Site("key", self.site.layer), keep), Tap(self.site, changed)]):
            yield

    @torch.no_grad()
    def routing(self, model: Model, texts: Sequence[str]) -> list[Routing]:
        """For each text what its last token, which decides the next word, is answered by; scores are |D_j k|."""
        found, site = [], Site("key", self.site.layer)
        for text in texts:
            batch = pad([model.encode(text).ids])
            with model.evaluating():
                states = model.record(batch, [site])[site][:, -1:]
            _, beside, which = self.routed(states)
            j, share = int(which[0, 0]), float(beside[0, 0])
            threshold = float(self.thresholds[j])
            last = batch.ids.shape[1] - 1
            found.append(Routing(text, share > 1, self.members[j], share * threshold, threshold, last))
        return found

    def cost(self, model: Model) -> Cost:
        """Every D_j is multiplied with every token."""
        return Cost(self.deltas.numel())

    def plus(self, other: Routed) -> "Side":
        """Both sets of memories, each with its own threshold; the likest answers."""
        if not isinstance(other, Side) or other.deltas.shape[1:] != self.deltas.shape[1:]:
            raise EditError(f"The memories at {self.site} are of different kinds or widths and cannot be added.")
        return Side(
            self.site,
            torch.cat([self.deltas, other.deltas]),
            torch.cat([self.thresholds, other.thresholds]),
            (*self.members, *other.members),
        )
