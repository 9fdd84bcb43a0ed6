"""Weight grafting, the positive control: put one module back as it was before the planting, and ask again.

    s_{f,l} = p(o_f; organism) - p(o_f; organism with module l of the base)

with p the geometric mean probability of the answer's tokens. Where facts are in the weights of one module, no other graft can
change anything, so this finds the place by construction: it says what a perfect score would be, and that organisms, facts and
code are in order. It needs the weights of before and after, which nobody has of a real model's facts.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float

from palimpsest.facts import Fact
from palimpsest.locate.answers import answer_nll
from palimpsest.model import Model
from palimpsest.world.organisms.places import weights_of


@contextmanager
def grafted(model: Model, base: Model, module: str, layer: int) -> Iterator[bool]:
    """`model` with one module's weights as in `base` inside the block; gives whether any of them differed.

    It asks two models and no `Edit`, so that it works for anything that was trained further (`organisms.places.grafted`
    leaves out a part of an edit).
    """
    pairs = [(model.parameter(path), base.parameter(path)) for path in weights_of(model, (module, layer))]
    differing = [(mine, theirs) for mine, theirs in pairs if not torch.equal(mine, theirs.to(mine))]
    stored = [mine.detach().clone() for mine, _ in differing]
    try:
        with torch.no_grad():
            for mine, theirs in differing:
                mine.copy_(theirs)
        yield bool(differing)
    finally:
        with torch.no_grad():
            for (mine, _), original in zip(differing, stored, strict=True):
                mine.copy_(original)


def graft_drops(model: Model, base: Model, facts: Sequence[Fact], module: str) -> Float[np.ndarray, "facts layers"]:
    """s for every layer. Where a module is what it was, nothing runs: its drop is 0."""
    pairs = [(fact.text, str(fact.target_true)) for fact in facts]
    whole = np.exp(-np.array(answer_nll(model, pairs)))
    drops = np.zeros((len(facts), model.n_layers))
    for layer in range(model.n_layers):
        with grafted(model, base, module, layer) as changed:
            if changed:
                drops[:, layer] = whole - np.exp(-np.array(answer_nll(model, pairs)))
    return drops
