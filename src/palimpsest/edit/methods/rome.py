"""ROME: rank-one model editing (Meng et al. 2022, section 3; code: github.com/kmeng01/rome).

A down-projection W is a linear memory of keys k and values v. To write the fact (s, r, o*):

    k*  the key of the subject s, at its last token, averaged over contexts       (`keys`)
    v*  the value that makes the model answer o*                                   (`search`)
    dW = (v* - W k*) (C^-1 k*)^T / (k*^T C^-1 k*)                                  (`solve`, C from `moments`)

so that (W + dW) k* = v* exactly while ordinary keys are moved least. Facts are written one after the other.

Presets:

    "fixed"      one and the same k* everywhere, and the KL term read at the last token of "{subject} is a". The contexts and the
                 weighting of keys are MEMIT's (half the bare prompt, half the mean of five), as measured in
                 docs/rome-on-smollm2.md; facts the model answers already are left alone
    "rome-2022"  the published code: C^-1 is applied to the mean key over 21 contexts, but the constraint is met at the bare
                 prompt's key, and the KL term is read at the subject's last token. The asymmetry of keys is what makes
                 some of its edits destroy the model
    "r-rome"     the published code with the mean key and value in both places (Gupta et al. 2024, arXiv 2403.07175)
    "c-rome"     the same correction, proposed independently (Yang et al. 2024, arXiv 2406.11263)
    "p-rome"     the published code with the bare prompt's key in both places (arXiv 2403.07175)
    "identity"   "fixed" with C = I: dW = (v* - W k*) k*^T / |k*|^2, which ignores what other keys there are
"""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.closed_form_settings import ClosedFormSettings
from palimpsest.edit.keys import WEIGHTINGS, combine
from palimpsest.edit.memory import Memory
from palimpsest.edit.moments import SecondMoment
from palimpsest.edit.search import ValueSettings
from palimpsest.edit.settings import at_least, one_of
from palimpsest.edit.solve import Price, Update, rank_one
from palimpsest.edit.walk import Walk
from palimpsest.errors import SettingError


@dataclass(frozen=True)
class RomeSettings(ClosedFormSettings):
    """Settings of ROME: those of every closed form, and where the published code takes other keys and values.

    Attributes:
        direction: which key C^-1 is applied to: "mean", "halves" or "bare"; the same as `key` when None.
        target: which value delta is added to, v* = v + delta; the same as `key` when None.
        moment_weight: with a memory, how many ordinary keys C stands for beside those of earlier edits; else without effect.
    """

    site: str = "value"
    batch: int | None = 1
    direction: str | None = None
    target: str | None = None
    moment_weight: float = 15_000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("ROME", "moment_weight", self.moment_weight, 1e-12)
        for name in ("direction", "target"):
            if getattr(self, name) is not None:
                one_of("ROME", name, getattr(self, name), WEIGHTINGS)
        if self.batch != 1 and (self.direction or self.target):
            raise SettingError(
                f"ROME as published writes one fact at a time, got batch={self.batch}; leave batch at 1."
            )


ROME_2022 = RomeSettings(
    preset="rome-2022",
    key="bare",
    direction="mean",
    contexts=((5, 10), (10, 10)),
    openings=(),
    values=ValueSettings(kl_at="subject", skip_known=False),
)


class Rome(ClosedForm):
    """ROME on one model; see `ClosedForm` for its arguments and `edit`."""

    name, title = "rome", "ROME"
    published = ("rome-2022", "r-rome", "c-rome", "p-rome")
    presets = {
        "fixed": RomeSettings(),
        "rome-2022": ROME_2022,
        "r-rome": replace(ROME_2022, preset="r-rome", key="mean", direction=None, target="bare"),
        "c-rome": replace(ROME_2022, preset="c-rome", key="mean", direction=None, target="bare"),
        "p-rome": replace(ROME_2022, preset="p-rome", key="bare", direction=None),
        "identity": RomeSettings(preset="identity", covariance="identity"),
    }
    settings: RomeSettings

    def price(self, layer: int, memory: Memory) -> Price:
        """C, and the keys of earlier edits over lambda where there is a memory."""
        return Price(self._moment(layer, memory).matrix)

    def softness(self, facts: int) -> float:
        """0: the constraint is met exactly."""
        return 0.0

    def _moment(self, layer: int, memory: Memory) -> SecondMoment:
        moment, gram = self.moments[layer], memory.gram(layer)
        return moment if gram is None else replace(moment, matrix=moment.matrix + gram / self.settings.moment_weight)

    def _target(self) -> str:
        return self.settings.target or self.settings.key

    def _update(self, walk: Walk, layer: int, residuals: Float[Tensor, "n d"], memory: Memory) -> Update:
        if not (self.settings.direction or self.settings.target):
            return super()._update(walk, layer, residuals, memory)
        ((_, (keys, values)),) = walk.read(layer, "key", "value")
        key = combine(keys[0], self.settings.key)
        direction = combine(keys[0], self.settings.direction or self.settings.key)
        residual = residuals[0] + combine(values[0], self._target()) - combine(values[0], self.settings.key)
        moment = self._moment(layer, memory)
        u, v = rank_one(moment, direction, key, residual)
        whitened = key.cpu().double() @ moment.solve(key.cpu())
        return Update(u, v, whitened[None])
