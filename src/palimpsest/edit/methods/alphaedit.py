"""AlphaEdit: null-space constrained editing (Fang et al. 2025, arXiv 2410.02355, section 3; code: jianghoucheng/AlphaEdit).

As MEMIT, but a change of W may not act on what ordinary text uses at all. Let U_s (d x m) hold the eigenvectors of C whose
eigenvalue is below a threshold, and P = U_s U_s^T project on them. With the keys K_p of earlier edits,

    minimise  |dW P K^T - R^T|^2 + |dW P K_p^T|^2 + ridge |dW P|^2
    dW = R^T K P (P (K^T K + K_p^T K_p) P + ridge I)^-1 P

P is never formed: in the coordinates of U_s the solve is m x m, and the update is (...) U_s^T, which lies in the null space
as far as float32 factors do. Each batch adds its keys, as they are after the edit, to K_p.

The threshold is on eigenvalues of the mean k k^T and so depends on the scale of the model's keys: 0.02 selects about 70 % of
the directions of GPT-2 XL and Llama 3, and may select everything or nothing in others; `energy=` instead takes the directions
that together hold at most that share of the trace. A null space of less than 5 % or more than 95 % of the directions is refused.

Presets:

    "fixed"          values as MEMIT's "fixed"; the null space by energy, which means the same in every model
    "alphaedit-2025" the published code: threshold 0.02, ridge 10
"""

from dataclasses import dataclass

import torch

from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.closed_form_settings import ClosedFormSettings
from palimpsest.edit.memory import Memory
from palimpsest.edit.moments import NULL_THRESHOLD, SAFE_SHARES
from palimpsest.edit.search import ValueSettings
from palimpsest.edit.settings import at_least
from palimpsest.edit.solve import Price
from palimpsest.errors import EditError, SettingError


@dataclass(frozen=True)
class AlphaEditSettings(ClosedFormSettings):
    """Settings of AlphaEdit: those of every closed form, the null space and the ridge.

    Attributes:
        energy: the null space holds at most this share of the trace of C ...
        threshold: ... or eigenvalues of C below this belong to it; one of the two is given, the other None.
        ridge: weight of |dW|^2.
    """

    energy: float | None = 0.02
    threshold: float | None = None
    ridge: float = 10.0
    memory: bool = True
    values: ValueSettings = ValueSettings(clamp=0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.energy is None) == (self.threshold is None):
            raise SettingError(
                f"AlphaEdit's null space needs a threshold or an energy and not both, got threshold={self.threshold} and "
                f"energy={self.energy}; set the other to None (null on the command line)."
            )
        if self.energy is not None and not (isinstance(self.energy, int | float) and 0 < self.energy < 1):
            raise SettingError(f"AlphaEdit's energy is a share of the trace between 0 and 1, got {self.energy!r}.")
        if self.threshold is not None:
            at_least("AlphaEdit", "threshold", self.threshold, 1e-300)
        at_least("AlphaEdit", "ridge", self.ridge, 0)


class AlphaEdit(ClosedForm):
    """AlphaEdit on one model; see `ClosedForm` for its arguments and `edit`."""

    name, title = "alphaedit", "AlphaEdit"
    published = ("alphaedit-2025",)
    presets = {
        "fixed": AlphaEditSettings(),
        "alphaedit-2025": AlphaEditSettings(
            preset="alphaedit-2025",
            energy=None,
            threshold=2e-2,
            same_key="keep",
            values=ValueSettings(clamp=0.75, kl_at="subject", skip_known=False),
        ),
    }
    settings: AlphaEditSettings

    def price(self, layer: int, memory: Memory) -> Price:
        """ridge I and the keys of earlier edits, in the null space of C."""
        moment = self.moments[layer]
        basis = moment.null_space(self.settings.threshold or NULL_THRESHOLD, energy=self.settings.energy)
        share = basis.shape[1] / basis.shape[0]
        if not SAFE_SHARES[0] <= share <= SAFE_SHARES[1]:
            how = (
                f"energy={self.settings.energy:g}" if self.settings.energy else f"threshold={self.settings.threshold:g}"
            )
            raise EditError(
                f"The null space of layer {layer} is {share:.0%} of the directions ({how}), which leaves nothing to protect or "
                f"nothing to write in; choose a setting that gives {SAFE_SHARES[0]:.0%} to {SAFE_SHARES[1]:.0%}."
            )
        ridge = self.settings.ridge * torch.eye(basis.shape[1], dtype=basis.dtype)
        return Price(ridge, basis).plus(memory.gram(layer))

    def softness(self, facts: int) -> float:
        """1, as MEMIT."""
        return 1.0
