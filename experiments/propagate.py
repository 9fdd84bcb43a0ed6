"""What carrying consequences along does to an edit: on the made world, on KnowEdit's portability and on MQuAKE's chains.

    python experiments/propagate.py world [--limit 120]                                   # resumable; run/propagate/
    PALIMPSEST_RECORDS=... python experiments/propagate.py smollm2 [--limit 40]           # resumable; run/propagate/
    python experiments/propagate.py page                                                  # results/, docs/propagate-measured.md

Each fact is edited twice on the unedited model, alone and with what it entails, by the same method with the same settings; all
differences are paired. On the world every consequence is known, and second hops come from the model itself. On smollm2 the rules
are written by hand (`propagate_rules.json`), in wordings of their own, second hops come from the model itself as well, and the
benchmarks' answers serve to judge and for nothing else.
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import palimpsest as pal
from palimpsest.erase.propagate import Plan, Propagated, Rules, plan, propagate, read_rules
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Likelihood, Written
from palimpsest.evaluate.suites.parts import says, spoken
from palimpsest.facts import Case, Fact, read_cases
from palimpsest.model import Model
from palimpsest.world import World, made_world, recalls, relations
from palimpsest.world.rules import world_rules

ROOT = Path(__file__).parents[1]
WORK, RULES = ROOT / "run" / "propagate", Path(__file__).parent / "propagate_rules.json"
WORLD_SETTINGS: dict[str, Any] = {}  # the measured defaults of the made world
RELATIONS = (  # those an edit of which changes more than itself
    *("capital", "capital_of", "city_country", "sister_city", "landmark_city"),
    *("headquarters", "founder", "founded", "employer", "spouse"),
)
BYSTANDERS = 60  # asked, anchors and judges together
NEAR = 6  # bystanders of each class
SEEN = slice(0, None, 3)  # of ten seen wordings four: plain, relation-first and long ones among them


def world_edits(world: World) -> Iterator[Fact]:
    """The records whose consequences are measured: one relation after the other, in a seeded order."""
    of = {name: world.records([name], probes=0) for name in RELATIONS}
    for facts in of.values():
        Random(0).shuffle(facts)
    for turn in range(max(map(len, of.values()))):
        yield from (facts[turn] for facts in of.values() if turn < len(facts))


def on_world(limit: int, wordings: int) -> None:
    """One line a fact in run/propagate/."""
    model, world = pal.load("world"), made_world()
    rules = world_rules(world)

    def measured(fact: Fact) -> dict[str, Any]:
        made = plan(model, [fact], rules)
        both = propagate(model, made, most=BYSTANDERS, wordings=wordings, **WORLD_SETTINGS)
        alone = pal.edit(model, [fact], method="memit", **WORLD_SETTINGS)
        asked = questions(world, fact)
        rows = {"before": ask_world(model, asked)}
        for name, edit in (("alone", alone), ("with", both.edit)):
            with edit.applied(model):
                rows[name] = ask_world(model, asked)
        return {**about(fact, both), **correct(world, fact, made), "asked": asked, "said": rows}

    resumed(f"world-{wordings}", world_edits(world), limit, measured)


def questions(world: World, fact: Fact) -> list[dict[str, Any]]:
    """Every (class, statement, wording) to ask about an edit."""
    found = world.consequences(fact.subject, fact.relation, str(fact.target_new))
    random = Random(f"propagate/{fact.id}")
    some = {
        "edit": [(fact.subject, fact.relation, fact.target_new)],
        "entailed": [(one.subject, one.relation, one.after) for one in found.entailed if one.after],
        "lost": [(one.subject, one.relation, one.before) for one in found.entailed if not one.after and one.before],
        "same_subject": list(found.same_subject),
        "neighbours": random.sample(found.neighbours, min(NEAR, len(found.neighbours))),
        "far": random.sample(found.far, min(NEAR, len(found.far))),
    }
    return [
        {
            "class": kind,
            "relation": relation,
            "subject": subject,
            "answer": object,
            "seen": wording.seen,
            "text": wording.of(subject),
        }
        for kind, facts in some.items()
        for subject, relation, object in facts
        for wording in (*relations()[relation].seen[SEEN], *relations()[relation].unseen)
    ]


def ask_world(model: Model, asked: list[dict[str, Any]]) -> list[bool]:
    """Whether the model writes each answer whole."""
    return recalls(model, [one["text"] for one in asked], [one["answer"] for one in asked])


def correct(world: World, fact: Fact, made: Plan) -> dict[str, Any]:
    """The plan against the truth: how many consequences were found, and how many that are none."""
    found = world.consequences(fact.subject, fact.relation, str(fact.target_new)).entailed
    true = {(one.subject, one.relation, one.after) for one in found if one.after}
    gone = {(one.subject, one.relation, one.before) for one in found if not one.after}
    named = [step for step in made.steps if step.statement.subject not in world.aliases]
    said = {tuple(step.statement) for step in named if step.kind == "entailed"}
    lost = {tuple(step.statement) for step in named if step.kind == "lost"}
    return {
        "plan": {"entailed": [len(true), len(said), len(true & said)], "lost": [len(gone), len(lost), len(gone & lost)]}
    }


def about(fact: Fact, made: Propagated) -> dict[str, Any]:
    """What a line says of its fact and of the edit with its consequences."""
    return {
        "id": fact.id,
        "relation": fact.relation,
        "subject": fact.subject,
        "written": len(made.edit.facts),
        "guard": made.guard.to_json(),
        "steps": made.plan.to_json()["steps"],
        "hops": len(made.plan.hops),
    }


def on_smollm2(limit: int) -> None:
    """KnowEdit's portability and MQuAKE's chains, one line a record in run/propagate/."""
    model, rules = pal.load("smollm2"), read_rules(RULES)
    records = Path(os.environ["PALIMPSEST_RECORDS"])

    def measured(case: Case) -> dict[str, Any]:
        facts = [named(fact, rules) for fact in case.facts]
        made = plan(model, facts, rules)
        both = propagate(model, made, most=40)
        alone = both.edit if len(both.edit.facts) == len(facts) else pal.edit(model, facts, method="memit")
        asked = asked_of(case)
        rows = {"before": ask_smollm2(model, asked)}
        for name, edit in (("alone", alone), ("with", both.edit)):
            with edit.applied(model):
                rows[name] = ask_smollm2(model, asked)
        return {**about(facts[0], both), "id": case.id, "asked": asked, "said": rows}

    for name, path, ruled in (
        ("knowedit", records / "knowedit" / "wiki_counterfact_train.json", has_probes),
        ("mquake", records / "mquake" / "MQuAKE-CF.json", has_chain),
    ):
        cases = [case for case in read_cases(path).cases if ruled(case, rules)]
        Random(0).shuffle(cases)
        resumed(name, iter(cases), limit, measured)


def named(fact: Fact, rules: Rules) -> Fact:
    """The fact under the name its relation has in the rules."""
    name = next((name for name, one in rules.relations.items() if fact.prompt in one.wordings), fact.relation)
    return Fact.from_json(fact.to_json() | {"relation": name})


def has_probes(case: Case, rules: Rules) -> bool:
    """A KnowEdit record about a relation that the rules lead on from, with a probe that asks for what follows."""
    kinds = {probe.kind for fact in case.facts for probe in fact.entailed}
    return leads_on(case.facts[0], rules) and bool(kinds & {"reasoning", "logical_generalization"})


def has_chain(case: Case, rules: Rules) -> bool:
    """A MQuAKE record that edits one fact about a relation that the rules lead on from."""
    return len(case.facts) == 1 and leads_on(case.facts[0], rules)


def leads_on(fact: Fact, rules: Rules) -> bool:
    """Whether a rule has the relation of this fact among its premises."""
    name = named(fact, rules).relation
    return name in rules.inverses or any(name in rule.path for rule in rules.compositions)


def asked_of(case: Case) -> list[dict[str, Any]]:
    """Every prompt of a record with the spellings that are right."""
    fact = case.facts[0]
    rows: list[dict[str, Any]] = [{"class": "edit", "text": fact.text, "answers": [fact.target_new]}]
    for probe in (*fact.entailed, *fact.same_subject):
        if probe.answer is not None:
            rows.append({"class": probe.kind, "text": probe.prompt, "answers": [probe.answer, *probe.aliases]})
    for check in case.checks:
        rows += [
            {
                "class": check.kind,
                "text": f"Q: {query.prompt}\nA:",
                "answers": [s for one in query.answers for s in one],
            }
            for query in check.queries
        ]
    return rows


def ask_smollm2(model: Model, asked: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Token accuracy of the first spelling under teacher forcing, and whether the text written says any of them."""
    forced = [Likelihood(one["text"], one["answers"][0]) for one in asked]
    free = [Written(one["text"], 16) for one in asked]
    told = answer(model, [*forced, *free])
    rows = []
    for one, likelihood, written in zip(asked, forced, free, strict=True):
        right = told.likelihood(likelihood.text, likelihood.answer).right
        rows.append(
            {"forced": sum(right) / len(right), "says": float(says(spoken(told.written(written)), one["answers"]))}
        )
    return rows


def resumed(name: str, items: Iterator[Any], limit: int, measured: Callable[[Any], dict[str, Any]]) -> None:
    """One line for each of the first `limit` items; those that have one are not measured again."""
    path = WORK / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["id"] for line in path.read_text().splitlines()} if path.is_file() else set()
    for number, item in enumerate(items):
        if number >= limit:
            break
        if item.id not in done:
            try:
                line = measured(item)
            except pal.errors.PalimpsestError as error:
                line = {"id": item.id, "failed": str(error)}
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(name, number + 1, item.id, line.get("failed", ""), flush=True)


def main() -> None:
    """`world`, `smollm2` or `page`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["world", "smollm2", "page"])
    parser.add_argument("--limit", type=int)
    parser.add_argument(
        "--wordings", type=int, default=1, help="of an entailed fact of the world, how many are written"
    )
    given = parser.parse_args()
    if given.what == "world":
        on_world(given.limit or 120, given.wordings)
    elif given.what == "smollm2":
        on_smollm2(given.limit or 40)
    else:
        from propagate_page import write_page  # beside this file

        write_page()


if __name__ == "__main__":
    main()
