"""Lesions and confounds: against plain hooks and really changed weights, and each endpoint's arithmetic on rows made by hand."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from oracles.small import FACTS as TINY
from oracles.small import down_of, model_of, moment_of
from oracles.small_audit import (
    CENTRE,
    LAYERS,
    OTHER,
    bench_of,
    handled,
    known,
    margin,
    mlp_values,
    moments_in,
    put,
    world,
)
from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Experiment, Row, chosen_experiments
from palimpsest.audit.experiments.confounds import REFERENCE, RELATION, SWAP, spearman, variants
from palimpsest.audit.experiments.lesion import BY, removals
from palimpsest.audit.experiments.placed import other_layers, placed, too_small
from palimpsest.audit.experiments.roles import Effects, cells, total
from palimpsest.audit.setting import LAST, SUBJECT, Place, Setting
from palimpsest.errors import FactError, InputError
from palimpsest.facts import Fact
from palimpsest.locate.tracing.asked import ask
from palimpsest.locate.tracing.corruption import swapped

FACTS = {f"f{i}": Fact(f"Subject{i}", "{} is in", "Paris", "Rome", id=f"f{i}", relation=f"r{i % 4}") for i in range(12)}
PLACE = Place("mlp", 6, 3)
SETTING = Setting(
    "none", "0", 12, PLACE, (0, 3, 6, 7, 9), (), tuple(FACTS)
)  # the window of 7 shares layers with the place's


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("lesions")
    with moments_in(folder):
        yield bench_of(folder)


@pytest.fixture(scope="module")
def rows(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """What both experiments measure, as a run stores it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in ("lesion", "confounds"):
        one = chosen_experiments([name])[name]
        measured = [{"id": unit, **one.measure(bench, unit)} for unit in one.units(bench.setting)]
        found[name] = json.loads(json.dumps(measured, allow_nan=False))
    return found


def by_endpoint(name: str, rows: Sequence[Row], setting: Setting = SETTING) -> dict[str, Evidence]:
    found = chosen_experiments([name])[name].conclude(setting, FACTS, {name: rows})
    for one in found:
        assert Evidence.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))).id == one.id
    return {one.endpoint: one for one in found}


# ---- the instruments


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_taking_a_slot_out_is_what_really_changed_weights_do(family: str) -> None:
    model, layers = model_of(family, dtype=torch.float64), (0, 1)
    fact = TINY[1]
    moments = {layer: moment_of(model, layer) for layer in layers}
    before = model.fingerprint()
    found = removals(model, fact, layers, moments)
    assert model.fingerprint() == before
    asked = ask(model, fact, score="logit-difference")
    ids, last = torch.tensor([asked.encoded.ids]), len(asked.encoded) - 1
    for at in (asked.subject[-1], last):
        for column, layer in enumerate(layers):
            changed = copy.deepcopy(model)
            down = down_of(changed, family, layer)
            seen: dict[str, torch.Tensor] = {}
            with torch.no_grad():
                with handled(
                    [
                        down.register_forward_hook(
                            lambda _, args, __, seen=seen, at=at: seen.update(k=args[0][0, at].clone())
                        )
                    ]
                ):
                    changed.net(ids)
                k = seen["k"].double()
                weight = down.weight.T if family == "gpt2" else down.weight  # Conv1D keeps (in, out)
                u = torch.linalg.solve(moments[layer].matrix, k)
                slot = torch.outer(weight.double() @ k, u / (k @ u))
                assert torch.linalg.matrix_rank(slot) == 1
                assert ((weight.double() - slot) @ k).abs().max() < 1e-9  # W' k = 0, exactly what is claimed
                down.weight -= slot.T if family == "gpt2" else slot
                log_p = changed.net(ids).logits[0, -1].log_softmax(-1)[list(asked.scored)]
            assert np.abs(found.log_p_patched[at, column, 0] - log_p.numpy()).max() < 1e-7
    other = [t for t in range(last) if t != asked.subject[-1]]
    assert np.isnan(found.log_p_patched[other]).all()


