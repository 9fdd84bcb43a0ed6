"""Tracing and Untrained: against plain patching, and each endpoint's arithmetic on rows made by hand."""

import copy
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from map_rows import a_map, facts_of, one, setting_of

import palimpsest as pal
from oracles.textbook_trace import add_noise, patch_every_cell
from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Experiment, chosen_experiments
from palimpsest.audit.experiments.roles import cells, effects_of, narrow, normalised, record, rounded, total
from palimpsest.audit.experiments.tracing import kappa, peak_agreement, standardised
from palimpsest.audit.experiments.untrained import gap_of_means
from palimpsest.audit.setting import LAST, SUBJECT, Place, Setting
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.tracing.corruption import noise_draw
from palimpsest.locate.tracing.lesion import Lesioner
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.model import Model
from palimpsest.world import made_world
from palimpsest.world.records import records as records_of_world

# Shrout and Fleiss 1979, table 1: six targets, four judges; ICC(2,1) = .29, ICC(2,4) = .62
SHROUT = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], dtype=float)


# ---- against plain patching -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> tuple[Model, list[Fact]]:
    """The shipped model and facts of three relations, each with others to swap in."""
    model, facts = pal.load("world"), records_of_world(made_world(), ["born_in", "employer", "profession"])
    return model, [fact for r in ("born_in", "employer", "profession") for fact in facts if fact.relation == r][::9]


@pytest.fixture(scope="module")
def bench(world: tuple[Model, list[Fact]]) -> Bench:
    """Six facts, two a relation, five layers."""
    model, facts = world
    chosen: list[Fact] = []
    for relation in ("born_in", "employer", "profession"):
        chosen += [fact for fact in facts if fact.relation == relation][:2]
    setting = Setting(
        "world",
        model.fingerprint(),
        model.n_layers,
        Place("mlp", 3, 3),
        (0, 1, 3, 5, 7),
        (),
        tuple(fact.id for fact in chosen),
        samples=3,
        cuts={"untrained": 2, "templates": 3},
    )
    return Bench(model, {fact.id: fact for fact in facts}, setting)


