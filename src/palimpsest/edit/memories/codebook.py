"""A codebook beside a layer (GRACE, Hartvigsen et al. 2023, sections 2.1 and 2.2), as the payload of an edit.

With k_t the input of a layer's down-projection at token t and v_t its output, entries i of key K_i, value V_i and radius e_i:

    i(t) = argmin_i |k_t - K_i|,   token t hits where |k_t - K_i(t)| <= e_i(t)
    from a hit on, the output is V_i(t) in place of v_t, until another entry is hit

A new entry (k, answer y, radius e) meets the nearest entry K_i with answer y_i and radius e_i, at distance d, by three rules:

    far      d > e + e_i             it is added with radius e
    expand   d <= e + e_i, y = y_i   e_i grows to d where d is more; no entry is added
    split    d <= e + e_i, y != y_i  neither reaches further than d/2, the old one 1e-5 less, so that no input lies in both

What the published code does otherwise:

* It compares the *means* of the token ids of two answers, so that different answers can count as one ("ab" and "ba"). Here
  answers are compared as they are written. A split there sets both radii to d/2, also where one was smaller; here none grows.
* It looks at the last token of whatever it was handed, and is told where prompts end. A served model is not told: prompt and
  answer read in one pass, or the same prompt read token by token from a cache, would be decided at different tokens. Here every
  token is compared, and a hit holds for what comes after it, so that all three agree to the last bit of the decision.
* One decision is taken for a batch padded to one length. Here padding never hits, and each row is decided by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from palimpsest.edit.memories.passes import NOTHING, Passes
from palimpsest.edit.payload import Cost, Routed, Routing, refuse_not_finite
from palimpsest.errors import EditError
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, Tap, pad, tapped

APART = 1e-5  # by how much less than half the distance the older of two split entries reaches
SAME = 1e-6  # keys nearer than this share of their length are one key: what two batch shapes leave between equal inputs


@dataclass(frozen=True, eq=False)
class Codebook(Routed):
    """Keys, values and radii at the down-projection of one layer.

    Attributes:
        site: the output that is replaced, Site("value", layer).
        keys: K, one row an entry.
        values: V.
        radii: e.
        labels: the answer each entry gives.
        members: ids of the facts each entry stands for.
    """

    kind: ClassVar[str] = "codebook"
    names: ClassVar[tuple[str, ...]] = ("keys", "values", "radii")
    site: Site
    keys: Float[Tensor, "entries d_key"]
    values: Float[Tensor, "entries d"]
    radii: Float[Tensor, "entries"]
    labels: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.keys):
            raise EditError("An empty codebook answers nothing; give it at least one fact.")
        if not len(self.keys) == len(self.values) == len(self.radii) == len(self.labels) == len(self.members):
            raise EditError(
                f"A codebook needs as many values, radii, labels and members as keys ({len(self.keys)}); make the edit again."
            )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def norm(self) -> float:
        """Frobenius norm of the values."""
        return float(self.values.double().norm())

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, for the edit file."""
        return {"keys": self.keys, "values": self.values, "radii": self.radii}

    def says(self) -> dict[str, Any]:
        """Labels and members, for the edit file."""
        return {"labels": list(self.labels), "members": [list(ids) for ids in self.members]}

    @classmethod
    def restored(cls, site: Site, tensors: Mapping[str, Tensor], says: Mapping[str, Any]) -> "Codebook":
        """From what an edit file holds."""
        members = tuple(tuple(ids) for ids in says["members"])
        return cls(site, tensors["keys"], tensors["values"], tensors["radii"], tuple(says["labels"]), members)

    def nearest(
        self, states: Float[Tensor, "rows tokens d_key"]
    ) -> tuple[Float[Tensor, "rows tokens"], Int[Tensor, "rows tokens"]]:
        """Distance to the nearest key, and which it is; the same for a row alone as in any batch."""
        exact = at_least_float32(states)
        keys = self.keys.to(exact)
        # one pair at a time: as a product of matrices a distance would depend on what else is in the batch
        distance = torch.cdist(exact, keys[None], compute_mode="donot_use_mm_for_euclid_dist")
        found = distance.min(dim=-1)
        return found.values, found.indices

    def in_force(
        self,
        states: Float[Tensor, "rows tokens d_key"],
        tokens: Bool[Tensor, "rows tokens"],
        before: Int[Tensor, "rows"],
    ) -> Int[Tensor, "rows tokens"]:
        """The entry that answers at each token, or `NOTHING`: the last one hit so far, else what was in force `before`."""
        distance, entry = self.nearest(states)
        hit = (distance <= self.radii.to(distance)[entry]) & tokens
        column = torch.arange(hit.shape[1], device=hit.device)
        last = torch.where(hit, column, NOTHING).cummax(dim=1).values
        return torch.where(last >= 0, entry.gather(1, last.clamp(min=0)), before[:, None])

    @contextmanager
    def installed(self, model: Model, dose: float) -> Iterator[None]:
        """In force inside the block; at a dose below 1 the output goes that far toward the value."""
        refuse_not_finite(f"The codebook at {self.site}", self.tensors().values())
        passes, decided = Passes(), list[Tensor]()

        def decide(states: Tensor) -> None:
            answering = self.in_force(states, passes.tokens(states), passes.before(states))
            decided[:] = [answering]
            passes.decide(answering)

        def replaced(output: Tensor) -> Tensor:
            exact, answering = at_least_float32(output), decided.pop()
            values = self.values.to(exact)[answering.clamp(min=0)]
            new = (1 - dose) * exact + dose * values
            return torch.where((answering >= 0)[..., None], new.to(output.dtype), output)

        taps = [Tap(Site("key", self.site.layer), decide), Tap(self.site, replaced)]
        with passes.followed(model.net), tapped(model.anatomy, taps):
            yield

    @torch.no_grad()
    def routing(self, model: Model, texts: Sequence[str]) -> list[Routing]:
        """For each text the entry in force at its end, or the nearest one to any of its tokens; scores are distances."""
        found, site = [], Site("key", self.site.layer)
        for text in texts:
            batch = pad([model.encode(text).ids])
            with model.evaluating():
                states = model.record(batch, [site])[site]
            distance, entry = (one[0] for one in self.nearest(states))
            radius = self.radii.to(distance)[entry]
            hits = (distance <= radius).nonzero()[:, 0]
            at = int(hits[-1]) if len(hits) else int((distance - radius).argmin())
            members = self.members[int(entry[at])]
            found.append(Routing(text, bool(len(hits)), members, float(distance[at]), float(radius[at]), at))
        return found

    def cost(self, model: Model) -> Cost:
        """One distance to every key for each token."""
        return Cost(self.keys.numel())

    def met(self, key: Float[Tensor, "d_key"], label: str, radius: float) -> tuple[str, int, float]:
        """Which rule a new entry falls under ("far", "same", "expand" or "split"), the nearest entry and its distance.

        Raises:
            EditError: an entry has this very key and another answer.
        """
        apart, which = self.nearest(key[None, None])
        d, i = float(apart[0, 0]), int(which[0, 0])
        if d > radius + float(self.radii[i]):
            return "far", i, d
        if self.labels[i] == label:
            return ("expand" if d > float(self.radii[i]) else "same"), i, d
        if d <= SAME * float(key.norm()) or d / 2 <= APART:
            raise EditError(
                f"Two facts have one key and two answers: {', '.join(self.members[i])} answers {self.labels[i]!r} where "
                f"{label!r} is asked for, and no radius tells them apart; keep one of them, or choose another layer."
            )
        return "split", i, d

    def grown(
        self,
        key: Float[Tensor, "d_key"],
        value: Float[Tensor, "d"],
        radius: float,
        label: str,
        members: tuple[str, ...],
    ) -> "Codebook":
        """With one entry more, by the three rules; the value of an entry that is only expanded stays."""
        rule, i, d = self.met(key, label, radius)
        radii = self.radii.clone()
        if rule in ("same", "expand"):
            radii[i] = max(d, float(radii[i]))
            joined = (*self.members[:i], tuple(dict.fromkeys((*self.members[i], *members))), *self.members[i + 1 :])
            return replace(self, radii=radii, members=joined)
        if rule == "split":
            radii[i], radius = min(float(radii[i]), d / 2 - APART), min(radius, d / 2)
        return Codebook(
            self.site,
            torch.cat([self.keys, key[None].to(self.keys)]),
            torch.cat([self.values, value[None].to(self.values)]),
            torch.cat([radii, radii.new_tensor([radius])]),
            (*self.labels, label),
            (*self.members, members),
        )

    def plus(self, other: Routed) -> "Codebook":
        """Grown by the entries of another codebook at the same layer, one after the other."""
        if not isinstance(other, Codebook) or other.keys.shape[1] != self.keys.shape[1]:
            raise EditError(f"The memories at {self.site} are of different kinds or widths and cannot be added.")
        book = self
        for i in range(len(other)):
            book = book.grown(other.keys[i], other.values[i], float(other.radii[i]), other.labels[i], other.members[i])
        return book