def test_an_interchange_lesion_of_a_window_is_what_plain_hooks_say(bench: Bench, rows: dict[str, Any]) -> None:
    model, fact = world(), bench.confirmation[0]
    asked = ask(model, fact, score="logit-difference")
    others = swapped(model, fact, asked.encoded, list(bench.facts.values()), 2, seed=bench.setting.seed)
    clean = margin(model, asked.encoded.ids, asked.scored)
    row = rows["lesion"][0]
    window = bench.setting.place.layers(model.n_layers)
    assert list(window) == [3, 4]
    for role, at in ((SUBJECT, asked.subject[-1]), (LAST, len(asked.encoded) - 1)):
        donors = [mlp_values(model, ids, at) for ids in others.ids]
        effects = []
        for values in donors:
            hooks = [model.net.transformer.h[l].mlp.register_forward_hook(put(at, values[l])) for l in window]
            with handled(hooks):
                effects.append(clean - margin(model, asked.encoded.ids, asked.scored))
        assert cells(row["interchange"], role)[LAYERS.index(CENTRE)] == pytest.approx(effects, abs=2e-3)
        mean = [torch.stack([values[l] for values in donors]).mean(0) for l in range(model.n_layers)]
        hooks = [model.net.transformer.h[l].mlp.register_forward_hook(put(at, mean[l])) for l in window]
        with handled(hooks):
            assert cells(row["mean"], role)[LAYERS.index(CENTRE), 0] == pytest.approx(
                clean - margin(model, asked.encoded.ids, asked.scored), abs=2e-3
            )
    whole = [clean - margin(model, ids, asked.scored) for ids in others.ids]
    assert total(row["interchange"]) == pytest.approx(np.mean(whole), abs=2e-3)


def test_reach_is_how_far_the_mean_lesion_moves_the_stream(bench: Bench, rows: dict[str, Any]) -> None:
    model, fact = world(), bench.confirmation[0]
    asked = ask(model, fact, score="logit-difference")
    at, ids = asked.subject[-1], torch.tensor([asked.encoded.ids])
    others = swapped(model, fact, asked.encoded, list(bench.facts.values()), 2, seed=bench.setting.seed)
    donors = [mlp_values(model, row, at) for row in others.ids]
    streams: list[torch.Tensor] = []
    blocks = model.net.transformer.h
    keep = lambda _, __, out: streams.append((out[0] if isinstance(out, tuple) else out)[0, at].clone())  # noqa: E731
    with torch.no_grad(), handled([blocks[CENTRE].register_forward_hook(keep)]):
        model.net(ids)
        with handled(
            blocks[l].mlp.register_forward_hook(put(at, torch.stack([values[l] for values in donors]).mean(0)))
            for l in (3, 4)
        ):
            model.net(ids)
    clean, moved = streams
    expected = float((moved - clean).norm() / clean.norm())
    assert rows["lesion"][0]["reach"]["subject"][LAYERS.index(CENTRE)] == pytest.approx(expected, rel=1e-4)
    assert expected > 0.01


def test_what_a_model_measures_becomes_evidence(bench: Bench, rows: dict[str, Any]) -> None:
    for name, expected in (
        ("lesion", {*(f"lesion-{by}" for by in (*BY, "weights")), "lesion-reach"}),
        ("confounds", {"profile-agreement", "peak-shift", "swap-survives"}),
    ):
        made = chosen_experiments([name])[name]
        assert isinstance(made, Experiment)
        assert list(made.units(bench.setting)) == list(bench.setting.confirmation)
        assert made.seconds(bench) > 0
        found = made.conclude(bench.setting, bench.facts, {name: rows[name]})
        assert {one.endpoint for one in found} == expected
        assert all(np.isfinite(one.estimate.value) and set(one.criteria) <= set(made.criteria) for one in found)
        moved = made.conclude(bench.setting.at(1), bench.facts, {name: rows[name]})  # as the null audit asks
        assert {one.endpoint for one in moved} == expected
    assert world().fingerprint() == bench.setting.weights


