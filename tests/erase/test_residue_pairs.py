"""Which pairs are made: controls, others, draws, and what cannot be asked."""

import random

import pytest

from palimpsest.erase.residue import Pair, pairs_of
from palimpsest.erase.residue.pair import EDITED, NEVER_KNOWN, SAME_ANSWER
from palimpsest.errors import FactError, InputError, SettingError
from palimpsest.facts import Fact, read_facts

PLACES = [("France", "Paris"), ("Japan", "Tokyo"), ("Peru", "Lima"), ("Kenya", "Nairobi"), ("Egypt", "Cairo"), ("Cuba", "Havana"),
          ("Chad", "N'Djamena"), ("Iran", "Tehran")]  # fmt: skip
POOL = [Fact(subject, "The capital of {} is", answer, id=subject, relation="capital") for subject, answer in PLACES]
FRANCE = Fact("France", "The capital of {} is", "Paris", "Lima", id="France", relation="capital")
NAURU = Fact("Nauru", "The capital of {} is", "Yaren", "Cairo", id="Nauru", relation="capital")


def group(pairs: tuple[Pair, ...], name: str) -> list[Pair]:
    return [pair for pair in pairs if pair.group == name]


def test_the_three_groups_of_one_fact() -> None:
    pairs = pairs_of([FRANCE], [NAURU], POOL, controls=4).pairs
    (edited,), (unknown,) = group(pairs, EDITED), group(pairs, NEVER_KNOWN)
    controls = group(pairs, SAME_ANSWER)
    assert (edited.fact, edited.answer, edited.of) == (FRANCE, "Paris", "France")
    assert (unknown.fact, unknown.answer, unknown.of) == (NAURU, "Yaren", "Nauru")
    assert len(controls) == 4
    assert {(pair.answer, pair.of) for pair in controls} == {("Paris", "France")}
    # neither an edited subject, nor one of which what the edit writes is true
    assert not {pair.fact.subject for pair in controls} & {"France", "Nauru", "Peru"}
    # the new answer and what the subject really has are rivals nowhere
    assert set(edited.others) == {"Tokyo", "Nairobi", "Cairo", "Havana", "N'Djamena", "Tehran", "Yaren"}
    assert all(set(pair.others) == set(edited.others) - {pair.fact.target_true} for pair in controls)
    assert "Cairo" not in unknown.others


def test_a_subject_with_several_answers_or_an_alias_of_the_old_one_is_no_control() -> None:
    double = Fact("Japan", "{}, seat:", "Paris", id="double", relation="capital")
    alias = Fact("Lutetia's land", "The capital of {} is", "Lutetia", answer_aliases=("Paris",), relation="capital")
    pairs = pairs_of([FRANCE], pool=[*POOL, double, alias], controls=50).pairs
    assert {pair.fact.subject for pair in group(pairs, SAME_ANSWER)} == {"Kenya", "Egypt", "Cuba", "Chad", "Iran"}


def test_draws_depend_on_the_seed_and_not_on_the_order() -> None:
    pool = read_facts("shipped").facts[:60]
    facts, mixed = pool[::6], random.Random(1).sample(pool, len(pool))
    one, other = pairs_of(facts, pool=pool, seed=3).pairs, pairs_of(facts[::-1], pool=mixed, seed=3).pairs
    assert set(one) == set(other)
    assert set(one) != set(pairs_of(facts, pool=pool, seed=4).pairs)


def test_few_facts_get_more_controls_and_shipped_ones_serve_by_default() -> None:
    france = next(fact for fact in read_facts("shipped").facts if fact.id == "capital/france")
    controls = group(pairs_of([france]).pairs, SAME_ANSWER)
    assert len(controls) > 20
    assert {pair.fact.relation for pair in controls} == {"capital"}
    assert all(len(pair.others) == 16 for pair in controls)


def test_what_cannot_be_asked_is_named() -> None:
    bare = Fact("Mars", "{} is a", id="bare")
    single = Fact("Pluto", "{} is a dwarf", "planet", id="single", relation="kind")
    same = Fact("Ceres", "{} is", "planet", id="same", relation="sort")
    also = Fact("Vesta", "{} is", "stone", id="also", relation="sort")
    asked = pairs_of([FRANCE, bare, single, same], [also], POOL)
    assert set(asked.left_out) == {"bare", "single", "same"}
    assert "no target_true" in asked.left_out["bare"]
    assert "no answer to compare 'planet' with" in asked.left_out["single"]
    assert "no unedited subject" in asked.left_out["same"]
    with pytest.raises(
        InputError, match="None of the 1 facts can be asked; the first reason: 'Mars is a' has no target_true"
    ):
        pairs_of([bare], pool=POOL)


def test_mistakes() -> None:
    with pytest.raises(InputError, match="There are no facts"):
        pairs_of([])
    with pytest.raises(InputError, match="Two of the facts have the id 'France'"):
        pairs_of([FRANCE], [FRANCE], POOL)
    with pytest.raises(SettingError, match="number of controls must be 1 or more, got 0"):
        pairs_of([FRANCE], pool=POOL, controls=0)
    with pytest.raises(SettingError, match="number of others must be 1 or more"):
        pairs_of([FRANCE], pool=POOL, others=0)
    with pytest.raises(FactError, match="must be one of edited"):
        Pair(FRANCE, "Paris", ("Lima",), "other", "France")
    with pytest.raises(FactError, match="at least one other answer"):
        Pair(FRANCE, "Paris", (), EDITED, "France")
