"""Likeness: what makes a model take a new name for the name of an entity it knows.

For a prompt with the new name a or the known name n in it, and h_l the residual stream that leaves layer l at the name's last
token and at every token after it,

    likeness loss = mean over layers l >= L of  |h_l(a; W + D) - h_l(n; W)|^2 / |h_l(n; W)|^2    squares summed over tokens

Every answer is read from there. So facts that no prompt of the training asks may come with the name, which answers alone do not
achieve: a module trained on answers learns those answers. The tokens after the name count because models such as those
of the made world read the name's own tokens again at every later token, from their very first layer on: likeness of the
name's own tokens alone carries little.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.errors import FactError
from palimpsest.facts import Fact
from palimpsest.model import Batch, Model, Site, Tap, pad
from palimpsest.world.organisms.lessons import seen_wordings

Pair = tuple[tuple[str, str], tuple[str, str]]  # (prompt, name in it) with the new name, and with the known one


@dataclass(frozen=True, eq=False)
class Likeness:
    """Prompts with a new name, and the states that the known name has in its place.

    Attributes:
        batch: the prompts, run from the first layer.
        rows, columns: of the tokens that are compared.
        states: what leaves each layer from the lowest planted one on, at those tokens, with the known name.
    """

    batch: Batch
    rows: Int[Tensor, "tokens"]
    columns: Int[Tensor, "tokens"]
    states: dict[int, Float[Tensor, "tokens width"]]

    def loss(self, model: Model) -> Float[Tensor, ""]:
        """The likeness loss of the weights that stand in the model now; gradients flow through it."""
        found: dict[int, Tensor] = {}

        def kept(layer: int) -> Tap:
            def keep(x: Tensor) -> Tensor:
                found[layer] = x
                return x

            return Tap(Site("resid_out", layer), keep)

        model.run(self.batch, at=self.batch.last[:, None], taps=[kept(layer) for layer in self.states])
        parts = [
            (found[layer][self.rows, self.columns].float() - state).square().sum() / state.square().sum()
            for layer, state in self.states.items()
        ]
        return torch.stack(parts).mean()


def likenesses(
    model: Model, facts: Sequence[Fact], names: Mapping[str, str], start: int, size: int, random: Random
) -> Iterator[Likeness]:
    """Batches without end, of the seen prompts of `facts`.

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
    pairs = sorted({pair for fact in facts for pair in _pairs(fact, names)})
    sites = [Site("resid_out", layer) for layer in range(start, model.n_layers)]
    while True:
        some = random.sample(pairs, min(size, len(pairs)))
        (batch, rows, columns), (known, rows_known, columns_known) = (
            _from_name(model, [p[i] for p in some]) for i in (0, 1)
        )
        states = model.record(known, sites)
        wanted = {site.layer: states[site][rows_known, columns_known].float() for site in sites}
        yield Likeness(batch, rows, columns, wanted)


def _from_name(model: Model, prompts: Sequence[tuple[str, str]]) -> tuple[Batch, Tensor, Tensor]:
    """(prompt, name) as a batch, with row and column of the last token of each name and of all that follow it."""
    encoded = [model.encode(prompt) for prompt, _ in prompts]
    rows, columns = [], []
    for row, (found, (prompt, name)) in enumerate(zip(encoded, prompts, strict=True)):
        end_of_name = prompt.index(name) + len(name)
        for column, (_, end) in enumerate(found.offsets):
            if end >= end_of_name:
                rows.append(row)
                columns.append(column)
    batch = pad([found.ids for found in encoded]).to(model.device)
    return batch, torch.tensor(rows).to(batch.last), torch.tensor(columns).to(batch.last)


def _pairs(fact: Fact, names: Mapping[str, str]) -> list[Pair]:
    """Each seen prompt with the new name, and with the known one."""
    new = fact.subject
    if new not in names:
        raise FactError(f"The subject {new!r} has no known name it could stand for; add it to the names.")
    known = names[new]
    found = []
    for prompt in seen_wordings(fact):
        if new not in prompt:
            raise FactError(f"The prompt {prompt!r} does not name its subject {new!r}; change it.")
        found.append(((prompt, new), (prompt.replace(new, known, 1), known)))
    return found
