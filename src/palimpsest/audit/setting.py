"""`Setting`: what an audit measures, on which facts, at which layers: plain data, decided before anything is measured.

`Place` is where the claim says that something is: a kind of module, a window of layers, a role in the prompt. The rest of the
setting is what the experiments have in common, so that their numbers can stand beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from palimpsest.errors import SettingError, did_you_mean
from palimpsest.locate.tracing.patching import Patch

SUBJECT, LAST = "last subject token", "last token"
POSITIONS = (SUBJECT, LAST)
MODULES = ("mlp", "attn", "state")


@dataclass(frozen=True)
class Place:
    """Where a claim says that something is: a window of layers of one kind of module at one token.

    Attributes:
        module: "mlp", "attn" or "state".
        centre: the layer the window is named after, as in `locate.tracing.patching.Patch`; where a single layer is edited.
        window: how many layers around it are patched together; cut off at the first and the last layer.
        position: "last subject token" or "last token".
    """

    module: str
    centre: int
    window: int = 1
    position: str = SUBJECT

    def __post_init__(self) -> None:
        for what, value, allowed in (("module", self.module, MODULES), ("position", self.position, POSITIONS)):
            if value not in allowed:
                raise SettingError(
                    f"A place has a {what} of {', '.join(allowed)}, got {value!r}.{did_you_mean(value, allowed)}"
                )
        if self.centre < 0 or self.window < 1:
            raise SettingError(
                f"A place has a centre of 0 or more and a window of 1 or more, got {self.centre} and {self.window}."
            )

    def layers(self, n_layers: int) -> range:
        """The layers of the window."""
        return Patch(self.module, self.window).layers(self.centre, n_layers)


@dataclass(frozen=True)
class Setting:
    """What the experiments of an audit have in common.

    Attributes:
        model: the model's name.
        weights: its fingerprint; evidence from other weights is refused.
        n_layers: how many layers it has.
        place: where the claim points; its centre was chosen on the discovery facts.
        layers: centres of the windows that are measured, ascending; about ten; they include the place's.
        discovery, confirmation: ids of the facts, no subject in both.
        samples: noise draws of a trace.
        seed: of every draw.
        size: "smoke", "standard" or "full".
        cuts: an experiment's name to the number of confirmation facts it may use, where fewer than all.
    """

    model: str
    weights: str
    n_layers: int
    place: Place
    layers: tuple[int, ...]
    discovery: tuple[str, ...]
    confirmation: tuple[str, ...]
    samples: int = 10
    seed: int = 0
    size: str = "standard"
    cuts: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if self.place.centre not in self.layers or list(self.layers) != sorted(set(self.layers)):
            raise SettingError(
                f"The layers of a setting ascend and include the place's centre {self.place.centre}, got {self.layers}."
            )
        if both := set(self.discovery) & set(self.confirmation):
            raise SettingError(f"The fact {sorted(both)[0]!r} is in both splits; a fact either chooses or reports.")

    def facts_for(self, experiment: str) -> tuple[str, ...]:
        """Ids of the confirmation facts an experiment measures."""
        return self.confirmation[: (self.cuts or {}).get(experiment, len(self.confirmation))]

    def at(self, centre: int) -> Setting:
        """The same setting with the claim pointing at another layer: how claims known to be empty are made."""
        moved = replace(self.place, centre=centre)
        return replace(self, place=moved, layers=tuple(sorted({*self.layers, centre})))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Setting:
        """The setting `to_json` wrote."""
        given = dict(record)
        place = Place(**given.pop("place"))
        for name in ("layers", "discovery", "confirmation"):
            given[name] = tuple(given[name])
        return cls(place=place, **given)
