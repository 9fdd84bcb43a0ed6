"""Editors of a few lines, good and bad, for the contract test and the artefact."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

import palimpsest as pal
from oracles.small import LAYER, documents
from palimpsest.edit import Dense, Edit, Hook, LowRank
from palimpsest.edit.payload import Payload
from palimpsest.facts import Fact
from palimpsest.model import Model, Site
from palimpsest.model.anatomy import in_out_features

FEW = {"layers": LAYER, "steps": 4, "contexts": ((5, 2),)}


def draw(*shape: int, seed: int = 0, scale: float = 0.1) -> Tensor:
    """Seeded normal numbers."""
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def down_weight(model: Model, layer: int = LAYER) -> str:
    """The path of a down-projection's weight."""
    return f"{model.anatomy.down(layer).path}.weight"


def made(model: Model, facts: Sequence[Fact], *payloads: Payload) -> Edit:
    """An edit as a good editor makes it."""
    return Edit.made_for(model, "small", payloads, tuple(facts), {"size": [1, 2]}, {"note": 1.5})


def rome(model: Model, facts: Sequence[Fact]) -> Edit:
    """A low-rank edit, in a few steps."""
    return pal.edit(model, facts, method="rome", text=documents(), **FEW)


def low_rank(model: Model, facts: Sequence[Fact], *, rank: int = 2, layer: int = LAYER, seed: int = 0) -> Edit:
    """A low-rank edit that means nothing."""
    inputs, outputs = in_out_features(model.anatomy.down(layer).module)
    u, v = draw(outputs, rank, seed=seed), draw(rank, inputs, seed=seed + 1)
    return made(model, facts, LowRank(down_weight(model, layer), u, v))


def dense(model: Model, facts: Sequence[Fact]) -> Edit:
    """Noise on a whole weight and on a norm's, as a fine-tune changes any parameter."""
    path = down_weight(model)
    norm = next(
        name for name, weight in model.net.named_parameters() if weight.dim() == 1 and "norm" in name or "ln_" in name
    )
    changes = [Dense(name, draw(*model.parameter(name).shape)) for name in (path, norm)]
    return made(model, facts, *changes)


def hook(model: Model, facts: Sequence[Fact]) -> Edit:
    """A projection and a shift of one state, as LEACE and steering make; A and B^T are one tensor."""
    d = model.anatomy.width
    direction = draw(d, 1, scale=1.0)
    direction = direction / direction.norm()
    return made(model, facts, Hook(Site("resid_out", LAYER), -direction, direction.T, draw(d, seed=2)))


GOOD: dict[str, Callable[[Model, Sequence[Fact]], Edit]] = {"rome": rome, "dense": dense, "hook": hook}


@torch.no_grad()
def _writes(model: Model, facts: Sequence[Fact]) -> Edit:
    edit = low_rank(model, facts)
    next(model.net.parameters()).view(-1)[0] += 1
    return edit


def _stays_applied(model: Model, facts: Sequence[Fact]) -> Edit:
    edit = hook(model, facts)
    edit.apply(model)
    return edit


def _leaves_a_hook(model: Model, facts: Sequence[Fact]) -> Edit:
    model.anatomy.head.register_forward_hook(lambda module, inputs, output: None)
    return low_rank(model, facts)


def _unnamed(model: Model, facts: Sequence[Fact]) -> Edit:
    return replace(low_rank(model, facts), method="")


def _forgets_facts(model: Model, facts: Sequence[Fact]) -> Edit:
    return low_rank(model, facts[:1])


def _forgets_settings(model: Model, facts: Sequence[Fact]) -> Edit:
    return replace(low_rank(model, facts), settings={})


def _hashes_nothing(model: Model, facts: Sequence[Fact]) -> Edit:
    return replace(low_rank(model, facts), weights={})


_times = count()


def _unseeded(model: Model, facts: Sequence[Fact]) -> Edit:
    return low_rank(model, facts, seed=next(_times))


def _wanders(model: Model, facts: Sequence[Fact]) -> Edit:
    return low_rank(model, facts, layer=next(_times) % 2)


def _idle(model: Model, facts: Sequence[Fact]) -> Edit:
    return made(model, facts, Dense(down_weight(model), torch.zeros_like(model.parameter(down_weight(model)))))


def _ranks(rank: int) -> Any:
    """Factors of this rank, put in after `made_for`, which would have made them fewer."""

    def editor(model: Model, facts: Sequence[Fact]) -> Edit:
        payload = LowRank(down_weight(model), draw(32, rank), draw(rank, 48, seed=1))
        return replace(low_rank(model, facts), payloads=(payload,))

    return editor


class Crooked(Dense):
    """Its dose is squared."""

    def new_weight(self, model: Model, dose: float) -> Tensor:
        return super().new_weight(model, dose**2)


class Lossy(Dense):
    """What it saves is not what it applies."""

    def tensors(self) -> dict[str, Tensor]:
        return {"delta": self.delta / 2}


class Sticky(Dense):
    """It also changes a weight that nobody stored."""

    def new_weight(self, model: Model, dose: float) -> Tensor:
        if dose:
            with torch.no_grad():
                model.parameter(down_weight(model, 2)).add_(1.0)
        return super().new_weight(model, dose)


def _of_kind(kind: type[Dense]) -> Any:
    def editor(model: Model, facts: Sequence[Fact]) -> Edit:
        path = down_weight(model)
        return made(model, facts, kind(path, draw(*model.parameter(path).shape)))

    return editor


BAD: dict[str, tuple[Callable[[Model, Sequence[Fact]], Edit], str]] = {
    "changes weights while it works": (_writes, "clause 1"),
    "leaves its edit in the model": (_stays_applied, "clause 1"),
    "leaves a hook that does nothing": (_leaves_a_hook, "clause 1"),
    "has no name": (_unnamed, "clause 2"),
    "does not record its facts": (_forgets_facts, "clause 2"),
    "does not record its settings": (_forgets_settings, "clause 2"),
    "draws without a seed": (_unseeded, "clause 3"),
    "edits now here, now there": (_wanders, "clause 3"),
    "does nothing": (_idle, "clause 5"),
    "changes what it cannot undo": (_of_kind(Sticky), "clause 6"),
    "has a crooked dose": (_of_kind(Crooked), "clause 7"),
    "saves something else": (_of_kind(Lossy), "clause 8"),
    "has more rank than its weight": (_ranks(40), "clause 9.*smaller side"),
    "holds more numbers than the dense change": (_ranks(20), "clause 9.*more numbers"),
    "takes three directions for two facts": (_ranks(3), "clause 9.*rank_per_fact=2"),
    "hashes no weight": (_hashes_nothing, "clause 10"),
}
