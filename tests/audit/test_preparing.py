"""Where a claim is tested, chosen by the facts that choose; and on how many, where minutes are short."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles.small_audit import bench_of
from palimpsest.audit.claim import ClaimedPlace
from palimpsest.audit.experiments.tracing import Tracing
from palimpsest.audit.planning import RESERVE, AuditPlan, planned
from palimpsest.audit.preparing import discovered
from palimpsest.errors import FactError

MEASURE = Tracing.measure
ANYWHERE = ClaimedPlace("mlp", "last subject token", None, None)


def _choice(folder: Path, monkeypatch: pytest.MonkeyPatch, refused: int) -> tuple[int, int]:
    """The layer chosen where the first so many discovery facts cannot be measured, and how many could not."""
    bench = bench_of(folder)
    bad = bench.setting.discovery[:refused]

    def measure(self, at, unit):
        if unit in bad:
            raise FactError(f"The fact {unit} cannot be traced.")
        return MEASURE(self, at, unit)

    monkeypatch.setattr(Tracing, "measure", measure)
    return discovered(bench, ANYWHERE, folder, None), len(bench.setting.discovery)


def test_a_discovery_fact_that_fails_chooses_nothing_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = bench_of(tmp_path).setting.layers
    layer, facts = _choice(tmp_path / "some", monkeypatch, 1)
    assert facts > 1
    assert layer in layers


def test_only_layers_at_the_depths_of_the_claim_can_be_chosen(tmp_path: Path) -> None:
    bench = bench_of(tmp_path)
    n_layers, (first, *_, last) = bench.setting.n_layers, bench.setting.layers
    for layer in (first, last):
        depth = layer / (n_layers - 1)
        place = ClaimedPlace("mlp", "last subject token", None, None, (depth, depth))
        assert discovered(bench, place, tmp_path / str(layer), None) == layer


def test_where_no_discovery_fact_can_be_measured_the_place_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(tmp_path)
    layer, _ = _choice(tmp_path / "none", monkeypatch, len(bench.setting.discovery))
    assert layer == bench.setting.place.centre


@dataclass(frozen=True)
class Priced:
    """An experiment of so many facts that cost so much each."""

    many: int
    cost: float
    name: str = "priced"
    criteria: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def units(self, setting: Any) -> list[str]:
        return [str(i) for i in range(self.many)]

    def seconds(self, bench: Any) -> float:
        return self.cost


@given(
    costs=st.lists(st.floats(0.5, 40.0), min_size=2, max_size=8),
    minutes=st.floats(5.0, 200.0),
    besides=st.floats(0.0, 4.0),
)
def test_facts_are_given_up_so_that_the_intervals_are_narrowest(
    costs: list[float], minutes: float, besides: float
) -> None:
    bench = SimpleNamespace(setting=SimpleNamespace(size="standard", layers=(0, 1), n_layers=2))
    made = {f"e{i}": Priced(400, cost) for i, cost in enumerate(costs)}
    plan = planned(bench, made, minutes, besides)  # type: ignore[arg-type]
    units = {step.experiment: step.units for step in plan.steps}
    assert plan.estimated == pytest.approx(besides + sum(units[f"e{i}"] * cost for i, cost in enumerate(costs)) / 60)
    least = 30
    assert plan.estimated <= (1 - RESERVE) * minutes + 1e-9 or set(units.values()) == {least}
    free = [units[f"e{i}"] * cost**0.5 for i, cost in enumerate(costs) if least < units[f"e{i}"] < 400]
    assert not free or max(free) / min(free) < 1.3  # steps of a tenth, and whole facts
    assert AuditPlan.from_json(plan.to_json(), plan.layers, plan.n_layers).estimated == pytest.approx(
        plan.estimated, abs=0.01
    )
