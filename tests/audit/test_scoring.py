"""Scoring: the grammar at its boundaries, and each criterion on evidence made by hand."""

import json
import math

import pytest
from scoring_cases import BARS, CLAIM, READINGS, RULES, TESTED, evidence, failing, passing, scored, status

from palimpsest.audit.claim import Claim, Scope
from palimpsest.audit.criteria import crosswalk, shipped_criteria
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.grammar import interval_status, needed
from palimpsest.audit.report_data import LENSES, AuditReport, Status
from palimpsest.audit.rules import read_rules
from palimpsest.audit.scoring import score, score_all
from palimpsest.statistics import Estimate

# the grammar


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.10, 0.30, Status.PASS),
        (0.0999, 0.30, Status.PARTIAL),
        (0.05, 0.06, Status.PARTIAL),
        (0.0499, 0.30, Status.WEAK),
        (-0.20, 0.05, Status.WEAK),
        (-0.20, 0.0499, Status.FAIL),
        (math.nan, math.nan, Status.WEAK),
        (-math.inf, math.inf, Status.WEAK),
        (0.2, math.inf, Status.PASS),
    ],
)
def test_an_interval_gets_the_status_of_the_grammar(low, high, expected):
    assert interval_status(low, high, floor=0.05, bar=0.10) is expected


def test_rounding_does_not_cost_the_bar():
    assert interval_status(0.3 - 0.2, 0.5, floor=0.05, bar=0.1) is Status.PASS


def test_as_many_records_are_needed_as_make_the_interval_as_narrow_as_the_band():
    # four times too wide: sixteen times as many
    assert needed(Estimate(0.1, 0.0, 0.2, 30, 10), floor=0.05, bar=0.10) == 480
    assert needed(Estimate(0.1, 0.08, 0.12, 30, 10), floor=0.05, bar=0.10) is None
    # no band: twice the distance of the value from the floor
    assert needed(Estimate(0.1, -0.1, 0.3, 30, 10), floor=0.0, bar=0.0) == 120
    assert needed(Estimate(-0.1, -0.3, 0.3, 30, 10), floor=0.0, bar=0.0) is None


def test_only_what_is_undecided_is_underpowered():
    wide = scored(evidence("task-ratio", 0.5, 9.0)).criteria["C3"]
    assert (wide.status, wide.underpowered, wide.n_needed) == (Status.WEAK, True, 40 * 72 + 10)
    assert not scored(evidence("task-ratio", 2.5, 9.0)).criteria["C3"].underpowered
    assert scored(evidence("task-ratio", 2.5, 9.0)).criteria["C3"].endpoints[0].wide


def test_necessity_needs_two_ways_of_taking_away():
    assert status("I1", passing("lesion-mean")) is Status.NOT_TESTED
    assert status("I1", passing("lesion-mean"), failing("lesion-weights")) is Status.FAIL
    assert status("I1", passing("lesion-mean"), failing("lesion-weights"), passing("lesion-resample")) is Status.PASS


def test_lesions_without_other_layers_beside_them_are_not_scored():
    bare = [passing("lesion-mean", controls=()), passing("lesion-resample", controls=())]
    assert status("I1", *bare) is Status.NOT_TESTED
    assert "N1" in scored(*bare).criteria["I1"].reason
    own = (Control("N1", Estimate(0, 0, 0, 4, 4), provenance="claim-author"),)
    assert (
        status("I1", *(passing(name, controls=own) for name in ("lesion-mean", "lesion-resample"))) is Status.NOT_TESTED
    )


def test_a_baseline_without_an_untrained_model_does_not_pass():
    assert status("M3", passing("baseline-gap")) is Status.PASS
    other = (Control("N1", Estimate(0.0, 0.0, 0.0, 4, 4)),)
    assert status("M3", passing("baseline-gap", controls=other)) is Status.PARTIAL


def test_of_several_records_of_one_endpoint_the_worst_counts():
    assert status("C3", passing("task-ratio", about="syntax"), failing("task-ratio", about="copying")) is Status.FAIL


def test_restoration_without_an_advantage_of_editing_there_is_partial():
    assert status("I2", passing("restoration")) is Status.PARTIAL
    assert status("I2", passing("restoration"), evidence("edit-advantage", -0.1, 0.2)) is Status.PARTIAL
    assert status("I2", passing("restoration"), evidence("edit-advantage", 0.01, 0.2)) is Status.PASS
    assert status("I2", failing("restoration"), passing("transplant"), passing("edit-advantage")) is Status.PASS
    assert status("I2", failing("restoration"), failing("transplant"), passing("edit-advantage")) is Status.FAIL


