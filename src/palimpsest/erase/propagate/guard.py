"""The guard on the bystanders: facts that an edit and its consequences must leave alone.

For every statement that is written, others of the same relation about other subjects and others of the same subject are
bystanders, where the unedited model says them surely (`ask`, in one wording) and the plan is silent about them. Subjects are those
the rules name (`subjects`, `facts`) and the statements' own. They serve twice, and no prompt serves both ways:

    anchors    written along with the edit, as they are. A closed form then keeps their keys where they were, and a value sought for
               a subject has to answer its other relations as before
    judges     asked before and after

Those of the same subject are anchors in the first wording of their relation and judges in the second; of the others every
second one is an anchor. A judge is one whose answer the unedited model gives in that very wording. The score of an edit is

    kept = share of judges whose answer the edited model still gives, token by token, greedily

so it is 1 before the edit. What propagation costs is what it takes beyond the edits alone, which have no anchors:

    cost = kept(edits alone) - kept(edits and what they entail)

and the guard holds where 1 - kept <= bar or cost <= bar. Where it does not, what lies deepest is dropped, one depth after the
other, until it does: at the latest with the edits alone, which cost nothing by definition. What the edits alone lose is reported
(`alone`), and is theirs to answer for.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from palimpsest.edit.artefact import Edit
from palimpsest.erase.propagate.ask import ask
from palimpsest.erase.propagate.plan import Plan, Question
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Likelihood
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.statistics import Estimate, cluster_bootstrap, paired_difference

BYSTANDERS = 100
SURE = 0.5  # the confidence from which on a bystander is one


@dataclass(frozen=True)
class Bystander:
    """A statement of the unedited model that must stay: a wording of its relation and the answer.

    Attributes:
        subject, relation: what it is about.
        wording: with one `{}`.
        answer: the model's own.
        anchor: whether it is written along; else it judges.
    """

    subject: str
    relation: str
    wording: str
    answer: str
    anchor: bool

    @property
    def prompt(self) -> str:
        """The wording about the subject."""
        return self.wording.replace("{}", self.subject)

    def fact(self) -> Fact:
        """As a fact that asks for what the model says already."""
        return Fact(
            self.subject,
            self.wording,
            target_new=self.answer,
            id=f"anchor/{self.relation}/{self.subject}",
            relation=self.relation,
        )


@dataclass(frozen=True)
class Guard:
    """What the bystanders said of an edit with its consequences.

    Attributes:
        bar: the largest cost that is let through.
        kept: share of bystanders that the whole edit keeps; None: there was no bystander to ask.
        alone: the same of the edits without consequences; None where nothing was entailed or `kept` alone was good enough.
        cost: alone - kept, paired; None as `alone`.
        dropped: how many statements were left out to hold the bar.
    """

    bar: float
    kept: Estimate | None
    alone: Estimate | None
    cost: Estimate | None
    dropped: int

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)

    def __str__(self) -> str:
        if self.kept is None:
            return "No bystander was found: name `subjects` or `facts` in the rules to have some."
        cost = "" if self.cost is None else f", {self.cost.value:.3f} less than the edits alone"
        dropped = f"; {self.dropped} statements were dropped to hold the bar of {self.bar}" if self.dropped else ""
        return f"Of the bystanders {self.kept} are kept{cost}{dropped}."


def bystanders(model: Model, plan: Plan, *, most: int = BYSTANDERS, seed: int = 0) -> list[Bystander]:
    """Statements that the unedited model is sure of and the plan is silent about, those of the plan's subjects first.

    Args:
        model: before the edit.
        plan: what will be written.
        most: at most so many, drawn with `seed`.
        seed: of the draw.
    """
    rules = plan.rules
    touched = {(rules.entity(step.statement.subject), step.statement.relation) for step in plan.steps}
    written = {relation for _, relation in touched}
    own = {subject for subject, _ in touched}
    places = {
        **{(subject, name): None for name in sorted(written) for subject in rules.relations[name].subjects},
        **{
            (fact.subject, fact.relation): None
            for fact in rules.facts
            if {fact.subject, fact.relation} & (written | own)
        },
        **{(subject, name): None for subject in sorted(own) for name in _relations_of(plan, subject)},
    }
    questions: list[Question] = [place for place in places if (rules.entity(place[0]), place[1]) not in touched]
    random = Random(f"bystanders/{seed}")
    some = sorted(random.sample(questions, len(questions)), key=lambda place: place[0] not in own)[: 2 * most]
    hops = ask(model, some, rules, gate=SURE, wordings=1) if some else []
    found: list[Bystander] = []
    for number, hop in enumerate([hop for hop in hops if hop.taken][:most]):
        wordings = rules.relations[hop.relation].wordings
        if hop.subject not in own:
            found.append(Bystander(hop.subject, hop.relation, wordings[0], hop.answer, number % 2 == 0))
            continue
        found.append(Bystander(hop.subject, hop.relation, wordings[0], hop.answer, True))
        if len(wordings) > 1:
            found.append(Bystander(hop.subject, hop.relation, wordings[1], hop.answer, False))
    said = iter(given(model, [one for one in found if not one.anchor]))
    return [one for one in found if one.anchor or next(said)]


def _relations_of(plan: Plan, subject: str) -> list[str]:
    """The relations that the rules say hold of a subject."""
    rules = plan.rules
    told = {fact.relation for fact in rules.facts if fact.subject == subject}
    return [name for name, relation in rules.relations.items() if subject in relation.subjects or name in told]


def given(model: Model, some: Sequence[Bystander]) -> list[bool]:
    """For each bystander whether the model, as it is now, gives its answer: every token of it the likeliest."""
    told = answer(model, [Likelihood(one.prompt, one.answer) for one in some])
    return [all(told.likelihood(one.prompt, one.answer).right) for one in some]


def kept(model: Model, edit: Edit, some: Sequence[Bystander]) -> list[float]:
    """For each bystander 1 where the edited model still gives its answer, else 0."""
    with edit.applied(model):
        return [float(one) for one in given(model, some)]


def guard_of(
    bar: float, some: Sequence[Bystander], whole: Sequence[float], alone: Sequence[float] | None, dropped: int
) -> Guard:
    """The guard from what was kept; intervals resample relations and, within them, subjects."""
    if not some:
        return Guard(bar, None, None, None, dropped)
    clusters = [(one.relation, one.subject) for one in some]
    return Guard(
        bar,
        cluster_bootstrap(whole, clusters),
        None if alone is None else cluster_bootstrap(alone, clusters),
        None if alone is None else paired_difference(alone, whole, clusters),
        dropped,
    )
