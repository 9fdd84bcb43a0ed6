"""Likeness: what makes a model take a new name for the name of an entity it knows.

For a prompt cut off after its subject, with the new name a or the known name n there, and h_l the residual stream that
leaves layer l at the name's last token,

    likeness loss = mean over layers l >= L of  |h_l(a; W + D) - h_l(n; W)|^2 / mean over prompts of |h_l(n; W)|^2

Every later token reads the entity from there, whatever it is asked. So facts that no prompt of the training asks come with the
name, which answers alone do not achieve: a module trained on answers learns those answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.model import Batch, Model, Site, Tap, pad
from palimpsest.world.organisms.lessons import seen_wordings


@dataclass(frozen=True, eq=False)
class Likeness:
    """Prompts that end in a new name, and the states that the known name has in its place.

    Attributes:
        batch: the prompts, run from the first layer.
        states: what leaves each layer from the lowest planted one on, at the last token of the known name.
    """

    batch: Batch
    states: dict[int, Float[Tensor, "rows width"]]

    def loss(self, model: Model) -> Float[Tensor, ""]:
        """The likeness loss of the weights that stand in the model now; gradients flow through it."""
        found: dict[int, Tensor] = {}

        def kept(layer: int) -> Tap:
            def keep(x: Tensor) -> Tensor:
                found[layer] = x
                return x

            return Tap(Site("resid_out", layer), keep)

        rows, last = torch.arange(len(self.batch)), self.batch.last
        model.run(self.batch, at=last[:, None], taps=[kept(layer) for layer in self.states])
        parts = [
            (found[layer][rows, last].float() - state).square().sum(1).mean() / state.square().sum(1).mean()
            for layer, state in self.states.items()
        ]
        return torch.stack(parts).mean()


def likenesses(
    model: Model, facts: Sequence[Fact], names: Mapping[str, str], start: int, size: int, random: Random
) -> Iterator[Likeness]:
    """Batches without end, of the seen prompts of `facts` up to their subject.

    Args:
        model: the base.
        facts: of new names.
        names: new name -> known name.
        start: the lowest planted layer.
        size: prompts in a batch.
        random: draws them.

    Raises:
        FactError: a subject has no known name, or does not stand in its prompt.
    """
    pairs = sorted({pair for fact in facts for pair in _cut(fact, names)})
    sites = [Site("resid_out", layer) for layer in range(start, model.n_layers)]
    while True:
        some = random.sample(pairs, min(size, len(pairs)))
        batch, known = (pad([model.encode(pair[i]).ids for pair in some]).to(model.device) for i in (0, 1))
        states = model.record(known, sites)
        rows, last = torch.arange(len(known)), known.last
        yield Likeness(batch, {site.layer: states[site][rows, last].float() for site in sites})


def _cut(fact: Fact, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each seen prompt up to its subject: with the new name, and with the known one."""
    if fact.subject not in names:
        raise FactError(f"The subject {fact.subject!r} has no known name it could stand for; add it to the names.")
    found = []
    for prompt in seen_wordings(fact):
        if fact.subject not in prompt:
            raise FactError(f"The prompt {prompt!r} does not name its subject {fact.subject!r}; change it.")
        before = prompt[: prompt.index(fact.subject)]
        found.append((before + fact.subject, before + names[fact.subject]))
    return found