@pytest.fixture(scope="module")
def measured(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """Rows of the three experiments as a runner stores and reads them."""
    rows: dict[str, list[dict[str, Any]]] = {"lesion": []}
    for name in ("tracing", "untrained", "templates"):
        made = chosen_experiments([name])[name]
        rows[name] = [{"id": unit, **made.measure(bench, unit)} for unit in made.units(bench.setting)]
    return json.loads(json.dumps(rows))  # type: ignore[no-any-return]


def test_rows_of_tracing_are_plain_patching(bench: Bench, measured: dict[str, list[dict[str, Any]]]) -> None:
    row = measured["tracing"][0]
    fact, model, setting = bench[row["id"]], bench.model, bench.setting
    encoded = model.encode(fact.text)
    subject = encoded.tokens_of(*fact.subject_span)
    noise = noise_draw(3, len(subject), model.anatomy.width, seed=setting.seed, fact=fact).numpy() * bench.noise_level
    blocks = list(model.net.transformer.h)
    answers = [
        model.encode(f"{fact.text} {answer}").ids[len(encoded)] for answer in (fact.target_true, fact.target_new)
    ]
    spots = [(t, l) for t in (subject[-1], len(encoded) - 1) for l in setting.layers]
    for kind, window in (("mlp", 3), ("state", 1)):
        base, clean, patched = patch_every_cell(
            model.net,
            {"state": blocks, "mlp": [block.mlp for block in blocks]},
            ([list(encoded.ids)] * 3, add_noise(noise, list(subject))),
            ([list(encoded.ids)], None),
            answers,
            kind=kind,
            window=window,
            cells=spots,
        )
        ld_base, ld_clean, ld = (log_p[..., 0] - log_p[..., 1] for log_p in (base, clean, patched))
        assert total(row[kind]) == pytest.approx(ld_clean[0] - ld_base.mean(), abs=1e-3)
        for role, token in ((SUBJECT, subject[-1]), (LAST, len(encoded) - 1)):
            expected = ld[token][list(setting.layers)] - ld_base
            assert cells(row[kind], role) == pytest.approx(expected, abs=1e-3)


def test_patching_the_ends_alone_changes_nothing_there(world: tuple[Model, list[Fact]]) -> None:
    model, facts = world
    tracer = Tracer.of(model, facts, kind="attn", window=2, samples=2, noise_level=0.4, score="logit-difference")
    lesioner = Lesioner.of(model, facts, kind="mlp", window=3, samples=2, score="logit-difference")
    three = [facts[0], facts[20], facts[-1]]  # of several lengths, in shared batches
    for instrument in (tracer, lesioner):
        whole, ends = instrument.each(model, three), narrow(instrument).each(model, three)
        for full, part in zip(whole, ends, strict=True):
            at = sorted({full.subject[1] - 1, len(full.tokens) - 1})
            assert part.effect[at] == pytest.approx(full.effect[at], abs=1e-4)
            assert np.isnan(np.delete(part.effect, at, axis=0)).all()
            assert record(part)["subject"] == rounded(part.log_p_patched[part.subject[1] - 1])


def test_a_record_says_what_its_map_says(world: tuple[Model, list[Fact]]) -> None:
    model, facts = world
    trace = pal.trace(model, facts[3], kind="mlp", window=3, samples=3, noise_level=0.5, score="logit-difference")
    row = json.loads(json.dumps(record(trace)))
    for score in ("logit-difference", "probability", "log-probability"):
        scored = trace.scored(score)
        assert cells(row, SUBJECT, score) == pytest.approx(scored.effects[scored.subject[1] - 1], abs=1e-3)
        assert cells(trace, LAST, score) == pytest.approx(scored.effects[-1], abs=1e-3)
        assert total(row, score) == pytest.approx(scored.total_effect, abs=1e-3)
    expected = trace.fraction[trace.subject[1] - 1]
    assert normalised(row, SUBJECT) == pytest.approx(expected, abs=1e-3, nan_ok=True)


def test_the_experiments_run_on_world(bench: Bench, measured: dict[str, list[dict[str, Any]]]) -> None:
    setting, facts = bench.setting, bench.facts
    found: dict[str, Evidence] = {}
    for name in ("tracing", "untrained", "templates", "consistency"):
        made = chosen_experiments([name])[name]
        assert isinstance(made, Experiment)
        assert made.seconds(bench) >= 0
        for evidence in made.conclude(setting, facts, measured):
            assert Evidence.from_json(json.loads(json.dumps(evidence.to_json()))).id == evidence.id
            assert set(evidence.criteria) <= set(made.criteria)
            found[evidence.endpoint] = evidence
    assert set(found) == {
        *("restoration", "restoration-state", "magnitude", "reliability", "reliability-width", "baseline-gap"),
        *("template-eta", "template-icc", "template-robustness", "consistency", "sign-agreement"),
    }
    kept = [row["mlp"] for row in measured["tracing"] if not row["mlp"]["withheld"]["logit-difference"]]
    share = sum(cells(row, SUBJECT)[2].mean() for row in kept) / sum(total(row) for row in kept)
    assert found["restoration"].estimate.value == pytest.approx(share)
    assert found["restoration"].estimate.n == len(kept) >= 4
    assert found["restoration"].estimate.clusters == 3
    assert {control.kind for control in found["baseline-gap"].controls} == {"N1", "N4", "N6"}
    assert found["baseline-gap"].data["untrained_models"] == 3
    # no layer restores much at the last subject token of this model, and the last state at the last token everything
    assert abs(found["restoration"].estimate.value) < 0.2
    last = found["restoration-state"].data["profiles"][LAST]
    assert last["layers"][-1] == 7
    assert last["value"][-1] == pytest.approx(1.0, abs=1e-3)


def test_an_untrained_model_gives_next_to_nothing_in_logits(measured: dict[str, list[dict[str, Any]]]) -> None:
    for row in measured["untrained"]:
        assert max(np.abs(cells(model, SUBJECT)).max() for model in row["models"]) < 0.2
        assert len(row["models"]) == 3
        assert row["models"][0]["clean"] != row["models"][1]["clean"]


def test_concluding_is_pure_and_can_be_asked_about_another_layer(
    bench: Bench, measured: dict[str, list[dict[str, Any]]]
) -> None:
    before = copy.deepcopy(measured)
    for name in ("tracing", "untrained", "templates", "consistency"):
        first, again = (
            [
                evidence.to_json()
                for evidence in chosen_experiments([name])[name].conclude(bench.setting, bench.facts, measured)
            ]
            for _ in range(2)
        )
        assert first == again
        assert measured == before
        moved = chosen_experiments([name])[name].conclude(bench.setting.at(5), bench.facts, measured)
        assert [evidence.endpoint for evidence in moved] == [evidence["endpoint"] for evidence in first]
    here, there = (
        one(
            chosen_experiments(["tracing"])["tracing"].conclude(setting, bench.facts, measured), "restoration"
        ).estimate.value
        for setting in (bench.setting, bench.setting.at(5))
    )
    kept = [row["mlp"] for row in measured["tracing"] if not row["mlp"]["withheld"]["logit-difference"]]
    assert there == pytest.approx(sum(cells(row, SUBJECT)[3].mean() for row in kept) / sum(total(row) for row in kept))
    assert here != there


# ---- tracing ----------------------------------------------------------------------------------------------------------


def test_restoration_is_a_ratio_of_totals_against_the_median_of_other_layers() -> None:
    facts = facts_of("a", "a", "b", "b")
    effects, te = np.array([[0.1, 3, 0.3], [0, 2, 0.2], [0.2, 1, 0], [0, 4, 0]]), np.array([4.0, 4, 2, 5])
    rows = [{"id": f"f{i}", "mlp": a_map(effects[i], te[i])} for i in range(4)]
    found = chosen_experiments(["tracing"])["tracing"].conclude(setting_of(tuple(facts)), facts, {"tracing": rows})
    restoration = one(found, "restoration")
    assert restoration.estimate.value == pytest.approx(10 / 15)
    others = (effects[:, 0] + effects[:, 2]) / 2
    (control,) = restoration.controls
    assert control.kind == "N1"
    assert control.estimate.value == pytest.approx(others.sum() / 15)
    assert control.sane
    assert restoration.contrast is not None
    assert restoration.contrast.value == pytest.approx((10 - others.sum()) / 15)
    assert restoration.p == 1 / 16  # all four signs agree
    assert restoration.data["facts"] == {f"f{i}": pytest.approx(effects[i, 1] / te[i], rel=1e-5) for i in range(4)}
    magnitude, gap = one(found, "magnitude"), effects[:, 1] - others
    assert magnitude.data["cohens_d"]["value"] == pytest.approx(gap.mean() / gap.std(ddof=1))
    assert magnitude.controls[0].sane
    assert magnitude.estimate == restoration.estimate
    width = one(found, "reliability-width").estimate
    assert width.value == width.low == pytest.approx(0.2 - restoration.estimate.width)
    assert restoration.data["profiles"][SUBJECT]["value"] == pytest.approx((effects.sum(axis=0) / 15).tolist())
    assert not [evidence for evidence in found if evidence.endpoint == "restoration-state"]  # not in these rows


def test_a_null_that_restores_as_much_is_not_sane() -> None:
    facts = facts_of("a", "b", "c")
    rows = [{"id": name, "mlp": a_map([0.5, 0.6 + i / 10, 0.7])} for i, name in enumerate(facts)]
    found = chosen_experiments(["tracing"])["tracing"].conclude(setting_of(tuple(facts)), facts, {"tracing": rows})
    assert not one(found, "restoration").controls[0].sane


def test_reliability_is_shrout_and_fleiss() -> None:
    facts = facts_of(*"abcdef")
    rows = [{"id": f"f{i}", "mlp": a_map(np.stack([0 * SHROUT[i], SHROUT[i], 0 * SHROUT[i]]), 10)} for i in range(6)]
    found = one(
        chosen_experiments(["tracing"])["tracing"].conclude(setting_of(tuple(facts)), facts, {"tracing": rows}),
        "reliability",
    )
    assert found.estimate.value == pytest.approx(0.62, abs=0.005)
    assert found.data["icc_1"]["value"] == pytest.approx(0.29, abs=0.005)
    assert found.data["draws_for_0.9"] == 23  # .9 (1 - .29) / (.29 x .1), by Spearman and Brown
    assert found.data["peak_agreement_of_draw_halves"] == found.data["peak_agreement_of_fact_halves"] == 1.0


def test_a_withheld_fact_is_left_out_of_shares_and_counted() -> None:
    facts = facts_of("a", "a", "b")
    rows = [
        {"id": "f0", "mlp": a_map([0, 1, 0], 2)},
        {"id": "f1", "mlp": a_map([0, 9, 0], 0.01, withheld="the total effect 0.0100 is below 0.1")},
        {"id": "f2", "mlp": a_map([0, 1, 0], 2)},
    ]
    found = chosen_experiments(["tracing"])["tracing"].conclude(setting_of(tuple(facts)), facts, {"tracing": rows})
    restoration = one(found, "restoration")
    assert restoration.estimate.value == 0.5
    assert restoration.estimate.n == 2
    assert "1 fact without a usable total effect" in restoration.note
    assert list(restoration.data["withheld"]) == ["f1"]


def test_where_all_are_withheld_the_share_is_unknown_and_says_why() -> None:
    facts = facts_of("a", "b")
    rows = [{"id": name, "mlp": a_map([[0, 0], [1, 1], [0, 0]], 0.01, withheld="too small")} for name in facts]
    found = chosen_experiments(["tracing"])["tracing"].conclude(setting_of(tuple(facts)), facts, {"tracing": rows})
    estimate = one(found, "restoration").estimate
    assert np.isnan(estimate.value)
    assert estimate.n == 0
    assert "2 withheld" in estimate.method
    assert np.isnan(one(found, "reliability-width").estimate.value)
    for name in ("untrained", "consistency"):
        assert (
            chosen_experiments([name])[name].conclude(setting_of(tuple(facts)), facts, {"tracing": rows, name: []})
            == []
        )


def test_a_failed_unit_costs_its_fact_only() -> None:
    facts = facts_of("a", "a", "b", "b")
    rows = [{"id": name, "mlp": a_map([0, 1, 0], 2)} for name in ("f0", "f2", "f3")]  # f1 failed: it is not given
    found = chosen_experiments(["tracing"])["tracing"].conclude(setting_of(tuple(facts)), facts, {"tracing": rows})
    assert one(found, "restoration").estimate.n == 3
    assert chosen_experiments(["tracing"])["tracing"].conclude(setting_of(tuple(facts)), facts, {"tracing": []}) == []


def test_one_fact_and_one_draw_have_no_interval_and_no_reliability() -> None:
    facts = facts_of("a")
    found = chosen_experiments(["tracing"])["tracing"].conclude(
        setting_of(("f0",)), facts, {"tracing": [{"id": "f0", "mlp": a_map([0, 1, 0], 2)}]}
    )
    assert one(found, "restoration").estimate.value == 0.5
    assert np.isnan(one(found, "restoration").estimate.low)
    assert np.isnan(one(found, "reliability").estimate.value)


def test_kappa_standardised_and_peaks_of_halves() -> None:
    assert kappa(np.array([1, 1, 2, 2]), np.array([1, 1, 2, 1])) == pytest.approx(0.5)
    assert kappa(np.array([1, 1]), np.array([1, 1])) is None
    assert standardised(np.array([1.0, 2, 3])) == 2
    assert np.isnan(standardised(np.array([1.0, 1])))
    clusters = [("a", str(i)) for i in range(8)]
    rising = np.tile([0.0, 1, 2], (8, 1))
    assert peak_agreement(rising, clusters) == 1.0
    assert peak_agreement(rising[:1], clusters[:1]) is None
    split = np.where(np.arange(8)[:, None] < 4, [[3.0, 0, 0]], [[0, 0, 3.1]])
    assert 0 < (peak_agreement(split, clusters) or 0) < 1


# ---- untrained --------------------------------------------------------------------------------------------------------


def test_the_gap_is_to_the_highest_null() -> None:
    assert gap_of_means(np.array([3.0, 4, 1, 4, 0.5, 1])) == 0.25
    assert np.isnan(gap_of_means(np.array([3.0, 4, 1, 4, 0, 0])))  # no fact with the null was drawn
    facts = facts_of("a", "a", "b", "b")
    tracing = [{"id": f"f{i}", "mlp": a_map([0.1, 2 + i / 10, 0.3], 4)} for i in range(4)]
    own = [
        {"id": "f0", "models": [a_map([0, 0.9, 0]), a_map([0, 1.1, 0])], "shuffled": None},
        {"id": "f2", "models": [a_map([0, 1.0, 0]), a_map([0, 1.2, 0])], "shuffled": a_map([0, 0.4, 0], 4)},
    ]
    (gap,) = chosen_experiments(["untrained"])["untrained"].conclude(
        setting_of(tuple(facts)), facts, {"tracing": tracing, "untrained": own}
    )
    nulls = {control.kind: control.estimate for control in gap.controls}
    assert nulls["N1"].value == pytest.approx(0.2 / 4)
    assert nulls["N1"].n == 4
    assert nulls["N4"].value == pytest.approx(0.4 / 4)
    assert nulls["N4"].n == 1
    assert nulls["N6"].value == pytest.approx((1.0 + 1.1) / 8)
    assert nulls["N6"].n == 2
    assert gap.data["highest"] == "N6"
    assert gap.estimate.value == pytest.approx(8.6 / 16 - 2.1 / 8)
    assert gap.data["profiles"][SUBJECT]["untrained"] == pytest.approx([0, 1.05, 0])
    assert gap.data["profiles"][SUBJECT]["trained"] == pytest.approx([0.1, 2.1, 0.3])


def test_few_facts_are_measured_unless_the_setting_says_how_many() -> None:
    many = setting_of(tuple(f"f{i}" for i in range(30)))
    assert len(chosen_experiments(["untrained"])["untrained"].units(many)) == 12
    assert len(chosen_experiments(["untrained"])["untrained"].units(replace(many, cuts={"untrained": 20}))) == 20


# ---- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_are_told_in_one_sentence() -> None:
    facts = facts_of("a", "b")
    rows = [{"id": "f0", "mlp": a_map([0, 1, 0])}, {"id": "f1", "mlp": a_map([0, 1, 0], layers=[1, 2, 3])}]
    with pytest.raises(SettingError, match="A role is one of .* got 'subject'"):
        cells(rows[0]["mlp"], "subject")
    with pytest.raises(SettingError, match="A score is .* got 'logit'"):
        cells(rows[0]["mlp"], SUBJECT, "logit")
    with pytest.raises(InputError, match="must agree in layers"):
        effects_of(rows, facts, SUBJECT, kind="mlp")
    effects = effects_of(rows[:1], facts, SUBJECT, kind="mlp")
    with pytest.raises(InputError, match=r"Layer 3 was not measured; the layers are \[0, 2, 4\]"):
        effects.at(3)
    with pytest.raises(SettingError, match="measures nothing"):
        chosen_experiments(["consistency"])["consistency"].measure(None, "f0")  # type: ignore[arg-type]


def test_numbers_are_stored_short() -> None:
    assert rounded([1.23456789, np.nan]) == [1.23457, None]
    assert rounded(np.empty((0, 2))) == []
