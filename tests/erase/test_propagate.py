"""Edits with their consequences on the shipped world model: the plan the model itself gives, the edit, and its guard."""

import json
import math
from dataclasses import replace
from functools import cache

import pytest

import palimpsest as pal
from oracles.small import model_of
from palimpsest.erase.propagate import Guard, Plan, Rules, ask, bystanders, plan, propagate, rules_from
from palimpsest.erase.propagate.ask import begun
from palimpsest.erase.propagate.guard import given, guard_of
from palimpsest.errors import SettingError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Likelihood
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.world import made_world
from palimpsest.world.rules import world_rules

SETTINGS = {"layers": (0, 1, 2), "clamp": 4.0, "moment_weight": 30.0}


@cache
def world_model() -> Model:
    return pal.load("world")


@cache
def employer() -> Fact:
    world = made_world()
    return world.records(["employer"], probes=0)[3]


@cache
def planned() -> Plan:
    return plan(world_model(), employer(), world_rules(made_world()))


def test_the_second_hop_comes_from_the_model_itself() -> None:
    world, fact = made_world(), employer()
    (step,) = planned().entailed
    company = str(fact.target_new)
    assert tuple(step.statement) == (fact.subject, "work_city", world.answer(company, "headquarters"))
    (hop,) = [hop for hop in planned().hops if hop.subject == company and hop.relation == "headquarters"]
    assert hop.taken
    assert hop.confidence > 0.9
    assert hop.answer == world.answer(company, "headquarters")
    assert step.said is not None
    assert step.said < 0.5
    assert planned().action(step) == "write"


def test_a_model_that_is_not_sure_gives_no_premise() -> None:
    made = plan(world_model(), employer(), world_rules(made_world()), gate=1.0)
    assert not made.entailed
    assert {hop.taken for hop in made.hops} == {False}


def test_what_the_model_says_already_is_not_written() -> None:
    world, fact = made_world(), employer()
    same = next(
        name
        for name in world.entities["company"]
        if name != world.answer(fact.subject, "employer")
        and world.answer(name, "headquarters") == world.answer(fact.subject, "work_city")
    )
    made = plan(world_model(), Fact.from_json({**fact.to_json(), "target_new": same}), world_rules(world))
    (step,) = made.entailed
    assert step.already
    assert made.action(step) == "said already"
    assert [one.target_new for one in made.facts()] == [same]


def test_the_consequence_is_written_and_the_model_left_alone() -> None:
    model = world_model()
    before = model.fingerprint()
    made = propagate(model, planned(), most=40, bar=1.0, wordings=2, **SETTINGS)
    assert model.fingerprint() == before
    (step,) = planned().entailed
    (fact,) = [
        one for one in made.edit.facts if one.id.startswith("entailed/") and one.id.endswith(step.statement.subject)
    ]
    assert (fact.subject, fact.target_new) == (step.statement.subject, step.statement.object)
    notes = {note["fact"]: note for note in made.edit.notes["facts"]}
    assert notes[fact.id]["nll"] < 2.0
    assert made.guard.kept is not None
    assert made.guard.dropped == 0
    anchors = [one for one in made.edit.facts if one.id.startswith("anchor/")]
    assert anchors
    assert json.dumps(made.to_json(), default=str)
    with made.edit.applied(model):
        after = answer(model, [Likelihood(fact.text, step.statement.object)]).nll(fact.text, step.statement.object)
    assert math.exp(-after) > 0.5


def test_bystanders_are_sure_untouched_and_serve_one_way() -> None:
    some = bystanders(world_model(), planned(), most=30)
    touched = {(step.statement.subject, step.statement.relation) for step in planned().steps}
    assert some
    assert not touched & {(one.subject, one.relation) for one in some}
    world = made_world()
    assert sum(world.answer(one.subject, one.relation) == one.answer for one in some) > 0.8 * len(some)
    anchors = {one.prompt for one in some if one.anchor}
    assert anchors
    assert not anchors & {one.prompt for one in some if not one.anchor}
    assert any(one.subject == employer().subject for one in some if one.anchor)


