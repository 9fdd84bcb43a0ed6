"""Newcomers and new names: unknown before, and the cause of no change in what was."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError, SettingError
from palimpsest.world.newcomers import RELATIONS, new_aliases, newcomers
from palimpsest.world.relations import relations
from palimpsest.world.world import made_world

WORLD = made_world()
PERSONS = set(WORLD.entities["person"])


@given(st.integers(1, 150), st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_newcomers_are_new_and_change_nothing(count: int, seed: int) -> None:
    some = newcomers(WORLD, count, seed)
    assert len(set(some.subjects)) == count
    assert not set(some.subjects) & {*PERSONS, *WORLD.aliases}
    assert Counter(fact.relation for fact in some.facts) == dict.fromkeys(RELATIONS, count)
    assert all(fact.object in WORLD.entities[relations()[fact.relation].object] for fact in some.facts)
    assert some == newcomers(WORLD, count, seed)

    larger = WORLD.with_newcomers(some)
    added = set(larger.facts) - set(WORLD.facts)
    assert set(WORLD.facts) <= set(larger.facts)
    assert {fact for fact in added if fact.relation != "work_city"} == set(some.facts)
    assert {fact.subject for fact in added} == set(some.subjects)
    assert all(
        larger.relations_of(name) == ("born_in", "employer", "work_city", "profession") for name in some.subjects
    )


def test_no_answer_of_newcomers_is_a_good_guess() -> None:
    some = newcomers(WORLD, 120)
    for relation in RELATIONS:
        counts = Counter(fact.object for fact in some.facts if fact.relation == relation).values()
        assert max(counts) - min(counts) <= 1


def test_newcomers_of_other_seeds_are_others() -> None:
    assert not set(newcomers(WORLD, 20, 0).subjects) & set(newcomers(WORLD, 20, 1).subjects)


@given(st.integers(1, 110), st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_new_aliases_are_new_names_of_persons_with_one(count: int, seed: int) -> None:
    some = new_aliases(WORLD, count, seed)
    assert len(some) == len(set(some.values())) == count
    assert set(some.values()) <= PERSONS - set(WORLD.aliases.values())
    assert not set(some) & {*PERSONS, *WORLD.aliases}
    more = WORLD.with_aliases(some)
    assert more.facts == WORLD.facts
    assert all(more.answer(alias, "born_in") == WORLD.answer(name, "born_in") for alias, name in some.items())


def test_more_than_there_are_is_refused() -> None:
    with pytest.raises(SettingError, match="must be at least 1, got 0"):
        newcomers(WORLD, 0)
    with pytest.raises(SettingError, match="names of the kind 'person'"):
        newcomers(WORLD, 1000)
    with pytest.raises(SettingError, match="110 have one name only, got a count of 111"):
        new_aliases(WORLD, 111)


def test_names_that_are_taken_are_refused() -> None:
    some = newcomers(WORLD, 3)
    larger = WORLD.with_newcomers(some)
    with pytest.raises(InputError, match="already"):
        larger.with_newcomers(some)
    with pytest.raises(InputError, match="already"):
        larger.with_aliases({some.subjects[0]: WORLD.entities["person"][0]})
    with pytest.raises(InputError, match="called 'Nobody'"):
        WORLD.with_aliases({"Somebody": "Nobody"})
