"""What an edit reaches and covers: each endpoint's arithmetic, on rows made by hand."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from oracles.edit_rows import FACTS, concluded, setting_of
from palimpsest.audit.experiments import coverage
from palimpsest.audit.experiments.edit_effects import reworded
from palimpsest.facts import Fact, Probe
from palimpsest.statistics import Estimate, clustered_proportion


def said(prompt: float, variants: Mapping[str, Sequence[float]], known: bool = True, **changed: Any) -> dict[str, Any]:
    success = {"prompt": [prompt], **{name: list(values) for name, values in variants.items()}}
    return {
        "success": success,
        "says_old": {name: [known] * len(values) for name, values in success.items()},
        "forced": prompt,
        "free": prompt,
        "written": prompt,
        **changed,
    }


def effects_row(name: str, after: Mapping[str, Any], before: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    return {
        "id": name,
        "layer": 1,
        "rho": {"prefix": [0.1, 0.6], "paraphrase": [0.2, 0.4], "others": [0.9, 0.8]},
        "heard": {"contexts": 0.9, "others": 0.15},
        "identity": 1e-7,
        "relative": 3.0,
        "before": before,
        "after": after,
        "random": said(0.0, {name: [0.0] for name in ("paraphrase", "prefix", "question")}),
        **changed,
    }


def test_reach_counts_contexts_and_the_ratio_compares_subjects() -> None:
    none = said(0.0, {"paraphrase": [0.0, 0.0], "prefix": [0.0], "question": [0.0]})
    half = said(1.0, {"paraphrase": [1.0, 0.0], "prefix": [1.0], "question": [0.0]}, free=0.0)
    found = concluded("edit-effects", [effects_row(f"f{i}", half, none) for i in range(4)], setting_of())
    assert found["reach"].estimate.value == pytest.approx(3 / 4)
    assert found["reach"].controls[0].kind == "N4"
    assert found["reach"].controls[0].estimate.value == 0
    assert found["reach-ratio"].estimate.value == pytest.approx(6)
    assert found["edit-success"].estimate.value == 1
    assert found["edit-success"].contrast is not None
    assert found["edit-success"].contrast.value == 1
    assert found["edit-free"].estimate.value == 0
    assert found["edit-free"].data["gap"]["value"] == 1
    assert found["edit-robustness"].estimate.value == 0
    assert found["edit-robustness"].data["worst"] == "question"
    assert found["edit-robustness"].data["variants"]["paraphrase"]["value"] == pytest.approx(0.5)


def test_a_wording_in_which_the_model_does_not_know_the_fact_tests_no_edit() -> None:
    before = said(0.0, {"paraphrase": [0.0, 0.0], "prefix": [0.0], "question": [0.0]})
    before["says_old"]["question"] = [False]
    before["says_old"]["paraphrase"] = [True, False]
    after = said(1.0, {"paraphrase": [1.0, 0.0], "prefix": [1.0], "question": [0.0]})
    found = concluded("edit-effects", [effects_row(f"f{i}", after, before) for i in range(4)], setting_of())
    robust = found["edit-robustness"]
    assert robust.estimate.value == 1
    assert set(robust.data["variants"]) == {"paraphrase", "prefix"}
    assert robust.data["left out"] == {"paraphrase": 4, "prefix": 0, "question": 4}
    before["says_old"]["prefix"] = [False]
    found = concluded("edit-effects", [effects_row(f"f{i}", after, before) for i in range(4)], setting_of())
    assert "edit-robustness" not in found  # one wording is no test of several


def test_paraphrases_become_facts_where_the_subject_stands_once() -> None:
    fact = Fact(
        "Ann", "{} is in", "Paris", "Rome", paraphrases=("In which town is Ann? In", "She is in", "Ann, Ann is in")
    )
    assert [one.text for one in reworded(fact)] == ["In which town is Ann? In"]


def coverage_row(name: str, nominal: float, **facets: float | None) -> dict[str, Any]:
    return {
        "id": name,
        "layer": 1,
        "nominal": nominal,
        "facets": {facet: facets.get(facet) for facet in coverage.FACETS},
    }


def test_facets_count_where_a_quarter_of_the_facts_have_them() -> None:
    made = [
        coverage_row(f"f{i}", 0.1 * i, target=1.0, paraphrase=0.1 * i, alias=1.0 if i == 0 else None, neighbours=0.5)
        for i in range(8)
    ]
    found = concluded("coverage", made, setting_of())
    facets = found["facets"]
    assert facets.estimate.value == facets.estimate.low == facets.estimate.high == 3
    assert facets.data["n"]["alias"] == 1
    assert "alias" in facets.note
    assert "paraphrase" not in facets.note
    made[1]["facets"]["alias"] = 1.0
    assert concluded("coverage", made, setting_of())["facets"].estimate.value == 4


def test_the_nominal_score_is_ranked_against_the_other_facets() -> None:
    made = [coverage_row(f"f{i}", 0.1 * i, target=0.0, paraphrase=i / 8, neighbours=0.5) for i in range(8)]
    found = concluded("coverage", made, setting_of())["nominal-coherence"]
    assert found.estimate.value == pytest.approx(1)
    assert found.p == pytest.approx(1 / 2000, abs=1e-3)
    assert abs(found.controls[0].estimate.value) < 0.1
    assert found.data["composite"][4] == pytest.approx((0.5 + 0.5) / 2)
    level = [coverage_row(f"f{i}", 0.1 * i, paraphrase=0.5) for i in range(8)]
    found = concluded("coverage", level, setting_of())["nominal-coherence"]
    assert math.isnan(found.estimate.value)
    assert found.p is None


def test_probes_are_told_apart_by_facet() -> None:
    probes = (
        Probe("Rome was founded by", "Ann", "Bob"),
        Probe("Ann lives in the country of", "Italy", "France"),
        Probe("the painter is in", "Rome", kind="subject_aliasing"),
        Probe("the mayor of Ann's town is", "Zed", kind="reasoning"),
    )
    fact = Fact("Ann", "{} is in", "Paris", "Rome", relation="city", entailed=probes)
    assert [coverage.facet_of(fact, probe) for probe in probes] == ["reverse", "", "alias", "multi-hop"]
    parts = coverage.parted(fact, [fact, *FACTS.values()])
    assert {name: len(part.entailed) for name, part in parts.items()} == {
        "": 1,
        "alias": 1,
        "reverse": 1,
        "multi-hop": 1,
    }
    assert len(parts[""].far) == coverage.UNRELATED
    assert coverage.composite({"target": 0.0, "paraphrase": 1.0, "alias": None, "neighbours": 0.5}) == 0.75


def test_shares_at_the_ends_claim_no_certainty_and_limits_are_turned() -> None:
    clusters = [(f"r{i}", f"s{i}") for i in range(6)]
    assert clustered_proportion([1.0] * 6, clusters).low < 1
    assert clustered_proportion([0.0] * 6, clusters).high > 0
    turned = Estimate(0.02, 0.01, 0.04, 6, 6).below(0.05, "left")
    assert (turned.value, turned.low, turned.high) == pytest.approx((0.03, 0.01, 0.04))
