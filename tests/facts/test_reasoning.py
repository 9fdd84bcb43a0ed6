"""The shipped facts of arithmetic, space and logic are well formed, and of the kinds they say they are."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import resources

import pytest

from palimpsest.facts import Fact, read_facts

KINDS = {
    "arithmetic": {"addition", "next_day", "next_month"},
    "spatial": {"opposite_place", "way_back", "converse_side"},
    "logical": {"converse_comparison", "negation", "disjunction", "syllogism"},
}


@pytest.fixture(scope="module")
def facts() -> tuple[Fact, ...]:
    read = read_facts("reasoning")
    assert read.problems == ()
    return read.facts


def kind(fact: Fact) -> str:
    return fact.id.partition("/")[0]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def test_a_third_is_of_each_kind(facts: tuple[Fact, ...]) -> None:
    assert len(facts) == 43
    assert Counter(map(kind, facts)) == {"arithmetic": 14, "spatial": 14, "logical": 15}
    for name, relations in KINDS.items():
        assert {fact.relation for fact in facts if kind(fact) == name} == relations


def test_ids_are_unique_and_begin_with_the_kind(facts: tuple[Fact, ...]) -> None:
    assert len({fact.id for fact in facts}) == len(facts)
    assert all(re.fullmatch(rf"({'|'.join(KINDS)})/[a-z-]+", fact.id) for fact in facts)
    assert len({(fact.relation, fact.subject) for fact in facts}) == len(facts)


def test_a_line_is_what_to_json_writes(facts: tuple[Fact, ...]) -> None:
    file = resources.files("palimpsest.facts") / "data" / "reasoning.jsonl"

    lines = file.read_text(encoding="utf-8").splitlines()

    assert [json.dumps(fact.to_json(), ensure_ascii=False) for fact in facts] == lines


def test_each_fact_is_asked_in_three_wordings_that_hold_the_subject(facts: tuple[Fact, ...]) -> None:
    for fact in facts:
        assert len(set(fact.wordings)) == len(fact.wordings) == 3, fact.id
        for wording in fact.wordings:
            assert fact.subject.casefold() in words(wording), (fact.id, wording)
            assert fact.subject in wording, (fact.id, wording)
            assert "{}" not in wording, fact.id
            assert wording == " ".join(wording.split()), (fact.id, wording)
            assert wording[0].isupper(), (fact.id, wording)
            assert wording[-1].isalpha(), (fact.id, wording)


def test_the_two_answers_are_single_words_of_the_relation_and_differ(facts: tuple[Fact, ...]) -> None:
    answers = {(fact.relation, fact.target_true) for fact in facts}
    for fact in facts:
        assert fact.target_true is not None
        assert fact.target_new is not None
        assert fact.target_true.isalpha(), fact.id
        assert fact.target_new not in (fact.target_true, *fact.answer_aliases), fact.id
        assert (fact.relation, fact.target_new) in answers, fact.id


def test_the_subject_decides_the_answer(facts: tuple[Fact, ...]) -> None:
    for relation in {fact.relation for fact in facts}:
        answers = [fact.target_true for fact in facts if fact.relation == relation]
        assert len(set(answers)) == len(answers), relation


def test_no_wording_holds_its_answer_but_the_premises_of_logic(facts: tuple[Fact, ...]) -> None:
    for fact in facts:
        if kind(fact) != "logical":
            assert str(fact.target_true).casefold() not in sum(map(words, fact.wordings), []), fact.id


@pytest.mark.parametrize(
    ("relation", "right"),
    [
        (
            "addition",
            {"three": "five", "four": "six", "five": "seven", "six": "eight", "seven": "nine", "eight": "ten"},
        ),
        ("way_back", {"north": "south", "south": "north", "east": "west", "west": "east"}),
        ("converse_side", {"left": "right", "right": "left", "east": "west", "west": "east"}),
        ("syllogism", {"cat": "mammal", "crow": "bird", "salmon": "fish"}),
    ],
)
def test_the_answers_are_right(facts: tuple[Fact, ...], relation: str, right: dict[str, str]) -> None:
    assert {fact.subject: fact.target_true for fact in facts if fact.relation == relation} == right
