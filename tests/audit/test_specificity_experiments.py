"""Tasks, transplants and edges: against plain runs and other instruments, and each endpoint's arithmetic on rows made by hand."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

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
from palimpsest.audit.experiments import tasks
from palimpsest.audit.experiments.edges import AROUND, ATTENTION, EDGES, F_STATE, MEDIATED, S_MLP, S_STATE, knocked_out
from palimpsest.audit.experiments.roles import Effects
from palimpsest.audit.experiments.tasks import (
    AGREEMENT,
    COPYING,
    FACTS,
    LEAST,
    NEXT,
    agreement,
    copying,
    opposite,
    ratio,
)
from palimpsest.audit.setting import Place, Setting
from palimpsest.errors import FactError, InputError
from palimpsest.facts import Fact
from palimpsest.locate.reading.knockout import knockout
from palimpsest.locate.tracing.asked import ask
from palimpsest.locate.tracing.trace import trace

MADE = {f"f{i}": Fact(f"Subject{i}", "{} is in", "Paris", "Rome", id=f"f{i}", relation=f"r{i % 4}") for i in range(12)}
SETTING = Setting("none", "0", 12, Place("mlp", 6, 3), (0, 3, 6, 9), (), tuple(MADE))
NAMES = ("tasks", "transplant", "edges")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("specificity")
    with moments_in(folder):
        yield bench_of(folder)


@pytest.fixture(scope="module")
def rows(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """What the experiments measure, as a run stores it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in NAMES:
        one = chosen_experiments([name])[name]
        measured = [{"id": unit, **one.measure(bench, unit)} for unit in one.units(bench.setting)]
        found[name] = json.loads(json.dumps(measured, allow_nan=False))
    return found


def concluded(name: str, rows: Sequence[Row], setting: Setting = SETTING) -> dict[str, Evidence]:
    found = chosen_experiments([name])[name].conclude(setting, MADE, {name: rows})
    for one in found:
        assert Evidence.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False))).id == one.id
    return {one.id.removeprefix(f"{name}/"): one for one in found}


def test_what_a_model_measures_becomes_evidence(bench: Bench, rows: dict[str, Any]) -> None:
    for name, expected in (("transplant", {"transplant", "transplant-state"}), ("edges", {"edge", "false-edges"})):
        made = chosen_experiments([name])[name]
        assert isinstance(made, Experiment)
        assert list(made.units(bench.setting)) == list(bench.setting.confirmation)
        assert made.seconds(bench) > 0
        for setting in (bench.setting, bench.setting.at(1)):  # the second as the null audit asks
            found = made.conclude(setting, bench.facts, {name: rows[name]})
            assert {one.endpoint for one in found} == expected
            assert all(np.isfinite(one.estimate.value) for one in found)
    assert world().fingerprint() == bench.setting.weights


# ---- tasks


def test_items_of_agreement_differ_in_number_and_their_partners_in_the_other() -> None:
    for i in range(24):
        for task in (AGREEMENT, NEXT):
            one = agreement(i, task)
            assert (one.subject in tasks.PLURAL) == (one.target_true == "were") == (i % 2 == 0)
            assert not set(opposite(i)) & set(tasks.PLURAL if i % 2 == 0 else tasks.SINGULAR)
            assert one.text.endswith(one.subject) == (task == NEXT)
    assert len({agreement(i).text for i in range(24)}) == 24


def test_copying_asks_for_the_new_answers_that_the_text_gave(bench: Bench) -> None:
    fact = bench.confirmation[0]
    one, other = copying(bench, fact)
    assert one.text == f"{fact.text} {fact.target_new}. {other.text} {other.target_new}. {fact.text}"
    assert (one.target_true, one.target_new) == (fact.target_new, other.target_new)
    assert one.text[slice(*one.subject_span)] == fact.subject
    lone = replace(fact, prompt="No other fact asks so of {}:")
    with pytest.raises(FactError, match="nothing can be copied"):
        copying(bench, lone)


def test_a_task_that_is_not_done_is_told_and_left_out(bench: Bench, rows: dict[str, Any]) -> None:
    found = chosen_experiments(["tasks"])["tasks"].conclude(bench.setting, bench.facts, {"tasks": rows["tasks"]})
    (worst,) = [one for one in found if one.endpoint == "task-ratio" and not one.about]
    assert {one.about for one in found if one.endpoint == "task-ratio"} == {"", NEXT}
    assert f"does not do {AGREEMENT}" in worst.note  # the made grammar has no words between noun and verb
    assert worst.criteria == ("C3",)


