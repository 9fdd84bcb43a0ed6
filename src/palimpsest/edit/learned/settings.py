"""Settings of the learned editors: what is edited, how large the network is, and how it learns.

    settings = settings_for("mend", "fixed", {"layers": (5, 6, 7), "rank": 64, "steps": 2000})

"mend-2022" and "ke-2021" hold the published numbers, which were chosen for 10^5 steps and more on a GPU. "fixed" has larger steps
of Adam and smaller networks, for hours on a few cores; its numbers are a choice to begin from, and nothing has been tuned.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.edit.settings import at_least, one_of, resolve, whole
from palimpsest.errors import SettingError, did_you_mean

LAST = 3  # layers edited when none are named, from the top: as published


@dataclass(frozen=True)
class Learning:
    """How an editor learns.

    Attributes:
        steps: of Adam, at most.
        batch: records in one step, each written alone and judged alone.
        learning_rate: of Adam.
        rate_rate: of Adam, for MEND's learned rates alpha.
        edit_weight: c_e, of the new answer's loss after a paraphrase.
        locality_weight: c_loc, of the KL divergence on a text that must stay; with KE the first value of the multiplier.
        clip: largest norm of the gradient of a step.
        validation: share of the subjects that validate and are never learned from.
        validate_every: steps between two validations.
        patience: steps without a better validation after which learning stops.
        seed: of the network's first values, of the split and of every draw.
    """

    steps: int = 10_000
    batch: int = 10
    learning_rate: float = 1e-4
    rate_rate: float = 1e-4
    edit_weight: float = 0.1
    locality_weight: float = 1.0
    clip: float = 100.0
    validation: float = 0.2
    validate_every: int = 100
    patience: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "validate_every", "patience"):
            whole("Learning", name, getattr(self, name), 1)
        for name in ("edit_weight", "locality_weight", "rate_rate"):
            at_least("Learning", name, getattr(self, name), 0)
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise SettingError(f"Learning's {name} must be a number above 0, got {getattr(self, name)}.")
        if not 0 < self.validation <= 0.5:
            raise SettingError(f"Learning's validation must be a share above 0 and at most 0.5, got {self.validation}.")


@dataclass(frozen=True)
class MendSettings:
    """Every setting of MEND.

    Attributes:
        preset: the name these settings began from.
        layers: whose maps are edited; the last three when None.
        maps: "mlp", every linear map of the MLP, or "down", the down-projection alone.
        rank: of the two maps of the editor network; never more than their width.
        edit_rate: alpha of every weight before learning.
        learning: see `Learning`.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    maps: str = "mlp"
    rank: int = 128
    edit_rate: float = 1e-4
    learning: Learning = Learning()

    def __post_init__(self) -> None:
        one_of("MEND", "maps", self.maps, ("mlp", "down"))
        whole("MEND", "rank", self.rank, 1)


@dataclass(frozen=True)
class KeSettings:
    """Every setting of KE.

    Attributes:
        preset: the name these settings began from.
        layers: whose maps are edited; the last three when None.
        maps: "mlp", every linear map of the MLP, or "down", the down-projection alone.
        hidden: width of the LSTM (each direction), and of the layer before the gates.
        condition: width of what the LSTM says of a request.
        largest: the scale a gate that is open gives the change (max_scale).
        margin: KL divergence allowed at first; it shrinks by a fifth at each validation that keeps it.
        least_margin: it never shrinks below this.
        multiplier_rate: step of the multiplier of the constraint.
        learning: see `Learning`.
    """

    preset: str = "fixed"
    layers: tuple[int, ...] | None = None
    maps: str = "mlp"
    hidden: int = 128
    condition: int = 256
    largest: float = 1.0
    margin: float = 1e-3
    least_margin: float = 1e-5
    multiplier_rate: float = 0.1
    learning: Learning = Learning(edit_weight=1.0, learning_rate=1e-3)

    def __post_init__(self) -> None:
        one_of("KE", "maps", self.maps, ("mlp", "down"))
        whole("KE", "hidden", self.hidden, 1)
        whole("KE", "condition", self.condition, 1)
        for name in ("largest", "margin", "least_margin", "multiplier_rate"):
            at_least("KE", name, getattr(self, name), 0)


EditorSettings = MendSettings | KeSettings

PRESETS: dict[str, dict[str, Any]] = {
    "mend": {
        "fixed": MendSettings(),
        "mend-2022": MendSettings(
            preset="mend-2022",
            rank=1920,
            learning=Learning(steps=100_000, learning_rate=1e-6, validate_every=1_000, patience=20_000),
        ),
    },
    "ke": {
        "fixed": KeSettings(),
        "ke-2021": KeSettings(
            preset="ke-2021",
            condition=1024,
            learning=Learning(
                steps=100_000, learning_rate=3e-4, edit_weight=1.0, validate_every=1_000, patience=20_000
            ),
        ),
    },
}


def settings_for(method: str, preset: str, given: Mapping[str, Any]) -> EditorSettings:
    """The settings of `method` named `preset`, with `given` in the place of theirs.

    Raises:
        SettingError: there is no such method, preset or setting ("did you mean"), or a value is out of range.
    """
    if method not in PRESETS:
        raise SettingError(f"No editor is learned by the name {method!r}.{did_you_mean(method, PRESETS)}")
    found: EditorSettings = resolve(method.upper(), PRESETS[method], preset, given)
    return found


def settings_from(method: str, plain: Mapping[str, Any]) -> EditorSettings:
    """The settings that `asdict` and JSON made `plain`; raises what dataclasses raise where it is no such thing."""
    layers = plain["layers"]
    values = {**plain, "layers": None if layers is None else tuple(layers), "learning": Learning(**plain["learning"])}
    return MendSettings(**values) if method == "mend" else KeSettings(**values)
