"""Read-outs, agreement of methods, dissociations and what is known of instruments, against plain oracles and shipped numbers."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import palimpsest as pal
from oracles.small import FACTS, model_of
from palimpsest.audit.bench import Bench
from palimpsest.audit.experiment import chosen_experiments
from palimpsest.audit.experiments.convergence import Convergence, agreement_of, chance_jaccard, mean_jaccard, mean_rho
from palimpsest.audit.experiments.dissociation import Dissociation, double_dissociation
from palimpsest.audit.experiments.instruments import (
    Instruments,
    certificate,
    control_of,
    evidence_of,
    known,
    sensitivity,
    slope,
)
from palimpsest.audit.experiments.profiles import Profiles, lens_rise, windowed
from palimpsest.audit.experiments.read_out import direct, output_sites, question, through
from palimpsest.audit.experiments.readout import Readout, permuted, rank_share, share_below
from palimpsest.audit.experiments.transport import Transport, bins_of, rho_of
from palimpsest.audit.setting import LAST, SUBJECT, Place, Setting
from palimpsest.errors import InputError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model, Site, Tap, pad
from palimpsest.statistics import of_means, of_two
from palimpsest.world import made_world
from palimpsest.world.records import records

ANSWERS = ("Paris", "Rome", "Oslo", "Lima")


def setting_of(module: str = "mlp", position: str = SUBJECT, weights: str = "other", window: int = 1) -> Setting:
    return Setting("m", weights, 8, Place(module, 2, window, position), (0, 2, 4, 6), (), ())


def world_bench(count: int = 6) -> Bench:
    model = pal.load("world")
    by = [records(made_world(), (name,))[::9][:count] for name in ("born_in", "profession")]
    facts = [fact for pair in zip(*by, strict=True) for fact in pair][:count]
    names = tuple(fact.id for fact in facts)
    setting = Setting(
        "world", model.fingerprint(), 8, Place("mlp", 0), tuple(range(8)), (), names, samples=2, size="smoke"
    )
    return Bench(model, {fact.id: fact for fact in facts}, setting)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return world_bench()


# what is known of instruments


def test_the_shipped_area_under_the_curve_counts_pairs_of_cells() -> None:
    one = known(certificate(), "trace mlp, noise", SUBJECT, "mlp")
    assert one is not None
    ranks = [[sum(a > b for b in line) + 0.5 * (sum(a == b for b in line) - 1) for a in line] for line in one.profiles]
    planted = [line[int(at)] for line, at in zip(ranks, one.planted, strict=True)]
    rest = [rank for line, at in zip(ranks, one.planted, strict=True) for l, rank in enumerate(line) if l != at]
    wins = sum((a > b) + 0.5 * (a == b) for a in planted for b in rest) / (len(planted) * len(rest))
    assert sensitivity(one).value == pytest.approx(wins)
    assert slope(one).value == pytest.approx(np.polyfit(one.planted, one.reported, 1)[0])


def test_the_weight_graft_passes_sensitivity_and_the_random_scorer_does_not() -> None:
    card, setting = certificate(), setting_of()
    graft = {one.endpoint: one.estimate for one in evidence_of(card, ("graft mlp", "weights"), setting) if one.criteria}
    assert graft["sensitivity"].low >= 0.85
    assert graft["sensitivity-slope"].low >= 0.7
    chance = control_of(card, "random", "mlp")
    assert chance is not None
    assert sensitivity(chance).low < 0.70
    assert slope(chance).low < 0.2


def test_what_is_known_of_an_instrument_is_of_the_model_only_in_the_organisms_own_base() -> None:
    own = certificate()["bases"]["world"]
    assert pal.load("world").fingerprint() == own
    for weights, level in ((own, "model"), ("other", "instrument")):
        found = Instruments().conclude(setting_of(weights=weights), {}, {})
        assert {one.endpoint for one in found} >= {"sensitivity", "sensitivity-slope", "calibration"}
        assert {one.level for one in found} == {level}


def test_a_window_is_said_not_to_be_what_was_certified() -> None:
    assert "window of 5" in Instruments().conclude(setting_of(window=5), {}, {})[0].note
    assert "window" not in Instruments().conclude(setting_of(), {}, {})[0].note


def test_few_organisms_cannot_make_an_instrument_certain() -> None:
    found = {one.endpoint: one.estimate for one in Instruments().conclude(setting_of("attn", LAST), {}, {})}
    assert found["sensitivity"].value == 1
    assert found["sensitivity"].low == pytest.approx(1 - 3 / 4 / 2)  # four organisms, none missed
    assert found["calibration"].low < 0


def test_a_layer_planted_pair_of_relations_is_dissociated_by_lesions_of_the_last_token() -> None:
    contrasts = [
        one["contrast"] for one in certificate()["crossed"] if one["reading"][::2] == ["lesion mlp, mean", "last token"]
    ]
    assert len(contrasts) == 3
    assert all(contrast["low"] > 0 for contrast in contrasts)


@pytest.mark.parametrize("name", ["instruments", "convergence", "dissociation"])
def test_experiments_without_units_refuse_to_measure(name: str) -> None:
    made: Any = chosen_experiments([name])[name]
    assert not made.units(setting_of())
    with pytest.raises(SettingError, match="measures nothing"):
        made.measure(None, "x")


# statistics of means


def test_a_statistic_of_means_is_taken_of_the_means() -> None:
    table = np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 8.0]])
    found = of_means(table, None, lambda means: float(means[1] / means[0]), name="ratio of means")
    assert found.value == pytest.approx(4 / 3)
    assert found.low <= found.value <= found.high
    two = of_two((table, table[:, :1]), (None, None), lambda a, b: a[:, 1] - b[:, 0], name="difference")
    assert two.value == pytest.approx(1.0)
    with pytest.raises(InputError, match="at least one record"):
        of_means(table[:0], None, lambda means: 0.0, name="nothing")


# the read-out


def perturbed(model: Model, ids: tuple[int, ...], site: Site, at: int, change: torch.Tensor, token: int) -> float:
    def add(tensor: torch.Tensor) -> torch.Tensor:
        moved = tensor.clone()
        moved[0, at] += change
        return moved

    batch = pad([ids])
    return float(model.run(batch, at=batch.last[:, None], taps=[Tap(site, add)])[0, 0, token])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("position", [SUBJECT, LAST])
def test_the_slope_through_the_model_is_that_of_a_small_step(family: str, position: str) -> None:
    model = model_of(family, dtype=torch.float64)
    asked = question(model, FACTS[0], ANSWERS, 3)
    site = output_sites(model, "mlp")[0]
    values, slopes = through(model, asked, [site], position)
    step = 1e-4 * torch.randn(values.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for i, token in enumerate(asked.tokens.values()):
        up, down = (perturbed(model, asked.ids, site, asked.at[position], sign * step, token) for sign in (1, -1))
        assert float(slopes[i, 0] @ step) == pytest.approx(
            (up - down) / 2, rel=5e-3, abs=2e-7
        )  # Llama norms in float32


def test_the_direct_slope_is_that_of_norm_and_head() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    asked = question(model, FACTS[0], ANSWERS, 3)
    top = Site("resid_out", model.n_layers - 1)
    state = model.record(pad([asked.ids]), [top])[top][0, asked.at[SUBJECT]]
    found = direct(model, state, list(asked.tokens.values()))
    norm, head = model.net.transformer.ln_f, model.net.lm_head  # type: ignore[attr-defined]
    for row, token in zip(found, asked.tokens.values(), strict=True):
        leaf = state.clone().requires_grad_()
        (head.weight[token] @ norm(leaf)).backward()
        assert leaf.grad is not None
        assert torch.allclose(row, leaf.grad)


def test_answers_that_begin_alike_are_asked_once() -> None:
    model = model_of("gpt2")
    asked = question(model, FACTS[0], ("Paris", "Paris 13", "Rome", "Rabat"), 5)
    assert [name[0] for name in asked.tokens] == ["P", "R"]
    assert len(set(asked.tokens.values())) == 2


def test_the_share_below_counts_and_ranks_share_ties() -> None:
    own, others = np.array([2.0, 0.0]), np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 2.0], [0.0, 3.0]])
    assert share_below(own, others).tolist() == [2.5 / 4, 0.5 / 4]
    assert rank_share(np.array([0.1, 0.9, 0.5, 0.2]), 1) == 0.75  # first of four
    assert rank_share(np.array([0.5, 0.5, 0.5, 0.5]), 0) == pytest.approx(1 - 2.5 / 4)


def test_permuted_answers_are_read_in_other_subjects_without_their_own() -> None:
    facts = {name: Fact(name, "{} is in", name, relation="r") for name in ("a", "b")}
    key = f"direct/mlp/{SUBJECT}"
    rows = [
        {"id": "a", "answers": ["A", "B", "C"], "scores": {key: [[9.0], [0.0], [0.0]]}},
        {"id": "b", "answers": ["B", "A", "C"], "scores": {key: [[9.0], [3.0], [1.0]]}},
    ]
    found = permuted(rows, facts, Place("mlp", 0), 1)
    assert found["a"].tolist() == [1.0]  # A above C in b; that B is above both does not count
    assert found["b"].tolist() == [0.5]  # B ties with C in a


def test_a_read_out_of_the_world_has_every_endpoint(bench: Bench) -> None:
    made = Readout()
    rows = [{"id": unit, **made.measure(bench, unit)} for unit in made.units(bench.setting)]
    assert all(len(row["scores"][f"direct/attn/{LAST}"][0]) == 8 for row in rows)
    found = {one.endpoint: one for one in made.conclude(bench.setting, bench.facts, {"readout": rows})}
    assert set(found) == {"readout", "readout-rank", "readout-through"}
    assert {control.kind for control in found["readout"].controls} == {"N7", "N1"}
    moved = made.conclude(bench.setting.at(5), bench.facts, {"readout": rows})[0]
    profile = found["readout"].data["profile"]["estimates"]
    assert moved.estimate.value == pytest.approx(profile[5]["value"])
    assert found["readout"].to_json()["p"] is not None


# profiles and their agreement


def test_lens_rises_add_up_to_what_the_last_state_says(bench: Bench) -> None:
    fact = next(iter(bench.facts.values()))
    asked = question(bench.model, fact, (str(fact.target_new),), 1)
    rises = lens_rise(bench.model, asked, LAST)
    logits = bench.model.last_logits(pad([asked.ids]))[0]
    own, foil = asked.tokens.values()
    sites = [Site("resid_in", 0)]
    first = bench.model.record(pad([asked.ids]), sites)[sites[0]][0, -1]
    begin = bench.model.run(pad([(0,)]), start=8, resid=first[None, None])[0, 0]
    whole = (logits[own] - logits[foil]) - (begin[own] - begin[foil])
    assert float(rises.sum()) == pytest.approx(float(whole), abs=1e-3)


def test_windows_add_up() -> None:
    assert windowed([1.0, 2.0, 4.0, 8.0], "mlp", 3, [0, 2]).tolist() == [3.0, 14.0]


def test_agreement_counts_pairs_of_families_only() -> None:
    rising, falling = np.arange(6.0), np.arange(6.0)[::-1]
    methods = ["trace", "mean", "lens"]  # the first two are one family
    assert mean_rho(np.stack([rising, falling, rising]), methods) == pytest.approx(0.0)
    assert mean_rho(np.stack([rising, rising, rising]), methods) == pytest.approx(1.0)
    assert mean_rho(np.stack([rising, rising, np.ones(6)]), methods) == 0.0
    assert mean_jaccard(np.stack([rising, rising, falling]), methods) == 0.0
    assert mean_jaccard(np.stack([rising, rising, np.array([0.0, 0, 5, 3, 4, 0])]), methods) == pytest.approx(2 / 4)


def test_chance_of_two_random_sets() -> None:
    sets = [set(one) for one in combinations(range(5), 3)]
    plain = np.mean([len(a & b) / len(a | b) for a in sets for b in sets])
    assert chance_jaccard(5) == pytest.approx(plain)


def test_turned_profiles_are_the_null_of_agreement() -> None:
    draw = np.random.default_rng(0)
    peak = np.exp(-0.5 * (np.arange(12) - 4.0) ** 2)
    lines = np.concatenate([peak + 0.02 * draw.standard_normal((8, 12)) for _ in range(3)], axis=1)
    clusters = [("r", str(i)) for i in range(8)]
    same = agreement_of(lines, ["trace", "gradient", "lens"], clusters, 12)
    assert same.estimate.value > 0.5
    assert same.p < 0.05
    shifted = np.concatenate([np.roll(lines[:, :12], 6, axis=1), lines[:, 12:]], axis=1)
    assert agreement_of(shifted, ["trace", "gradient", "lens"], clusters, 12).p > same.p


def test_missing_experiments_contribute_no_profile_and_one_family_is_none(bench: Bench) -> None:
    assert Convergence().conclude(bench.setting, bench.facts, {}) == []
    made = Profiles()
    rows = {"profiles": [{"id": unit, **made.measure(bench, unit)} for unit in made.units(bench.setting)]}
    (found, jaccard) = Convergence().conclude(bench.setting, bench.facts, rows)
    assert (found.endpoint, jaccard.endpoint) == ("convergence", "convergence-jaccard")
    assert "without trace" in found.note
    (pair,) = found.data["pairs"]
    assert found.estimate.value == pytest.approx(pair["rho"])
    assert found.data["mtmm"]["methods"] == ["gradient", "lens"]
    assert {"agreement"} <= set(found.data["mtmm"]["profiles"])


# double dissociation


def effects(n: int, hurt_a: float, hurt_b: float, rest: float) -> Any:
    draw = np.random.default_rng(1)
    noise = 0.01 * draw.standard_normal((n, 4))
    lost_a = np.array([[hurt_a, rest]] * n) + noise[:, :2]
    lost_b = np.array([[rest, hurt_b]] * n) + noise[:, 2:]
    ones = np.ones(n)
    return double_dissociation(lost_a, ones, lost_b, ones, [("r", str(i)) for i in range(n)])


def test_a_double_dissociation_needs_both_sides() -> None:
    found = effects(20, 0.6, 0.5, 0.0)
    assert found.contrast.value == pytest.approx(1.1, abs=0.02)
    assert found.met
    assert found.margin == pytest.approx(0.05, abs=0.01)  # what is spared has the least to lose
    one_sided = effects(20, 0.6, 0.0, 0.0)
    assert one_sided.contrast.low > 0
    assert not one_sided.met
    assert one_sided.margin == pytest.approx(-0.1, abs=0.01)
    assert not effects(20, 0.6, 0.5, 0.2).met  # neither spares the other task


def test_the_second_lesion_is_chosen_on_other_items_than_it_is_judged_on() -> None:
    setting = setting_of()
    facts = {f"f{i}": Fact(f"s{i}", "{} is", "a", "b", relation="r") for i in range(16)}

    def row(i: int) -> dict[str, Any]:
        flip = (
            1.0 if i // 2 % 2 else 0.0
        )  # layer 6 hurts copying on the judged items only, layer 4 on the choosing ones
        own = {"subject": [0.0, 0.8, 0.0, 0.0], "last": [0.0] * 4, "total": 1.0, "withheld": "", "margin": 1.0}
        copied = {**own, "subject": [0.0] * 4, "last": [0.0, 0.0, 1 - flip, flip], "cluster": ["copying", f"s{i}"]}
        return {"id": f"f{i}", "layers": [0, 2, 4, 6], "tasks": {"facts": own, "copying": copied}}

    found, margin = Dissociation().conclude(setting, facts, {"tasks": [row(i) for i in range(16)]})
    assert "layer 4" in found.note
    assert found.data["met"] is False
    assert found.estimate.value == pytest.approx(0.8)
    assert margin.endpoint == "double-dissociation-margin"
    assert margin.estimate.value == pytest.approx(-0.1)  # B does not hurt copying on the judged items: 0 less 0.10


# transport


def map_row(name: str, peak: int, layers: int, what: str = "restoration") -> dict[str, Any]:
    clean, corrupted = [-0.1, -5.0], [[-4.0, -4.0], [-4.0, -4.2]]
    patched = [[[-4.0 + (3.0 if l == peak else 0.1 * l / layers), -4.0]] * 2 for l in range(layers)]
    return {
        "what": what,
        "known": True,
        "layers": list(range(layers)),
        "clean": clean,
        "corrupted": corrupted,
        "subject": patched,
        "last": patched,
        "withheld": {"logit-difference": "", "probability": ""},
    }


def test_equal_depths_match_and_a_task_that_matches_as_well_takes_it_away() -> None:
    setting = Setting("m", "w", 8, Place("mlp", 2), tuple(range(8)), (), ("f0", "f1", "f2"))
    facts = {f"f{i}": Fact(f"s{i}", "{} is", "a", "b", relation="r") for i in range(3)}
    own = [{"id": name, "mlp": map_row(name, 2, 8)} for name in facts]

    def elsewhere(peak: int, task: int) -> list[dict[str, Any]]:
        common = {"model": "other", "network": "Net", "relation": "r"}
        return [
            {
                "id": f"e{i}",
                "subject": f"t{i}",
                **common,
                "facts": map_row("", peak, 8),
                "agreement": map_row("", task, 8),
            }
            for i in range(3)
        ]

    match, peak = Transport().conclude(setting, facts, {"tracing": own, "transport": elsewhere(2, 7)})
    assert match.data["rho"]["value"] == pytest.approx(1.0)
    assert peak.estimate.value == pytest.approx(0.10)
    same, _ = Transport().conclude(setting, facts, {"tracing": own, "transport": elsewhere(2, 2)})
    assert same.estimate.value == pytest.approx(0.0)
    _, moved = Transport().conclude(setting, facts, {"tracing": own, "transport": elsewhere(6, 7)})
    assert moved.estimate.value == pytest.approx(0.10 - 4 / 7)
    assert Transport().conclude(setting, facts, {"tracing": own}) == []


def test_bins_of_depth_are_straight_lines_and_their_ranks_are_correlated() -> None:
    depths = np.array([0.0, 0.25, 1.0])
    line = np.array([1.0, 5.0, 2.0])
    assert (line @ bins_of(depths, 5)).tolist() == pytest.approx([1.0, 5.0, 4.0, 3.0, 2.0])
    draw = np.random.default_rng(0).standard_normal((2, 3, 7))
    plain = [stats.spearmanr(a, b).statistic for a, b in zip(*draw, strict=True)]
    assert rho_of(draw[0], draw[1]).tolist() == pytest.approx(plain)
    assert rho_of(np.ones((1, 4)), np.arange(4.0)[None]).tolist() == [0.0]


def test_the_other_model_is_of_another_family(bench: Bench) -> None:
    made = Transport()
    row = made.measure(bench, "elsewhere/0")
    assert row["network"] != type(bench.model.net).__name__
    assert len(row["facts"]["layers"]) == len(row["agreement"]["layers"])
    with pytest.raises(SettingError, match="knows 6 of the facts"):
        made.measure(bench, "elsewhere/999")
