"""Evidence and readings that the tests of artefacts are given."""

import math

import numpy as np

from palimpsest.audit.artefacts import graph
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiments.dose import DOSES, RANDOM_DOSES
from palimpsest.audit.experiments.edges import EDGES
from palimpsest.audit.report_data import (
    CriterionResult,
    PredictionResult,
    ReadingReport,
    Status,
    Verdict,
    Wording,
)
from palimpsest.audit.setting import Place, Setting
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate

FACTS = {
    f"f{i}": Fact(
        subject=f"City {i}", prompt="{} lies in", target_true=" A", target_new=" B", id=f"f{i}", relation=f"r{i % 3}"
    )
    for i in range(12)
}
SETTING = Setting(
    model="none",
    weights="0",
    n_layers=6,
    place=Place("mlp", 2),
    layers=(0, 2, 4),
    discovery=(),
    confirmation=tuple(FACTS),
)


def estimated(low: float, high: float | None = None, n: int = 20) -> Estimate:
    high = low + 0.1 if high is None else high
    return Estimate((low + high) / 2, low, high, n, n)


def record(endpoint: str, low: float, high: float | None = None, **options) -> Evidence:
    given = {"experiment": "test", "criteria": (), "family": "causal", "mode": "interventional", **options}
    return Evidence(endpoint=endpoint, estimate=estimated(low, high), **given)


def edge(about: str, low: float, high: float | None = None, **options) -> Evidence:
    return record("edge", low, high, about=about, **options)


def prediction(
    name: str, outcome: str, rivals: tuple[str, ...] = (), evidence: tuple[str, ...] = ()
) -> PredictionResult:
    return PredictionResult(name, f"{name} is seen", "I1", f"endpoint-{name}", 0.1, 0.2, rivals, outcome, evidence, "")


def reading(predictions=(), endpoints=()) -> ReadingReport:
    criterion = CriterionResult(
        "I1", "Necessity", "Internal", "?", False, False, Status.WEAK, endpoints=tuple(endpoints)
    )
    return ReadingReport(
        reading="mediates",
        text="States mediate recall.",
        tag="causal-mechanistic",
        rules="mv27-formal",
        rules_sha256="0",
        weights="0",
        criteria={"I1": criterion},
        lenses=(),
        predictions=tuple(predictions),
        verdict=Verdict("Proposed", "", "", (), (), "causal-mechanistic", "functional", ""),
        wording=Wording("", "", (), (), ""),
        next=None,
        counts={},
    )


def drawn(evidence, source, target):
    (found,) = [one for one in graph(evidence)["edges"] if (one["source"], one["target"]) == (source, target)]
    return found


def edge_rows(untrained: float = 0.0) -> list[dict]:
    rng = np.random.default_rng(1)

    def effects(height: float) -> dict:
        return {name: [0.0, height * (1 + 0.1 * rng.normal()), 0.0] for name in EDGES} | {
            "F-state->output": [height] * 3
        }

    return [
        {"id": name, "layers": [0, 2, 4], "total": 2.0, "withheld": "", **effects(1.0), "untrained": effects(untrained)}
        for name in FACTS
    ]


def dose_rows(harm: float = 0.0) -> list[dict]:
    rows = []
    for i, name in enumerate(FACTS):

        def read(doses, ed50, harm):
            p = [d**4 / (d**4 + ed50**4) for d in doses]
            kept = [1 - harm * q for q in p]
            move = {"p": p, "log_odds": [math.log(max(q, 1e-6) / max(1 - q, 1e-6)) for q in p], "right": p, "moved": p}
            stay = {"p": p, "log_odds": [0.0] * len(p), "right": kept, "moved": [harm * q for q in p], "kept": kept}
            return {"target": move, "same_subject": stay, "neighbours": stay}

        rows.append(
            {
                "id": name,
                "layer": 2,
                "norm": 1.0,
                "doses": list(DOSES),
                "strata": read(DOSES, 0.6 + 0.01 * i, harm),
                "random_doses": list(RANDOM_DOSES),
                "random": read(RANDOM_DOSES, 50.0, 0.0),
            }
        )
    return rows
