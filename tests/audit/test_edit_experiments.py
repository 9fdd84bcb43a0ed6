"""The experiments that edit: readings against plain runs, and runs on `world`."""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.edit_rows import NAMES
from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import chosen_experiments
from palimpsest.audit.experiments import coverage, dose, edit_layers
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
from palimpsest.errors import EditError, FactError
from palimpsest.facts import Fact, Probe
from palimpsest.model import Model, Site, Tap, pad
from palimpsest.statistics import Estimate
from palimpsest.world import made_world

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


def test_editors_are_made_once_and_values_are_kept(bench: Bench) -> None:
    fact, edit = an_edit(bench)
    assert bench.folder is not None
    kept = sorted(Path(bench.folder, "values", "rome").glob("*.safetensors"))
    again = bench.edit_at([fact], 1)
    assert again.fingerprint() == edit.fingerprint()
    assert sorted(Path(bench.folder, "values", "rome").glob("*.safetensors")) == kept
