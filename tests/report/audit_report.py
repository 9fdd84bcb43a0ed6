"""A made report of an audit for the tests of its page: every status, an underpowered criterion, hostile strings, missing parts.

The dataclasses of the audit write it, so that a field that is renamed there breaks the tests here.
"""

import json
import math
from importlib import resources
from typing import Any

import numpy as np

from palimpsest.audit.artefacts import artefacts
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.report_data import (
    AuditReport,
    CriterionResult,
    EndpointResult,
    LensResult,
    NextExperiment,
    PredictionResult,
    ReadingReport,
    Rung,
    Status,
    Verdict,
    Wording,
)
from palimpsest.audit.setting import LAST, SUBJECT, Place, Setting
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate

EVIL = "<script>document.title='broken'; alert(1)</script>"
LAYERS = (0, 1, 2, 3, 4, 5, 6, 7)
READINGS = ("mediates", "changes", "stored", EVIL)
TIERS = ("Proposed", "Causally suggestive", "Mechanistically supported", "Triangulated", "Validated")
MEASURED = {  # criterion to endpoint, status, floor, bar, estimate
    "C1": ("severity", "PASS", 0.8, 0.95, (0.98, 0.96, 1.0)),
    "C2": ("readout", "PARTIAL", 0.6, 0.75, (0.72, 0.65, 0.78)),
    "C3": ("task-ratio", "WEAK", 1.0, 2.0, (1.4, 0.7, 2.3)),
    "C5": ("convergence", "FAIL", 0.2, 0.5, (-0.1, -0.3, 0.1)),
    "I1": ("lesion-mean", "PASS", 0.05, 0.1, (0.31, 0.26, 0.36)),
    "I2": ("restoration", "PARTIAL", 0.5, 0.7, (0.61, 0.55, 0.67)),
    "I4": ("consistency", "WEAK", 0.0, 0.0, (0.2, -0.1, 0.5)),
    "E2": ("graded", "PASS", 0.7, 0.9, (0.95, 0.92, 0.98)),
    "E3": ("therapeutic-index", "WEAK", 1.0, 3.0, (1.6, 0.8, math.inf)),
    "M1": ("reliability", "PASS", 0.5, 0.75, (0.9, 0.85, 0.94)),
    "M3": ("baseline-gap", "PASS", 0.0, 0.1, (0.4, 0.3, 0.5)),
    "M4": ("sensitivity", "PARTIAL", 0.7, 0.85, (0.83, 0.74, 0.9)),
    "M5": ("calibration", "FAIL", -0.1, 0.0, (-0.2, -0.25, -0.15)),
    "V4": ("storage", "NA", -0.477, 1.0, (0.1, -0.4, 0.6)),
}
NULLED = "I1"  # has controls, one of them not sane
UNDERPOWERED = ("C3", "E3")


def estimate(value: float, low: float, high: float, n: int = 52, unit: str = "share") -> Estimate:
    """With round numbers of records."""
    return Estimate(value, low, high, n, 11, method="cluster bootstrap, 2000", unit=unit)


def criteria() -> list[dict[str, Any]]:
    """The shipped criteria."""
    text = (resources.files("palimpsest.audit") / "data" / "criteria.json").read_text("utf-8")
    return [{"id": name, **record} for name, record in json.loads(text)["criteria"].items()]


def curve(start: float, end: float) -> dict[str, list[float]]:
    """A band over 17 doses."""
    line = np.linspace(start, end, 17)
    return {"value": line.tolist(), "low": (line - 0.05).tolist(), "high": (line + 0.05).tolist()}


def profile(peak: int, height: float) -> dict[str, Any]:
    """A profile by layer."""
    line = np.array([height / (1 + abs(layer - peak)) - 0.1 for layer in LAYERS])
    return {
        "layers": list(LAYERS),
        "value": line.tolist(),
        "low": (line - 0.1).tolist(),
        "high": (line + 0.1).tolist(),
        "n": 52,
    }