def task_rows(**effects: tuple[float, float, float]) -> list[dict[str, Any]]:
    """Items with (effect at the place, total effect, margin) by task."""
    found = []
    for i, unit in enumerate(MADE):
        made = {
            name: {
                "cluster": [name, f"item {i % 6}"],
                "margin": sure * (1 if i % 3 or name == FACTS else -1) if sure > 0 else sure,
                "total": te + i / 50,
                "withheld": "",
                "subject": [0.0, 0.0, at, 0.0],
                "last": [0.0] * 4,
            }
            for name, (at, te, sure) in effects.items()
        }
        found.append({"id": unit, "layers": list(SETTING.layers), "tasks": made, "without": {}})
    return found


def test_the_worst_task_that_is_done_counts() -> None:
    given = {FACTS: (0.8, 2.0, 1.0), AGREEMENT: (0.1, 2.0, 1.0), NEXT: (1.9, 2.0, 1.0), COPYING: (0.2, 2.0, 1.0)}
    found = concluded("tasks", task_rows(**given))
    shift = np.mean([i / 50 for i in range(12)])
    right = np.mean([i / 50 for i in range(12) if i % 3])  # items answered rightly, as facts are
    expected = (0.8 / (2 + shift)) / (0.2 / (2 + right))
    assert found[f"task-ratio/{COPYING}"].estimate.value == pytest.approx(expected)
    assert found["task-ratio"].estimate == found[f"task-ratio/{COPYING}"].estimate
    assert found["task-ratio"].note.startswith("The worst control task: copying.")
    assert (
        f"task-ratio/{NEXT}" not in found
    )  # where the distant kind is done, the one without words between does not count
    assert found[f"task-ratio/{AGREEMENT}"].criteria == ()
    undone = concluded("tasks", task_rows(**{**given, COPYING: (1.9, 2.0, -1.0), AGREEMENT: (0.1, -2.0, 1.0)}))
    assert {name for name in undone if name.startswith("task-ratio")} == {"task-ratio", f"task-ratio/{NEXT}"}
    assert "does not do copying: 0% of 12 items right" in undone["task-ratio"].note
    assert "does not do agreement: 67% of 12 items right" in undone["task-ratio"].note
    nothing = concluded("tasks", task_rows(**{FACTS: given[FACTS]}))
    assert not [name for name in nothing if name.startswith("task-ratio")]


def test_a_task_that_loses_nothing_does_not_divide_by_nothing() -> None:
    own, other = (
        Effects(
            tuple(MADE),
            tuple((f.relation, f.subject) for f in MADE.values()),
            (6,),
            np.full((12, 1), x),
            np.full(12, 2.0),
            {},
        )
        for x in (0.5, -0.1)
    )
    assert ratio(own, other, 6).value == pytest.approx(0.25 / LEAST)
    assert ratio(other, own, 6).value == 0
    assert ratio(own, own, 6).value == pytest.approx(1)
    rows = task_rows(**{FACTS: (0.8, 2.0, 1.0)})
    for row in rows:
        row["tasks"][FACTS]["withheld"] = "too small"
    with pytest.raises(InputError, match="no ratio to other tasks"):
        concluded("tasks", rows)


def test_relations_are_compared_beside() -> None:
    rows = task_rows(**{FACTS: (0.8, 2.0, 1.0)})
    for i, row in enumerate(rows):
        row["tasks"][FACTS]["total"] = 2.0
        row["tasks"][FACTS]["subject"][2] = 0.2 if i % 4 == 1 else 0.8
    found = concluded("tasks", rows)["relation-ratio/r1"]
    assert found.estimate.value == pytest.approx(4)
    assert found.criteria == ()


# ---- transplants