def test_judges_are_only_what_the_unedited_model_says_in_that_wording() -> None:
    """A wording that the model cannot read gives no judge, for it could lose nothing there."""
    made = planned()
    name = next(
        one.relation
        for one in bystanders(world_model(), made, most=30)
        if not one.anchor and one.subject == employer().subject
    )
    relation = made.rules.relations[name]
    unread = replace(relation, wordings=(relation.wordings[0], "zxq {} zxq zxq"))
    blunt = replace(made, rules=replace(made.rules, relations={**made.rules.relations, name: unread}))
    found = bystanders(world_model(), blunt, most=30)
    assert any(one.anchor and one.relation == name for one in found)
    assert not any("zxq" in one.prompt for one in found)
    assert given(world_model(), [one for one in found if not one.anchor]) == [True] * sum(
        not one.anchor for one in found
    )


@pytest.mark.parametrize(
    ("written", "answers"),
    [
        (" France. The city", ["France"]),
        (" the U.S. state of Ohio, and", ["U.S. state of Ohio"]),
        (" the U.S. The capital", ["U.S."]),
        (" vitamin C. It helps", ["vitamin C"]),
        (" St. Petersburg, Russia", ["St. Petersburg"]),
        (" D.R. Congo.", ["D.R. Congo"]),
        (" The Hague.", ["The Hague", "Hague"]),
        (" France which is", ["France"]),
        (" an Englishman\n", ["Englishman"]),
        (" Rome", ["Rome"]),
        ("", []),
        (" the.", ["the"]),
        (" one two three four five six seven eight nine ten eleven twelve thirteen", []),
    ],
)
def test_where_an_answer_ends(written: str, answers: list[str]) -> None:
    """Not in the middle of a name; and what was still going on when the model was cut off is no answer."""
    assert list(begun(world_model(), written)) == answers


def test_the_guard_drops_what_the_bystanders_cannot_bear() -> None:
    """The edit alone is no change at all; a consequence that is written wildly spoils bystanders, and is left out."""
    model, world, fact = world_model(), made_world(), employer()
    known = Fact.from_json({**fact.to_json(), "target_new": fact.target_true})
    first, step = plan(model, known, world_rules(world)).steps
    city = next(city for city in world.entities["city"] if city != step.statement.object)
    wrong = replace(step, statement=step.statement._replace(object=city), already=False)
    made = Plan(world_rules(world), (first, wrong))
    result = propagate(model, made, method="ft", most=30, bar=0.0, layers=1, steps=20, learning_rate=0.05)
    assert result.guard.dropped == 1
    assert [row["action"] for row in result.plan.rows()] == ["write", "dropped by the guard"]
    assert [one.id for one in result.edit.facts] == [fact.id]


def test_a_guard_without_bystanders_says_so() -> None:
    guard = guard_of(0.03, [], [], None, 0)
    assert guard == Guard(0.03, None, None, None, 0)
    assert "No bystander" in str(guard)


def small_rules() -> Rules:
    return rules_from(
        {
            "palimpsest_rules": 1,
            "relations": {
                "city": {"wordings": ["The {} is located in the city of"]},
                "holds": {"wordings": ["{} holds the"], "nothing": "no tower"},
            },
            "rules": [{"inverse": ["city", "holds"]}],
        }
    )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_any_model_and_method_will_do(family: str) -> None:
    model = model_of(family)
    fact = Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome", relation="city")
    made = propagate(model, fact, small_rules(), method="ft", most=0, layers=1, steps=2)
    assert [one.target_new for one in made.edit.facts][:2] == ["Rome", "Eiffel Tower"]
    assert made.guard.kept is None
    made.edit.check_fits(model)


def test_settings_out_of_range_are_refused_before_the_model_is_asked() -> None:
    model = model_of("gpt2")
    fact = Fact("Eiffel Tower", "The {} is located in the city of", "Paris", "Rome", relation="city")
    for wrong, said in (
        ({"bar": 2.0}, "from 0 to 1"),
        ({"wordings": 0}, "wordings=0"),
        ({"gate": -1.0}, "probability"),
    ):
        with pytest.raises(SettingError, match=said):
            propagate(model, fact, small_rules(), **wrong)
    with pytest.raises(SettingError, match="needs rules"):
        propagate(model, fact)


def test_an_answer_is_asked_in_every_wording() -> None:
    world, rules = made_world(), world_rules(made_world())
    person = world.entities["person"][0]
    (hop,) = ask(world_model(), [(person, "born_in")], rules)
    assert hop.answer == world.answer(person, "born_in")
    assert hop.taken
