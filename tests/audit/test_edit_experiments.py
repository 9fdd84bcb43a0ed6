"""The experiments that edit: readings against plain runs, each endpoint's arithmetic on rows made by hand, and runs on `world`."""

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, chosen_experiments
from palimpsest.audit.experiments import coverage, dose, edit_layers
from palimpsest.audit.experiments.edit_effects import reworded
from palimpsest.audit.experiments.edit_reading import (
    PARAPHRASES,
    STRATA,
    TARGET,
    Strata,
    payload_of,
    random_value,
    read_at,
)
from palimpsest.audit.setting import LAST, Place, Setting
from palimpsest.edit import moments
from palimpsest.edit.artefact import Edit
from palimpsest.errors import EditError, FactError, SettingError
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model, Site, Tap, pad
from palimpsest.statistics import Estimate, clustered_proportion
from palimpsest.world import made_world

FACTS = {f"f{i}": Fact(f"Subject{i}", "{} is in", "Paris", "Rome", id=f"f{i}", relation=f"r{i // 2}") for i in range(8)}
NAMES = ("edit-layers", "dose", "edit-effects", "coverage")


def setting_of(layers: Sequence[int] = (0, 1, 2, 3), centre: int = 1, **changed: Any) -> Setting:
    place = Place("mlp", centre, changed.pop("window", 1), **changed)
    return Setting("made", "0" * 64, 12, place, tuple(layers), (), tuple(FACTS))


def concluded(name: str, rows: Sequence[Row], setting: Setting) -> dict[str, Evidence]:
    found = chosen_experiments([name])[name].conclude(setting, FACTS, {name: rows})
    return {one.endpoint: one for one in found}


# ---- the world, edited once for all tests of this file


@cache
def world() -> Model:
    return pal.load("world")