def test_a_transplant_is_what_plain_hooks_say(bench: Bench, rows: Mapping[str, Any]) -> None:
    model, fact, row = world(), bench.confirmation[0], rows["transplant"][0]
    assert row["pairs"]
    for pair in row["pairs"]:
        (other,) = [
            one for one in bench.facts.values() if one.subject == pair["subject"] and one.relation == fact.relation
        ]
        asked = ask(model, replace(fact, target_new=other.target_true), score="logit-difference")
        ids, at = asked.encoded.ids, asked.subject[-1]
        donor = model.encode(fact.prompt.replace("{}", other.subject)).ids
        back = (asked.scored[1], asked.scored[0])  # the other's answer minus the own one
        assert pair["clean"] == pytest.approx(margin(model, ids, back), abs=2e-3)
        assert pair["whole"] == pytest.approx(margin(model, donor, back), abs=2e-3)
        values = mlp_values(model, donor, at)
        with handled(model.net.transformer.h[l].mlp.register_forward_hook(put(at, values[l])) for l in (3, 4)):
            assert pair["module"]["subject"][LAYERS.index(CENTRE)] == pytest.approx(margin(model, ids, back), abs=2e-3)
    thirds = [pair for pair in row["pairs"] if "third" in pair]
    assert thirds
    assert all(pair["third"] != pair["module"] for pair in thirds)


def test_a_fact_without_partners_has_no_transplant(bench: Bench) -> None:
    lone = next(fact for fact in bench.facts.values() if fact.relation == OTHER)
    others = {unit: fact for unit, fact in known().items() if fact.relation != OTHER}
    setting = replace(bench.setting, discovery=(), confirmation=(lone.id,))
    alone = Bench(world(), {lone.id: lone, **others}, setting)
    with pytest.raises(FactError, match="other subjects of the relation"):
        chosen_experiments(["transplant"])["transplant"].measure(alone, lone.id)


def pair_of(place: float, *, whole: float = 1.0, third: float = -1.0, elsewhere: float = -1.0) -> dict[str, Any]:
    line = {"subject": [elsewhere, elsewhere, place, elsewhere], "last": [-1.0] * 4}
    return {
        "subject": "someone",
        "clean": -2.0,
        "whole": whole,
        "module": line,
        "state": {**line, "subject": [1.0] * 4},
        "third": {**line, "subject": [third] * 4},
    }


def transplant_rows(moved: int, **options: float) -> list[dict[str, Any]]:
    """Three pairs a fact, of which two move at the place in the first `moved` facts; a fourth that not even the subject moves."""
    return [
        {
            "id": unit,
            "layers": list(SETTING.layers),
            "pairs": [
                *(pair_of(0.5 if i < moved and j < 2 else -0.5, **options) for j in range(3)),
                pair_of(0.5, whole=-0.1),
            ],
        }
        for i, unit in enumerate(MADE)
    ]


def test_the_share_of_answers_that_move_counts_pairs_that_can_move() -> None:
    found = concluded("transplant", transplant_rows(9))["transplant"]
    assert found.estimate.value == pytest.approx(18 / 36)
    assert found.note.endswith("12 of 48 pairs left out, in which the whole subject does not move the answer either.")
    n1, n4 = found.controls
    assert (n1.kind, n1.sane, n1.estimate.value, n4.kind, n4.sane) == ("N1", True, 0, "N4", True)
    assert found.contrast is not None
    assert found.contrast.value == pytest.approx(0.5)
    assert found.p is not None
    assert found.p < 0.05
    everywhere = concluded("transplant", transplant_rows(12, third=1.0, elsewhere=1.0))
    assert [one.sane for one in everywhere["transplant"].controls] == [False, False]
    state = everywhere["transplant-state"].estimate
    assert state.value == 1
    assert 0.7 < state.low < 1  # all 12 subjects: the rule of three, not certainty
    assert concluded("transplant", [{**row, "pairs": [pair_of(0.5, whole=-1.0)]} for row in transplant_rows(3)]) == {}


# ---- edges


def test_cutting_attention_agrees_with_the_knock_out(bench: Bench) -> None:
    fact = bench.confirmation[0]
    found = knocked_out(world(), fact, [0, 5, 8])
    every = 2 * world().n_layers + 1
    changes = [
        knockout(world(), fact, window=every, sources=["subject_last"], answer=answer, controls=0).log_change[0, 0]
        for answer in (fact.target_true, fact.target_new)
    ]
    assert found[ATTENTION][0] == pytest.approx(changes[1] - changes[0], abs=1e-3)
    assert found[ATTENTION][2] == pytest.approx(0, abs=1e-4)  # no layer is cut
    assert abs(found[ATTENTION][0]) > 1e-3
    assert len(found[AROUND]) == 3
    ends = Fact(fact.subject, "Who is {}", fact.target_true, fact.target_new)
    assert knocked_out(world(), ends, [0]) == {}


