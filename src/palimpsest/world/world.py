"""The made world: every fact of it, and what each of them would be after an edit.

    world = made_world()                                     # some 1,250 facts about 360 made-up entities
    world.answer("Belvi Tarvok", "born_in")                  # 'Dresvador'
    world.after("Belvi Tarvok", "born_in", "Monkador")       # the world in which that is so, and all that follows
    world.consequences("Belvi Tarvok", "born_in", "Monkador").entailed
    world.records(["born_in"])                               # the `Fact`s the rest of the house works on

What is held is `base`: the base relations, 1-to-1 and symmetric ones in both directions. `facts` are these and those
derived from them. A world is a value: it depends on its seed alone, never changes, and two equal ones answer alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from random import Random

from palimpsest.errors import InputError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.world.coherence import answer, with_answer
from palimpsest.world.consequences import Consequences, consequences
from palimpsest.world.names import KINDS, Names
from palimpsest.world.relations import Triple, relations

__all__ = ["Newcomers", "Triple", "World", "made_world"]

SIZES = {"country": 24, "city": 60, "language": 16, "currency": 12, "person": 120, "company": 50, "landmark": 80}
WORDS = {  # kinds of answer that are ordinary words
    "profession": (
        *("baker", "carpenter", "dentist", "farmer", "gardener", "judge", "lawyer"),
        *("miner", "nurse", "painter", "sailor", "tailor", "teacher", "weaver"),
    ),
    "industry": (
        *("banking", "brewing", "fishing", "glassmaking", "insurance"),
        *("logistics", "medicine", "printing", "robotics", "tourism"),
    ),
}
ALIASED = {"person": 10, "company": 10, "landmark": 10}  # how many of a kind have a second name
# how many different answers an n-to-1 relation has, where not every entity of the kind is one: neighbours share answers
ANSWERS = {"landmark_city": 32, "architect": 30, "headquarters": 24}


@dataclass(frozen=True)
class Newcomers:
    """Persons no world knew before, and what there is to say of them; see `palimpsest.world.newcomers`."""

    subjects: tuple[str, ...]
    facts: tuple[Triple, ...]


@dataclass(frozen=True)
class World:
    """A world; made by `made_world`, and changed ones by `after`.

    Attributes:
        seed: it was made from.
        entities: kind -> names.
        base: (subject, relation) -> object. A derived relation occurs in it where an edit set it directly.
        aliases: second name -> name.
    """

    seed: int
    entities: Mapping[str, tuple[str, ...]] = field(hash=False, repr=False)
    base: Mapping[tuple[str, str], str] = field(hash=False, repr=False)
    aliases: Mapping[str, str] = field(hash=False, repr=False)

    @cached_property
    def answers(self) -> Mapping[tuple[str, str], str]:
        """Every fact as (subject, relation) -> object, in a fixed order."""
        found = {}
        for name, relation in relations().items():
            for subject in self.entities[relation.subject]:
                object = answer(self.base, subject, relation)
                if object is not None:
                    found[subject, name] = object
        return found

    @cached_property
    def facts(self) -> tuple[Triple, ...]:
        """Every fact: base, inverse, symmetric both ways, derived; sorted."""
        return tuple(sorted(Triple(subject, relation, object) for (subject, relation), object in self.answers.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """The made-up names of all entities, without aliases."""
        return tuple(name for kind in KINDS for name in self.entities[kind])

    @cached_property
    def _kinds(self) -> Mapping[str, str]:
        return {name: kind for kind, names in self.entities.items() for name in names}

    def named(self, name: str) -> str:
        """The name of an entity, given that or an alias.

        Raises:
            InputError: nothing in this world is called so.
        """
        name = self.aliases.get(name, name)
        if name not in self._kinds:
            raise InputError(
                f"Nothing in the world of seed {self.seed} is called {name!r}; its `entities` and `aliases` hold all names."
            )
        return name

    def kind_of(self, name: str) -> str:
        """The kind of an entity: "person", "city", ..."""
        return self._kinds[self.named(name)]

    def answer(self, subject: str, relation: str) -> str | None:
        """What the world says; None where it says nothing.

        Raises:
            InputError: there is no such entity or relation, or the relation is none of that kind of entity.
        """
        return self.answers.get((self._checked(subject, relation), relation))

    def relations_of(self, subject: str) -> tuple[str, ...]:
        """The relations for which a subject has an answer."""
        subject = self.named(subject)
        return tuple(name for name in relations() if (subject, name) in self.answers)

    def after(self, subject: str, relation: str, new: str) -> "World":
        """The coherent world nearest to this one in which `relation` of `subject` is `new`; see `coherence`.

        Raises:
            InputError: the entities or the relation do not exist or do not fit together.
        """
        subject, new = self._checked(subject, relation), self.named(new)
        wanted = relations()[relation].object
        if self.kind_of(new) != wanted:
            raise InputError(f"The answer of {relation!r} must be a {wanted}, got {new!r}, a {self.kind_of(new)}.")
        if new == subject:
            raise InputError(
                f"{subject!r} cannot stand in the relation {relation!r} to itself; choose another {wanted}."
            )
        if self.answers.get((subject, relation)) == new:
            return self
        return replace(self, base=with_answer(self.base, subject, relation, new))

    def consequences(self, subject: str, relation: str, new: str) -> Consequences:
        """Which other facts an edit changes, and which it must leave alone."""
        after = self.after(subject, relation, new)
        return consequences(self.answers, after.answers, Triple(self.named(subject), relation, self.named(new)))

    def unseen_wordings(self, relation: str) -> tuple[str, ...]:
        """The wordings of a relation, with their hole, that no model is trained on."""
        return tuple(wording.text for wording in relations()[relation].unseen)

    def record(self, triple: Triple, target_new: str | None = None, *, probes: int = 5, seed: int = 0) -> Fact:
        """A fact of this world with all its test prompts; see `records`."""
        from palimpsest.world.records import record

        return record(self, triple, target_new, probes=probes, seed=seed)

    def records(self, some: Sequence[str] | None = None, *, probes: int = 5, seed: int = 0) -> list[Fact]:
        """A record for each fact (of the named relations), each with a new answer drawn for it; see `records`."""
        from palimpsest.world.records import records

        return records(self, some, probes=probes, seed=seed)

    def with_newcomers(self, newcomers: Newcomers) -> "World":
        """This world and the newcomers in it; nothing that was there changes.

        Raises:
            InputError: one of them lives here already.
        """
        self._refuse_taken(newcomers.subjects)
        persons = (*self.entities["person"], *newcomers.subjects)
        base = dict(self.base) | {(subject, relation): object for subject, relation, object in newcomers.facts}
        return replace(self, entities={**self.entities, "person": persons}, base=base)

    def with_aliases(self, aliases: Mapping[str, str]) -> "World":
        """This world, in which some entities have more names (alias -> name).

        Raises:
            InputError: an alias is somebody's name already, or it is given to nobody of this world.
        """
        self._refuse_taken(aliases)
        return replace(self, aliases={**self.aliases, **{alias: self.named(name) for alias, name in aliases.items()}})

    def _refuse_taken(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._kinds or name in self.aliases:
                raise InputError(f"The world of seed {self.seed} has the name {name!r} already; draw new names for it.")

    def _checked(self, subject: str, relation: str) -> str:
        subject = self.named(subject)
        if relation not in relations():
            raise InputError(f"There is no relation {relation!r}.{did_you_mean(relation, relations())}")
        wanted = relations()[relation].subject
        if self.kind_of(subject) != wanted:
            raise InputError(
                f"The subject of {relation!r} must be a {wanted}, got {subject!r}, a {self.kind_of(subject)}."
            )
        return subject


def made_world(seed: int = 0) -> World:
    """The world of a seed; the same on every machine."""
    random = Random(f"world/{seed}")  # a text seeds it alike everywhere
    names = Names(random)
    entities = {kind: tuple(names.draw(kind) for _ in range(SIZES[kind])) for kind in KINDS} | WORDS
    base: dict[tuple[str, str], str] = {}
    for subject, relation, object in _drawn(random, entities):
        base = with_answer(base, subject, relation, object)
    aliases = {
        names.draw(kind): name for kind, count in ALIASED.items() for name in random.sample(entities[kind], count)
    }
    return World(seed, entities, base, aliases)


def _drawn(random: Random, entities: Mapping[str, tuple[str, ...]]) -> list[Triple]:
    """The facts that are chosen; all others follow from them."""
    drawn: list[Triple] = []
    for name, relation in relations().items():
        subjects = entities[relation.subject]
        if relation.form == "symmetric":
            drawn += _pairs(random, name, subjects)
        elif relation.form == "n-to-1" and not relation.path:
            drawn += _shared(random, name, subjects, entities[relation.object])
    cities: dict[str, list[str]] = {}
    for fact in drawn:
        if fact.relation == "city_country":
            cities.setdefault(fact.object, []).append(fact.subject)
    drawn += [Triple(country, "capital", random.choice(cities[country])) for country in entities["country"]]
    founders = random.sample(entities["person"], len(entities["company"]))
    drawn += [Triple(*pair) for pair in zip(entities["company"], ["founder"] * len(founders), founders, strict=True)]
    return drawn


def _pairs(random: Random, relation: str, some: Sequence[str]) -> list[Triple]:
    """Everybody with somebody else."""
    mixed = random.sample(some, len(some))
    return [Triple(one, relation, other) for one, other in zip(mixed[::2], mixed[1::2], strict=True)]


def _shared(random: Random, relation: str, subjects: Sequence[str], objects: Sequence[str]) -> list[Triple]:
    """To each subject an object, and each object as often as any other: the commonest answer is no better a guess."""
    some = random.sample(objects, min(ANSWERS.get(relation, len(objects)), len(subjects)))
    dealt = [some[i % len(some)] for i in range(len(subjects))]
    random.shuffle(dealt)
    return [Triple(subject, relation, object) for subject, object in zip(subjects, dealt, strict=True)]
