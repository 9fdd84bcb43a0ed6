"""What edits entail, against rules worked out by hand and against the made world, whose consequences are known."""

from random import Random
from typing import Any

import pytest

from palimpsest.erase.propagate import Plan, Rules, derive, rules_from
from palimpsest.errors import EditError, FactError
from palimpsest.facts import Fact
from palimpsest.world import made_world
from palimpsest.world.rules import world_rules

NAMES = ("capital", "capital_of", "country", "born_in", "birth_country", "spouse", "child", "grandchild", "currency")


def rules_of(*rules: object, facts: tuple[list[str], ...] = (), **fields: dict[str, Any]) -> Rules:
    """Rules over `NAMES`, each told in one wording."""
    relations = {name: {"wordings": [f"The {name} of {{}} is"], **fields.get(name, {})} for name in NAMES}
    return rules_from({"palimpsest_rules": 1, "relations": relations, "rules": list(rules), "facts": list(facts)})


def edit(subject: str, relation: str, new: str, old: str | None = None) -> Fact:
    return Fact(subject, f"The {relation} of {{}} is", old, new, relation=relation)


def said(plan: Plan, kind: str) -> set[tuple[str, str, str]]:
    return {tuple(step.statement) for step in plan.steps if step.kind == kind}


INVERSE = {"inverse": ["capital", "capital_of"]}
IMPLIES = {"composition": ["capital_of"], "gives": "country"}
BIRTH = {"composition": ["born_in", "country"], "gives": "birth_country"}
FRANCE = edit("France", "capital", "Lyon", "Paris")


def test_a_moved_capital_carries_its_inverse_and_ends_the_old_one() -> None:
    plan = derive(FRANCE, rules_of(INVERSE, IMPLIES))
    assert said(plan, "entailed") == {("Lyon", "capital_of", "France"), ("Lyon", "country", "France")}
    assert said(plan, "lost") == {("Paris", "capital_of", "France")}
    depths = {step.statement.relation: step.depth for step in plan.entailed}
    assert depths == {"capital_of": 1, "country": 2}
    (country,) = [step for step in plan.entailed if step.statement.relation == "country"]
    assert country.rule == "composition capital_of => country"
    assert [tuple(one) for one in country.premises] == [("Lyon", "capital_of", "France")]


def test_what_is_not_known_becomes_a_question_and_then_a_premise() -> None:
    rules = rules_of(BIRTH)
    fact = edit("Ann", "born_in", "Lyon")
    asked = derive(fact, rules)
    assert asked.questions == (("Lyon", "country"),)
    assert not asked.entailed
    assert said(derive(fact, rules, {("Lyon", "country"): ("France",)}), "entailed") == {
        ("Ann", "birth_country", "France")
    }
    unknown = derive(fact, rules, {("Lyon", "country"): ()})
    assert not unknown.entailed
    assert not unknown.questions


def test_the_users_facts_go_before_what_is_known_otherwise() -> None:
    rules = rules_of(BIRTH, facts=(["Lyon", "country", "France"],))
    plan = derive(edit("Ann", "born_in", "Lyon"), rules, {("Lyon", "country"): ("Spain",)})
    assert said(plan, "entailed") == {("Ann", "birth_country", "France")}


def test_a_composition_is_followed_backwards_to_those_whom_the_rules_list() -> None:
    rules = rules_of(BIRTH, born_in={"subjects": ["Ann", "Bob"]})
    known = {("Ann", "born_in"): ("Lyon",), ("Bob", "born_in"): ("Rome",)}
    plan = derive(edit("Lyon", "country", "Spain"), rules, known)
    assert said(plan, "entailed") == {("Ann", "birth_country", "Spain")}


def test_two_edits_meet_in_one_conclusion() -> None:
    rules = rules_of(BIRTH, facts=(["Lyon", "country", "France"],))
    plan = derive([edit("Ann", "born_in", "Lyon"), edit("Lyon", "country", "Spain")], rules)
    assert said(plan, "entailed") == {("Ann", "birth_country", "Spain")}


def test_a_swap_loses_nothing_that_has_a_new_answer() -> None:
    plan = derive([FRANCE, edit("Spain", "capital", "Paris", "Lyon")], rules_of(INVERSE))
    assert said(plan, "entailed") == {("Lyon", "capital_of", "France"), ("Paris", "capital_of", "Spain")}
    assert not plan.lost


def test_a_new_partner_leaves_both_old_ones_alone() -> None:
    rules = rules_of({"symmetric": "spouse"}, facts=(["Ann", "spouse", "Bob"], ["Cid", "spouse", "Dee"]))
    plan = derive(edit("Ann", "spouse", "Cid"), rules)
    assert said(plan, "entailed") == {("Cid", "spouse", "Ann")}
    assert said(plan, "lost") == {("Bob", "spouse", "Ann"), ("Dee", "spouse", "Cid")}


def test_what_leads_elsewhere_is_lost_at_its_first_step() -> None:
    rules = rules_of(BIRTH, facts=(["Ann", "born_in", "Lyon"], ["Lyon", "country", "France"]))
    plan = derive(edit("Ann", "birth_country", "Spain"), rules)
    assert said(plan, "lost") == {("Ann", "born_in", "Lyon")}
    assert not derive(edit("Ann", "birth_country", "France"), rules).lost