def data_of(endpoint: str) -> dict[str, Any]:
    """What the experiments keep for figures, in their shapes."""
    two = {SUBJECT: profile(3, 0.7), LAST: profile(6, 0.4)}
    doses = np.linspace(0, 3, 17).tolist()
    one = estimate(1.6, 0.8, 2.4).to_json()
    line = [0.1, 0.2, 0.5, 0.9, 0.4, 0.3, 0.2, 0.1]
    return {
        "convergence": {
            "mtmm": {
                "profiles": {
                    trait: {
                        method: line if method != "sweep" else line[::-1] for method in ("tracing", "lesion", "sweep")
                    }
                    for trait in ("facts", f"syntax {EVIL}")
                },
                "reliability": {"facts": {"tracing": 0.9}},
                "circular": [["tracing", "sweep"]],
            }
        },
        "storage": {
            "tests": {"sigma-subspace": one, "beta": one},
            "log10_likelihood_ratio": {"sigma-subspace": -0.6, "beta": 0.2, EVIL: 0.1},
            "without": {"sigma-subspace": 0.3, "beta": -0.5},
            "auroc_on_organisms": {"beta": 0.8},
            "accounts": {"storage": 0.25, "entity": 0.5, "undecided": 0.25},
        },
        "sigma-subspace": {"facts": {"f1": [0.2, 1.0], "f2": [0.9, 1.0], EVIL: [0.4, 0.0]}},
        "residue": {"after": one, "before": one, "readouts": ["logit lens"]},
        "facets": {"facets": {"target": one, EVIL: one}, "n": {}},
        "restoration": {"profiles": two, "withheld": {EVIL: "total effect not positive"}},
        "lesion-mean": {"profiles": two},
        "baseline-gap": {
            "profiles": {SUBJECT: {"layers": list(LAYERS), "trained": [0.5] * 8, "untrained": [0.01] * 7 + [None]}}
        },
        "graded": {
            "curves": {
                "doses": doses,
                **{name: {"p": curve(0, 0.9), "log_odds": curve(-9, 3)} for name in ("target", "neighbours")},
            },
            "random": {"doses": doses, "target": {"p": curve(0, 0.1), "log_odds": curve(-9, -7)}},
        },
        "therapeutic-index": {
            "worst": "neighbours",
            "ED50": estimate(0.9, 0.8, 1.0).to_json(),
            "index": {"neighbours": one},
            "TD20": {"neighbours": one},
            "certain safety factor": {"neighbours": one},
            "P(TI > 1)": {"neighbours": one},
        },
        "sensitivity": {
            "planted": [1, 3, 5],
            "reported": [1, 2, 5],
            "organisms": ["a", EVIL, "c"],
            "positive_control": one,
        },
    }.get(endpoint, {})


def evidence() -> list[Evidence]:
    """One record an endpoint, one of them hostile, one about a task."""
    found = []
    for criterion, (endpoint, _, _, _, ends) in MEASURED.items():
        controls = ()
        if criterion == NULLED:
            controls = (
                Control("N1", estimate(0.07, 0.02, 0.12), f"other layers {EVIL}", sane=False),
                Control("N6", estimate(0.9, 0.8, 1.0), "by the author", provenance="claim-author"),
            )
        found.append(
            Evidence(
                "some",
                endpoint,
                (criterion,),
                "causal",
                "interventional",
                estimate(*ends),
                controls,
                p=0.01,
                note=f"note {EVIL}",
                data=data_of(endpoint),
            )
        )
    beside = ("false-edges", "residue", "facets", "sigma-subspace", "double-dissociation")
    for endpoint, about in (
        ("edge", "subject->S-mlp"),
        ("edge", f"S-state->{EVIL} (attention)"),
        *((name, "") for name in beside),
    ):
        found.append(
            Evidence(
                "some",
                endpoint,
                (),
                "causal",
                "interventional",
                estimate(0.3, 0.2, 0.4),
                about=about,
                data=data_of(endpoint),
            )
        )
    nothing = Estimate(math.nan, math.nan, math.nan, 0, 0)
    return [*found, Evidence("some", "task-ratio", ("C3",), "causal", "interventional", nothing, about=EVIL)]


