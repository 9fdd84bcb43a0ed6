"""Task specificity: does the same lesion at the same place hurt what is not recall of facts as much?

    facts       the facts of the audit: the subject decides the answer
    agreement   "The wind went past the river. The days of the summer" -> were, not was: the noun decides
    next word   the same without words in between, for models that can do no more; noun and last token are then one
    copying     "{fact 1} {new 1}. {fact 2} {new 2}. {fact 1}" -> new 1, not new 2: read off the text, against what the model knows

    effect of a task = sum over items of N at the place / sum of total effects
    task-ratio       = effect(facts) / max(effect(control task), 0.01)

Both are interchange lesions, by what the site was for another item with another answer, over the effect of interchanging the tokens
themselves, so that strength and scale are the same (criterion C3; that tracing finds places for syntax as well: Niu et al. 2024,
"What does the knowledge neuron thesis have to do with knowledge?"). The worst control counts.

A task that a model does not do cannot be hurt, and would make any place look specific: it is told, and left out of the ratio. It
counts as done where the interval of the mean total effect lies above 0 and most items are answered rightly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.over_facts import cluster_by_name
from palimpsest.audit.experiments.placed import placed, too_small
from palimpsest.audit.experiments.roles import (
    ROLES,
    SCORE,
    Effects,
    cells,
    left_out,
    narrow,
    rounded,
    scored,
    seconds_of_maps,
    total,
    traced,
)
from palimpsest.audit.setting import LAST, SUBJECT, Setting
from palimpsest.errors import FactError, InputError
from palimpsest.facts import Fact
from palimpsest.locate.tracing.lesion import Lesioner
from palimpsest.model import Model
from palimpsest.statistics import Estimate, cluster_bootstrap, of_two
from palimpsest.statistics.means import Draws, Means
from palimpsest.world.filler import filler

FACTS, AGREEMENT, NEXT, COPYING = "facts", "agreement", "agreement of the next word", "copying"
CONTROLS = (AGREEMENT, NEXT, COPYING)
SINGULAR = ("weather", "tea", "bread", "house", "road", "garden")
PLURAL = ("days", "letters", "nights", "houses", "roads", "gardens")
BEHIND = (" by the river", " near the old gate", " of the summer")  # a noun in between that does not decide
LEAST = 0.01  # share of its total effect that a control task counts as losing at least, so that no ratio is divided by nothing
MOST_DONORS = 5


class Tasks:
    """See the module's text."""

    name = "tasks"
    criteria = ("C3",)
    needs = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a fact: with it, one item of every control task."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """A map of every task."""
        return seconds_of_maps(bench, min(MOST_DONORS, bench.setting.samples), 1 + len(CONTROLS))

    def measure(self, bench: Bench, unit: str) -> Row:
        """By task: effects at both roles by layer, the total effect, how surely the item is answered; or why there is none."""
        fact, place = bench[unit], list(bench.setting.confirmation).index(unit)
        made: dict[str, Any] = {}
        without: dict[str, str] = {}
        for task in (FACTS, *CONTROLS):
            try:
                made[task] = self._item(bench, task, fact, place)
            except FactError as error:
                if task == FACTS:
                    raise
                without[task] = str(error)
        return {"layers": list(bench.setting.layers), "tasks": made, "without": without}

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """A ratio for each control task that is done, and the worst of them."""
        mine = rows[self.name]
        own = table_of(mine, FACTS, setting, facts)
        if not len(own):
            raise InputError("No fact has a total effect that can be divided by, so there is no ratio to other tasks.")
        able = {task: competence(mine, task) for task in CONTROLS}
        counted = [task for task, (done, _) in able.items() if done and not (task == NEXT and able[AGREEMENT][0])]
        tables = {task: table_of(mine, task, setting, facts) for task in counted}
        found = [_ratio(setting, own, tables[task], task, able) for task in counted if len(tables[task])]
        if found:
            worst = min(found, key=lambda one: one.estimate.value)
            others = [name for name in CONTROLS if not able[name][0]]
            note = f"The worst control task: {worst.about}. {worst.note}" + "".join(
                f" {able[name][1]}" for name in others
            )
            found.append(replace(worst, about="", criteria=Tasks.criteria, note=note))
        return [*found, *_families(setting, own)]

    def _item(self, bench: Bench, task: str, fact: Fact, place: int) -> dict[str, Any]:
        setting = bench.setting
        asked, swap_with = fact, tuple[str, ...]()
        pool = bench.pool if task == FACTS else []
        if task in (AGREEMENT, NEXT):
            asked, swap_with = agreement(place, task), opposite(place)
        elif task == COPYING:
            asked, other = copying(bench, fact)
            swap_with = (other.subject,)
        made = Lesioner.of(
            bench.model,
            pool,
            kind=setting.place.module,
            window=setting.place.window,
            by="interchange",
            samples=min(MOST_DONORS, setting.samples),
            score=SCORE,
            layers=setting.layers,
            seed=setting.seed,
            swap_with=swap_with,
        )
        row = traced(narrow(made), bench.model, asked)
        return {
            "cluster": [asked.relation, asked.subject],
            "margin": rounded(scored(row["clean"], SCORE)),
            "total": rounded(total(row)),
            "withheld": too_small(total(row)),
            **{ROLES[role]: rounded(cells(row, role).mean(axis=1)) for role in (SUBJECT, LAST)},
        }


def agreement(i: int, task: str = AGREEMENT) -> Fact:
    """Item i of number agreement, even ones plural: the noun is its subject."""
    draw = Random(f"agreement/{i}")
    one, many = SINGULAR[i // 2 % len(SINGULAR)], PLURAL[i // 2 % len(PLURAL)]
    noun, right, wrong = (one, "was", "were") if i % 2 else (many, "were", "was")
    behind = BEHIND[i // (2 * len(SINGULAR)) % len(BEHIND)] if task == AGREEMENT else ""
    return Fact(
        subject=noun,
        prompt=f"{filler(draw)} The {{}}{behind}",
        target_true=right,
        target_new=wrong,
        id=f"{task}/{i}",
        relation=task,
    )


def opposite(i: int) -> tuple[str, ...]:
    """Nouns of the other number, the one of this item first."""
    others = PLURAL if i % 2 else SINGULAR
    begin = i // 2 % len(others)
    return (*others[begin:], *others[:begin])


def copying(bench: Bench, fact: Fact) -> tuple[Fact, Fact]:
    """The induction prompt of a fact, and the other fact in it, whose subject asks for the other answer.

    Raises:
        FactError: no other fact of the relation and prompt has a subject of as many tokens and another new answer.
    """
    for other in partners(bench, fact):
        text = f"{fact.text} {fact.target_new}. {other.text} {other.target_new}. "
        if other.target_new in (None, fact.target_new) or fact.target_new is None or "{}" in text:
            continue
        return (
            Fact(
                subject=fact.subject,
                prompt=text + fact.prompt,
                target_true=fact.target_new,
                target_new=other.target_new,
                id=f"copying/{fact.id}",
                relation=fact.relation,
            ),
            other,
        )
    raise FactError(
        f"No other fact is asked like {fact.id} with a subject of as many tokens, so nothing can be copied instead."
    )


def partners(bench: Bench, fact: Fact) -> list[Fact]:
    """Other facts of the same prompt whose subjects have as many tokens, in an order drawn by the seed."""
    length = subject_length(bench.model, fact)
    found = [
        other
        for other in bench.pool
        if other.prompt == fact.prompt
        and other.subject != fact.subject
        and subject_length(bench.model, other) == length
    ]
    Random(f"{bench.setting.seed}/{fact.id}").shuffle(found)
    return found


def subject_length(model: Model, fact: Fact) -> int:
    """How many tokens the subject has where it stands."""
    return len(model.encode(fact.text).tokens_of(*fact.subject_span))


def table_of(rows: Sequence[Row], task: str, setting: Setting, facts: Mapping[str, Fact]) -> Effects:
    """Effects of one task at the place's position, of items answered rightly, for facts were chosen so as well.

    Clusters are the facts' relations and subjects, or the items' own.
    """
    held = {row["id"]: row["tasks"][task] for row in rows if task in row["tasks"]}
    wrong = {unit: "answered wrongly" for unit, one in held.items() if task != FACTS and one["margin"] <= 0}
    withheld = {unit: one["withheld"] for unit, one in held.items() if one["withheld"]} | wrong
    role = ROLES[setting.place.position]
    own = (
        {unit: (str(one["cluster"][0]), str(one["cluster"][1])) for unit, one in held.items()}
        if task != FACTS
        else None
    )
    return Effects.of_lines(
        {unit: one[role] for unit, one in held.items()},
        {unit: one["total"] for unit, one in held.items()},
        cluster_by_name(held, facts) if own is None else own,
        rows[0]["layers"] if rows else (),
        withheld,
    )


def competence(rows: Sequence[Row], task: str) -> tuple[bool, str]:
    """Whether the model does a task, and a sentence that says how well."""
    items = [row["tasks"][task] for row in rows if task in row["tasks"]]
    if len(items) < 2:
        return False, f"The task {task} has {len(items)} items here, too few to measure."
    right = float(np.mean([item["margin"] > 0 for item in items]))
    mean = cluster_bootstrap([item["total"] for item in items], [tuple(item["cluster"]) for item in items])
    done = right > 0.5 and mean.low > 0
    return (
        done,
        f"The model {'does' if done else 'does not do'} {task}: {right:.0%} of {len(items)} items right, total effect {mean}.",
    )


def ratio(own: Effects, other: Effects, layer: int, *, seed: int = 0) -> Estimate:
    """effect(facts) / max(effect(other), LEAST), both resampled on their own; the interval is that of its logarithm.

    A resample in which the facts lose nothing has the ratio 0.
    """

    def over(facts: Draws, control: Draws) -> Means:
        share, least = facts[:, 0] / facts[:, 1], control[:, 0] / control[:, 1]
        return np.asarray(np.maximum(share, 0) / np.maximum(least, LEAST))

    columns = [np.stack([table.at(layer), table.totals], axis=1) for table in (own, other)]
    return of_two(
        (columns[0], columns[1]),
        (list(own.clusters), list(other.clusters)),
        over,
        name=f"ratio of shares, the lower one at least {LEAST}",
        unit="times the control task's effect",
        seed=seed,
    )


def _ratio(setting: Setting, own: Effects, other: Effects, task: str, able: Mapping[str, tuple[bool, str]]) -> Evidence:
    layer = setting.place.centre
    here, there = placed(own, setting), placed(other, setting)
    return Evidence(
        experiment=Tasks.name,
        endpoint="task-ratio",
        criteria=(),
        family="causal",
        mode="interventional",
        estimate=ratio(own, other, layer, seed=setting.seed),
        controls=(here.control,),
        about=task,
        note=f"{able[task][1]}{left_out(own.withheld)}",
        data={
            "facts": here.estimate.to_json(),
            "control": there.estimate.to_json(),
            "profiles": {FACTS: own.profile(seed=setting.seed), task: other.profile(seed=setting.seed)},
        },
    )


def _families(setting: Setting, own: Effects) -> list[Evidence]:
    """The relation that loses least at the place against all others: told, and not counted, for a claim is about them all."""
    of_relation: dict[str, list[str]] = {}
    for name, (relation, _) in zip(own.names, own.clusters, strict=True):
        of_relation.setdefault(relation, []).append(name)
    tables = {relation: own.of(names) for relation, names in of_relation.items() if len(names) > 1}
    if len(tables) < 2:
        return []
    layer = setting.place.centre
    found = {relation: table.share(table.at(layer), seed=setting.seed) for relation, table in tables.items()}
    least = min(found, key=lambda relation: found[relation].value)
    rest = own.of([name for name in own.names if name not in of_relation[least]])
    return [
        Evidence(
            experiment=Tasks.name,
            endpoint="relation-ratio",
            criteria=(),
            family="causal",
            mode="interventional",
            estimate=ratio(rest, tables[least], layer, seed=setting.seed),
            about=least,
            note=f"All other relations over {least!r}, which loses least at the place; it was chosen as the extreme.",
            data={"relations": {relation: one.to_json() for relation, one in found.items()}},
        )
    ]


EXPERIMENT = Tasks