def test_a_relation_with_many_answers_loses_none_and_derives_of_all() -> None:
    rules = rules_of(
        {"composition": ["child", "child"], "gives": "grandchild"},
        facts=(["Bob", "child", "Cid"], ["Bob", "child", "Dee"]),
        child={"functional": False},
        grandchild={"functional": False},
    )
    plan = derive(edit("Ann", "child", "Bob"), rules)
    assert said(plan, "entailed") >= {("Ann", "grandchild", "Cid"), ("Ann", "grandchild", "Dee")}
    assert not plan.lost


def test_every_name_of_a_subject_is_told() -> None:
    plan = derive(edit("NYC", "country", "Canada"), rules_of({"alias": ["New York City", "NYC", "Big Apple"]}))
    assert said(plan, "entailed") == {("New York City", "country", "Canada"), ("Big Apple", "country", "Canada")}
    assert {step.rule.split(" = ")[0] for step in plan.entailed} == {"alias NYC"}


def test_two_names_of_one_answer_are_no_contradiction() -> None:
    rules = rules_of(BIRTH, {"alias": ["United States", "USA"]}, facts=(["Boston", "country", "USA"],))
    plan = derive([edit("Ann", "born_in", "Boston"), edit("Ann", "birth_country", "United States")], rules)
    assert not plan.entailed


def test_a_rule_that_contradicts_an_edit_is_named_with_both_reasons() -> None:
    rules = rules_of(BIRTH, facts=(["Lyon", "country", "France"],))
    with pytest.raises(EditError) as error:
        derive([edit("Ann", "born_in", "Lyon"), edit("Ann", "birth_country", "Spain")], rules)
    for part in ("'Spain' (which is edited)", "'France'", "composition born_in, country", "born_in(Ann) = Lyon"):
        assert part in str(error.value)


def test_two_conclusions_that_contradict_each_other_are_named() -> None:
    with pytest.raises(EditError, match=r"'capital_of' must have one answer for 'Lyon', got 'France' .* and 'Spain'"):
        derive([FRANCE, edit("Spain", "capital", "Lyon")], rules_of(INVERSE))


def test_an_explosion_is_named_with_its_rule() -> None:
    people = [f"p{i}" for i in range(80)]
    facts = tuple([one, "born_in", "Lyon"] for one in people)
    fact = edit("Lyon", "country", "Spain")
    with pytest.raises(EditError, match=r"at most 50 statements .* by 'composition born_in, country => birth_country'"):
        derive(fact, rules_of(BIRTH, facts=facts))
    assert len(derive(fact, rules_of(BIRTH, facts=facts), limit=80).entailed) == 80


def test_facts_that_no_rule_is_about_are_refused_with_a_hint() -> None:
    with pytest.raises(EditError, match="Did you mean 'capital'"):
        derive(Fact("France", "The seat of {} is", None, "Lyon", relation="captial"), rules_of(INVERSE))
    with pytest.raises(FactError, match="no target_new"):
        derive(Fact("France", "The capital of {} is", "Paris", relation="capital"), rules_of(INVERSE))


def test_a_fact_without_a_name_is_found_by_its_wording_and_one_outside_is_kept() -> None:
    bare = Fact("France", "The capital of {} is", "Paris", "Lyon")
    outside = Fact("France", "The king of {} is", None, "Louis")
    again = Fact("France", "France has its capital in, as {} knows,", None, "Lyon", relation="capital")
    plan = derive([bare, outside, again], rules_of(INVERSE))
    assert said(plan, "entailed") == {("Lyon", "capital_of", "France")}
    assert plan.outside == (outside, again)
    assert set(plan.facts()) >= {bare, outside, again}


def test_what_is_written_is_what_has_words_for_it() -> None:
    silent = derive(FRANCE, rules_of(INVERSE))
    assert [fact.target_new for fact in silent.facts()] == ["Lyon", "France"]
    told = derive(FRANCE, rules_of(INVERSE, capital_of={"nothing": "no country"}))
    assert [(fact.subject, fact.target_new) for fact in told.facts()] == [
        ("France", "Lyon"),
        ("Lyon", "France"),
        ("Paris", "no country"),
    ]
    assert [told.action(step) for step in told.without(1).steps] == ["write", *["dropped by the guard"] * 2]


RELATIONS = (
    *("capital", "capital_of", "city_country", "landmark_city", "landmark_country", "headquarters", "employer"),
    *("founder", "spouse", "born_in", "work_city"),
)


@pytest.mark.parametrize("name", RELATIONS)
def test_on_the_world_exactly_its_consequences_are_derived(name: str) -> None:
    world = made_world()
    rules = world_rules(world, facts=True)
    records = world.records([name], probes=0)
    for fact in Random(0).sample(records, 2):
        answers = {
            (subject, relation): ((found,) if (found := world.answers.get((subject, relation))) else ())
            for relation in rules.relations
            for subject in rules.relations[relation].subjects
        }
        plan = derive(fact, rules, answers)
        own = [step for step in plan.steps if step.statement.subject not in world.aliases and step.kind != "edit"]
        changes = world.consequences(fact.subject, name, str(fact.target_new)).entailed
        new = {tuple(step.statement) for step in own if step.kind == "entailed"}
        assert {one for one in new if world.answers.get(one[:2]) != one[2]} == {
            (one.subject, one.relation, one.after) for one in changes if one.after
        }
        assert {tuple(step.statement) for step in own if step.kind == "lost"} == {
            (one.subject, one.relation, one.before) for one in changes if not one.after
        }