def result(record: dict[str, Any], index: int) -> CriterionResult:
    """How a criterion stands in a reading."""
    name = record["id"]
    shared = {
        "criterion": name,
        "name": record["name"],
        "lens": record["lens"],
        "question": record["question"],
        "extension": bool(record.get("extension", False)),
        "procedural": False,
        "published": {"status": "Weak", "reason": f"judged {EVIL}"} if name != "I6" else {},
    }
    if name not in MEASURED:
        lost = EndpointResult(
            f"{name}-endpoint", None, Status.NOT_TESTED, 0.5, 0.7, None, None, False, None, "was not run: 40 minutes"
        )
        return CriterionResult(**shared, status=Status.NOT_TESTED, reason="nothing was measured", endpoints=(lost,))
    endpoint, status, floor, bar, ends = MEASURED[name]
    held = EndpointResult(
        endpoint, f"some/{endpoint}", Status(status), floor, bar, estimate(*ends), 0.02, False, None, f"because {EVIL}"
    )
    weak = name in UNDERPOWERED
    return CriterionResult(
        **shared,
        status=Status(status if index < 2 or status == "NA" else "FAIL"),
        narrow=name == "I1",
        underpowered=weak,
        n_needed=180 if weak else None,
        reason=f"lower end {ends[1]}",
        evidence=(f"some/{endpoint}",),
        endpoints=(held,),
        upgrade="more facts",
        later_word="Inconclusive",
    )


def reading(name: str, index: int) -> ReadingReport:
    """One reading, blocked at a rung of its own."""
    found = {record["id"]: result(record, index) for record in criteria()}
    ladder = tuple(
        Rung(tier, i <= index, () if i <= index else (f"I2 is partial {EVIL}", "M5 fails"))
        for i, tier in enumerate(TIERS)
    )
    return ReadingReport(
        reading=name,
        text=f"The {EVIL} is stored there.",
        tag="storage",
        rules="mv27-formal",
        rules_sha256="b" * 64,
        weights="c" * 64,
        criteria=found,
        lenses=tuple(
            LensResult(lens, "C1", "C5", Status.PASS, Status.WEAK, "")
            for lens in ("Construct", "Measurement", "Internal", "External", "Interpretive")
        ),
        predictions=(
            PredictionResult(
                "p1", f"predicted {EVIL}", "I1", "lesion-mean", 0.05, 0.1, ("r",), "confirmed", (), "because"
            ),
        ),
        verdict=Verdict(
            TIERS[index],
            "Disconfirmed" if index == 2 else "",
            "V4 speaks against it" if index == 2 else "",
            ladder,
            ladder[index + 1].blocked_by,
            "storage",
            "causal-mechanistic",
            "I2 is PARTIAL.",
        ),
        wording=Wording(
            "The fact is stored there.",
            "The fact is mediated there.",
            (("kept", "The fact is "), ("struck", "stored"), ("added", "mediated"), ("kept", f" there. {EVIL}")),
            ("stored",),
            "no evidence of storage",
        ),
        next=NextExperiment("I2", "edit-advantage", "edit-layers", 120, f"Run edit-layers on 120 facts. {EVIL}"),
        counts={"measured": len(MEASURED)},
    )


def audit_report(**changed: Any) -> dict[str, Any]:
    """The report as plain data that has been through JSON, as the command reads it."""
    setting = Setting("world", "c" * 64, 8, Place("mlp", 3, 3), LAYERS, ("d1", "d2"), ("f1", "f2", "f3"))
    records, readings = evidence(), tuple(reading(name, i) for i, name in enumerate(READINGS))
    report = AuditReport(
        claim={
            "schema": "palimpsest-claim/1",
            "name": "made",
            "text": f"Facts about {EVIL} are stored in the middle.",
            "source": EVIL,
        },
        claim_sha256="a" * 64,
        model=f"world {EVIL}",
        weights="c" * 64,
        setting=setting.to_json(),
        gates={"G0 environment": "passed", "G2 effect": "passed"},
        readings=readings,
        evidence=tuple(one.to_json() for one in records),
        artefacts=artefacts(records, readings),
        nulls={},
        left_out=(f"{EVIL}: the model does not know it.", "transport: no second model; about 12 minutes."),
        versions={"palimpsest": "0.1", "python": "3.12"},
        command=f"palimpsest audit world {EVIL}",
        facts={"f1": {"subject": EVIL, "relation": "r", "prompt": "p"}},
    )
    made: dict[str, Any] = json.loads(json.dumps(plain({**report.to_json(), **changed})))
    return made
