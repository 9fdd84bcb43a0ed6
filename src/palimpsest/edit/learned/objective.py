"""What an editor is judged by: the new answer after another wording, and nothing else moved.

    e    =  -log p(o* | paraphrase; W + dW)                            nats a token
    loc  =  KL( p(. | text that stays; W)  ||  p(. | same; W + dW) )   nats a token, where the text's answer is read

    MEND   minimise  c_e e + c_loc loc                                 (Mitchell et al. 2022, equation 5)
    KE     minimise  e  subject to  loc <= margin                      (De Cao et al. 2021, section 3.1)

KE's constraint is kept by a multiplier lambda >= 0: the editor descends on c_e e + lambda (loc - margin), lambda ascends.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from palimpsest.edit.learned.answers import answers_of, divergence, log_p
from palimpsest.edit.learned.change import changed
from palimpsest.edit.learned.mend import Factors
from palimpsest.edit.learned.settings import EditorSettings, KeSettings
from palimpsest.edit.training import in_place_of
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model


@dataclass
class Constraint:
    """KE's multiplier and margin as they stand; MEND's is fixed."""

    multiplier: float
    margin: float = 0.0

    @classmethod
    def of(cls, settings: EditorSettings) -> "Constraint":
        """As it is before the first step."""
        margin = settings.margin if isinstance(settings, KeSettings) else 0.0
        return cls(settings.learning.locality_weight, margin)

    def after_step(self, settings: EditorSettings, loc: float) -> None:
        """The multiplier rises while the divergence is above the margin, and falls below it, to 0 at least."""
        if isinstance(settings, KeSettings):
            self.multiplier = max(0.0, self.multiplier + settings.multiplier_rate * (loc - self.margin))

    def after_validation(self, settings: EditorSettings, loc: float) -> None:
        """The margin shrinks by a fifth where it was kept, to `least_margin` at least."""
        if isinstance(settings, KeSettings) and loc <= self.margin:
            self.margin = max(settings.least_margin, 0.8 * self.margin)


def judged(model: Model, example: tuple[Fact, str, Probe], factors: Factors) -> tuple[Tensor, Tensor]:
    """e and loc of one example with the change `factors`; empty factors give the unedited model's."""
    fact, wording, probe = example
    answers = answers_of(model, [(wording, fact.target_new), (probe.prompt, probe.answer)])
    with torch.no_grad():
        before = log_p(model, answers)
    with in_place_of(model, changed(model, factors)):
        after = log_p(model, answers)
    e = -(after[:1].gather(2, answers.wanted[:1, :, None])[:, :, 0] * answers.weight[:1].to(after.dtype)).sum()
    return e, divergence(before[1:], after[1:], answers.weight[1:])[0]
