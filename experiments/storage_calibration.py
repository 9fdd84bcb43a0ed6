"""What the tests of storage against entity bottleneck say where the answer is known.

    palimpsest world organisms --out run/organisms/all          # makes the organisms, once
    python experiments/storage_calibration.py [FOLDER]

Runs `palimpsest.audit.experiments.storage` without its edits on up to 24 facts of every accepted organism whose facts were planted in
one MLP (storage) and of every one where a new name of a known entity was (entity), at the planted layer, and writes the tests' values
to src/palimpsest/audit/data/storage.json. Only layers with organisms of both kinds count: some tests change with depth alone. A test that an organism does not allow (the facts lose nothing there) is left out for it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import palimpsest as pal
from palimpsest.audit.bench import Bench
from palimpsest.audit.experiments.storage import Storage, measured_tests
from palimpsest.audit.experiments.storage_likelihood import TESTS
from palimpsest.audit.setting import Place, Setting
from palimpsest.errors import PalimpsestError
from palimpsest.model import Model
from palimpsest.runs import atomic_write
from palimpsest.statistics import Estimate
from palimpsest.statistics.ranking import auroc
from palimpsest.world.organisms import Organism, load_organisms

ROOT = Path(__file__).parents[1]
ORGANISMS = ROOT / "run" / "organisms" / "all"
TARGET = ROOT / "src" / "palimpsest" / "audit" / "data" / "storage.json"
SIDES = {"mlp": "storage", "alias": "entity"}
FACTS = 24


def matched(organisms: Sequence[Organism]) -> list[Organism]:
    """The accepted ones of either kind in layers where both kinds are."""
    kept = [one for one in organisms if one.kind in SIDES and one.acceptance.accepted]
    layers = [{layer_of(one) for one in kept if SIDES[one.kind] == side} for side in ("storage", "entity")]
    return [one for one in kept if layer_of(one) in layers[0] & layers[1]]


def layer_of(organism: Organism) -> int:
    ((_, layer),) = organism.places["*"]
    return layer


def read(model: Model, organism: Organism) -> dict[str, Estimate]:
    """Every test's value in one organism, at its planted layer."""
    facts = {fact.id: fact for fact in organism.facts}
    layer = layer_of(organism)
    with organism.applied(model):
        names = tuple(facts)[:FACTS]
        setting = Setting(model.name, model.fingerprint(), model.n_layers, Place("mlp", layer), (layer,), (), names)
        made, bench, rows = Storage(edits=False), Bench(model, facts, setting), []
        for unit in made.units(setting):
            try:
                rows.append({"id": unit, **made.measure(bench, unit)})
            except PalimpsestError as error:
                print(f"  {unit}: {error}")
    return measured_tests([row for row in rows if row["target"]], facts)


def table(found: dict[str, dict[str, dict[str, Estimate]]]) -> dict[str, dict[str, list[float]]]:
    """Test -> side -> values, in the order of the organisms."""
    return {
        test: {side: [values(one, test) for one in of.values() if test in one] for side, of in found.items()}
        for test in TESTS
    }


def values(one: dict[str, Estimate], test: str) -> float:
    return float(f"{one[test].value:.4g}")


def separated(sides: dict[str, Sequence[float]]) -> float | None:
    """AUROC of storage below entity or above it, whichever; None where a side is empty."""
    if not all(sides.values()):
        return None
    scores = [*sides["storage"], *sides["entity"]]
    area = auroc(scores, [1] * len(sides["storage"]) + [0] * len(sides["entity"]))
    return max(area, 1 - area)


def main() -> None:
    """Measure and write."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ORGANISMS
    models: dict[str, Model] = {}
    found: dict[str, dict[str, dict[str, Estimate]]] = {"storage": {}, "entity": {}}
    for organism in matched(load_organisms(folder)):
        model = models.setdefault(organism.base, pal.load(organism.base))
        found[SIDES[organism.kind]][organism.name] = tests = read(model, organism)
        print(organism.name, {name: str(tests[name]) for name in TESTS if name in tests}, flush=True)
    tests = table(found)
    card = {
        "format": "palimpsest-audit-storage/1",
        "made_by": "python experiments/storage_calibration.py",
        "facts": FACTS,
        "organisms": {side: list(of) for side, of in found.items()},
        "tests": tests,
        "auroc": {test: separated(sides) for test, sides in tests.items()},
    }
    atomic_write(TARGET, json.dumps(card, indent=1) + "\n")
    print(f"{TARGET.relative_to(ROOT)}: {card['auroc']}")


if __name__ == "__main__":
    main()
