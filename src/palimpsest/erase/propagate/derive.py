"""What edits entail under rules, and what stops being true, to a fixed point. No model is asked.

    derive([Fact("France", "The capital of {} is", "Paris", "Lyon", relation="capital")], rules)
    # edit       capital(France) = Lyon
    # entailed   capital_of(Lyon) = France          inverse
    # entailed   city_country(Lyon) = France        composition capital_of => city_country
    # lost       capital_of(Paris) = France         its inverse has another answer now

Asserted: the edits, and what a rule concludes from statements of which at least one is asserted; the others are held already,
by the user's facts or by `known` (which `ask` fills from the model). Relations are taken in the order of the compositions over
them, so every premise is settled before a conclusion is drawn from it, and each conclusion is drawn once.

Lost, once r(s) = o is asserted:

    r functional, r(s) = v held, r' the inverse of r                   r'(v) = s
    r the conclusion of a path that leads from s elsewhere             the first step of the path, which is told of s alone
    a lost statement's own inverse                                     is lost too

Only what is held in its own direction is lost. A statement that is asserted is not, nor is one whose place a new answer takes.
What is lost serves as no premise. A premise that nobody was asked about yet becomes one of the plan's `questions`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from palimpsest.edit.requests import checked
from palimpsest.erase.propagate.plan import Plan, Question, Step
from palimpsest.erase.propagate.rules import Composition, Rules, Statement
from palimpsest.errors import EditError, did_you_mean
from palimpsest.facts import Fact

Known = Mapping[Question, tuple[str, ...]]
LIMIT = 50  # statements that one edit may entail
ROUNDS = 20  # of asserting and losing; each settles at least one more relation

Chain = tuple[str, tuple[Statement, ...]]  # where following relations leads, and what was followed


def derive(facts: Fact | Sequence[Fact], rules: Rules, known: Known | None = None, *, limit: int = LIMIT) -> Plan:
    """The edits, what they entail and what they end.

    Args:
        facts: the edits; `relation` names one of the rules', or `prompt` is one of its wordings.
        rules: with the user's own facts.
        known: further answers by (subject, relation), such as a model's; an empty tuple: asked, and not known.
        limit: how many statements one edit may entail, on average.

    Raises:
        FactError, EditError: as every method does for facts that cannot be edited; no fact is about a relation of the rules; a
            functional relation is given two answers for a subject; more than `limit` statements follow from an edit.
    """
    edits = checked([facts] if isinstance(facts, Fact) else list(facts))
    of = {fact.id: _relation_of(fact, rules) for fact in edits}
    if not any(of.values()):
        names = ", ".join(dict.fromkeys(repr(fact.relation) for fact in edits[:3]))
        raise EditError(
            f"No fact is about a relation of the rules, got {names}.{did_you_mean(edits[0].relation, rules.relations)}"
        )
    work = _Derivation(rules, _held(rules, edits, of, known or {}), limit * len(edits))
    for fact in edits:
        if name := of[fact.id]:
            work.edit(fact, name)
    asserted, lost = work.settled()
    steps = [step for one in asserted.values() for step in _named(rules, one)] + [
        step for one in lost.values() for step in _named(rules, one)
    ]
    work.check_limit(steps)
    told = {step.fact.id for step in steps if step.fact}
    outside = tuple(fact for fact in edits if fact.id not in told)
    return Plan(rules, tuple(steps), tuple(work.questions), outside)


def _relation_of(fact: Fact, rules: Rules) -> str | None:
    if fact.relation in rules.relations:
        return fact.relation
    return next((name for name, relation in rules.relations.items() if fact.prompt in relation.wordings), None)


def _held(
    rules: Rules, edits: Sequence[Fact], of: Mapping[str, str | None], known: Known
) -> dict[Question, tuple[str, ...]]:
    """What is held before the edits: the user's facts read both ways, then the old answers of the edits, then `known`."""
    held: dict[Question, tuple[str, ...]] = {}

    def add(subject: str, relation: str, object: str) -> None:
        place = (rules.entity(subject), relation)
        held[place] = tuple(dict.fromkeys((*held.get(place, ()), rules.entity(object))))

    for subject, relation, object in rules.facts:
        add(subject, relation, object)
        if back := rules.inverses.get(relation):
            add(object, back, subject)
    for fact in edits:
        name = of[fact.id]
        if name and fact.target_true and (rules.entity(fact.subject), name) not in held:
            add(fact.subject, name, fact.target_true)
            if back := rules.inverses.get(name):
                add(fact.target_true, back, fact.subject)
    for (subject, relation), objects in known.items():
        held.setdefault((rules.entity(subject), relation), tuple(rules.entity(object) for object in objects))
    return held


