"""The lemma of the entity bottleneck, exchanges against plain oracles, and what the tests of storage say of made rows."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import palimpsest as pal
from oracles.small import model_of
from palimpsest.audit.bench import Bench
from palimpsest.audit.experiments.interchange import (
    Span,
    asked_of,
    donors_of,
    exchanged,
    known_answers,
    log_odds,
    place_sites,
    random_span,
    readable,
)
from palimpsest.audit.experiments.read_out import question
from palimpsest.audit.experiments.storage import Storage, account, accounts, measured_tests, ratios
from palimpsest.audit.experiments.storage_likelihood import calibration, likelihood, told_apart
from palimpsest.audit.setting import Place, Setting
from palimpsest.errors import FactError
from palimpsest.facts import Fact, Probe
from palimpsest.model import Site, pad
from palimpsest.statistics import Estimate
from palimpsest.world import made_world
from palimpsest.world.records import records

RELATIONS = ("born_in", "profession")


@pytest.fixture(scope="module")
def bench() -> Bench:
    model = pal.load("world")
    by = [records(made_world(), (name,))[::9][:3] for name in RELATIONS]
    facts = [fact for pair in zip(*by, strict=True) for fact in pair]
    names = tuple(fact.id for fact in facts)
    setting = Setting(
        "world", model.fingerprint(), 8, Place("mlp", 0), (0, 2, 4, 6), (), names, samples=2, size="smoke"
    )
    return Bench(model, {fact.id: fact for fact in facts}, setting)


# the lemma


@pytest.mark.parametrize("family", ["gpt2", "llama", "world"])
def test_in_a_subject_first_prompt_the_subjects_state_cannot_depend_on_the_relation(family: str) -> None:
    model = pal.load("world") if family == "world" else model_of(family)
    sites = [
        Site(kind, layer) for layer in range(model.n_layers) for kind in ("key", "mlp_out", "attn_out", "resid_out")
    ]
    states = []
    for relation in (" was born in the city of", " works as a", " has long been known to be the owner of the old"):
        encoded = model.encode(f"Bilgarin Nurnadal{relation}")
        at = encoded.tokens_of(0, len("Bilgarin Nurnadal"))[-1]
        found = model.record(pad([encoded.ids]), sites)
        states.append([found[site][0, at] for site in sites])
    for other in states[1:]:
        for one, same in zip(states[0], other, strict=True):
            assert float((one - same).abs().max()) <= 1e-6 * max(1.0, float(one.abs().max()))
    last = [model.encode(f"Bilgarin Nurnadal{relation}").ids[-1] for relation in (" was born in", " works as a")]
    assert last[0] != last[1]  # the prompts do differ after it


# what is asked


def fact_of(subject: str, answer: str, probes: tuple[Probe, ...] = ()) -> Fact:
    return Fact(subject, "{} was born in", answer, "Nowhere", relation="born", same_subject=probes)


def test_what_facts_tell_is_asked_of_subject_and_donors() -> None:
    facts = [
        fact_of("Ann", "Rome", (Probe("Ann works as", answer="baker"), Probe("Ann likes", answer="tea"))),
        fact_of("Bob", "Oslo", (Probe("Bob works as", answer="judge"),)),
        fact_of("Cid", "Rome", (Probe("Cid works as", answer="cook"),)),
    ]
    table = known_answers(facts)
    assert table["{} works as"] == {"Ann": "baker", "Bob": "judge", "Cid": "cook"}
    asked = asked_of(facts[0], table)
    assert [(one.prompt, one.target_true) for one in asked] == [("{} works as", "baker")]  # of "likes" no other is told
    assert donors_of(facts[0], table) == ("Bob",)  # Cid has the same answer


# exchanges


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = torch.randn(11, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = float(logits.softmax(0)[4])
    assert log_odds(logits, 4) == pytest.approx(math.log(p / (1 - p)))


def test_exchanging_a_whole_basis_is_exchanging_the_whole_and_none_is_nothing(bench: Bench) -> None:
    fact, table = bench.confirmation[0], known_answers(list(bench.facts.values()))
    sites = place_sites(bench)
    width = bench.model.anatomy.width
    turned, _ = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))
    spans = {
        "whole": None,
        "readable": Span(dict.fromkeys(sites, turned)),
        "random": Span(dict.fromkeys(sites, torch.zeros(width, 1))),
    }
    found = exchanged(bench.model, fact, table, donors_of(fact, table), sites, spans)
    assert found is not None
    assert found["readable"]["lost"] == pytest.approx(found["whole"]["lost"], abs=1e-3)
    assert found["random"]["lost"] == pytest.approx(0.0, abs=1e-4)
    assert abs(found["whole"]["lost"]) > 0.01


def test_the_state_of_another_subject_moves_the_answer_all_the_way(bench: Bench) -> None:
    moved = replace(bench.setting, place=Place("state", 7, 1, "last subject token"), layers=(0, 7))
    fact, table = bench.confirmation[0], known_answers(list(bench.facts.values()))
    one = Fact(fact.subject, "{}", fact.target_true)  # the subject's token is the last, so its state is all there is
    told = {
        "{}": {other.subject: str(other.target_true) for other in bench.confirmation if other.relation == fact.relation}
    }
    other = Bench(bench.model, bench.facts, moved)
    found = exchanged(bench.model, one, told, donors_of(fact, table), place_sites(other), {"whole": None})
    assert found is not None
    assert found["whole"]["went"] == pytest.approx(found["whole"]["way"], rel=1e-3)


def test_the_readable_part_spans_the_differences_of_answers(bench: Bench) -> None:
    fact = bench.confirmation[0]
    sites = place_sites(bench)
    answers = [str(one.target_true) for one in bench.confirmation if one.relation == fact.relation]
    span = readable(bench.model, question(bench.model, fact, answers, 6), sites)
    assert span is not None
    basis = span.of[sites[0]]
    assert span.rank == len(set(answers)) - 1
    assert torch.allclose(basis.T @ basis, torch.eye(span.rank), atol=1e-5)
    chance = random_span(span, fact, 0).of[sites[0]]
    assert chance.shape == basis.shape
    assert torch.allclose(chance.T @ chance, torch.eye(span.rank), atol=1e-5)
    assert readable(bench.model, question(bench.model, fact, (), 6), sites) is None


# what rows say


def row(name: str, own: float, others: tuple[float, ...], how: str = "readable", centre: int = 0) -> dict[str, Any]:
    def part(lost: float) -> dict[str, Any]:
        return {"known": True, "clean": 5.0, how: {"lost": lost, "went": lost, "way": 1.0}}

    timing = {"before": 0.5, "after": 0.9, "last": 1.0}
    others_of = [part(lost) for lost in others]
    return {"id": name, "centre": centre, "target": part(own), "others": others_of, "timing": timing, "turn": None}


FACTS = {f"f{i}": Fact(f"s{i}", "{} is", "a", "b", relation=f"r{i % 3}") for i in range(12)}


def test_sigma_is_what_others_lose_over_what_the_fact_loses() -> None:
    rows = [row(name, 2.0, (0.1, 0.3)) for name in FACTS]
    found = measured_tests(rows, FACTS)
    assert found["sigma-subspace"].value == pytest.approx(0.1)
    assert found["rise"].value == pytest.approx(0.4)
    assert "sigma" not in found  # nothing was exchanged whole
    assert accounts(rows) == {"storage": 1.0}


def test_unknown_relations_do_not_count() -> None:
    one = row("f0", 2.0, (1.0, 9.0))
    one["others"][1]["known"] = False
    assert ratios([one], "readable", "lost") == [("f0", 1.0, 2.0)]


def test_each_fact_speaks_for_one_account() -> None:
    assert account(0.1, 1.0) == "storage"
    assert account(0.9, 1.0) == "entity"
    assert account(0.5, 1.0) == "unresolved"
    assert account(0.5, 0.05) == "not readable here"


def test_a_loss_that_may_be_none_is_not_divided_by() -> None:
    rows = [row(name, 0.5 if i % 2 else -0.5, (0.2,)) for i, name in enumerate(FACTS)]
    setting = Setting("m", "w", 8, Place("mlp", 0), (0, 2), (), tuple(FACTS))
    found = {one.endpoint: one for one in Storage().conclude(setting, FACTS, {"storage": rows})}
    assert not found["sigma-subspace"].estimate.is_known
    assert "nothing to divide by" in found["sigma-subspace"].note
    assert found["sigma-subspace"].data["lost"]["readable"]["low"] < 0


def test_rows_of_another_place_say_nothing_of_this_one() -> None:
    rows = [row(name, 2.0, (0.1,), centre=4) for name in FACTS]
    setting = Setting("m", "w", 8, Place("mlp", 0), (0, 2), (), tuple(FACTS))
    found = Storage().conclude(setting, FACTS, {"storage": rows})
    assert [one.estimate.is_known for one in found] == [False]


# likelihoods


def test_the_likelihood_ratio_is_that_of_two_predictive_t_densities() -> None:
    sides = {"storage": [0.1, 0.2, 0.15, 0.25], "entity": [0.9, 1.0, 1.1]}
    half = 0.05 * stats.norm.ppf(0.975)
    tests = {"sigma-subspace": Estimate(0.2, 0.2 - half, 0.2 + half, 20, 5)}
    (found,) = likelihood(tests, {"tests": {"sigma-subspace": sides}}).values()
    squares = sum(sum((x - np.mean(side)) ** 2 for x in side) for side in sides.values())
    spread = squares / 5
    dens = [
        stats.t.pdf((0.2 - np.mean(side)) / scale, 5) / scale
        for side in sides.values()
        for scale in [math.sqrt(spread * (1 + 1 / len(side)) + 0.05**2)]
    ]
    assert found == pytest.approx(math.log10(dens[0] / dens[1]))
    assert found > 1


def test_organisms_that_are_alike_give_no_ratio() -> None:
    same = {"tests": {"sigma": {"storage": [0.9, 1.0, 1.1], "entity": [0.9, 1.0, 1.1]}}}
    assert likelihood({"sigma": Estimate(0.2, 0.1, 0.3, 20, 5)}, same) == {"sigma": pytest.approx(0.0)}
    assert likelihood({"sigma": Estimate(0.2, 0.1, 0.3, 20, 5)}, {}) == {}


def test_the_shipped_calibration_says_when_it_cannot_tell() -> None:
    card = calibration()
    assert all(len(card["organisms"][side]) >= 2 for side in ("storage", "entity"))
    for name, sides in card["tests"].items():
        scores = [(x > y) + 0.5 * (x == y) for x in sides["storage"] for y in sides["entity"]]
        area = float(np.mean(scores))
        assert card["auroc"][name] == pytest.approx(max(area, 1 - area))
    control = told_apart(card, tuple(card["tests"]))
    assert control.sane == (control.estimate.value >= 0.85)


# all of it


def test_storage_of_the_world_is_measured_fact_by_fact(bench: Bench) -> None:
    made = Storage()
    rows = [{"id": unit, **made.measure(bench, unit)} for unit in made.units(bench.setting)]
    assert all(one["target"]["known"] and one["others"] and one["bleed"] for one in rows)
    before = bench.model.fingerprint()
    found = {one.endpoint: one for one in made.conclude(bench.setting, bench.facts, {"storage": rows})}
    assert bench.model.fingerprint() == before == bench.setting.weights
    assert {"storage", "sigma-subspace", "test-rise", "test-turn"} <= set(found)
    verdict = found["storage"]
    assert verdict.level == "model"  # the organisms were made from this very model
    parts = verdict.data["log10_likelihood_ratio"]
    assert verdict.estimate.value == pytest.approx(sum(parts.values()))
    assert verdict.estimate.low == pytest.approx(min(sum(parts.values()), *verdict.data["without"].values()))
    assert verdict.to_json()["controls"][0]["kind"] == "N8"


def test_a_fact_without_another_subject_says_what_to_give(bench: Bench) -> None:
    alone = bench.confirmation[0]
    bare = Fact(alone.subject, alone.prompt, alone.target_true, alone.target_new, id="alone", relation="alone")
    setting = replace(bench.setting, confirmation=("alone",))
    with pytest.raises(FactError, match="give more facts of the relation"):
        Storage().measure(Bench(bench.model, {"alone": bare}, setting), "alone")
