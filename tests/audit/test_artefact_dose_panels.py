"""Dose and response, and dissociation, as their experiments conclude them."""

import math

import numpy as np
import pytest
from artefact_cases import FACTS, SETTING, dose_rows, estimated, record

from palimpsest.audit.artefacts import dissociation, dose_response
from palimpsest.audit.artefacts.dose_response import window
from palimpsest.audit.evidence import Control
from palimpsest.audit.experiments.dissociation import Dissociation
from palimpsest.audit.experiments.dose import RANDOM_DOSES, Doses
from palimpsest.statistics import Estimate


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