def test_a_lesion_that_cannot_be_made_is_told_and_stops_no_other(bench: Bench) -> None:
    lone = next(fact for fact in bench.facts.values() if fact.relation == OTHER)
    alone = Bench(
        world(),
        {lone.id: lone, **{unit: fact for unit, fact in known().items() if fact.relation != OTHER}},
        replace(bench.setting, discovery=(), confirmation=(lone.id,)),
        bench.folder,
    )
    row = chosen_experiments(["lesion"])["lesion"].measure(alone, lone.id)
    assert set(row["without"]) == {"interchange", "mean"}
    assert "other subjects of the relation" in row["without"]["mean"]
    assert {"resample", "zero", "weights"} <= set(row)
    assert "reach" not in row
    row["noise"]["withheld"] = dict.fromkeys(row["noise"]["withheld"], "")  # two draws are too few for an interval
    found = chosen_experiments(["lesion"])["lesion"].conclude(
        alone.setting, alone.facts, {"lesion": [{"id": lone.id, **row}]}
    )
    assert {one.endpoint for one in found} == {"lesion-resample", "lesion-zero", "lesion-weights"}


def test_a_fact_without_a_foil_is_refused(bench: Bench) -> None:
    unit = bench.setting.confirmation[0]
    mute = replace(bench[unit], target_new=None)
    other = Bench(world(), {**bench.facts, unit: mute}, bench.setting, bench.folder)
    for name in ("lesion", "confounds"):
        with pytest.raises(FactError, match="no foil"):
            chosen_experiments([name])[name].measure(other, unit)


# ---- rows made by hand


def a_map(effects: Sequence[float], te: float, *, withheld: str = "") -> dict[str, Any]:
    """What `record` writes of a lesion of one sample with these effects at the subject, in logits."""
    line = [[[te - effect, 0.0]] for effect in effects]
    return {
        "what": "lesion",
        "known": True,
        "layers": list(SETTING.layers),
        "clean": [te, 0.0],
        "corrupted": [[0.0, 0.0]],
        "subject": line,
        "last": [[[te, 0.0]]] * len(effects),
        "withheld": {"logit-difference": withheld, "probability": withheld},
    }


def lesion_rows(elsewhere: float = 0.0, spread: float = 0.02, neighbour: float = 0.9) -> list[dict[str, Any]]:
    """Effects of .2 TE at the place, `elsewhere` at other layers, and `neighbour` in the window that overlaps."""
    draw = np.random.default_rng(0)
    found = []
    for i, unit in enumerate(FACTS):
        te = 4.0 + i / 4
        here = te * (0.2 + spread * float(draw.normal()))
        line = [elsewhere * te, elsewhere * te, here, neighbour * te, elsewhere * te]
        one = a_map(line, te)
        noise = {name: a_map(line, 2 * te)[name] for name in ("clean", "corrupted", "withheld", "known")}
        found.append(
            {
                "id": unit,
                "layers": list(SETTING.layers),
                "noise": noise,
                "without": {},
                "reach": {"subject": [0.1] * 5, "last": [0.0] * 5},
            }
        )
        found[-1] |= {by: copy.deepcopy(one) for by in (*BY, "weights")}
    return found