def test_calibration_alone_or_a_reference_alone_is_partial():
    assert status("M5") is Status.NOT_TESTED
    assert status("M5", passing("calibration")) is Status.PARTIAL
    assert status("M5", passing("calibration"), passing("reference")) is Status.PASS
    assert status("M5", passing("reference"), failing("calibration")) is Status.FAIL


def test_magnitude_and_robustness_of_an_edit_are_not_those_of_a_place():
    records = [passing("magnitude"), passing("template-robustness"), passing("transport")]
    assert status("E4", *records, reading="storage") is Status.PASS
    assert status("E4", *records, reading="edit") is Status.NOT_TESTED
    assert status("E4", passing("edit-success"), passing("edit-free"), reading="edit") is Status.PASS
    assert status("E5", *records, reading="mediation") is Status.PASS
    assert status("E5", *records, reading="edit") is Status.NOT_TESTED


def test_a_prediction_interval_across_nothing_with_a_mean_above_it_is_partial():
    above, across = Estimate(0.2, 0.1, 0.3, 40, 10), Estimate(0.2, -0.1, 0.3, 40, 10)
    spread = passing("ablation-spread"), passing("sign-agreement")
    assert status("I4", evidence("consistency", -0.1, 0.5, data={"mean": above.to_json()}), *spread) is Status.PARTIAL
    assert status("I4", evidence("consistency", -0.1, 0.5, data={"mean": across.to_json()}), *spread) is Status.WEAK
    assert status("I4", evidence("consistency", 0.1, 0.5, data={"mean": above.to_json()}), *spread) is Status.PASS


def test_signs_that_turn_in_more_than_a_quarter_of_the_relations_fail_consistency():
    others = passing("consistency"), passing("ablation-spread")
    assert status("I4", *others, evidence("sign-agreement", 0.75, 0.75)) is Status.PASS
    assert status("I4", *others, evidence("sign-agreement", 0.74, 0.74)) is Status.FAIL
    assert status("I4", *others) is Status.NOT_TESTED


def test_a_likelihood_ratio_between_one_third_and_three_is_weak_and_only_a_tenth_fails():
    def of_ratio(low: float, high: float) -> Status:
        return status("V4", evidence("storage", math.log10(low), math.log10(high)), reading="storage")

    assert of_ratio(10, 30) is Status.PASS
    assert of_ratio(3, 30) is Status.PARTIAL
    assert of_ratio(1.1, 1.3) is Status.WEAK  # a narrow interval around nothing
    assert of_ratio(0.11, 0.2) is Status.WEAK
    assert of_ratio(0.01, 0.099) is Status.FAIL


def test_an_effect_that_vanishes_under_a_swap_fails_and_does_not_stay_undecided():
    others = passing("profile-agreement"), passing("peak-shift")
    assert status("I5", *others, evidence("swap-survives", -0.002, 0.001)) is Status.FAIL
    assert status("I5", *others, evidence("swap-survives", -0.02, 0.03)) is Status.WEAK
    assert status("I5", *others, evidence("swap-survives", 0.02, 0.03)) is Status.PARTIAL


def test_an_edit_that_works_as_well_everywhere_caps_sufficiency():
    none = evidence("edit-advantage", 0.0, 0.0)  # every layer succeeds with every fact
    assert status("I2", passing("restoration"), none) is Status.PARTIAL


def test_a_double_dissociation_is_met_by_its_weakest_condition_and_not_by_its_contrast():
    contrast = evidence("double-dissociation", 0.3, 0.7)
    assert status("I6d", contrast) is Status.NOT_TESTED
    assert status("I6d", contrast, evidence("double-dissociation-margin", -0.1, -0.1)) is Status.FAIL
    assert status("I6d", contrast, evidence("double-dissociation-margin", 0.02, 0.02)) is Status.PASS


def test_a_control_whose_number_is_not_known_is_missing():
    nothing = (Control("N1", Estimate.unknown("no other layer")),)
    records = [passing(name, controls=nothing) for name in ("lesion-mean", "lesion-resample")]
    assert status("I1", *records) is Status.NOT_TESTED


def test_what_could_not_be_estimated_says_why():
    why = "at the prompt itself the place restores nothing"
    unknown = Evidence(
        "templates",
        "template-robustness",
        (),
        "behavioural",
        "interventional",
        Estimate.unknown(why, 12),
        note="12 wordings counted.",
    )
    assert why in scored(unknown, passing("transport")).criteria["E5"].reason


