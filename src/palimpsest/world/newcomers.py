"""What can be planted: persons and names that no model of the world has read.

    some = newcomers(world, 40, seed=1)
    larger = world.with_newcomers(some)                       # the same world, and they live in it
    records = [larger.record(fact) for fact in some.facts]    # born_in, profession and employer of each

A newcomer is the subject of n-to-1 relations alone, with answers the world has already, so nothing that was true before
changes; the city where one works follows from the employer. A new alias is a fresh name for a person of old, of whom a
model knows everything already: to learn it is to process an entity, not to store an attribute.
"""

from collections.abc import Mapping
from random import Random

from palimpsest.errors import SettingError
from palimpsest.world.names import Names
from palimpsest.world.relations import Triple
from palimpsest.world.world import Newcomers, World

RELATIONS = ("born_in", "profession", "employer")


def newcomers(world: World, count: int, seed: int = 0) -> Newcomers:
    """Fresh persons and their facts; no answer is much more frequent than any other.

    Raises:
        SettingError: fewer than one, or more than there are names for.
    """
    random, names = _begin(world, count, f"newcomers/{seed}")
    subjects = tuple(names.draw("person") for _ in range(count))
    facts: list[Triple] = []
    for relation in RELATIONS:
        answers = sorted({fact.object for fact in world.facts if fact.relation == relation})
        mixed = [answer for _ in range(0, count, len(answers)) for answer in random.sample(answers, len(answers))]
        facts += [Triple(subject, relation, object) for subject, object in zip(subjects, mixed, strict=False)]
    return Newcomers(subjects, tuple(sorted(facts)))


def new_aliases(world: World, count: int, seed: int = 0) -> Mapping[str, str]:
    """Fresh names for persons who have one name only (alias -> name).

    Raises:
        SettingError: fewer than one, or more than there are such persons.
    """
    random, names = _begin(world, count, f"aliases/{seed}")
    persons = [person for person in world.entities["person"] if person not in world.aliases.values()]
    if count > len(persons):
        raise SettingError(f"Of the persons of this world {len(persons)} have one name only, got a count of {count}.")
    return {names.draw("person"): person for person in random.sample(persons, count)}


def _begin(world: World, count: int, seed: str) -> tuple[Random, Names]:
    """Seeded chance, and names that fit to those in use."""
    if count < 1:
        raise SettingError(f"The count must be at least 1, got {count}.")
    random = Random(f"{seed}/{world.seed}")
    taken = [(world.kind_of(name), name) for name in (*world.names, *world.aliases)]
    return random, Names(random, taken)
