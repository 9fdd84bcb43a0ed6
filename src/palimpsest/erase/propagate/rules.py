"""What follows from what: rules over relations.

A statement r(s) = o is a subject, a relation and an object: capital(France) = Paris. Four kinds of rule lead from statements to
others (the kinds RippleEdits counts the consequences of an edit in, Cohen et al. 2024, section 3):

    inverse        capital(s) = o                          =>  capital_of(o) = s            and the other way round
    symmetric      spouse(s) = o                           =>  spouse(o) = s
    composition    born_in(s) = m, city_country(m) = o     =>  birth_country(s) = o         over one relation or more
    alias          capital(New York) = ...                 =>  the same of NYC

A composition over a single relation says that one implies another: capital_of(s) = o => city_country(s) = o. A relation is
`functional` where a subject has one answer for it: a new one then takes the place of the old one. Relations that are each other's
inverse are one relation read in two directions; a composition that leads from a relation, however far round, to itself is a
loop. Its conclusions would feed it for ever, so it is refused when the rules are made.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from palimpsest.errors import RecordError, did_you_mean


class Statement(NamedTuple):
    """The answer of `subject` for `relation` is `object`."""

    subject: str
    relation: str
    object: str

    def __str__(self) -> str:
        return f"{self.relation}({self.subject}) = {self.object}"


@dataclass(frozen=True)
class Relation:
    """A relation and how it is told.

    Attributes:
        name: such as "born_in"; the `relation` of the facts it is about.
        wordings: texts with one `{}` for the subject, after which the answer follows; the first is the one that is written.
        functional: whether a subject has one answer.
        nothing: what to say of a subject that has lost its answer ("nobody"); None: such a loss is shown and not written.
        subjects: of whom the relation holds; asked where a rule has to be followed backwards ("who works there?").
    """

    name: str
    wordings: tuple[str, ...]
    functional: bool = True
    nothing: str | None = None
    subjects: tuple[str, ...] = ()

    def prompts(self, subject: str, most: int | None = None) -> tuple[str, ...]:
        """The wordings about a subject, the first `most` of them."""
        return tuple(text.replace("{}", subject) for text in self.wordings[:most])


@dataclass(frozen=True)
class Inverse:
    """`one` read backwards is `other`; a symmetric relation is its own inverse."""

    one: str
    other: str

    def __str__(self) -> str:
        return f"symmetric {self.one}" if self.one == self.other else f"inverse {self.one} / {self.other}"

    @property
    def names(self) -> tuple[str, ...]:
        """The relations it is about."""
        return (self.one, self.other)


@dataclass(frozen=True)
class Composition:
    """Following the relations of `path` one after the other answers `gives`."""

    path: tuple[str, ...]
    gives: str

    def __str__(self) -> str:
        return f"composition {', '.join(self.path)} => {self.gives}"

    @property
    def names(self) -> tuple[str, ...]:
        """The relations it is about."""
        return (*self.path, self.gives)


Rule = Inverse | Composition


@dataclass(frozen=True)
class Rules:
    """Relations, the rules over them, the names of entities, and what the user knows.

    Attributes:
        relations: by name.
        rules: inverses (symmetric ones among them) and compositions, in the order of the file.
        aliases: for each entity with several names, all of them; the first is the one it is reasoned about under.
        facts: statements the user vouches for; they go before what a model says.

    Raises:
        RecordError: a rule or a fact names a relation that is not there, two relations claim one inverse, a name is given to two
            entities, two facts contradict each other, or the rules go round in a loop.
    """

    relations: Mapping[str, Relation]
    rules: tuple[Rule, ...] = ()
    aliases: tuple[tuple[str, ...], ...] = ()
    facts: tuple[Statement, ...] = field(default=())

    def __post_init__(self) -> None:
        for rule in self.rules:
            for name in rule.names:
                self.relation(name, f"the rule {str(rule)!r}")
        _check_inverses(self)
        _check_aliases(self.aliases)
        _check_facts(self)
        _check_loops(self)

    def relation(self, name: str, where: str) -> Relation:
        """A relation by name.

        Raises:
            RecordError: there is none; `where` says who asked for it.
        """
        if name not in self.relations:
            raise RecordError(f"There is no relation {name!r}, named by {where}.{did_you_mean(name, self.relations)}")
        return self.relations[name]

    @cached_property
    def inverses(self) -> Mapping[str, str]:
        """The relation back, of each that has one."""
        pairs = [(rule.one, rule.other) for rule in self.rules if isinstance(rule, Inverse)]
        return dict([*pairs, *((other, one) for one, other in pairs)])

    @cached_property
    def compositions(self) -> tuple[Composition, ...]:
        """The compositions alone."""
        return tuple(rule for rule in self.rules if isinstance(rule, Composition))

    @cached_property
    def _entities(self) -> Mapping[str, str]:
        return {name: names[0] for names in self.aliases for name in names}

    def entity(self, name: str) -> str:
        """The name an entity is reasoned about under."""
        return self._entities.get(name, name)

    def names(self, entity: str) -> tuple[str, ...]:
        """All names of an entity."""
        return next((names for names in self.aliases if names[0] == self.entity(entity)), (entity,))

    def inverse_rule(self, name: str) -> Inverse:
        """The rule that turns a relation round, for provenance."""
        return next(rule for rule in self.rules if isinstance(rule, Inverse) and name in rule.names)


def _check_inverses(rules: Rules) -> None:
    taken: dict[str, Inverse] = {}
    for rule in (rule for rule in rules.rules if isinstance(rule, Inverse)):
        for name in dict.fromkeys(rule.names):
            first = taken.setdefault(name, rule)
            if first is not rule:
                raise RecordError(
                    f"The relation {name!r} can have one inverse, got the rules {str(first)!r} and {str(rule)!r}; keep one of them."
                )


def _check_aliases(aliases: Sequence[tuple[str, ...]]) -> None:
    owners: dict[str, tuple[str, ...]] = {}
    for names in aliases:
        for name in names:
            if name in owners:
                raise RecordError(
                    f"The name {name!r} must belong to one entity, got {owners[name][0]!r} and {names[0]!r}; take it out of one "
                    f"alias rule, or make both one rule where they are the same entity."
                )
        owners |= dict.fromkeys(names, names)


def _check_facts(rules: Rules) -> None:
    said: dict[tuple[str, str], Statement] = {}
    for fact in rules.facts:
        relation = rules.relation(fact.relation, f"the fact {tuple(fact)}")
        first = said.setdefault((rules.entity(fact.subject), fact.relation), fact)
        if relation.functional and rules.entity(first.object) != rules.entity(fact.object):
            raise RecordError(
                f"A subject has one answer for the functional relation {relation.name!r}, got {first.object!r} and {fact.object!r} "
                f"for {fact.subject!r}; keep one fact, or write functional: false."
            )


def _check_loops(rules: Rules) -> None:
    """Relations and their inverses are nodes, compositions arrows; a way back to where it began is a loop."""
    arrows: dict[str, list[tuple[str, Composition]]] = {}
    for rule in rules.compositions:
        for name in rule.path:
            arrows.setdefault(_node(rules, name), []).append((_node(rules, rule.gives), rule))
    for start in sorted(arrows):
        if way := _way(arrows, start, start, frozenset()):
            named = "; then ".join(dict.fromkeys(str(rule) for rule in way))
            raise RecordError(
                f"The rules must not lead from a relation back to itself, got a loop at {start!r} ({named}), which would derive "
                f"without end; take one rule out or let it give a relation of another name."
            )


def _node(rules: Rules, name: str) -> str:
    return min(name, rules.inverses.get(name, name))


def _way(
    arrows: Mapping[str, Iterable[tuple[str, Composition]]], at: str, goal: str, seen: frozenset[str]
) -> list[Composition]:
    """The rules on a way from `at` to `goal`; none where there is no way."""
    for to, rule in arrows.get(at, ()):
        if to == goal:
            return [rule]
        if to not in seen and (rest := _way(arrows, to, goal, seen | {to})):
            return [rule, *rest]
    return []