def test_a_test_that_is_not_significant_after_holm_does_not_pass():
    names = ("lesion-mean", "lesion-resample")
    assert status("I1", *(passing(name, p=0.01) for name in names)) is Status.PASS
    assert status("I1", *(passing(name, p=0.04) for name in names)) is Status.PARTIAL  # 0.08 each
    result = scored(passing("lesion-mean", p=0.02), passing("lesion-resample", p=0.04)).criteria["I1"]
    assert [one.p_adjusted for one in result.endpoints] == [0.04, 0.04]
    assert status("I1", passing("lesion-mean", p=0.03), passing("lesion-resample", p=0.04)) is Status.PARTIAL  # 0.06
    # exploratory p-values, which the rules do not name, cost nothing
    extra = Evidence("edges", "edge", (), "causal", "interventional", Estimate(0, 0, 0, 4, 4), p=0.9)
    assert status("I1", passing("lesion-mean", p=0.02), passing("lesion-resample", p=0.04), extra) is Status.PASS


def test_a_null_that_misbehaves_takes_one_step_and_is_named():
    bad = (Control("N1", Estimate(0.3, 0.2, 0.4, 40, 10), sane=False),)
    result = scored(passing("task-ratio", controls=bad)).criteria["C3"]
    assert result.status is Status.PARTIAL
    assert "N1" in result.reason
    assert status("C3", evidence("task-ratio", 1.0, 1.5, controls=bad)) is Status.WEAK
    assert (
        status("C3", evidence("task-ratio", 0.5, 1.5, controls=bad)) is Status.WEAK
    )  # it cannot be read; it is not refuted
    assert status("C3", failing("task-ratio", controls=bad)) is Status.FAIL


def test_what_could_not_be_estimated_is_not_tested():
    lost = Evidence(
        "tasks",
        "task-ratio",
        (),
        "causal",
        "interventional",
        Estimate(math.nan, math.nan, math.nan, 0, 0),
        note="No facts.",
    )
    result = scored(lost).criteria["C3"]
    assert (result.status, result.reason) == (Status.NOT_TESTED, "task-ratio could not be estimated: No facts.")


# what procedures compute


def test_the_level_is_licensed_by_what_it_requires():
    causal = [
        passing(name) for name in ("lesion-mean", "lesion-resample", "restoration", "edit-advantage", "baseline-gap")
    ]
    specific = [passing("selectivity-same-subject"), passing("selectivity-near")]
    assert status("V2", *causal, *specific) is Status.PASS
    report = scored(*causal, passing("magnitude"), failing("selectivity-near"), passing("selectivity-same-subject"))
    assert report.criteria["V2"].status is Status.FAIL
    assert report.verdict.licensed_tag == "functional"
    assert "I3 FAIL" in report.criteria["V2"].reason


def test_families_that_deny_contradict_the_narrative():
    one, two = passing("lesion-mean"), passing("readout", family="weights")
    assert status("V3") is Status.NOT_TESTED
    assert status("V3", one) is Status.PARTIAL
    assert status("V3", one, two) is Status.PASS
    assert status("V3", one, failing("readout", family="weights")) is Status.PARTIAL
    unsure = evidence("convergence", BARS["convergence"].fails - 1.0, BARS["convergence"].bar + 1.0)
    assert status("V3", one, two, unsure) is Status.PARTIAL  # it may yet deny
    denied = [failing("readout", family="weights"), failing("convergence", family="representational")]
    assert status("V3", one, *denied) is Status.WEAK
    assert status("V3", *denied) is Status.FAIL
    assert status("V3", *denied, reading="edit") is Status.NOT_TESTED  # what weights held is nothing to an edit


def test_a_verb_above_the_declared_level_fails_the_narrative():
    record = json.loads(json.dumps(CLAIM.record))
    record["readings"][0]["text"] = "Facts are stored in the middle layers."
    result = scored(claim=Claim.from_json(record)).criteria["V3"]
    assert result.status is Status.FAIL
    assert "'are stored in'" in result.reason


def test_rivals_are_excluded_by_predictions_they_deny():
    every = [passing(name) for name in ("baseline-gap", "swap-survives", "task-ratio")]
    assert status("V4", *every) is Status.PASS
    assert status("V4", *every[:2]) is Status.NOT_TESTED
    assert status("V4", *every[:2], failing("task-ratio")) is Status.FAIL
    assert "hub favoured over the claim" in scored(*every[:2], failing("task-ratio")).criteria["V4"].reason