@cache
def known() -> dict[str, Fact]:
    """Facts of two relations in which subjects share answers, told apart by their first tokens."""
    found: dict[str, Fact] = {}
    for fact in made_world(0).records(["profession", "employer"], probes=3):
        try:
            Strata.of(world(), fact)
        except FactError:
            continue
        if sum(one.relation == fact.relation for one in found.values()) < 8:
            found[fact.id] = fact
    return found


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench on the shipped small model; its values and moments are kept in a folder of this file's own."""
    folder = tmp_path_factory.mktemp("audit")
    ids = tuple(known())
    place = Place("mlp", 1, 2)
    setting = Setting("world", world().fingerprint(), 8, place, (1, 4), ids[3:8], (*ids[:3], *ids[8:9]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moments, "cache_folder", lambda: folder / "moments")
        yield Bench(world(), known(), setting, folder)


@pytest.fixture(scope="module")
def rows(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """What each experiment measures on the bench, as a run stores it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in NAMES:
        one = chosen_experiments([name])[name]
        measured = [{"id": unit, **one.measure(bench, unit)} for unit in one.units(bench.setting)]
        found[name] = json.loads(json.dumps(measured, allow_nan=False))
    return found


def an_edit(bench: Bench) -> tuple[Fact, Edit]:
    fact = bench.confirmation[0]
    return fact, bench.edit_at([fact], 1)


def test_a_reading_is_what_plain_runs_say(bench: Bench) -> None:
    fact, _ = an_edit(bench)
    strata = Strata.of(world(), fact)
    reading = strata.read(world())
    for i, prompt in enumerate(strata.prompts):
        with torch.no_grad():
            p = world().net(torch.tensor([prompt.ids])).logits[0, -1].double().softmax(-1)
        others = torch.cat([p[: prompt.token], p[prompt.token + 1 :]]).sum()
        assert reading.log_odds[i] == pytest.approx(float((p[prompt.token] / others).log()), abs=1e-4)
        assert reading.p[i] == pytest.approx(float(p[prompt.token]), abs=1e-6)
        assert reading.best[i] == int(p.argmax())
        assert reading.entropy[i] == pytest.approx(float(-(p * p.log()).sum()), abs=1e-4)
        if prompt.rival is None:
            assert math.isnan(reading.rival[i])
            assert reading.right[i] == float(reading.best[i] == prompt.token)
        else:
            assert reading.rival[i] == pytest.approx(float(p[prompt.rival]), abs=1e-6)
            assert reading.right[i] == float(p[prompt.token] > p[prompt.rival])
    assert {prompt.stratum for prompt in strata.prompts} <= set(STRATA)
    assert strata.prompts[0].stratum == TARGET
    assert len(strata.at(PARAPHRASES)) == 5


def test_dose_0_is_the_base_bit_for_bit_and_nothing_is_left_behind(bench: Bench) -> None:
    fact, edit = an_edit(bench)
    strata = Strata.of(world(), fact)
    weights = world().fingerprint()
    base = strata.read(world())
    with edit.applied(world(), dose=0.0):
        again = strata.read(world())
    for name, numbers in vars(base).items():
        assert np.array_equal(numbers, getattr(again, name), equal_nan=True), name
    curves = read_at(world(), strata, edit, (0.0, 1.0), base)
    for curve in curves.values():
        assert curve["moved"][0] == 0
        assert curve["kept"][0] == pytest.approx(1, abs=1e-12)
    assert curves[TARGET]["moved"][1] > 1
    assert world().fingerprint() == weights


def test_the_edit_meets_its_value_and_the_row_says_how_closely(bench: Bench, rows: dict[str, Any]) -> None:
    _, edit = an_edit(bench)
    row = rows["edit-effects"][0]
    assert row["identity"] < 1e-4
    assert all(one["identity"] < 1e-4 for one in rows["edit-effects"])
    noted = edit.notes["facts"][0]
    assert row["relative"] == pytest.approx(noted["delta_norm"] / noted["v_norm"], rel=1e-3)


def test_the_control_has_the_same_key_and_norm_and_another_value(bench: Bench) -> None:
    _, edit = an_edit(bench)
    one, again, other = (random_value(world(), edit, seed=seed) for seed in (0, 0, 1))
    ours, theirs = payload_of(edit), payload_of(one)
    assert one.norm == pytest.approx(edit.norm, rel=1e-5)
    assert torch.equal(ours.v, theirs.v)
    cosine = torch.nn.functional.cosine_similarity(ours.u[:, 0], theirs.u[:, 0], dim=0)
    assert abs(float(cosine)) < 0.5
    assert torch.equal(theirs.u, payload_of(again).u)
    assert not torch.equal(theirs.u, payload_of(other).u)


def test_an_edit_of_more_than_one_place_is_no_edit_to_audit(bench: Bench) -> None:
    _, edit = an_edit(bench)
    both = edit + bench.edit_at([bench.confirmation[0]], 4)
    with pytest.raises(EditError, match="rank one"):
        payload_of(both)


@pytest.mark.parametrize(
    ("new", "said"), [(None, "needs target_true and target_new"), ("same", "begin with the same token")]
)
def test_facts_that_cannot_be_read_are_refused(bench: Bench, new: str | None, said: str) -> None:
    fact, _ = an_edit(bench)
    record = {**vars(fact), "target_new": fact.target_true if new else None}
    with pytest.raises(FactError, match=said):
        Strata.of(world(), Fact(**record))


def test_what_cannot_be_asked_of_a_stratum_is_passed_over(bench: Bench) -> None:
    fact, _ = an_edit(bench)
    asked = (Probe("nobody knows", None), Probe("too long " * 400, "x"), *fact.same_subject)
    strata = Strata.of(world(), Fact(**{**vars(fact), "same_subject": asked}))
    assert len(strata.at("same_subject")) == len(Strata.of(world(), fact).at("same_subject")) > 0
    assert len(Strata.of(world(), fact, most=1).at("same_subject")) == 1


@pytest.mark.parametrize("position", ["last subject token", LAST])
def test_leaving_a_layer_out_of_a_lesion_is_what_single_runs_say(bench: Bench, position: str) -> None:
    setting = Setting.from_json({**bench.setting.to_json(), "place": vars(Place("mlp", 1, 2, position))})
    moved = Bench(world(), known(), setting)
    fact = moved.confirmation[0]
    found = edit_layers._lesions(moved, fact, setting.layers)
    assert found is not None
    model = world()

    def token(one: Fact) -> int:
        encoded = model.encode(one.text)
        return len(encoded) - 1 if position == LAST else encoded.tokens_of(*one.subject_span)[-1]

    donors = [one for one in known().values() if one.relation == fact.relation and one.subject != fact.subject]
    wanted = {
        layer: torch.stack(
            [
                model.record(pad([model.encode(one.text).ids]), [Site("mlp_out", layer)])[Site("mlp_out", layer)][
                    0, token(one)
                ]
                for one in donors[: edit_layers.DONORS]
            ]
        ).mean(0)
        for layer in range(8)
    }

    def difference(layers: Sequence[int]) -> float:
        def put(layer: int) -> Tap:
            def function(states: torch.Tensor) -> torch.Tensor:
                states = states.clone()
                states[0, token(fact)] = wanted[layer]
                return states

            return Tap(Site("mlp_out", layer), function)

        batch = pad([model.encode(fact.text).ids])
        with torch.no_grad():
            logits = model.run(batch, at=batch.last[:, None], taps=[put(layer) for layer in layers])[0, 0]
        old, new = (model.encode_answer(fact.text, str(one)) for one in (fact.target_true, fact.target_new))
        return float(logits[old[0][old[1]]] - logits[new[0][new[1]]])

    clean = difference(())
    for centre, window in ((1, [0, 1]), (4, [3, 4])):
        lesion = found[str(centre)]
        assert lesion["layers"] == window
        assert lesion["whole"] == pytest.approx(clean - difference(window), abs=1e-3)
        assert lesion["without"] == pytest.approx(
            [clean - difference(window[1:]), clean - difference(window[:1])], abs=1e-3
        )


def test_a_subject_alone_in_its_audit_has_no_lesion(bench: Bench) -> None:
    fact, _ = an_edit(bench)
    setting = Setting("world", world().fingerprint(), 8, Place("mlp", 1), (1,), (), (fact.id,))
    assert edit_layers._lesions(Bench(world(), {fact.id: fact}, setting), fact, (1,)) is None


def test_of_many_layers_every_second_one_is_edited_and_the_place_always() -> None:
    def edited(layers: range, centre: int) -> tuple[int, ...]:
        return edit_layers.edited_layers(Setting("m", "", 30, Place("mlp", centre), tuple(layers), (), ()))

    assert edited(range(8), 3) == tuple(range(8))
    assert edited(range(10), 3) == (0, 2, 3, 4, 6, 8)
    assert edited(range(10), 4) == (0, 2, 4, 6, 8)


# ---- runs on the world


def test_every_experiment_measures_its_endpoints_on_the_world(bench: Bench, rows: dict[str, Any]) -> None:
    wanted = {
        "edit-layers": {"edit-advantage", "edit-advantage-probability", "edit-percentile", "minimality", "rivals"},
        "dose": {
            "graded",
            "graded-fit",
            "graded-decline",
            "therapeutic-index",
            "selectivity-same-subject",
            "selectivity-near",
        },
        "edit-effects": {"reach", "reach-ratio", "edit-success", "edit-free", "edit-robustness"},
        "coverage": {"facets", "nominal-coherence", "residue"},
    }
    for name, endpoints in wanted.items():
        one = chosen_experiments([name])[name]
        found = one.conclude(bench.setting, bench.facts, rows)
        assert endpoints == {evidence.endpoint for evidence in found}
        for evidence in found:
            assert Evidence.from_json(json.loads(json.dumps(evidence.to_json()))).id == evidence.id
            assert set(evidence.criteria) <= set(one.criteria)
            assert evidence.estimate.n <= len(bench.setting.confirmation) or evidence.endpoint == "residue"
        assert one.seconds(bench) > 0


def test_an_edit_of_the_world_works_and_a_random_value_does_not(bench: Bench, rows: dict[str, Any]) -> None:
    found = {
        one.endpoint: one
        for one in chosen_experiments(["edit-effects"])["edit-effects"].conclude(bench.setting, bench.facts, rows)
    }
    assert found["edit-success"].estimate.value >= 0.75
    assert found["edit-success"].controls[0].estimate.value == 0
    assert found["reach-ratio"].estimate.value > 1
    doses = {
        one.endpoint: one for one in chosen_experiments(["dose"])["dose"].conclude(bench.setting, bench.facts, rows)
    }
    assert doses["graded"].estimate.value > 0.8
    assert doses["graded"].data["curves"]["doses"] == list(dose.DOSES)
    assert len(dose.DOSES) == 17


def test_conclusions_are_pure(bench: Bench, rows: dict[str, Any]) -> None:
    before = copy.deepcopy(rows)
    for name in NAMES:
        one = chosen_experiments([name])[name]
        first = [evidence.to_json() for evidence in one.conclude(bench.setting, bench.facts, rows)]
        again = [evidence.to_json() for evidence in one.conclude(bench.setting, bench.facts, rows)]
        assert json.dumps(first) == json.dumps(again)
        assert first
    assert rows == before
    assert world().applied == []


def test_rows_made_at_one_layer_say_nothing_of_another(bench: Bench, rows: dict[str, Any]) -> None:
    for name in ("dose", "edit-effects", "coverage"):
        assert list(chosen_experiments([name])[name].conclude(bench.setting.at(4), bench.facts, rows)) == []
    moved = chosen_experiments(["edit-layers"])["edit-layers"].conclude(bench.setting.at(4), bench.facts, rows)
    assert {one.endpoint for one in moved} >= {"edit-advantage", "minimality"}
    assert (
        list(chosen_experiments(["edit-layers"])["edit-layers"].conclude(bench.setting.at(6), bench.facts, rows)) == []
    )


def test_no_rows_give_no_evidence(bench: Bench) -> None:
    for name in NAMES:
        assert list(chosen_experiments([name])[name].conclude(bench.setting, bench.facts, {name: []})) == []


def test_the_residue_is_one_unit_beside_the_facts(bench: Bench, rows: dict[str, Any]) -> None:
    units = chosen_experiments(["coverage"])["coverage"].units(bench.setting)
    assert units == (*bench.setting.confirmation, coverage.RESIDUE)
    found = {
        one.endpoint: one
        for one in chosen_experiments(["coverage"])["coverage"].conclude(bench.setting, bench.facts, rows)
    }
    auc = Estimate.from_json(rows["coverage"][-1]["auc"]["after"])
    assert found["residue"].estimate.value == pytest.approx(1 - auc.value)
    assert found["residue"].criteria == ()


# ---- arithmetic on rows made by hand


def layers_row(name: str, p_new: Sequence[float], **changed: Any) -> dict[str, Any]:
    n = len(p_new)
    return {
        "id": name,
        "layers": list(range(n)),
        "before": [0.0, 0.9],
        "p_new": list(p_new),
        "p_old": [1 - p for p in p_new],
        "random_new": [0.0] * n,
        "random_old": [0.9] * n,
        "norm": [1.0] * n,
        "lesions": None,
        **changed,
    }


def test_edit_advantage_is_success_at_the_place_less_the_median_elsewhere() -> None:
    made = [layers_row(name, (0.1, 0.9, 0.2, 0.3)) for name in ("f0", "f2", "f4")]
    made += [layers_row("f6", (0.9, 0.9, 0.9, 0.3))]
    found = concluded("edit-layers", made, setting_of())
    advantage = found["edit-advantage"]
    assert advantage.estimate.value == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert [control.kind for control in advantage.controls] == ["N1", "N3"]
    assert advantage.controls[0].estimate.value == pytest.approx(0.25)
    assert advantage.controls[1].estimate.value == 0
    assert advantage.p == pytest.approx(
        2 / 16
    )  # three clusters of four differ: two of the sixteen sign patterns reach the sum
    medians = np.array([0.2, 0.2, 0.2, 0.9]) * 2 - 1
    assert found["edit-advantage-probability"].estimate.value == pytest.approx(np.mean(0.8 - medians))
    by_fact = dict(zip(("f0", "f2", "f4", "f6"), 0.8 - medians, strict=True))  # what is ranked against tracing
    assert advantage.data["facts"] == pytest.approx(by_fact)
    assert found["edit-percentile"].estimate.value == 1
    assert advantage.data["success"] == [0.25, 1.0, 0.25, 0.0]


def test_an_edit_that_works_everywhere_has_no_advantage_and_only_rivals() -> None:
    made = [layers_row(f"f{i}", (0.95, 0.96, 0.97, 0.96)) for i in range(8)]
    found = concluded("edit-layers", made, setting_of())
    assert found["edit-advantage"].estimate.value == found["edit-advantage"].estimate.high == 0
    assert found["rivals"].estimate.value == found["rivals"].estimate.high == 0
    assert found["edit-percentile"].estimate.value == pytest.approx((1 + 0.5) / 3)


def test_rivals_that_are_neither_shown_nor_excluded_widen_the_interval() -> None:
    sure = [layers_row(f"f{i}", (0.1, 0.9, 0.1, 0.9)) for i in range(8)]
    found = concluded("edit-layers", sure, setting_of())["rivals"].estimate
    assert (found.low, found.value, found.high) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    torn = [layers_row(f"f{i}", (0.1, 0.5, 0.1, 0.9 if i % 4 < 2 else 0.05)) for i in range(8)]
    found = concluded("edit-layers", torn, setting_of())["rivals"].estimate
    assert found.low == pytest.approx(2 / 3)
    assert found.value < found.high or found.value > found.low
    assert found.high == 1


def test_one_measured_layer_has_none_to_be_compared_with() -> None:
    made = [layers_row("f0", (0.9,)), layers_row("f2", (0.9,))]
    assert concluded("edit-layers", made, setting_of((0,), 0)) == {}


def test_minimality_counts_the_members_whose_absence_is_felt() -> None:
    def lesions(whole: float, without: Sequence[float]) -> dict[str, Any]:
        return {
            "1": {"layers": [0, 1, 2], "whole": whole, "without": list(without)},
            **{str(l): {"layers": [l, l + 1], "whole": 1.0, "without": [1.0, 1.0 - 0.1 * l]} for l in (0, 2, 3)},
        }

    made = [
        layers_row(f"f{i}", (0.1, 0.9, 0.1, 0.1), lesions=lesions(2.0, (1.0 + i / 50, 1.5, 2.0 - (i // 2 - 1.5) / 10)))
        for i in range(8)
    ]
    found = concluded("edit-layers", made, setting_of(window=3))["minimality"]
    # the first two members are felt in every fact, the third as often one way as the other
    assert found.estimate.low == pytest.approx(2 / 3)
    assert found.estimate.high == 1
    assert found.controls[0].estimate.value == pytest.approx((0 + 1 / 2 + 1 / 2) / 3)
    assert found.data["members"] == [0, 1, 2]
    assert found.data["drops"][1]["value"] == pytest.approx(0.5)


def doses_row(name: str, p: Sequence[float], **changed: Any) -> dict[str, Any]:
    """A fact whose new answer has these probabilities over all doses; strata lose nothing unless told."""
    log_odds = [math.log(one / (1 - one)) for one in p]
    n = len(dose.DOSES)

    def curve(moved: float, kept: Sequence[float] | None = None) -> dict[str, Any]:
        return {
            "n": 3,
            "log_odds": [0.0] * n,
            "p": [0.5] * n,
            "right": [1.0] * n,
            "moved": [moved * d for d in dose.DOSES],
            "kept": list(kept or [1.0] * n),
        }

    target = {**curve(4.0), "p": list(p), "log_odds": log_odds}
    strata = {TARGET: target, "same_subject": curve(1.0), "neighbours": curve(2.0), **changed.pop("strata", {})}
    flat = {"n": 1, **{what: [0.1] * len(dose.RANDOM_DOSES) for what in ("log_odds", "p", "right", "moved", "kept")}}
    random = dict.fromkeys(strata, flat)
    return {
        "id": name,
        "layer": 1,
        "norm": 1.0,
        "doses": list(dose.DOSES),
        "strata": strata,
        "random_doses": list(dose.RANDOM_DOSES),
        "random": random,
        **changed,
    }


def losing(from_dose: float) -> dict[str, Any]:
    """A stratum that keeps everything up to a dose, and loses 0.4 a unit of dose beyond it."""
    n = len(dose.DOSES)
    kept = [1 - min(1.0, max(0.0, 0.4 * (d - from_dose))) for d in dose.DOSES]
    return {"n": 3, "log_odds": [0.0] * n, "p": kept, "right": [1.0] * n, "moved": list(dose.DOSES), "kept": kept}


def hill(d: float, ed50: float = 0.5, slope: float = 4) -> float:
    return 0.001 + 0.95 * d**slope / (d**slope + ed50**slope)


def test_a_hill_curve_is_graded_fitted_and_does_not_decline() -> None:
    made = [doses_row(f"f{i}", [hill(d) for d in dose.DOSES]) for i in range(6)]
    found = concluded("dose", made, setting_of())
    assert found["graded"].estimate.value == pytest.approx(1)
    assert found["graded-fit"].estimate.value == 1
    assert found["graded-fit"].data["hill"][0]["ed50"] == pytest.approx(0.5, rel=1e-3)
    assert found["graded-fit"].data["bell"] == []
    assert found["graded-decline"].estimate.value == pytest.approx(0.05)
    assert "6 of 6" in found["graded-decline"].note  # the peak is the largest dose
    assert found["graded"].controls[0].estimate.value == 0


def test_a_rise_and_fall_declines_by_what_it_loses_at_twice_the_peak() -> None:
    bell = [0.9 - 0.8 * abs(d - 1) / 2 for d in dose.DOSES]  # 0.9 at 1, 0.5 at 2
    found = concluded("dose", [doses_row(f"f{i}", bell) for i in range(6)], setting_of())
    assert found["graded-decline"].estimate.value == pytest.approx(0.05 - 0.4)
    assert found["graded-decline"].note == ""
    smooth = [hill(d) * (1 - hill(d, 2.0)) for d in dose.DOSES]
    found = concluded("dose", [doses_row(f"f{i}", smooth) for i in range(6)], setting_of())
    assert found["graded-fit"].data["bell"] == [f"f{i}" for i in range(6)]
    assert found["graded-fit"].estimate.value == 1  # up to the peak it is a Hill curve
    assert found["graded-fit"].data["isotonic r2"][0] < 0.95
    assert found["graded"].estimate.value == pytest.approx(1)  # up to the peak it rises


def test_an_answer_that_only_falls_is_not_graded() -> None:
    falls = [0.5 - d / 10 for d in dose.DOSES]
    found = concluded("dose", [doses_row(f"f{i}", falls) for i in range(6)], setting_of())
    assert found["graded"].estimate.value == 0
    assert found["graded-fit"].estimate.value == 0
    assert found["graded-fit"].data["hill"][0] == {"id": "f0"}


def test_selectivity_is_a_ratio_of_sums_at_dose_1() -> None:
    made = [doses_row(f"f{i}", [hill(d) for d in dose.DOSES]) for i in range(6)]
    found = concluded("dose", made, setting_of())
    assert found["selectivity-same-subject"].estimate.value == pytest.approx(4)
    assert found["selectivity-near"].estimate.value == pytest.approx(2)
    assert found["selectivity-near"].controls[0].estimate.value == pytest.approx(1)
    assert found["selectivity-near"].data["by stratum"]["same_subject"]["value"] == pytest.approx(4)


def test_a_stratum_that_nothing_moves_is_infinitely_spared_and_one_that_is_lacking_is_said() -> None:
    still = {**losing(9), "moved": [0.0] * len(dose.DOSES)}
    made = [doses_row(f"f{i}", [hill(d) for d in dose.DOSES], strata={"neighbours": still}) for i in range(4)]
    found = concluded("dose", made, setting_of())["selectivity-near"]
    assert found.estimate.value == math.inf
    del made[0]["strata"]["same_subject"]
    assert "1 of 4" in concluded("dose", made, setting_of())["selectivity-same-subject"].note


def test_selectivity_needs_dose_1() -> None:
    row = {**doses_row("f0", [hill(d) for d in dose.DOSES]), "doses": [2 * d for d in dose.DOSES if d != 0.5] + [9.0]}
    with pytest.raises(SettingError, match="dose 1"):
        concluded("dose", [row], setting_of())


def test_the_therapeutic_index_is_toxic_over_effective_dose_of_the_worst_stratum() -> None:
    p = [min(0.95, 0.001 + d) for d in dose.DOSES]  # reaches one half at 0.499
    strata = {"same_subject": losing(0.5), "neighbours": losing(1.5)}  # lose a fifth at 1.0 and 2.0
    found = concluded("dose", [doses_row(f"f{i}", p, strata=strata) for i in range(6)], setting_of())[
        "therapeutic-index"
    ]
    assert found.estimate.value == pytest.approx(1.0 / 0.499, rel=1e-6)
    assert found.data["worst"] == "same_subject"
    assert found.data["index"]["neighbours"]["value"] == pytest.approx(2.0 / 0.499, rel=1e-6)
    assert found.data["ED50"]["value"] == pytest.approx(0.499)
    assert found.data["TD20"]["neighbours"]["value"] == pytest.approx(2.0)
    assert found.data["P(TI > 1)"]["same_subject"]["value"] == 1
    assert found.controls[0].estimate.value == 0


def test_doses_that_are_never_reached_are_censored_not_left_out() -> None:
    p = [min(0.95, 0.001 + d) for d in dose.DOSES]
    strata = {"same_subject": losing(9), "neighbours": losing(9)}
    never_harms = [doses_row(f"f{i}", p, strata=strata) for i in range(6)]
    found = concluded("dose", never_harms, setting_of())["therapeutic-index"]
    assert found.estimate.value == pytest.approx(3 / 0.499, rel=1e-6)  # at least
    assert found.data["TD20"]["neighbours"]["value"] == "inf" or math.isinf(found.data["TD20"]["neighbours"]["value"])
    assert "6 of 6 toxic doses above 3" in found.estimate.method
    never_works = [doses_row(f"f{i}", [0.01] * len(dose.DOSES), strata=strata) for i in range(4)]
    found = concluded(
        "dose", [*never_harms[:3], *[{**row, "id": f"f{4 + i}"} for i, row in enumerate(never_works)]], setting_of()
    )["therapeutic-index"]
    assert found.estimate.value == 0  # four of seven facts never reach half effect: the median does not either
    assert "4 of 7 facts never reach half effect" in found.note


def test_where_a_curve_reaches_a_level() -> None:
    assert dose.reached_at([0, 1, 2], [0.0, 0.4, 0.8], 0.6) == (1.5, True)
    assert dose.reached_at([0, 1, 2], [0.7, 0.4, 0.8], 0.6) == (0.0, True)
    assert dose.reached_at([0, 1, 2], [0.0, 0.4, 0.5], 0.6) == (math.inf, False)
    assert dose.decline([0, 1, 2], [0.0, 0.9, 0.4]) == pytest.approx((0.5, False))
    assert dose.decline([0, 1, 2], [0.0, 0.3, 0.4]) == (0.0, True)
    assert dose.middle(np.array([1.0, math.inf, 2.0])) == 2
    assert dose.middle(np.array([1.0, math.inf, 2.0, math.inf])) == 2
    assert dose.middle(np.array([1.0, math.inf, math.inf])) == math.inf


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


# ---- the small pieces


def test_shares_at_the_ends_claim_no_certainty_and_limits_are_turned() -> None:
    clusters = [(f"r{i}", f"s{i}") for i in range(6)]
    assert clustered_proportion([1.0] * 6, clusters).low < 1
    assert clustered_proportion([0.0] * 6, clusters).high > 0
    turned = Estimate(0.02, 0.01, 0.04, 6, 6).below(0.05, "left")
    assert (turned.value, turned.low, turned.high) == pytest.approx((0.03, 0.01, 0.04))


def test_percentile_ranks_split_ties() -> None:
    assert edit_layers.percentile(np.array([0.1, 0.5, 0.5, 0.9]), 1) == pytest.approx((1 + 0.5) / 3)


def test_editors_are_made_once_and_values_are_kept(bench: Bench) -> None:
    fact, edit = an_edit(bench)
    assert bench.folder is not None
    kept = sorted(Path(bench.folder, "values", "rome").glob("*.safetensors"))
    again = bench.edit_at([fact], 1)
    assert again.fingerprint() == edit.fingerprint()
    assert sorted(Path(bench.folder, "values", "rome").glob("*.safetensors")) == kept
