"""The made world: its size, its shape, that it is coherent, and that it depends on its seed alone."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from palimpsest.errors import InputError
from palimpsest.world.newcomers import new_aliases, newcomers
from palimpsest.world.relations import Triple, relations
from palimpsest.world.world import ALIASED, SIZES, World, made_world

WORLD = made_world()
FIRST = Triple("Balkidex", "founder", "Panmek Gisnek")
LAST = Triple("Vusromodex", "industry", "fishing")
DIGEST = "import test_world; print(test_world.digest())"


def digest() -> str:
    """Of everything a world tells, in the order it tells it."""
    world = made_world(3)
    some = newcomers(world, 5)
    told: list[object] = [world.facts, [*world.aliases.items()], [*world.entities.items()], [*world.answers], some]
    told += [new_aliases(world, 5), world.with_newcomers(some).records(["spouse", "capital", "employer"])]
    told += [world.consequences(world.entities["country"][0], "capital", world.entities["city"][7])]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def objects(world: World, relation: str) -> Counter[str]:
    return Counter(fact.object for fact in world.facts if fact.relation == relation)


def assert_coherent(world: World) -> None:
    """The rules that tie facts together, said once more and without the library's own words for them."""
    says = {(fact.subject, fact.relation): fact.object for fact in world.facts}
    for one, other in (("capital", "capital_of"), ("founder", "founded")):
        assert {(a, b) for (a, r), b in says.items() if r == one} == {
            (b, a) for (a, r), b in says.items() if r == other
        }
    for name in ("spouse", "sister_city"):
        ties = {(a, b) for (a, r), b in says.items() if r == name}
        assert ties == {(b, a) for a, b in ties}
        assert all(a != b for a, b in ties)
    for (subject, relation), object in says.items():
        if relation == "capital":
            assert says[object, "city_country"] == subject
        if relation == "landmark_city":
            assert says[subject, "landmark_country"] == says[object, "city_country"]
        if relation == "employer":
            assert says[subject, "work_city"] == says[object, "headquarters"]


def test_it_is_as_large_as_it_should_be() -> None:
    assert 1000 <= len(WORLD.facts) <= 1500
    assert len({fact.relation for fact in WORLD.facts}) == len(relations()) >= 12
    assert {kind: len(WORLD.entities[kind]) for kind in SIZES} == SIZES
    assert Counter(WORLD.kind_of(name) for name in WORLD.aliases.values()) == ALIASED
    assert all(len(set(names)) == len(names) for names in WORLD.entities.values())


@pytest.mark.parametrize("seed", range(5))
def test_it_is_coherent(seed: int) -> None:
    world = made_world(seed)
    assert_coherent(world)
    for fact in world.facts:
        relation = relations()[fact.relation]
        assert world.kind_of(fact.subject) == relation.subject
        assert world.kind_of(fact.object) == relation.object
        assert world.answer(fact.subject, fact.relation) == fact.object
    assert len({fact[:2] for fact in world.facts}) == len(world.facts)


@pytest.mark.parametrize("seed", range(5))
def test_every_country_has_a_capital_and_another_city(seed: int) -> None:
    world = made_world(seed)
    assert min(objects(world, "city_country").values()) >= 2
    assert len(objects(world, "city_country")) == len(objects(world, "capital_of")) == SIZES["country"]
    assert set(objects(world, "capital").values()) == set(objects(world, "founder").values()) == {1}


def test_no_answer_is_a_good_guess() -> None:
    for name, relation in relations().items():
        if not relation.path:
            counts = objects(WORLD, name).values()
            assert max(counts) - min(counts) <= 1, name


def test_its_parts_can_be_asked_for() -> None:
    person = WORLD.entities["person"][0]
    assert WORLD.kind_of(person) == "person"
    assert {"born_in", "employer", "work_city", "profession", "spouse"} <= set(WORLD.relations_of(person))
    assert WORLD.kind_of("baker") == "profession"
    assert WORLD.relations_of("baker") == ()
    founders = set(objects(WORLD, "founder"))
    other = next(name for name in WORLD.entities["person"] if name not in founders)
    assert WORLD.answer(other, "founded") is None
    assert "founded" not in WORLD.relations_of(other)


def test_an_alias_is_asked_as_its_name_is() -> None:
    for alias, name in WORLD.aliases.items():
        assert WORLD.named(alias) == name
        assert WORLD.relations_of(alias) == WORLD.relations_of(name)
        assert all(WORLD.answer(alias, r) == WORLD.answer(name, r) for r in WORLD.relations_of(name))
    assert not set(WORLD.aliases) & {fact.subject for fact in WORLD.facts}


def test_it_depends_on_its_seed_and_on_nothing_else() -> None:
    assert made_world(1) == made_world(1)
    assert made_world(1).facts != made_world(2).facts
    done = subprocess.run(
        [sys.executable, "-c", DIGEST],
        env=os.environ
        | {"PYTHONHASHSEED": "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"}
        | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest()


def test_the_world_of_seed_0_never_changes() -> None:
    # the shipped models know this one
    assert WORLD.facts[0] == FIRST
    assert WORLD.facts[-1] == LAST
    assert len(WORLD.facts) == 1256


@pytest.mark.parametrize(
    ("subject", "relation", "message"),
    [
        ("Nobody", "born_in", "called 'Nobody'"),
        (WORLD.entities["person"][0], "borne_in", "Did you mean 'born_in'"),
        (WORLD.entities["city"][0], "born_in", "must be a person, got .*, a city"),
    ],
)
def test_what_cannot_be_asked_is_refused(subject: str, relation: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WORLD.answer(subject, relation)


def test_what_cannot_be_edited_is_refused() -> None:
    one, other = WORLD.entities["person"][:2]
    with pytest.raises(InputError, match="must be a city, got .*, a person"):
        WORLD.after(one, "born_in", other)
    with pytest.raises(InputError, match="to itself"):
        WORLD.after(one, "spouse", one)
    with pytest.raises(InputError, match="called 'Nowhere'"):
        WORLD.after(one, "born_in", "Nowhere")


def test_an_edit_leaves_the_old_world_as_it_was() -> None:
    world = made_world()
    subject = world.entities["person"][0]
    world.after(subject, "spouse", next(n for n in world.entities["person"] if n != subject))
    assert world == WORLD
    assert world.facts == WORLD.facts
    assert isinstance(world.facts[0], Triple)