def _named(rules: Rules, step: Step) -> Iterator[Step]:
    """A step, and the same of every other name of its subject."""
    yield step
    own, *_ = step.statement
    for name in rules.names(own):
        if name != own:
            yield replace(
                step,
                statement=step.statement._replace(subject=name),
                kind="entailed" if step.kind == "edit" else step.kind,
                rule=f"alias {own} = {name}",
                premises=(step.statement,),
                depth=step.depth + 1,
                fact=None,
            )


@dataclass
class _Derivation:
    """The statements asserted so far, and what has to be asked to go on."""

    rules: Rules
    held: Mapping[Question, tuple[str, ...]]
    most: int
    edits: list[Step] = field(default_factory=list)
    questions: dict[Question, None] = field(default_factory=dict)
    asserted: dict[Statement, Step] = field(default_factory=dict)
    lost: dict[Statement, Step] = field(default_factory=dict)
    places: dict[Question, list[Statement]] = field(default_factory=dict)  # what is asserted, by subject and relation

    def edit(self, fact: Fact, relation: str) -> None:
        """A fact to start from; its statement is about the entity, however the fact calls it."""
        statement = Statement(fact.subject, relation, str(fact.target_new))
        self.edits.append(Step(statement, "edit", "edit", (), 0, before=fact.target_true, fact=fact))

    def settled(self) -> tuple[dict[Statement, Step], dict[Statement, Step]]:
        """Assert and lose in turn, until what is lost stays the same."""
        for _ in range(ROUNDS):
            self.asserted, self.places = {}, {}
            self._assert()
            lost = {step.statement: step for step in self._losses()}
            if lost.keys() == self.lost.keys():
                return self.asserted, self.lost
            self.lost = lost
        some = next(iter(self.lost or lost))
        raise EditError(
            f"What these edits entail does not settle in {ROUNDS} rounds: {some} is lost and found in turn; take out a rule that "
            f"leads to it."
        )

    def check_limit(self, steps: Sequence[Step]) -> None:
        """Refuse an explosion, naming the rule that gives most."""
        derived = [step.rule for step in steps if step.kind != "edit"]
        if len(derived) > self.most:
            most = max(dict.fromkeys(derived), key=derived.count)
            raise EditError(
                f"The edits must entail at most {self.most} statements ({self.most // len(self.edits)} an edit), got "
                f"{len(derived)} or more, {derived.count(most)} of them by {most!r}; narrow the rules, or raise limit."
            )

    def _assert(self) -> None:
        for step in self.edits:
            self._add(step)
        for names in _in_order(self.rules):
            for rule in self.rules.compositions:
                if rule.gives in names:
                    for step in list(self._compose(rule)):
                        self._add(step)
            for step in [step for one, step in self.asserted.items() if one.relation in names]:
                if back := self.rules.inverses.get(step.statement.relation):
                    subject, relation, object = self._entities(step.statement)
                    told = str(self.rules.inverse_rule(relation))
                    turned = Statement(object, back, subject)
                    self._add(Step(turned, "entailed", told, (step.statement,), step.depth + 1))

    def _add(self, step: Step) -> None:
        statement = self._entities(step.statement)
        others = self.places.setdefault(statement[:2], [])
        if any(self._entities(other) == statement for other in others):
            return
        if others and self.rules.relations[statement.relation].functional:
            first = self.asserted[others[0]]
            raise EditError(
                f"The functional relation {statement.relation!r} must have one answer for {statement.subject!r}, got "
                f"{first.statement.object!r} ({first.reason}) and {step.statement.object!r} ({step.reason}); drop one of the "
                f"edits, or change a rule."
            )
        others.append(step.statement)
        before = next((old for old in self.held.get(statement[:2], ()) if old != statement.object), None)
        self.asserted[step.statement] = step if step.before else replace(step, before=before)
        self.check_limit(list(self.asserted.values()))

    def _compose(self, rule: Composition) -> Iterator[Step]:
        """What a composition concludes from asserted statements, each at any place of its path."""
        for statement, step in list(self.asserted.items()):
            subject, relation, object = self._entities(statement)
            for place in [i for i, name in enumerate(rule.path) if name == relation]:
                for start, before in self._back(subject, rule.path[:place]):
                    for end, after in self._on(object, rule.path[place + 1 :]):
                        premises = (*before, step.statement, *after)
                        depths = [self.asserted[one].depth for one in premises if one in self.asserted]
                        yield Step(Statement(start, rule.gives, end), "entailed", str(rule), premises, max(depths) + 1)

    def _on(self, subject: str, path: Sequence[str]) -> Iterator[Chain]:
        """Where following a path leads."""
        if not path:
            yield subject, ()
            return
        for object in self._answers(subject, path[0]):
            for end, followed in self._on(object, path[1:]):
                yield end, (self._as_asserted(Statement(subject, path[0], object)), *followed)

    def _back(self, object: str, path: Sequence[str]) -> Iterator[Chain]:
        """From where following a path leads here."""
        if not path:
            yield object, ()
            return
        for subject in self._askers(path[-1], object):
            for start, followed in self._back(subject, path[:-1]):
                yield start, (*followed, self._as_asserted(Statement(subject, path[-1], object)))

    def _answers(self, subject: str, relation: str) -> list[str]:
        """What a subject is held to have, asserted answers first; a question where nobody knows."""
        new = [self.rules.entity(one.object) for one in self.places.get((subject, relation), ())]
        if new and self.rules.relations[relation].functional:
            return new
        old = [
            object
            for object in self._old(subject, relation)
            if Statement(subject, relation, object) not in self.lost and object not in new
        ]
        return [*new, *old]

    def _old(self, subject: str, relation: str) -> tuple[str, ...]:
        if (subject, relation) not in self.held:
            self.questions[subject, relation] = None
        return self.held.get((subject, relation), ())

    def _askers(self, relation: str, object: str) -> list[str]:
        """Who has this answer: by the inverse, else by what is asserted and held of everybody, and of those the relation lists."""
        if back := self.rules.inverses.get(relation):
            return self._answers(object, back)
        some = [
            *(self.rules.entity(one.subject) for one in self.asserted if one.relation == relation),
            *(subject for subject, name in self.held if name == relation),
            *map(self.rules.entity, self.rules.relations[relation].subjects),
        ]
        return [subject for subject in dict.fromkeys(some) if object in self._answers(subject, relation)]

    def _losses(self) -> Iterator[Step]:
        for step in list(self.asserted.values()):
            for lost in (*self._replaced(step), *self._contradicted(step)):
                for one in (lost, self._turned(lost)):
                    if one is not None and self._is_held(one) and not self._has_place(one):
                        yield Step(one, "lost", step.rule, (step.statement,), step.depth + 1, before=one.object)

    def _replaced(self, step: Step) -> Iterator[Statement]:
        """The inverses of the answers that an asserted one takes the place of."""
        subject, relation, object = self._entities(step.statement)
        back = self.rules.inverses.get(relation)
        if back is None:
            return
        old = self._old(subject, relation)
        if not self.rules.relations[relation].functional:  # the others stay
            old = (self.rules.entity(step.fact.target_true),) if step.fact and step.fact.target_true else ()
        for was in old:
            if was != object:
                yield Statement(was, back, subject)

    def _contradicted(self, step: Step) -> Iterator[Statement]:
        """First steps of paths that lead elsewhere than what was asserted of their end."""
        subject, relation, object = self._entities(step.statement)
        if self.rules.relations[relation].functional:
            for rule in self.rules.compositions:
                if rule.gives == relation and str(rule) != step.rule:
                    for first in self._old(subject, rule.path[0]):
                        ends = [end for end, _ in self._on(first, rule.path[1:])]
                        if ends and object not in ends:
                            yield Statement(subject, rule.path[0], first)

    def _turned(self, statement: Statement) -> Statement | None:
        back = self.rules.inverses.get(statement.relation)
        return Statement(statement.object, back, statement.subject) if back else None

    def _is_held(self, statement: Statement) -> bool:
        """Whether it is said in its own direction: asked of no capital, "is the capital of" presupposes what nobody holds."""
        return statement.object in self._old(statement.subject, statement.relation)

    def _has_place(self, lost: Statement) -> bool:
        """Whether a lost statement is asserted after all, or has a new answer in its place."""
        same = [self._entities(one) for one in self.places.get(lost[:2], ())]
        return bool(same) and (self.rules.relations[lost.relation].functional or lost in same)

    def _entities(self, statement: Statement) -> Statement:
        return Statement(self.rules.entity(statement.subject), statement.relation, self.rules.entity(statement.object))

    def _as_asserted(self, statement: Statement) -> Statement:
        """The statement in the words in which it was asserted, where it was."""
        return next((one for one in self.places.get(statement[:2], ()) if self._entities(one) == statement), statement)


def _in_order(rules: Rules) -> list[frozenset[str]]:
    """Relations, each with its inverse, so that the path of every composition stands before what it gives."""
    nodes = {frozenset((name, rules.inverses.get(name, name))) for name in rules.relations}
    order: list[frozenset[str]] = []
    left = sorted(nodes, key=min)
    while left:
        ready = [
            node
            for node in left
            if not any(
                rule.gives in node and any(name in other for name in rule.path for other in left)
                for rule in rules.compositions
            )
        ]
        order += ready
        left = [node for node in left if node not in ready]
    return order
