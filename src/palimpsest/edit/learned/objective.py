"""What an editor is judged by: the new answer after another wording, and nothing else moved.

    e    =  -log p(o* | paraphrase; W + dW)                            nats a token
    loc  =  KL( p(. | text that stays; W)  ||  p(. | same; W + dW) )   nats a token, where the text's answer is read

    MEND   minimise  c_e e + c_loc loc                                 (Mitchell et al. 2022, equation 5)
    KE     minimise  e  subject to  loc <= margin                      (De Cao et al. 2021, section 3.1)

KE's constraint is kept by a multiplier lambda >= 0: the editor descends on c_e e + lambda (loc - margin), lambda ascends.

Examples are judged together, each row with its own example's change, from the lowest edited layer on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.learned.answers import Answers, beside, divergence, read_nll, spoken, stream_read
from palimpsest.edit.learned.change import in_force
from palimpsest.edit.learned.frozen import Frozen
from palimpsest.edit.learned.mend import Factors
from palimpsest.edit.learned.settings import EditorSettings, KeSettings
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model

ROWS = 8  # texts in one run, alike in length: with more, what is gained in the products is lost in padding


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


def judged(
    frozen: Frozen, examples: Sequence[tuple[Fact, str, Probe]], parts: Sequence[Factors]
) -> tuple[Float[Tensor, "examples"], Float[Tensor, "examples"]]:
    """e and loc of each example with its change; changes that are all empty give the unedited model's."""
    model, n = frozen.model, len(examples)
    stays = [(probe.prompt, probe.answer) for _, _, probe in examples]
    written = [frozen.answers(wording, fact.target_new) for fact, wording, _ in examples]
    kept = [frozen.answers(*asked) for asked in stays]
    written_rows, kept_rows = beside(written), beside(kept)
    after = spoken(model, _streams(model, [*written, *kept], [*range(n), *range(n)], parts))
    count = len(written_rows.reads[0])
    e = read_nll(written_rows, after[:count])
    if not any(parts):
        return e, torch.zeros_like(e)
    with torch.no_grad():
        before = spoken(model, torch.cat([frozen.unedited(*asked) for asked in stays]))
    return e, divergence(kept_rows, before, after[count:])


def _streams(
    model: Model, rows: Sequence[Answers], owners: Sequence[int], parts: Sequence[Factors]
) -> Float[Tensor, "reads width"]:
    """The stream that leaves the last layer at every token that is read, row by row; row i sees the change `parts[owners[i]]`."""
    order = sorted(range(len(rows)), key=lambda row: rows[row].batch.ids.shape[1])
    found: dict[int, Tensor] = {}
    for begin in range(0, len(order), ROWS):
        some = order[begin : begin + ROWS]
        with in_force(model, parts, torch.tensor([owners[row] for row in some], device=model.device)):
            stream = stream_read(model, beside([rows[row] for row in some]))
        found |= dict(zip(some, stream.split([rows[row].at.shape[1] for row in some]), strict=True))
    return torch.cat([found[row] for row in range(len(rows))])
