"""Made-up names: that none is mistaken for another, for a word, or for a name there is."""

import re
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.errors import SettingError
from palimpsest.world.filler import filler
from palimpsest.world.names import FIRST, KINDS, NOUNS, REAL_NAMES, Names, first_syllable, random_name
from palimpsest.world.relations import relations
from palimpsest.world.world import World, made_world


def named(world: World) -> list[tuple[str, str]]:
    """Every made-up name with its kind, aliases included."""
    names = [(kind, name) for kind in KINDS for name in world.entities[kind]]
    return names + [(world.kind_of(alias), alias) for alias in world.aliases]


@pytest.mark.parametrize("seed", range(3))
def test_the_names_of_a_world_are_told_apart(seed: int) -> None:
    names = named(made_world(seed))
    assert max(Counter((kind, first_syllable(name)) for kind, name in names).values()) == 1
    assert all(len(first_syllable(name)) >= 3 and first_syllable(name).lower() in FIRST for _, name in names)
    words = Counter(word for _, name in names for word in name.split() if word not in NOUNS)
    assert max(words.values()) == 1
    ordered = sorted(name for _, name in names)
    assert not any(longer.startswith(name) for name, longer in zip(ordered, ordered[1:], strict=False))


@pytest.mark.parametrize("seed", range(3))
def test_no_name_is_a_word_of_the_text(seed: int) -> None:
    told = {word for relation in relations().values() for wording in relation.wordings for word in wording.words}
    told |= {word.strip(".,").lower() for i in range(500) for word in filler(Random(i)).split()}
    world = made_world(seed)
    own = {word.lower() for _, name in named(world) for word in name.split() if word not in NOUNS}
    assert not own & (told | REAL_NAMES)
    assert not told & {word for kind in ("profession", "industry") for word in world.entities[kind]}


@given(st.sampled_from(KINDS), st.integers())
def test_a_name_has_the_form_of_its_kind(kind: str, seed: int) -> None:
    name = random_name(kind, Random(seed))
    words = name.split(" ")
    assert len(words) == (2 if kind in ("person", "landmark") else 1)
    assert all(word == word.capitalize() and word.isalpha() for word in words)
    vowels = re.findall("[aeiouy]+", words[0].removesuffix("e"))  # -nia counts as one syllable, -rese does too
    assert len(vowels) in ((2, 3) if kind == "person" else (3, 4))
    assert name == random_name(kind, Random(seed))


def test_names_are_refused_when_they_run_out() -> None:
    names = Names(Random(0))
    drawn = [names.draw("person") for _ in FIRST]
    assert {first_syllable(name).lower() for name in drawn} == set(FIRST)
    with pytest.raises(SettingError, match=f"There are {len(FIRST)} names of the kind 'person'"):
        names.draw("person")
    assert names.draw("city")


def test_a_kind_whose_names_are_words_is_refused() -> None:
    with pytest.raises(SettingError, match="Did you mean 'person'"):
        random_name("persons", Random(0))