def test_the_scope_that_was_tested_is_what_counts():
    assert status("V5", tested=None) is Status.NOT_TESTED
    result = scored().criteria["V5"]
    assert result.status is Status.PARTIAL  # (0 + 12/34 + 1 + 1) / 4
    assert result.reason.startswith("59% of the claimed scope was tested; wider than tested: models")
    assert Scope(models=("a", "b")).coverage(Scope(models=("a",))) == {"models": 0.5}
    assert Scope(models=("*",)).coverage(Scope(models=("a", "b"))) == {"models": 0.0}


def test_falsifiability_needs_predictions_and_a_severity():
    assert status("C1") is Status.PARTIAL  # the null audit was not run
    severe = Evidence("null audit", "severity", (), "procedural", "observational", Estimate(0.99, 0.96, 1, 60, 60))
    assert status("C1", severe) is Status.PASS
    record = json.loads(json.dumps(CLAIM.record))
    for prediction in record["readings"][0]["predictions"]:
        prediction["post_hoc"] = True
    late = Claim.from_json(record)
    assert status("C1", severe, claim=late) is Status.FAIL
    assert {one.outcome for one in scored(passing("restoration"), claim=late).predictions} == {"not tested"}


def test_a_gate_that_failed_leaves_nothing_tested():
    report = scored(*map(passing, BARS), gates={"G2 effect": "the total effect is 0", "G4 split": ""})
    assert {one.status for one in report.criteria.values()} == {Status.NOT_TESTED}
    assert report.criteria["I1"].reason == "The gate 'G2 effect' did not pass: the total effect is 0."
    assert (report.verdict.tier, report.verdict.licensed_tag, report.next) == ("Not assessed", "", None)


def test_what_does_not_apply_leaves_the_denominator():
    record = json.loads(json.dumps(CLAIM.record))
    record["readings"][0]["not_applicable"] = {"M5": "the reading states no number"}
    report = scored(claim=Claim.from_json(record))
    assert report.criteria["M5"].status is Status.NA
    assert report.counts["NA"] == 1
    assert "M5" not in " ".join(report.verdict.ladder[2].blocked_by)


# lenses, ladder, lateral verdicts, wording


def test_the_ladder_is_climbed_rung_by_rung():
    proposed = scored()
    assert proposed.verdict.tier == "Not assessed"
    assert proposed.verdict.blocked_by == ("There are 0 measured criteria, and 1 are needed.",)
    first = [passing("lesion-mean"), passing("lesion-resample")]
    assert scored(*first).verdict.tier == "Proposed"
    second = [*first, passing("magnitude")]
    assert scored(*second).verdict.tier == "Causally suggestive"
    third = [passing(name) for name in ("restoration", "selectivity-same-subject", "selectivity-near")]
    third += [
        passing(name)
        for name in (
            "consistency",
            "sign-agreement",
            "ablation-spread",
            "reliability",
            "reliability-width",
            "calibration",
        )
    ]
    report = scored(*second, *third)
    assert report.verdict.tier == "Mechanistically supported"
    assert report.next is not None
    assert report.next.criterion == "C5"
    assert report.next.experiment == "convergence"
    everything = scored(*map(passing, BARS))
    assert [rung.reached for rung in everything.verdict.ladder] == [True, True, True, True, False]
    assert everything.verdict.blocked_by == ("V5 Scope is PARTIAL, and PASS is needed.",)
    assert everything.verdict.primary_gap.startswith("V5 Scope: PARTIAL.")


def test_what_failed_is_not_measured_again_but_said():
    lost = scored(failing("lesion-mean"), failing("lesion-resample"), passing("magnitude")).next
    assert lost is not None
    assert lost.sentence.startswith("I1 failed, so no further measurement at this place reaches 'Causally suggestive'")
    assert lost.experiment == "tracing"  # M1, M5, ... of the rungs above are still open
    wide = scored(passing("lesion-mean"), passing("lesion-resample"), evidence("magnitude", 0.0, 0.9, n=10)).next
    assert wide is not None
    assert (wide.criterion, wide.endpoint, wide.n) == ("E4", "magnitude", 23)
    assert "failed" not in wide.sentence


def test_a_reading_is_disconfirmed_by_what_is_decisive_for_it_and_not_by_what_is_decisive_for_another():
    records = [failing("storage"), passing("edit-success"), passing("edit-free")]
    reports = {one.reading: one for one in score_all(CLAIM, records, RULES, weights="w", gates={})}
    assert reports["storage"].verdict.lateral == "Disconfirmed"
    assert "V4" in reports["storage"].verdict.lateral_reason
    assert reports["edit"].verdict.lateral == ""