def test_edges_are_the_tracer_s(bench: Bench, rows: Mapping[str, Any]) -> None:
    fact, row = bench.confirmation[0], rows["edges"][0]
    at = ask(world(), fact).subject[-1]

    def effect(**options: Any) -> np.ndarray:
        given = {
            "samples": 2,
            "score": "logit-difference",
            "noise_level": bench.noise_level,
            "seed": bench.setting.seed,
        }
        return trace(world(), fact, spread_of=list(bench.facts.values()), **given, **options).effect

    state, severed = effect(kind="state"), effect(kind="state", severed="mlp")
    entering, leaving = [0, 2, 4], [1, 4, 6]  # windows of two layers around 1, 4 and 6: 0-1, 3-4, 5-6
    assert row[S_MLP] == pytest.approx(effect(kind="mlp", window=2)[at, list(LAYERS)].tolist(), rel=1e-3, abs=1e-4)
    assert row[S_STATE] == pytest.approx(state[at, leaving].tolist(), rel=1e-3, abs=1e-4)
    assert row[F_STATE] == pytest.approx(state[-1, list(LAYERS)].tolist(), rel=1e-3, abs=1e-4)
    assert row[MEDIATED] == pytest.approx((state - severed)[at, entering].tolist(), rel=1e-3, abs=1e-4)


def test_an_untrained_model_has_no_solid_edge(bench: Bench, rows: Mapping[str, Any]) -> None:
    found = {
        one.id: one
        for one in chosen_experiments(["edges"])["edges"].conclude(bench.setting, bench.facts, {"edges": rows["edges"]})
    }
    assert found["edges/false-edges"].estimate.value == 0
    assert found["edges/false-edges"].estimate.n == 5
    nulls = [control for one in found.values() for control in one.controls if control.kind == "N6"]
    assert len(nulls) == len(EDGES)
    assert all(control.sane and abs(control.estimate.value) < 0.02 for control in nulls)
    assert found[f"edges/edge/{F_STATE}"].data["solid"]  # the trained one does have edges


def edge_rows(untrained: float = 0.0) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)

    def lines(height: float) -> dict[str, Any]:
        return {name: [0.0, 0.0, height * (1 + 0.1 * float(draw.normal())), 0.0] for name in EDGES} | {
            F_STATE: [0.0, 0.0, 0.0, height]
        }

    return [
        {
            "id": unit,
            "layers": list(SETTING.layers),
            "total": 4.0,
            "withheld": "" if i else "too small",
            **lines(2.0),
            AROUND: [0.1] * 4,
            "shuffled": [0.1] * 4,
            "untrained": {**lines(untrained), "total": 0.01, "withheld": "too small"},
        }
        for i, unit in enumerate(MADE)
    ]


def test_solid_edges_are_large_and_larger_than_elsewhere() -> None:
    found = concluded("edges", edge_rows())
    assert all(found[f"edge/{name}"].data["solid"] for name in EDGES)
    mlp = found[f"edge/{S_MLP}"]
    assert mlp.estimate.value == pytest.approx(0.5, rel=0.1)
    assert mlp.estimate.n == 11
    assert "1 fact without a usable total effect" in mlp.note
    assert [control.kind for control in mlp.controls] == ["N1", "N4", "N6"]
    assert mlp.controls[1].estimate.value == pytest.approx(0.1 / 4)
    assert [control.kind for control in found[f"edge/{ATTENTION}"].controls] == ["N2", "N6"]
    assert found[f"edge/{F_STATE}"].data["layer"] == 9  # nearest to three quarters of eleven
    flat = edge_rows()
    for row in flat:
        row[S_MLP] = [2.0] * 4
    assert not concluded("edges", flat)[f"edge/{S_MLP}"].data["solid"]  # the same in every layer
    small = edge_rows()
    for row in small:
        row[S_STATE] = [0.0, 0.0, 0.16, 0.0]
    assert not concluded("edges", small)[f"edge/{S_STATE}"].data["solid"]  # .04 of the total effect


def test_edges_that_an_untrained_model_has_are_counted_against_the_graph() -> None:
    haunted = concluded("edges", edge_rows(untrained=2.0))
    assert haunted["false-edges"].estimate.value == -5
    assert all(not control.sane for one in haunted.values() for control in one.controls if control.kind == "N6")
    assert concluded("edges", edge_rows())["false-edges"].estimate.value == 0
    without = [{name: value for name, value in row.items() if name != "untrained"} for row in edge_rows()]
    assert "false-edges" not in concluded("edges", without)
