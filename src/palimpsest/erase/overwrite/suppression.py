"""Suppression: the term that makes an edit take the old answer away where a lens reads it.

    a(l) = z(l)[old] - mean over rivals of z(l)[rival]          z(l) = W_U norm(h(l)), the logit lens at the prompt's last token
    term = suppress * mean over layers l of max(0, a(l) - margin)

h(l) is the stream of the *edited* model after layer l, so that the gradient runs through every layer between the delta and the
reading. The rivals of an old answer are the likeliest tokens of the unedited model after the bare prompt, without the old and the
new answer: what a reader would guess who knows the question and not the fact. A margin of 0 holds the old answer to their mean. The
default leaves it a nat above: an answer pushed below where it never stood leaves a hole, which is a trace as well.

The last layer is the output itself and is always read, so the term holds the unlikelihood of the old answer too (Welleck et al.
2020, section 5.1, in the log-odds form). The answer whose readability falls is `target_true`, or where a fact has none the
model's own first choice.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.edit.search import Rows
from palimpsest.edit.settings import at_least, whole
from palimpsest.facts import Fact
from palimpsest.locate.answers import first_token
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Model, Site, Tap, pad


@dataclass(frozen=True)
class Suppression:
    """The term; see the module's text.

    Attributes:
        suppress: weight of the term beside the likelihood of the new answer, per nat.
        margin: nats that the old answer may stand above its rivals.
        rivals: how many tokens it is compared with.
        lens_every: layers are read in steps of this from the last one down to the first above the values.
    """

    suppress: float = 0.25
    margin: float = 1.0
    rivals: int = 16
    lens_every: int = 4

    def __post_init__(self) -> None:
        at_least("The suppression", "suppress", self.suppress, 0)
        whole("The suppression", "rivals", self.rivals, 1)
        whole("The suppression", "lens_every", self.lens_every, 1)

    @property
    def card(self) -> dict[str, Any]:
        """Every setting."""
        return {"suppression": asdict(self)}

    def begin(self, model: Model, site: Site, facts: Sequence[Fact], rows: Rows) -> "Suppressing":
        """The old answers and their rivals, read on the unedited model."""
        first = site.layer + (1 if site.kind == "resid_out" else 0)
        inner = tuple(range(model.n_layers - 1 - self.lens_every, first - 1, -self.lens_every))
        old, rivals = [], []
        for i, fact in enumerate(facts):
            bare = int((rows.fact == i).nonzero()[0])  # the bare context stands first
            likely = rows.before[bare].topk(self.rivals + 2).indices.tolist()
            own = likely[0] if fact.target_true is None else first_token(model, fact.text, fact.target_true)
            new = first_token(model, fact.text, str(fact.target_new))
            old.append(own)
            rivals.append([token for token in likely if token not in (own, new)][: self.rivals])
        device = rows.before.device
        return Suppressing(self, model, inner, torch.tensor(old, device=device), torch.tensor(rivals, device=device))


@dataclass(frozen=True, eq=False)
class Suppressing:
    """The term on the facts of one search; `layers` are those below the last, whose reading is the output itself."""

    settings: Suppression
    model: Model
    layers: tuple[int, ...]
    old: Int[Tensor, "facts"]
    rivals: Int[Tensor, "facts rivals"]

    def watch(self, rows: Rows) -> "Watched":
        """For the next forward pass."""
        return Watched(self, rows.at[:, 0] - rows.prefix.length)


class Watched:
    """The states that one forward pass shows."""

    def __init__(self, running: Suppressing, column: Int[Tensor, "rows"]) -> None:
        self._running, self._column = running, column
        self._states: dict[int, Tensor] = {}

    @property
    def taps(self) -> list[Tap]:
        """One a layer, which keeps the state at the last token of the prompt."""
        return [Tap(Site("resid_out", layer), self._keeper(layer)) for layer in self._running.layers]

    def _keeper(self, layer: int) -> Any:
        def keep(stream: Tensor) -> None:
            self._states[layer] = stream[torch.arange(len(stream), device=stream.device), self._column]

        return keep

    def loss(self, rows: Rows, log_p: Float[Tensor, "rows positions vocabulary"]) -> Float[Tensor, "rows"]:
        """suppress * mean over layers of max(0, a - margin); 0 in the KL row."""
        running, settings = self._running, self._running.settings
        asks = (~rows.is_kl).nonzero()[:, 0]
        fact = rows.fact[asks]
        readings = [log_p[asks, 0], *(self._lens(self._states[layer][asks]) for layer in running.layers)]
        logits = torch.stack(readings, dim=1)
        n, layers, _ = logits.shape
        old = logits.gather(2, running.old[fact][:, None, None].expand(n, layers, 1))[:, :, 0]
        rivals = logits.gather(2, running.rivals[fact][:, None].expand(n, layers, -1)).mean(2)
        each = settings.suppress * (old - rivals - settings.margin).clamp(min=0).mean(1)
        return torch.zeros(len(rows.is_kl), dtype=each.dtype, device=each.device).index_add(0, asks, each)

    def _lens(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"]:
        """Logits of states through the network's own final norm and head."""
        model = self._running.model
        logits = model.run(pad([(0,)] * len(states)).to(states.device), start=model.n_layers, resid=states[:, None])
        return at_least_float32(logits[:, 0])