def test_a_likelihood_ratio_that_says_nothing_leaves_the_reading_underdetermined():
    report = scored(evidence("storage", -0.9, 0.9), reading="storage")
    assert report.verdict.lateral == "Underdetermined"


def test_what_a_lens_rests_on_caps_it():
    construct = [
        passing(bar.endpoint) for one in ("C2", "C3", "C4", "C5") for part in RULES.parts[one] for bar in part.of
    ]
    internal = [
        passing(name) for name in BARS if name.startswith(("lesion-", "selectivity", "restoration", "edit-advantage"))
    ]
    internal += [passing(name) for name in ("consistency", "ablation-spread")]
    of = {one.lens: one for one in scored(*construct, *internal).lenses}
    assert tuple(of) == LENSES
    assert of["Construct"].status is Status.PASS
    assert (of["Internal"].own, of["Internal"].status, of["Internal"].capped_by) == (
        Status.PASS,
        Status.PARTIAL,
        "Measurement",
    )
    assert of["Construct"].weakest == "C1"


def test_the_claim_keeps_the_words_that_its_evidence_carries():
    records = [
        passing(name) for name in ("lesion-mean", "lesion-resample", "restoration", "edit-advantage", "baseline-gap")
    ]
    records += [passing("selectivity-same-subject"), passing("selectivity-near"), passing("magnitude")]
    mediated = scored(*records)
    assert mediated.wording.licensed == mediated.wording.claimed
    stored = scored(*records, reading="storage").wording
    assert stored.unlicensed == ("are stored in",)
    assert stored.licensed == "Facts are recalled through the feed-forward weights of middle layers."
    assert "".join(text for kind, text in stored.pieces if kind != "added") == stored.claimed
    nothing = scored(reading="edit").wording
    assert (
        nothing.licensed
        == "A rank-one edit there is meant to change the fact and is not shown to leave other facts as they are."
    )


def test_passing_on_one_wording_only_is_narrow():
    assert scored(passing("task-ratio")).criteria["C3"].narrow
    robust = [passing("template-robustness"), passing("transport")]
    assert not scored(passing("task-ratio"), *robust).criteria["C3"].narrow


def test_predictions_are_held_against_their_own_floor_and_bar():
    outcomes = {
        one.id: one.outcome for one in scored(evidence("restoration", 0.55, 0.6), failing("swap-survives")).predictions
    }
    assert outcomes == {
        "restores": "supported",
        "needed": "not tested",
        "above-baseline": "not tested",
        "swap": "contradicted",
        "facts-only": "not tested",
    }


def test_the_criteria_are_27_and_five_with_a_crosswalk_and_what_was_published():
    criteria = shipped_criteria()
    assert [name for name, one in criteria.items() if one.extension] == ["I6", "I6d", "I10", "M7", "I8"]
    assert len(crosswalk()) == 27
    assert (crosswalk()["I3"], crosswalk()["C4"]) == ("I4 (part)", "I3")
    assert all(one.published["status"] and one.published["reason"] for one in criteria.values() if not one.extension)
    assert set(RULES.parts) == set(criteria)


@pytest.mark.parametrize("name", ["mv27-formal", "mv27-criterion"])
def test_in_both_presets_every_criterion_has_a_part_for_every_level_and_all_can_pass(name):
    rules = read_rules(name)
    bars = [bar for parts in rules.parts.values() for part in parts for bar in part.of]
    high = {bar.endpoint: max(one.bar for one in bars if one.endpoint == bar.endpoint) for bar in bars}
    family = {"readout": "weights", "edit-success": "behavioural"}
    records = [
        evidence(endpoint, bar + 0.2, bar + 1, family=family.get(endpoint, "causal")) for endpoint, bar in high.items()
    ]
    everywhere = Scope(models=("a",), relations=50, templates=9, languages=("English",))
    for reading in READINGS:
        report = score(CLAIM, reading, records, rules, weights="w", gates={"G4 split": ""}, tested=everywhere)
        short = {name for name, one in report.criteria.items() if one.status not in (Status.PASS, Status.NA)}
        assert short == {"V5"}, reading  # the claim is of every model


def test_an_audit_report_is_plain_data():
    readings = score_all(CLAIM, [passing("restoration")], RULES, weights="w", gates={}, tested=TESTED)
    report = AuditReport(
        CLAIM.to_json(), CLAIM.sha256, "world", "w", {}, {}, readings, [passing("restoration").to_json()]
    )
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert [one["reading"] for one in plain["readings"]] == READINGS
    assert plain["readings"][0]["criteria"]["I2"]["evidence"] == [plain["evidence"][0]["id"]]
    assert plain["claim_sha256"] == CLAIM.sha256
