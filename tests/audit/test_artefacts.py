"""Artefacts: evidence in, plain data out; what was not measured says so; what experiments conclude is read as they write it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from palimpsest.audit.artefacts import artefacts, dissociation, dose_response, graph, levels, mtmm, network, storage
from palimpsest.audit.artefacts.dose_response import window
from palimpsest.audit.artefacts.explanation_graph import ALSO
from palimpsest.audit.artefacts.level_evidence import METHODS
from palimpsest.audit.artefacts.nomological import RELATIONS, density
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiments.dissociation import Dissociation
from palimpsest.audit.experiments.dose import DOSES, RANDOM_DOSES, Doses
from palimpsest.audit.experiments.edges import EDGES, Edges
from palimpsest.audit.report_data import (
    CriterionResult,
    EndpointResult,
    PredictionResult,
    ReadingReport,
    Status,
    Verdict,
    Wording,
)
from palimpsest.audit.rules import read_rules
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


# the whole


def test_nothing_measured_is_shown_as_nothing_measured():
    found = artefacts([], [reading([prediction("a", "not tested")])])
    assert sorted(found) == ["dissociation", "dose", "graph", "levels", "mtmm", "network", "storage"]
    json.dumps(found, allow_nan=False)
    assert {cell["why"] for row in found["dissociation"]["cells"] for cell in row} == {"not measured"}
    assert found["dissociation"]["double"]["met"] is None
    assert {one["style"] for one in found["graph"]["edges"]} == {"untested"}
    assert "not measured" in {one["why"] for one in found["graph"]["edges"]}
    assert found["network"]["readings"][0]["status"] == "NOT_TESTED"
    assert {cell["status"] for line in found["levels"]["readings"]["mediates"] for cell in line["cells"]} == {
        "NOT_RUN",
        "NOT_APPLICABLE",
    }
    for name in ("dose", "mtmm", "storage"):
        assert found[name]["why"].endswith(".")


def test_evidence_read_back_from_its_file_gives_the_same():
    evidence = [
        *Doses().conclude(SETTING, FACTS, {"dose": dose_rows()}),
        *Edges().conclude(SETTING, FACTS, {"edges": edge_rows()}),
        record("restoration", 0.5, data={"facts": {name: i / 12 for i, name in enumerate(FACTS)}}),
    ]
    stored = [Evidence.from_json(json.loads(json.dumps(one.to_json()))) for one in evidence]
    first, second = artefacts(evidence, [reading()]), artefacts(stored, [reading()])
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)


# the nomological network


def test_network_counts_and_density():
    found = network(
        [record("endpoint-a", 0.3)],
        [
            reading(
                [
                    prediction("a", "confirmed", evidence=("test/endpoint-a",)),
                    prediction("b", "supported"),
                    prediction("c", "contradicted", ("bottleneck",)),
                    prediction("d", "contradicted", ("bottleneck", "distributed")),
                    prediction("e", "not tested"),
                ]
            )
        ],
    )["readings"][0]
    assert [found[name] for name in ("predicted", "tested", "confirmed", "contradicted", "untested")] == [5, 4, 1, 2, 1]
    assert found["share"]["value"] == 0.25
    assert found["status"] == "FAIL"
    assert found["banner"] == "The network supports a rival: bottleneck predicted 2 of 2 contradictions."
    assert [one["style"] for one in found["edges"]] == ["solid", "dashed", "refuted", "refuted", "untested"]
    assert found["edges"][0]["estimate"]["low"] == 0.3
    assert {node["id"] for node in found["nodes"]} >= {"mediates", "endpoint-a"}


@pytest.mark.parametrize(
    ("tested", "confirmed", "contradicted", "status"),
    [
        (0, 0, 0, "NOT_TESTED"),
        (8, 8, 0, "PASS"),
        (5, 5, 0, "PARTIAL"),
        (8, 5, 0, "PARTIAL"),
        (8, 7, 1, "WEAK"),
        (8, 0, 0, "WEAK"),
        (8, 6, 2, "FAIL"),
    ],
)
def test_density_rule(tested, confirmed, contradicted, status):
    assert density(tested, confirmed, contradicted)[1] == status


def test_relations_are_measured_fact_by_fact():
    rng = np.random.default_rng(0)
    share = rng.uniform(size=12)
    facts = dict(zip(FACTS, share, strict=True))
    profiles = {"last subject token": {"layers": [0, 2], "value": [0.1, 0.55], "low": [0, 0], "high": [1, 1]}}
    restored = record(
        "restoration",
        0.5,
        0.6,
        data={"facts": {name: [0.0, value] for name, value in facts.items()}, "profiles": profiles},
    )
    lost = record("lesion-interchange", 0.2, data={"facts": {name: value**2 for name, value in facts.items()}})
    doses = [{"id": name, "ED50": math.inf if value < 0.2 else 1 - value} for name, value in facts.items()]
    works = record("therapeutic-index", 1.0, data={"doses": doses})
    by = {tuple(one["between"]): one for one in network([restored, lost, works], [])["relations"]}
    assert by["restoration", "lesion-interchange"]["rho"]["value"] == 1.0
    assert by["restoration", "lesion-interchange"]["outcome"] == "confirmed"
    assert by["restoration", "therapeutic-index/ED50"]["rho"]["value"] < -0.9
    assert by["restoration", "therapeutic-index/ED50"]["outcome"] == "confirmed"
    missing = by["restoration", "edit-advantage"]
    assert (missing["outcome"], missing["rho"]) == ("not tested", None)
    assert "no values by fact of edit-advantage" in missing["why"]
    turned = record("lesion-interchange", 0.2, data={"facts": {name: -value for name, value in facts.items()}})
    assert network([restored, turned], [])["relations"][0]["outcome"] == "contradicted"


# the explanation graph


def test_styles():
    assert drawn([edge("S-mlp->S-state", 0.3)], "S-mlp", "S-state")["style"] == "solid"
    assert drawn([edge("S-mlp->S-state", 0.02)], "S-mlp", "S-state")["style"] == "dashed"
    assert drawn([edge("S-mlp->S-state", -0.2, -0.1)], "S-mlp", "S-state")["style"] == "refuted"
    assert drawn([edge("S-mlp->S-state", 0.3, mode="observational")], "S-mlp", "S-state")["style"] == "dashed"
    assert drawn([edge("S-mlp->S-state", 0.3, split="discovery")], "S-mlp", "S-state")["style"] == "untested"
    null = Control("N1", estimated(0.5))
    assert drawn([edge("S-mlp->S-state", 0.3, controls=(null,))], "S-mlp", "S-state")["style"] == "dashed"
    insane = Control("N6", estimated(0.0), sane=False)
    assert drawn([edge("S-mlp->S-state", 0.3, controls=(insane,))], "S-mlp", "S-state")["style"] == "dashed"
    labelled = drawn([edge("S-state->F-state (attention)", 0.3)], "S-state", "F-state")
    assert (labelled["label"], labelled["evidence"]) == ("attention", ["test/edge/S-state->F-state (attention)"])


def test_double_asks_for_independent_families():
    first, other = edge("S-mlp->S-state", 0.3), edge("S-mlp->S-state", 0.3, experiment="else", family="weights")
    assert drawn([first, other], "S-mlp", "S-state")["style"] == "double"
    assert drawn([first, replace(other, family="causal")], "S-mlp", "S-state")["style"] == "solid"
    assert drawn([first, replace(other, depends_on=(first.id,))], "S-mlp", "S-state")["style"] == "solid"


def test_storage_edge_asks_for_an_instrument_that_sees_storage():
    removed = record("lesion-weights", 0.3, family="weights")
    assert graph([removed])["queries"]["storage"] == "dashed"
    assert graph([removed, record("sensitivity", 0.5, 0.9, level="instrument")])["queries"]["storage"] == "dashed"
    seen = graph([removed, record("sensitivity", 0.8, 0.9, level="instrument")])
    assert seen["queries"]["storage_solid"]
    assert graph([record("sensitivity", 0.8, 0.9)])["queries"]["storage"] == "untested"


def test_path_from_input_to_output():
    whole = [edge("subject->S-mlp", 0.3), edge("S-mlp->S-state", 0.3), edge("S-state->output", 0.3)]
    found = graph(whole)
    assert found["queries"]["path"] == ["subject", "S-mlp", "S-state", "output"]
    assert found["sentences"][0].startswith("Solid edges lead from input to output: tokens of the subject to MLP")
    assert not graph(whole[:2])["queries"]["solid_path"]
    assert not graph([*whole[:2], edge("S-state->output", 0.01)])["queries"]["solid_path"]
    assert graph([record("restoration", 0.5)])["queries"]["path"] == ["subject", "S-mlp", "output"]


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


def test_edges_as_the_experiment_concludes_them_and_none_in_an_untrained_model():
    found = graph(Edges().conclude(SETTING, FACTS, {"edges": edge_rows()}))
    solid = {(one["source"], one["target"]) for one in found["edges"] if one["style"] == "solid"}
    assert {("S-mlp", "output"), ("S-state", "F-state"), ("F-state", "output")} <= solid
    assert found["queries"]["false_edges"] == 0
    assert "0 edges came out solid" in found["sentences"][2]
    haunted = graph(Edges().conclude(SETTING, FACTS, {"edges": edge_rows(untrained=1.0)}))
    assert haunted["queries"]["false_edges"] == len(EDGES)
    assert not [one for one in haunted["edges"] if one["style"] == "solid"]


# dose and response, dissociation


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


def test_dose_response_as_the_experiment_concludes_it():
    found = dose_response(Doses().conclude(SETTING, FACTS, {"dose": dose_rows(harm=1.0)}))
    assert len(found["doses"]) == len(found["curves"]["target"]["value"]) == 17
    assert found["curves"]["target"]["quantity"] == "p(new answer)"
    assert found["curves"]["same_subject"]["quantity"] == "share of prompts right"
    assert found["hill"]["ed50"] == pytest.approx(0.65, abs=0.03)
    assert found["hill"]["slope"] == pytest.approx(4, abs=0.4)
    assert (found["shape"], found["hill"]["r2"] > 0.99, found["isotonic_r2"] > 0.99) == ("hill", True, True)
    assert found["ed50"]["value"] == pytest.approx(0.65, abs=0.03)
    assert found["td20"]["neighbours"]["value"] < found["ed50"]["value"]
    assert not found["window"]["open"]
    assert found["window"]["sentence"].startswith("No window: the edit half-works at dose 0.6")
    assert len(found["random"]["doses"]) == len(RANDOM_DOSES)
    harmless = dose_response(Doses().conclude(SETTING, FACTS, {"dose": dose_rows()}))
    assert harmless["td20"]["neighbours"]["value"] == "inf"
    assert harmless["window"]["open"]
    assert "no stratum is harmed by the largest dose" in harmless["window"]["sentence"]


def test_window_that_never_opens():
    never = Estimate(math.inf, 1.0, math.inf, 5, 5).to_json()
    assert window(never, {"far": estimated(2.0).to_json()})["sentence"].startswith("No window: at no dose")
    assert window(None, {}) is None


def test_dissociation_matrix_is_filled_from_what_was_measured():
    tasks = [
        record("task-ratio", 2.0, about=name, data={"control": estimated(low).to_json()})
        for name, low in (("agreement", 0.0), ("copying", 0.1))
    ]
    lesion = record("lesion-interchange", 0.35, 0.45, controls=(Control("N1", estimated(0.0)),))
    evidence = [
        lesion,
        *tasks,
        record("task-ratio", 2.0),
        *Doses().conclude(SETTING, FACTS, {"dose": dose_rows(harm=0.5)}),
    ]
    found = dissociation(evidence)
    rows, columns = [row["id"] for row in found["rows"]], [column["id"] for column in found["columns"]]

    def cell(row, column):
        return found["cells"][rows.index(row)][columns.index(column)]

    assert cell("lesion", "target")["estimate"]["value"] == pytest.approx(0.4)
    assert cell("lesion", "copying")["evidence"] == "test/task-ratio/copying"
    assert cell("elsewhere", "target")["estimate"]["low"] == 0.0
    assert cell("edit", "target")["estimate"]["value"] > 0.8
    assert cell("edit", "target")["before"] == 0
    assert cell("edit", "neighbours")["before"] == 1
    assert cell("random", "target")["estimate"]["value"] < 0.01
    assert cell("lesion", "neighbours") == {"estimate": None, "before": None, "evidence": "", "why": "not measured"}
    index = {one["row"]: one["value"] for one in found["specificity"]}
    assert index["lesion"] == pytest.approx(0.4 / ((0.05 + 0.15) / 2))
    assert index["edit"] == pytest.approx(2, abs=0.01)  # the edit moves the target by p and each stratum by half of it
    assert index["lesion-mean"] is None


def test_double_dissociation_is_met_or_not():
    data = {
        "met": True,
        "cells": [{"row": "MLP a", "column": "relation A", "estimate": estimated(0.5).to_json()}],
        "conditions": [{"text": "a hurts A", "estimate": estimated(0.5).to_json(), "holds": True}],
    }
    found = dissociation([record("double-dissociation", 0.3, data=data)])
    assert found["double"]["met"] is True
    assert found["double"]["sentence"].startswith("The double dissociation is met: contrast 0.35 [0.30, 0.40]")
    assert found["rows"][-1]["id"] == "MLP a"
    assert found["cells"][-1][-1]["estimate"]["low"] == 0.5
    assert dissociation([record("double-dissociation", 0.3)])["double"]["met"] is None


def task_rows(crossed: bool) -> list[dict]:
    """What lesions of layers 0, 2 and 4 take from facts and from copying; crossed, copying is in layer 4 at the last token."""
    rng = np.random.default_rng(3)

    def of(at_subject: list[float], at_last: list[float]) -> dict:
        noise = 1 + 0.05 * rng.normal()
        lost = {"subject": [noise * x for x in at_subject], "last": [noise * x for x in at_last]}
        return {"cluster": ["", ""], "margin": 1.0, "total": 1.0, "withheld": "", **lost}

    copying = ([0, 0, 0], [0, 0, 0.8]) if crossed else ([0, 0.8, 0], [0, 0, 0])
    return [
        {"id": name, "layers": [0, 2, 4], "tasks": {"facts": of([0, 0.8, 0], [0, 0, 0]), "copying": of(*copying)}}
        for name in FACTS
    ]


@pytest.mark.parametrize("crossed", [True, False])
def test_double_dissociation_as_the_experiment_concludes_it(crossed):
    found = dissociation(Dissociation().conclude(SETTING, FACTS, {"tasks": task_rows(crossed)}))
    assert found["double"]["met"] is crossed
    assert found["double"]["sentence"].startswith(
        f"The double dissociation of facts and copying is {'' if crossed else 'not '}met"
    )
    assert len(found["double"]["conditions"]) == 5
    assert found["rows"][-1]["unit"] == "share of the total effect"


# several methods


def _profiles(agree: bool) -> dict:
    """Two traits by three methods: profiles follow the trait, or the method."""
    rng = np.random.default_rng(0)
    base = {name: rng.normal(size=10) for name in ("facts", "syntax", "one", "two", "three")}
    return {
        trait: {
            method: list(base[trait if agree else method] + 0.05 * rng.normal(size=10))
            for method in ("one", "two", "three")
        }
        for trait in ("facts", "syntax")
    }


def convergence(profiles: dict, **more) -> Evidence:
    return record("convergence", 0.3, data={"mtmm": {"profiles": profiles, **more}})


def test_methods_that_agree_about_traits_pass_and_those_that_find_the_same_everywhere_fail():
    good = mtmm([convergence(_profiles(agree=True), reliability={"facts": {"one": 0.9}})])
    assert good["summary"]["status"] == "PASS"
    assert good["summary"]["convergent"]["value"] > 0.9
    assert good["variables"][0] == {"trait": "facts", "method": "one", "reliability": 0.9}
    assert good["cells"][0][0] == {"rho": 0.9, "kind": "reliability", "circular": False}
    kinds = [cell["kind"] for cell in good["cells"][0]]
    assert kinds == ["reliability", *["convergent"] * 2, "method", *["discriminant"] * 2]
    assert mtmm([convergence(_profiles(agree=False))])["summary"]["status"] == "FAIL"


def test_circular_pairs_are_grey_and_do_not_count():
    profiles = _profiles(agree=True)
    found = mtmm([convergence(profiles, circular=[["one", "two"]])])
    assert found["cells"][0][1]["circular"]
    assert not found["cells"][0][2]["circular"]
    assert found["summary"]["convergent"]["n"] == 4
    every = [["one", "two"], ["one", "three"], ["two", "three"]]
    assert mtmm([convergence(profiles, circular=every)])["summary"]["status"] == "NOT_TESTED"


def test_two_families_of_facts_may_agree():
    profiles = _profiles(agree=True)
    both = {"facts A": profiles["facts"], "facts B": profiles["facts"], "syntax": profiles["syntax"]}
    found = mtmm([convergence(both)])
    assert found["cells"][0][3]["kind"] == "related"
    assert found["summary"]["related"]["n"] == 9
    assert found["summary"]["method"]["n"] == 6
    assert found["summary"]["status"] == "PASS"


def test_profiles_with_holes():
    profiles = {"facts": {"one": [1, 2, 3, None], "two": [None, None, 1, 2]}, "syntax": {"one": [1, 1, 1, 1]}}
    found = mtmm([convergence(profiles)])
    assert [cell["rho"] for cell in found["cells"][0]] == [None, None, None]
    assert found["summary"]["status"] == "NOT_TESTED"


# levels, storage


def result(endpoint: str, status: Status, evidence: str | None) -> EndpointResult:
    return EndpointResult(endpoint, evidence, status, 0.05, 0.1, None, None, False, None, "")


def test_each_method_speaks_to_its_own_levels():
    evidence = [
        record("restoration", 0.6),
        record("lesion-mean", 0.2),
        record("lesion-resample", 0.0),
        record("magnitude", 0.6),
    ]
    given = [
        result("restoration", Status.PASS, "test/restoration"),
        result("lesion-mean", Status.PASS, "test/lesion-mean"),
        result("lesion-resample", Status.WEAK, "test/lesion-resample"),
        result("lesion-interchange", Status.NOT_TESTED, None),
    ]
    lines = levels(evidence, [reading(endpoints=given)])["readings"]["mediates"]
    cells = {line["method"]: {cell["level"]: cell for cell in line["cells"]} for line in lines}
    assert cells["causal tracing"]["necessity"]["symbol"] == "∅"  # restoring does not show that a thing is needed
    assert cells["causal tracing"]["sufficiency"]["status"] == "PASS"
    assert {one["endpoint"]: one["status"] for one in cells["causal tracing"]["sufficiency"]["endpoints"]} == {
        "restoration": "PASS",
        "magnitude": "MEASURED",
    }
    assert cells["lesion"]["necessity"]["status"] == "WEAK"  # the worst of what was run
    assert cells["removal from weights"]["storage"]["symbol"] == "—"
    cut = levels([edge("S-state->F-state (attention)", -0.2, -0.1)], [reading()])["readings"]["mediates"]
    by = {line["method"]: {cell["level"]: cell["status"] for cell in line["cells"]} for line in cut}
    assert by["knockout of attention"]["algorithmic"] == "FAIL"
    assert by["restoring along edges"]["algorithmic"] == "NOT_RUN"


def test_every_endpoint_an_artefact_reads_is_one_that_an_experiment_measures():
    rules = read_rules("mv27-formal")
    beyond_rules = {"edge", "transplant-state", "test-sigma"}  # reported, and asked for by no rule
    read = {named.partition(":")[0] for of in METHODS.values() for endpoints in of.values() for named in endpoints}
    read |= set(ALSO) | {named.partition("/")[0] for first, second, *_ in RELATIONS for named in (first, second)}
    assert read - beyond_rules <= set(rules.endpoints)


def test_storage_panel():
    found = storage([record("storage", -0.2, 0.3, data={"accounts": {"entity": 0.6}}), record("sigma-subspace", -0.1)])
    assert found["data"]["accounts"] == {"entity": 0.6}
    assert found["estimate"]["high"] == 0.3
    assert found["evidence"] == ["test/storage", "test/sigma-subspace"]
    assert storage([record("sigma-subspace", -0.1)])["estimate"] is None
