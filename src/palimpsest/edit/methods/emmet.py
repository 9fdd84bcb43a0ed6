"""EMMET: equality-constrained mass model editing (Gupta et al. 2024, arXiv 2403.14236).

ROME for many facts at once, in one layer: the smallest change, measured by C, that maps every key to its value,

    minimise |dW C^(1/2)|_F  subject to  dW K^T = R^T
    dW = R^T (K C^-1 K^T)^-1 K C^-1

With one fact it is ROME (with delta at the layer's output). The constraint of many facts can cost more than it is worth, so
the published code softens it: (K (lambda C)^-1 K^T + s I)^-1, where a large s forgives. lambda s = 1 is MEMIT at one layer.

Presets:

    "fixed"       s = 0: every constraint is met, which takes fewer facts than the key has dimensions
    "emmet-2024"  the published code: s = 0.1 for more than one fact, lambda = 10,000 (GPT-2 XL)
"""

from dataclasses import dataclass

from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.closed_form_settings import ClosedFormSettings
from palimpsest.edit.memory import Memory
from palimpsest.edit.search import ValueSettings
from palimpsest.edit.settings import at_least
from palimpsest.edit.solve import Price
from palimpsest.errors import SettingError


@dataclass(frozen=True)
class EmmetSettings(ClosedFormSettings):
    """Settings of EMMET: those of every closed form, and how the constraint is softened.

    Attributes:
        moment_weight: lambda; scales what softness means.
        softness: s for more than one fact (one fact is always met exactly).
    """

    moment_weight: float = 1.0
    softness: float = 0.0
    values: ValueSettings = ValueSettings(clamp=0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("EMMET", "softness", self.softness, 0)
        at_least("EMMET", "moment_weight", self.moment_weight, 1e-12)


class Emmet(ClosedForm):
    """EMMET on one model; see `ClosedForm` for its arguments and `edit`."""

    name, title = "emmet", "EMMET"
    published = ("emmet-2024",)
    presets = {
        "fixed": EmmetSettings(),
        "emmet-2024": EmmetSettings(
            preset="emmet-2024",
            moment_weight=10_000.0,
            softness=0.1,
            same_key="keep",
            values=ValueSettings(clamp=0.75, kl_at="subject", skip_known=False),
        ),
    }
    settings: EmmetSettings

    def price(self, layer: int, memory: Memory) -> Price:
        """lambda C, and the keys of earlier edits where there is a memory."""
        return Price(self.settings.moment_weight * self.moments[layer].matrix).plus(memory.gram(layer))

    def softness(self, facts: int) -> float:
        """0 for one fact, the setting for more."""
        return self.settings.softness if facts > 1 else 0.0

    def _check_layers(self) -> None:
        super()._check_layers()
        if len(self.layers) != 1:
            raise SettingError(
                f"EMMET edits one layer, got {len(self.layers)} ({list(self.layers)}); name one, or use memit."
            )
