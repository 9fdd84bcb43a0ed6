"""Where smollm2 can be edited, and whether tracing tells: layer x token sweep, and localisation against editing.

    python experiments/sweep_smollm2.py run [--part sweep,edits,traces,localisation]      # resumable; into run/ and results/sweep/
    python experiments/sweep_smollm2.py page                                               # docs/sweep-on-smollm2.md
    python experiments/sweep_smollm2.py trial                                              # 3 facts x 2 layers, into run/sweep-trial/

Parts:

    sweep          12 known shipped facts x 10 layers x 4 token roles, each edited by itself and undone
    edits          the 30 shipped facts that results/locate traced x 10 layers, at the last subject token
    traces         those facts and layers: states, and MLP outputs in windows of 5
    localisation   regressions of the success of `edits` on layer and on the effects of `traces`

Cut for two cores, and the page says so: ROME with the bare prompt alone instead of 5 contexts beside it, and 12 steps instead of 20; 3 noise
samples: about 25 core-minutes. The 12 facts of the sweep are chosen so that each has all four roles: a subject of three tokens or more, and text after it.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import palimpsest as pal
from palimpsest.evaluate.localisation import localisation, tracing_effects
from palimpsest.evaluate.sweep import ROLES, absent_role, sweep
from palimpsest.facts import Fact
from palimpsest.locate import knowledge, trace_facts
from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain

ROOT = Path(__file__).parents[1]
RUNS, RESULTS, TRACED = ROOT / "run" / "sweep", ROOT / "results" / "sweep", ROOT / "results" / "locate" / "facts.json"
LAYERS = (1, 3, 5, 7, 9, 12, 15, 18, 22, 27)  # dense where edits are published, and into the late layers
ROME: dict[str, Any] = {"method": "rome", "contexts": (), "steps": 12}
TRACE: dict[str, Any] = {"samples": 3}
KINDS = {"state": {"kind": "state"}, "mlp": {"kind": "mlp", "window": 5}}
METRICS = ("rewrite", "es", "em")
PLACES = ("max", "subject_last")
PARTS = ("sweep", "edits", "traces", "localisation")
LONGEST, SEED = 14, 7


def show(done: int, total: int, label: str) -> None:
    print(f"{done}/{total} {label}", flush=True)


def traced_facts() -> list[Fact]:
    """The 30 shipped facts of the tracing experiment, known to smollm2."""
    shipped = {fact.id: fact for fact in pal.read_facts("shipped").facts}
    return [shipped[name] for name in json.loads(TRACED.read_text("utf-8"))["ids"] if name in shipped]


def swept_facts(model: pal.Model, count: int = 12) -> list[Fact]:
    """Known shipped facts that have every role, relation after relation: those of the tracing first, then others in a drawn order."""
    shipped = pal.read_facts("shipped").facts
    order = np.random.default_rng(SEED).permutation(len(shipped))
    queue = list(dict.fromkeys([*traced_facts(), *(shipped[i] for i in order)]))
    able = [fact for fact in queue if not any(absent_role(model, fact, token) for token in ROLES)]
    able = [fact for fact in able if len(model.encode(fact.text)) <= LONGEST]
    known = [fact for fact, found in zip(able, knowledge(model, able), strict=True) if found.known and found.right[0]]
    relations: dict[str, list[Fact]] = {}
    for fact in known:
        relations.setdefault(fact.relation, []).append(fact)
    chosen: list[Fact] = []
    while len(chosen) < count and any(relations.values()):
        chosen += [own.pop(0) for own in relations.values() if own]
    return chosen[:count]


class Experiment:
    """The parts, on the facts, layers and folders of the experiment or of a trial."""

    def __init__(self, *, trial: bool = False) -> None:
        self.model = pal.load("smollm2")
        self.runs = RUNS.with_name("sweep-trial") if trial else RUNS
        self.results = self.runs / "results" if trial else RESULTS
        self.layers: Sequence[int] = LAYERS[1:3] if trial else LAYERS
        self.swept = swept_facts(self.model, 1 if trial else 12)
        self.traced = traced_facts()[2:5] if trial else traced_facts()

    def sweep(self) -> None:
        """12 facts x 10 layers x 4 roles."""
        found = sweep(self.model, self.swept, layers=self.layers, out=self.runs / "sweep", progress=show, **ROME)
        opening = [fact.id for fact in self.swept if self.model.encode(fact.text).tokens_of(*fact.subject_span)[0] == 0]
        self._store("sweep", found.to_json() | {"begin_with_subject": opening})

    def edits(self) -> Any:
        """30 facts x 10 layers at the last subject token."""
        return sweep(
            self.model,
            self.traced,
            layers=self.layers,
            tokens=("subject_last",),
            out=self.runs / "edits",
            progress=show,
            **ROME,
        )

    def traces(self) -> dict[str, list[dict[str, Any]]]:
        """States and windows of MLP outputs, of the same facts and layers."""
        maps = {}
        for label, kind in KINDS.items():
            settings: dict[str, Any] = {"layers": self.layers, **TRACE, **kind}
            name = str(settings.pop("kind"))
            found = trace_facts(
                self.model, self.traced, kinds=(name,), out=self.runs / f"traces-{label}", progress=show, **settings
            )
            maps[label] = found.maps(name)
        return maps

    def localisation(self) -> None:
        """Every regression, and the averages by layer that the figure shows. Finished edits and traces are read, not made again."""
        edits, maps = self.edits(), self.traces()
        result: dict[str, Any] = {
            "layers": list(self.layers),
            "regressions": [],
            "by_layer": {},
            "edits": edits.to_json(),
        }
        for label in KINDS:
            for at in PLACES:
                effects, _ = tracing_effects(maps[label], self.layers, at=at)
                result["by_layer"][f"{label}, {at}"] = np.mean(list(effects.values()), axis=0)
                for metric in METRICS:
                    found = localisation(edits, maps[label], metric=metric, at=at)
                    result["regressions"].append({"kind": label} | found.to_json())
                    show(
                        len(result["regressions"]), len(KINDS) * len(PLACES) * len(METRICS), f"{label}, {at}, {metric}"
                    )
        self._store("localisation", result)

    def _store(self, name: str, data: dict[str, Any]) -> None:
        self.results.mkdir(parents=True, exist_ok=True)
        atomic_write(self.results / f"{name}.json", json.dumps(plain(data), ensure_ascii=False, indent=1) + "\n")


def main() -> None:
    """`run [--part A,B]`, `trial` or `page`."""
    if sys.argv[1:2] == ["page"]:
        from sweep_smollm2_page import write  # beside this file

        return write()
    experiment = Experiment(trial=sys.argv[1:2] == ["trial"])
    for name in sys.argv[3].split(",") if sys.argv[2:3] == ["--part"] else PARTS:
        getattr(experiment, name)()
    return None


if __name__ == "__main__":
    main()