def test_a_lesion_is_divided_by_its_own_total_and_held_against_windows_apart() -> None:
    found = by_endpoint("lesion", lesion_rows())
    totals = np.array([4 + i / 4 for i in range(12)])
    own = np.array([cells(row["mean"], SUBJECT)[2, 0] for row in lesion_rows()])
    assert found["lesion-mean"].estimate.value == pytest.approx(own.sum() / totals.sum())
    assert found["lesion-weights"].estimate.value == pytest.approx(own.sum() / totals.sum() / 2)  # over what noise does
    one = found["lesion-interchange"]
    (null,) = one.controls
    assert (null.kind, null.sane, null.estimate.value) == ("N1", True, 0)  # layer 7, which overlaps, is no null
    assert null.note == "mean of layers 0, 3, 9"
    assert one.contrast is not None
    assert one.contrast.value == pytest.approx(one.estimate.value)
    assert one.p == pytest.approx(
        1 / 2000, rel=0.01
    )  # 12 subjects, all positive: 1 / 4096 of the patterns, of 1999 drawn
    assert found["lesion-zero"].criteria == ()
    assert found["lesion-mean"].criteria == ("I1",)
    assert found["lesion-weights"].family == "weights"
    assert found["lesion-reach"].estimate.value == pytest.approx(0.1)
    assert found["lesion-mean"].data["profiles"]["last"]["value"] == [0] * 5


def test_a_lesion_that_hurts_everywhere_has_an_insane_control_and_no_p() -> None:
    found = by_endpoint("lesion", lesion_rows(elsewhere=0.2))["lesion-mean"]
    assert not found.controls[0].sane
    assert found.controls[0].estimate.value == pytest.approx(0.2)
    assert found.p is not None
    assert found.p > 0.05


def test_facts_without_a_total_effect_are_left_out_and_counted() -> None:
    rows = lesion_rows()
    rows[0]["interchange"] = a_map([0.0] * 5, 0.05)  # below the least total effect
    rows[1]["noise"]["withheld"]["logit-difference"] = "the interval reaches down"
    del rows[2]["mean"]
    rows[2]["without"]["mean"] = "None of the others fits."
    found = by_endpoint("lesion", rows)
    assert (found["lesion-interchange"].estimate.n, found["lesion-resample"].estimate.n) == (11, 11)
    assert "1 fact without a usable total effect left out" in found["lesion-resample"].note
    assert found["lesion-mean"].estimate.n == 10
    assert "could not be made for 1 facts: None of the others fits." in found["lesion-mean"].note


def test_other_layers_are_those_whose_windows_share_none() -> None:
    assert other_layers(SETTING) == [0, 3, 9]
    wide = replace(SETTING, place=Place("mlp", 6, 12))
    assert other_layers(wide) == [0, 3, 7, 9]  # all share one: the harder null
    with pytest.raises(InputError, match="no other to compare with"):
        other_layers(replace(SETTING, layers=(6,)))
    assert too_small(0.2) == ""
    assert too_small(0.05) == "the total effect 0.0500 is below 0.1"
    nothing = Effects((), (), SETTING.layers, np.empty((0, 5)), np.empty(0), {})
    with pytest.raises(InputError, match="no share of it"):
        placed(nothing, SETTING)


def variant(line: Sequence[float], te: float = 2.0, withheld: str = "") -> dict[str, Any]:
    return {"total": te, "withheld": withheld, "subject": list(line), "last": [0.0] * len(line)}


def confound_rows(**changed: Sequence[float]) -> list[dict[str, Any]]:
    base = [0.1, 0.2, 1.0, 0.5, 0.3]
    names = {REFERENCE: base, "window 1": base, SWAP: base, RELATION: [0.3, 0.2, 0.0, 0.1, 0.2], **changed}
    return [
        {
            "id": unit,
            "layers": list(SETTING.layers),
            "variants": {name: variant([(1 + i / 50) * x for x in line]) for name, line in names.items()},
            "without": {},
        }
        for i, unit in enumerate(FACTS)
    ]


