"""Artefacts: evidence in, plain data out; what was not measured says so; levels and storage."""

import json

from artefact_cases import FACTS, SETTING, dose_rows, edge, edge_rows, prediction, reading, record

from palimpsest.audit.artefacts import artefacts, levels, storage
from palimpsest.audit.artefacts.explanation_graph import ALSO
from palimpsest.audit.artefacts.level_evidence import METHODS
from palimpsest.audit.artefacts.nomological import RELATIONS
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiments.dose import Doses
from palimpsest.audit.experiments.edges import Edges
from palimpsest.audit.report_data import (
    EndpointResult,
    Status,
)
from palimpsest.audit.rules import read_rules


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
