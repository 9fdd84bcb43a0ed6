"""`Profiles`: what other kinds of methods say about every layer, for facts and for what is not facts.

    lens        rise of logit(answer) - logit(foil) across the layer, each state read by the final norm and head    observational
    gradient    < d (logit(answer) - logit(foil)) / d v_l , v_l - v_l' >      v_l' the value for another subject       gradient
    trace       what restoring the layer's MLP gives back after noise                                                 interventional

The gradient is the first order of an interchange lesion (attribution patching; Nanda 2023, Kramár et al. 2024): what one layer's
output does, by itself, in going from the other subject's to its own. The lens takes no part of the model away and changes none.

The same is read of control items, agreement of number and copying (`tasks`), so that agreement of methods about facts can be
held against their agreement about anything (`convergence`). Traces of the facts themselves are those of `tracing`. Rows have
all layers of the model; a window's value is the sum over its layers, for lens and gradient add up.

No probe is trained: an audit has too few facts for each answer to tell a probe from a memory of its training.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.read_out import Question, output_sites, question, through
from palimpsest.audit.experiments.roles import rounded, traced, tracer
from palimpsest.audit.experiments.tasks import AGREEMENT, COPYING, FACTS, agreement, copying
from palimpsest.audit.setting import POSITIONS, Setting
from palimpsest.errors import FactError, PalimpsestError
from palimpsest.facts import Fact
from palimpsest.locate.reading.lens import decode
from palimpsest.locate.tracing.patching import Patch
from palimpsest.model import Model, Site, pad

CHEAP = ("lens", "gradient")
DRAWS = 3  # noise draws of a control item's trace


class Profiles:
    """Rows for `convergence`; see the module's text."""

    name = "profiles"
    criteria = ("C5",)
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """The confirmation facts; with each goes one item of every control task."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """For three items a backward pass or two at both positions, and two traces of three draws."""
        return (3 * 4 + 2 * (DRAWS * len(bench.setting.layers) / 5 + 4)) * bench.seconds_a_pass

    def measure(self, bench: Bench, unit: str) -> Row:
        """Task -> method -> position -> a number a layer; tasks that cannot be asked say why."""
        fact, place = bench[unit], list(bench.setting.confirmation).index(unit)
        tasks: dict[str, Any] = {FACTS: cheap(bench, fact, _other(bench, fact))}
        without: dict[str, str] = {}
        for task in (AGREEMENT, COPYING):
            try:
                item, other = _item(bench, task, fact, place)
                row = traced(tracer(bench, "mlp", DRAWS), bench.model, item)
                tasks[task] = {**cheap(bench, item, other), "trace": row}
            except PalimpsestError as error:
                without[task] = str(error)
        return {"tasks": tasks, "without": without}

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Nothing by itself: `convergence` reads the rows."""
        return []


def cheap(bench: Bench, item: Fact, other: Fact | None) -> dict[str, Any]:
    """Lens and gradient of one item at both positions.

    Raises:
        FactError: the item has no foil that begins otherwise.
    """
    asked = question(bench.model, item, (str(item.target_new),), 1)
    if len(asked.tokens) < 2:
        raise FactError(
            f"The answers of {item.id} begin alike, so there is no logit difference; give it another target_new."
        )
    found: dict[str, Any] = {"lens": {}, "gradient": {}}
    sites = output_sites(bench.model, "mlp")
    for position in POSITIONS:
        values, slopes = through(bench.model, asked, sites, position)
        base = _values(bench.model, other, sites, position) if other is not None else torch.zeros_like(values)
        found["gradient"][position] = rounded(((slopes[0] - slopes[1]) * (values - base)).sum(-1).double().cpu())
        found["lens"][position] = rounded(lens_rise(bench.model, asked, position).double().cpu())
    return found


@torch.no_grad()
def lens_rise(model: Model, asked: Question, position: str) -> Float[torch.Tensor, " layers"]:
    """By how much each layer raises the logit difference that the state of one token reads as."""
    sites = [Site("resid_in", 0), *(Site("resid_out", layer) for layer in range(model.n_layers))]
    answer, foil = list(asked.tokens.values())[:2]
    with model.evaluating():
        states = model.record(pad([asked.ids]), sites)
        logits = torch.cat(list(decode(model, torch.stack([states[site][0, asked.at[position]] for site in sites]))))
    return (logits[:, answer] - logits[:, foil]).diff()


def windowed(single: Sequence[float], module: str, window: int, layers: Sequence[int]) -> Float[np.ndarray, " layers"]:
    """Sums over the windows around some layers."""
    numbers = np.array(single, dtype=np.float64)
    patch = Patch(module, window)
    return np.array([numbers[list(patch.layers(layer, len(numbers)))].sum() for layer in layers])


def _item(bench: Bench, task: str, fact: Fact, place: int) -> tuple[Fact, Fact]:
    if task == AGREEMENT:
        return agreement(place), agreement(place + 1)
    item, swapped = copying(bench, fact)
    return item, Fact(swapped.subject, item.prompt, item.target_new, item.target_true)


def _other(bench: Bench, fact: Fact) -> Fact | None:
    """Another subject of the relation with another answer."""
    fits = [
        one
        for one in bench.pool
        if one.relation == fact.relation and one.subject != fact.subject and one.target_true != fact.target_true
    ]
    return min(fits, key=lambda one: blake2b(f"{fact.id}\0{one.id}".encode()).digest(), default=None)


def _values(model: Model, other: Fact, sites: Sequence[Site], position: str) -> Float[torch.Tensor, "sites width"]:
    asked = question(model, other, (), 0)
    with model.evaluating():
        states = model.record(pad([asked.ids]), sites)
    return torch.stack([states[site][0, asked.at[position]] for site in sites]).float()


__all__ = ["CHEAP", "Profiles", "cheap", "lens_rise", "windowed"]


EXPERIMENT = Profiles
