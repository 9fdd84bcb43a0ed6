"""Where a claim is tested: chosen by the facts that choose, of which one that cannot be measured stops no other."""

from pathlib import Path

import pytest

from oracles.small_audit import bench_of
from palimpsest.audit.claim import ClaimedPlace
from palimpsest.audit.experiments.tracing import Tracing
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
