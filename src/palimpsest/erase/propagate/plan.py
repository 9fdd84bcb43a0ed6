"""A plan: what would be written, why, and what the model says of it now. Plain data; nothing is computed from it alone.

edit      what was asked for
entailed  what a rule concludes: to be written, unless the model says it already
lost      what is no longer true: written only where the rules tell what to say instead (`nothing`), shown always
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from palimpsest.erase.propagate.rules import Rules, Statement
from palimpsest.facts import Fact

Question = tuple[str, str]  # subject and relation


@dataclass(frozen=True)
class Step:
    """One statement of a plan.

    Attributes:
        statement: asserted, or lost.
        kind: "edit", "entailed" or "lost".
        rule: by which it follows, in words.
        premises: what it follows from.
        depth: how many rules lie between it and an edit.
        before: what was held in its place, as far as anybody knows.
        fact: the edit itself, of an edit.
        said: how surely the unedited model says the statement already: mean over wordings of the answer's token
            probability; None before it is asked.
        already: whether nothing has to be written: an entailed answer is the model's own in all wordings, a lost one in none.
        dropped: the guard left it out to spare the bystanders.
    """

    statement: Statement
    kind: str
    rule: str
    premises: tuple[Statement, ...]
    depth: int
    before: str | None = None
    fact: Fact | None = None
    said: float | None = None
    already: bool = False
    dropped: bool = False

    @property
    def reason(self) -> str:
        """Where it comes from, in a few words."""
        if self.kind == "edit":
            return "which is edited"
        return f"by {self.rule!r} from {' and '.join(map(str, self.premises))}"


@dataclass(frozen=True)
class Hop:
    """What the unedited model answered to a question of the derivation."""

    subject: str
    relation: str
    answer: str
    confidence: float
    taken: bool


@dataclass(frozen=True)
class Plan:
    """Result of `derive` and of `plan`.

    Attributes:
        rules: that were followed.
        steps: edits, then what they entail, then what is lost.
        questions: (subject, relation) pairs that had to be known to go on and are not.
        outside: facts about no relation of the rules, and those that say what another one says in other words; they are
            edited, and nothing more follows from them.
        hops: what the model was asked, and whether its answer was sure enough to be a premise.
    """

    rules: Rules = field(repr=False)
    steps: tuple[Step, ...]
    questions: tuple[Question, ...] = ()
    outside: tuple[Fact, ...] = ()
    hops: tuple[Hop, ...] = ()

    @property
    def edits(self) -> tuple[Fact, ...]:
        """The facts that were asked for."""
        return (*(step.fact for step in self.steps if step.fact is not None), *self.outside)

    @property
    def entailed(self) -> tuple[Step, ...]:
        """What follows from them."""
        return tuple(step for step in self.steps if step.kind == "entailed")

    @property
    def lost(self) -> tuple[Step, ...]:
        """What is no longer true."""
        return tuple(step for step in self.steps if step.kind == "lost")

    def action(self, step: Step) -> str:
        """What is done about a step: "write", or why nothing is."""
        relation = self.rules.relations[step.statement.relation]
        if step.kind == "edit":
            return "write"
        if step.dropped:
            return "dropped by the guard"
        if step.already:
            return "said already" if step.kind == "entailed" else "not said"
        if step.kind == "lost" and (relation.nothing is None or not relation.functional):
            return "only shown"
        return "write"

    def facts(self, wordings: int = 1) -> list[Fact]:
        """Everything to write, as one batch: the edits as they were given, the rest in the first `wordings` of its relation."""
        found = {fact.text: fact for fact in self.edits}
        for step in self.steps:
            if step.kind != "edit" and self.action(step) == "write":
                for fact in self._told(step, wordings):
                    found.setdefault(fact.text, fact)
        return list(found.values())

    def without(self, depth: int) -> "Plan":
        """The plan with every step of this depth or more dropped."""
        steps = tuple(
            replace(step, dropped=True) if step.kind != "edit" and step.depth >= depth else step for step in self.steps
        )
        return replace(self, steps=steps)

    def rows(self) -> list[dict[str, Any]]:
        """The plan as a table for people."""
        return [
            {
                "what": step.kind,
                "statement": str(step.statement),
                "instead of": step.before or "",
                "now": "" if step.said is None else round(step.said, 3),
                "action": self.action(step),
                "by": step.rule,
                "from": "; ".join(map(str, step.premises)),
            }
            for step in self.steps
        ] + [
            {"what": "edit", "statement": fact.text + " " + str(fact.target_new), "action": "write", "by": "edit"}
            for fact in self.outside
        ]

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return {
            "steps": [_plain(step, self.action(step)) for step in self.steps],
            "outside": [fact.to_json() for fact in self.outside],
            "questions": [list(question) for question in self.questions],
            "hops": [asdict(hop) for hop in self.hops],
        }

    def _told(self, step: Step, wordings: int) -> list[Fact]:
        subject, name, object = step.statement
        relation = self.rules.relations[name]
        new = object if step.kind == "entailed" else relation.nothing
        return [
            Fact(
                subject=subject,
                prompt=text,
                target_true=step.before if step.before != new else None,
                target_new=new,
                id=f"{step.kind}/{name}/{subject}" + (f"/{number}" if number else ""),
                relation=name,
                paraphrases=tuple(prompt for i, prompt in enumerate(relation.prompts(subject)) if i != number),
            )
            for number, text in enumerate(relation.wordings[:wordings])
        ]


def _plain(step: Step, action: str) -> Mapping[str, Any]:
    premises: Sequence[Statement] = step.premises
    return {
        "kind": step.kind,
        "statement": list(step.statement),
        "rule": step.rule,
        "premises": [list(one) for one in premises],
        "depth": step.depth,
        "before": step.before,
        "said": step.said,
        "action": action,
        "fact": step.fact.id if step.fact else None,
    }
