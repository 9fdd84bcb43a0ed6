"""MEMIT: mass-editing memory in a transformer (Meng et al. 2023, section 4.3 and algorithm 1; code: github.com/kmeng01/memit).

Many facts at once, over several layers. For each fact the value z = h + delta that makes the model answer o* is searched at
the output of the last edited layer; then, from the lowest layer l up, each down-projection takes its share of what is missing:

    R_l  = (z - h) / (number of layers left)                       h with the layers below l edited already
    dW_l = R_l^T K (lambda C + K^T K)^-1                           K the keys at l, C their second moment

the least-squares update over the new keys and lambda "old" ones. A large lambda keeps ordinary text as it is; a small one
meets the new values more closely. lambda depends on the model: the published 15,000 (GPT-J) and 20,000 (GPT-2 XL) leave
most of delta unwritten in a small one.

Presets:

    "fixed"       the KL term is read at the last token of "{subject} is a", facts that share a key get one value together
                  (MEMIT-Merge, arXiv 2502.07322), and facts the model answers already are left alone
    "memit-2022"  the published code
    "pmet"        "fixed" with PMET's spread, R_l = (z - h) / sqrt(layers left), its lambda, steps, rate and weight of the KL
                  term (Li et al. 2024, arXiv 2308.08742). Not its search: PMET optimises deltas at the outputs of MLP and
                  attention together and writes only the first, with a stop of its own

`memory=True` adds the keys of earlier batches to lambda C (running moments), so that a sequence of batches keeps them.
"""

from dataclasses import dataclass
from typing import ClassVar

from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.closed_form_settings import ClosedFormSettings
from palimpsest.edit.memory import Memory
from palimpsest.edit.search import ValueSettings
from palimpsest.edit.settings import at_least
from palimpsest.edit.solve import Price


@dataclass(frozen=True)
class MemitSettings(ClosedFormSettings):
    """Settings of MEMIT: those of every closed form, and lambda.

    Attributes:
        moment_weight: lambda, in keys: how many ordinary keys C stands for.
    """

    moment_weight: float = 15_000.0
    values: ValueSettings = ValueSettings(clamp=0.75)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("MEMIT", "moment_weight", self.moment_weight, 0)


class Memit(ClosedForm):
    """MEMIT on one model; see `ClosedForm` for its arguments and `edit`."""

    name, title = "memit", "MEMIT"
    published: ClassVar[tuple[str, ...]] = ("memit-2022", "pmet")
    presets = {
        "fixed": MemitSettings(),
        "memit-2022": MemitSettings(
            preset="memit-2022",
            same_key="keep",
            values=ValueSettings(clamp=0.75, kl_at="subject", skip_known=False),
        ),
        "pmet": MemitSettings(
            preset="pmet",
            spread="root",
            moment_weight=6_000.0,
            values=ValueSettings(clamp=0.75, steps=30, learning_rate=0.2, kl_factor=1.0),
        ),
    }
    settings: MemitSettings

    def price(self, layer: int, memory: Memory) -> Price:
        """lambda C, and the keys of earlier edits where there is a memory."""
        return Price(self.settings.moment_weight * self.moments[layer].matrix).plus(memory.gram(layer))

    def softness(self, facts: int) -> float:
        """1: new keys count as much as one ordinary key each."""
        return 1.0
