"""A bench on the made world's model: facts it knows, of one relation whose subjects are equally long, and a few of another."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import palimpsest as pal
from palimpsest.audit.bench import Bench
from palimpsest.audit.setting import Place, Setting
from palimpsest.edit import moments
from palimpsest.facts import Fact
from palimpsest.locate.tracing.asked import ask
from palimpsest.model import Model
from palimpsest.world import made_world

LAYERS, CENTRE, WINDOW = (1, 4, 6), 4, 2  # the place's window holds layers 3 and 4
MAIN, OTHER = "profession", "employer"


@cache
def world() -> Model:
    return pal.load("world")


@cache
def known(main: int = 7, other: int = 2) -> dict[str, Fact]:
    """Facts that the model knows and whose foils begin otherwise; subjects have five tokens, and no two facts share one."""
    found: dict[str, Fact] = {}
    wanted = {MAIN: main, OTHER: other}
    for fact in made_world(0).records([MAIN, OTHER], probes=0):
        asked = ask(world(), fact)
        new = fact.subject not in {one.subject for one in found.values()}
        if asked.known and asked.foil and len(asked.subject) == 5 and new and wanted[fact.relation]:
            wanted[fact.relation] -= 1
            found[fact.id] = fact
    return found


def bench_of(folder: Path, *, model: Model | None = None, samples: int = 2) -> Bench:
    """A bench whose first facts confirm: four of the main relation, then one of the other, which has one partner."""
    ids = list(known())
    of = {name: [unit for unit in ids if known()[unit].relation == name] for name in (MAIN, OTHER)}
    confirming = (*of[MAIN][:4], of[OTHER][0])
    measured = model or world()
    setting = Setting(
        measured.name,
        measured.fingerprint(),
        measured.n_layers,
        Place("mlp", CENTRE, WINDOW),
        LAYERS,
        tuple(unit for unit in ids if unit not in confirming),
        confirming,
        samples=samples,
    )
    return Bench(measured, known(), setting, folder)


@contextmanager
def moments_in(folder: Path) -> Iterator[None]:
    """Second moments are kept here and not in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "cache_folder", lambda: folder / "moments")
        yield


@torch.no_grad()
def mlp_values(model: Model, ids: tuple[int, ...], at: int) -> list[Tensor]:
    """What every MLP wrote at one token, by hooks on a plain run."""
    found: list[Tensor] = []
    with handled(
        layer.mlp.register_forward_hook(lambda _, __, out: found.append(out[0, at].clone()))
        for layer in model.net.transformer.h
    ):
        model.net(torch.tensor([ids]))
    return found


@torch.no_grad()
def margin(model: Model, ids: tuple[int, ...], scored: tuple[int, int]) -> float:
    """Logit of the first scored token minus that of the second, by a plain run."""
    logits = model.net(torch.tensor([ids])).logits[0, -1]
    return float(logits[scored[0]] - logits[scored[1]])


def put(at: int, value: Tensor):
    """A hook that puts a value at one token of a module's output."""

    def function(_: nn.Module, __: object, out: Tensor) -> Tensor:
        changed = out.clone()
        changed[0, at] = value
        return changed

    return function


@contextmanager
def handled(handles: object) -> Iterator[None]:
    """Hooks that are gone after the block."""
    made = list(handles)  # type: ignore[call-overload]
    try:
        yield
    finally:
        for handle in made:
            handle.remove()
