"""Choose layers and settings of every editing method in `world`, and measure the choice on other facts and another base.

    python experiments/world_edit_defaults.py run        # resumable; results/world-edit-defaults.json
    python experiments/world_edit_defaults.py page       # docs/editing-world.md

Chosen on one split, reported on another: of the known facts in a seeded order the first 24 choose and the next 80 report, one edit
a fact. The winner of a method has the best S (harmonic mean of ES, PS and NS); the same settings are then measured on
`world-seed1`, another world and another training, which chose nothing.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import palimpsest as pal
from palimpsest.evaluate.suites.counterfact import HIGHER_IS_BETTER
from palimpsest.facts import Fact
from palimpsest.locate import passing
from palimpsest.model import Model
from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain
from palimpsest.world import made_world

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "results" / "world-edit-defaults.json", ROOT / "docs" / "editing-world.md"
CHOOSE, REPORT = 24, 80
BASES = {"world": 0, "world-seed1": 1}
SPREADS = ((0, 1, 2), (1, 2, 3), (0, 1, 2, 3), (2, 3, 4))
GRID: dict[str, list[dict[str, Any]]] = {
    "rome": [{"layers": (layer,)} for layer in (1, 2, 3, 4)],
    "memit": [{"layers": layers, "clamp": 4.0, "moment_weight": w} for layers in SPREADS for w in (30.0, 300.0)],
    "emmet": [{"layers": (layer,), "clamp": 4.0} for layer in (2, 3)],
    "alphaedit": [{"layers": layers, "clamp": 4.0} for layers in SPREADS],
    "ft": [{"layers": (layer,)} for layer in (1, 3, 5)],
    "ft-l": [{"layers": (layer,), "epsilon": bound} for layer in (1, 3, 5) for bound in (0.016, 0.064)],
}


def splits(model: Model, seed: int) -> tuple[list[Fact], list[Fact]]:
    """Facts that choose and facts that report, all known to the model."""
    facts = [fact for fact in made_world(seed).records() if fact.target_true and fact.target_new]
    Random(0).shuffle(facts)
    known = passing(model, facts, "known", limit=CHOOSE + REPORT)
    return known[:CHOOSE], known[CHOOSE:]


def measured(model: Model, facts: Sequence[Fact], method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One edit a fact, each undone: the CounterFact metrics after the edit."""
    name, own = ("ft", {"preset": "ft-l"}) if method == "ft-l" else (method, {})
    scores = pal.evaluate(model, facts, method=name, suite="counterfact", **own, **settings)
    return {
        metric: plain(found.to_json()) for metric in HIGHER_IS_BETTER if (found := scores.estimate(metric)) is not None
    }


def run() -> None:
    """Every cell that is missing."""
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for base, seed in BASES.items():
        model = pal.load(base)
        choose, report = splits(model, seed)
        for method, grid in GRID.items():
            if base == "world":
                for settings in grid:
                    cell(found, f"choose/{method}/{json.dumps(settings)}", model, choose, method, settings)
            cell(found, f"report/{base}/{method}", model, report, method, chosen(found, method))


def cell(
    found: dict[str, Any], name: str, model: Model, facts: Sequence[Fact], method: str, settings: dict[str, Any]
) -> None:
    """Measure one cell unless it is there, and store it."""
    if name not in found:
        found[name] = measured(model, facts, method, settings)
        print(name, {metric: round(found[name][metric]["value"], 3) for metric in ("es", "ps", "ns", "s")}, flush=True)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(RESULTS, json.dumps(found, indent=1) + "\n")


def chosen(found: dict[str, Any], method: str) -> dict[str, Any]:
    """The settings of the grid with the best S on the facts that choose."""
    return max(GRID[method], key=lambda settings: found[f"choose/{method}/{json.dumps(settings)}"]["s"]["value"])


if __name__ == "__main__":
    {"run": run}[sys.argv[1]]()