def test_the_lowest_agreement_counts_and_the_relation_does_not() -> None:
    same = by_endpoint("confounds", confound_rows())
    assert same["profile-agreement"].estimate.value == pytest.approx(1)
    assert same["peak-shift"].estimate.value == pytest.approx(0.10)
    turned = by_endpoint("confounds", confound_rows(mean=[1.0, 0.5, 0.1, 0.2, 0.3]))
    reference, other = [1, 2, 5, 4, 3], [5, 4, 1, 2, 3]
    d = sum((a - b) ** 2 for a, b in zip(reference, other, strict=True))
    assert turned["profile-agreement"].estimate.value == pytest.approx(1 - 6 * d / (5 * 24))  # Spearman 1904
    assert turned["peak-shift"].estimate.value == pytest.approx(0.10 - 6 / 11)  # from layer 6 to layer 0 of 12
    assert "mean" in turned["profile-agreement"].note
    assert RELATION not in turned["profile-agreement"].data["variants"]


def test_what_a_swap_leaves_is_net_of_the_other_layers() -> None:
    found = by_endpoint("confounds", confound_rows())["swap-survives"]
    weight = np.mean([1 + i / 50 for i in range(12)])
    assert found.estimate.value == pytest.approx((1.0 - 0.25) * weight / 2)  # the median of .1 .2 .5 .3
    n1, n5 = found.controls
    assert n1.estimate.value == pytest.approx(0.25 * weight / 2)
    assert (n5.kind, n5.sane) == ("N5", True)
    assert n5.estimate.value == pytest.approx((0.0 - 0.2) * weight / 2)
    gone = by_endpoint("confounds", confound_rows(swap=[0.1, 0.2, 0.15, 0.1, 0.3]))["swap-survives"]
    assert gone.estimate.high <= 0.01


def test_a_variant_that_some_facts_lack_is_compared_on_the_others() -> None:
    rows = confound_rows()
    del rows[0]["variants"][SWAP]
    rows[1]["variants"][SWAP]["withheld"] = "too small"
    rows[0]["variants"][REFERENCE]["subject"] = [9.0, 0.0, 0.0, 0.0, 0.0]
    found = by_endpoint("confounds", rows)
    shown = found["profile-agreement"].data["variants"]
    assert (shown[SWAP]["n"], shown["window 1"]["n"]) == (10, 12)
    assert shown[SWAP]["spearman"] == pytest.approx(1)
    assert found["swap-survives"].estimate.n == 10


def test_variants_change_one_thing_at_a_time() -> None:
    found = variants(SETTING)
    assert found[REFERENCE] == ("noise", 3.0, 3)
    assert "window 3" not in found
    assert {name: window for name, (_, _, window) in found.items() if window != 3} == {"window 1": 1, "window 5": 5}
    assert set(variants(replace(SETTING, place=Place("state", 6)))) == set(found) - {"window 1", "window 5"}
    flat, rising = np.zeros(3), np.arange(3.0)
    assert (spearman(flat, rising), spearman(rising, -rising)) == (0, pytest.approx(-1))


def test_stored_variants_are_the_tracer_s(bench: Bench, rows: Mapping[str, Any]) -> None:
    from palimpsest.locate.tracing.trace import trace

    fact, row = bench.confirmation[0], rows["confounds"][0]
    asked = ask(world(), fact)
    for name, options in (
        (REFERENCE, {}),
        ("noise of 10 spreads", {"noise_level": bench.noise_level * 10 / 3}),
        ("window 1", {"window": 1}),
    ):
        given = {"window": 2, "noise_level": bench.noise_level, **options}
        found = trace(
            world(), fact, kind="mlp", samples=2, score="logit-difference", layers=LAYERS, seed=bench.setting.seed,
            spread_of=list(bench.facts.values()), **given,
        )  # fmt: skip
        assert row["variants"][name]["subject"] == pytest.approx(
            found.effect[asked.subject[-1]].tolist(), rel=1e-4, abs=1e-5
        )
        assert row["variants"][name]["total"] == pytest.approx(found.total_effect, rel=1e-4)
    assert set(row["variants"]) == {*variants(bench.setting), "probability", "log-probability"}
