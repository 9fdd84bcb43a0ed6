"""The criteria that no experiment answers: they are computed from the claim, from what was tested, and from other criteria.

    predictions  C1   three or more predictions frozen before evidence, one of which a rival denies; none at all fails
    declared     V1   the reading carries a tag; a tag that only its verbs betray is half of that
    licensed     V2   the criteria its tag requires: the worst of them, in the words of the audit's rules
    narrative    V3   no verb above the tag; of the families of evidence, none denies what others affirm
    rivals       V4   every rival is denied by a prediction that came true
    scope        V5   the share of the claimed scope that was tested
    split        M7   the facts that report did not choose

Each returns a status and one sentence, and none can be raised by evidence that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from palimpsest.audit.claim import EVERY, Reading, Scope
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.grammar import interval_status
from palimpsest.audit.report_data import PredictionResult, Status, worst
from palimpsest.audit.rules import Part, Rules
from palimpsest.audit.wording import inferred_tag, unlicensed

PREDICTIONS = 3
SCOPE_FLOOR, SCOPE_BAR = 0.5, 1.0


@dataclass(frozen=True)
class Case:
    """What procedures look at: the reading, its rules, the evidence that counts, and what is known of other criteria."""

    reading: Reading
    rules: Rules
    found: Mapping[str, Sequence[Evidence]]
    statuses: Mapping[str, Status]
    predictions: Sequence[PredictionResult]
    tested: Scope | None
    gates: Mapping[str, str]


def proceed(case: Case, part: Part) -> tuple[Status, str]:
    """A status and one sentence from the procedure a part names."""
    made: Mapping[str, Callable[[Case, Part], tuple[Status, str]]] = {
        "predictions": _predictions,
        "declared": _declared,
        "licensed": _licensed,
        "narrative": _narrative,
        "rivals": _rivals,
        "scope": _scope,
        "split": _split,
    }
    return made[part.procedure](case, part)


def licences(rules: Rules, statuses: Mapping[str, Status]) -> frozenset[str]:
    """The tags whose required criteria are all established; what does not apply is not required."""
    return frozenset(
        name
        for name, tag in rules.tags.items()
        if all(
            statuses.get(one, Status.NOT_TESTED).establishes or statuses.get(one) is Status.NA for one in tag.requires
        )
    )


def highest_licence(rules: Rules, statuses: Mapping[str, Status], declared: str) -> str:
    """The declared tag, or the highest licensed one below it; "" where the evidence carries none."""
    order, licensed = list(rules.tags), licences(rules, statuses)
    if declared in licensed:
        return declared
    below = order[: order.index(declared)] if declared in order else order
    return next((name for name in reversed(below) if name in licensed and name != "transportable"), "")


def _predictions(case: Case, part: Part) -> tuple[Status, str]:
    frozen = [one for one in case.reading.predictions if not one.post_hoc]
    denied = [one for one in frozen if one.rivals]
    said = f"{len(frozen)} predictions were frozen before evidence, {len(denied)} of which a rival denies"
    if not frozen:
        return (
            Status.FAIL,
            "No prediction was frozen before evidence, so nothing could have spoken against the reading.",
        )
    if len(frozen) >= PREDICTIONS and denied:
        return Status.PASS, f"{said}."
    return Status.PARTIAL, f"{said}; {PREDICTIONS} and one are needed."


def _declared(case: Case, part: Part) -> tuple[Status, str]:
    if case.reading.tag:
        return Status.PASS, f"The reading declares its level, {case.reading.tag}."
    if tag := inferred_tag(case.reading.text, case.rules):
        return Status.PARTIAL, f"The reading declares no level; its verbs speak at the level {tag}."
    return Status.FAIL, "The reading declares no level, and its verbs betray none."


def _licensed(case: Case, part: Part) -> tuple[Status, str]:
    tag = case.reading.tag or inferred_tag(case.reading.text, case.rules)
    if tag not in case.rules.tags:
        return Status.FAIL, "Without a level there is nothing for the evidence to carry."
    every = {one: case.statuses.get(one, Status.NOT_TESTED) for one in case.rules.tags[tag].requires}
    statuses = {one: status for one, status in every.items() if status is not Status.NA}
    low = worst(*statuses.values())
    if low in (Status.PASS, Status.PARTIAL):
        return low, f"Everything the level {tag} requires is {low.value} or better ({', '.join(statuses)})."
    short = ", ".join(f"{one} {status.value}" for one, status in statuses.items() if not status.establishes)
    highest = highest_licence(case.rules, case.statuses, tag)
    licensed = (
        f"the highest level that the evidence carries is {highest}" if highest else "the evidence carries no level"
    )
    status = Status.FAIL if low is Status.FAIL else Status.WEAK
    return status, f"The level {tag} requires what is not established ({short}); {licensed}."


def _narrative(case: Case, part: Part) -> tuple[Status, str]:
    if bad := unlicensed(case.reading.text, case.reading.tag, case.rules):
        return (
            Status.FAIL,
            f"The sentence says {bad[0]!r}, which the declared level {case.reading.tag or 'none'} does not permit.",
        )
    affirm, deny, unsure = set(), set(), set()
    heard = False
    for criterion in part.over:
        for bar in (bar for one in case.rules.parts_for(criterion, case.reading.tag) for bar in one.of):
            for record in case.found.get(bar.endpoint, ()):
                heard = True
                status = interval_status(record.estimate.low, record.estimate.high, bar.floor, bar.bar, bar.fails)
                if status.establishes:
                    affirm.add(record.family)
                elif status is Status.FAIL:
                    deny.add(record.family)
                else:  # not heard either way: agreement of the others is not yet agreement of all
                    unsure.add(record.family)
    if not heard:
        return Status.NOT_TESTED, f"The verbs fit the level; no evidence on {', '.join(part.over)} to compare."
    said = (
        f"Families that affirm: {', '.join(sorted(affirm)) or 'none'}; that deny: {', '.join(sorted(deny)) or 'none'}; "
        f"with records that do neither: {', '.join(sorted(unsure)) or 'none'}."
    )
    if not affirm:
        return (Status.FAIL if deny else Status.WEAK), said
    if len(deny) >= 2:
        return Status.WEAK, said
    return (Status.PASS if len(affirm) >= 2 and not deny and not unsure else Status.PARTIAL), said


def _rivals(case: Case, part: Part) -> tuple[Status, str]:
    if not case.reading.rivals:
        return Status.FAIL, "No rival account is named."
    outcome = {
        "confirmed": Status.PASS,
        "supported": Status.PARTIAL,
        "undecided": Status.WEAK,
        "contradicted": Status.FAIL,
        "not tested": Status.NOT_TESTED,
    }
    stands: dict[str, Status] = {}
    for rival in case.reading.rivals:
        tests = [outcome[one.outcome] for one in case.predictions if rival in one.rivals]
        measured = [one for one in tests if one is not Status.NOT_TESTED]
        stands[rival] = max(measured, key=lambda one: one.rank) if measured else Status.NOT_TESTED
    said = "Rivals: " + ", ".join(f"{name} {_fate(status)}" for name, status in stands.items()) + "."
    return worst(*stands.values()), said


def _fate(status: Status) -> str:
    return {
        Status.PASS: "excluded",
        Status.PARTIAL: "disfavoured",
        Status.WEAK: "not excluded",
        Status.FAIL: "favoured over the claim",
        Status.NOT_TESTED: "not tested",
    }[status]


def _scope(case: Case, part: Part) -> tuple[Status, str]:
    if case.tested is None:
        return Status.NOT_TESTED, "What was tested was not handed over, so the claimed scope has nothing to lie in."
    shares = case.reading.scope.coverage(case.tested)
    if not shares:
        return Status.FAIL, "The reading states no scope."
    share = sum(shares.values()) / len(shares)
    missing = [f"{name} ({_short(case, name)})" for name, got in shares.items() if got < 1]
    status = interval_status(share, share, SCOPE_FLOOR, SCOPE_BAR)
    said = f"{share:.0%} of the claimed scope was tested"
    return status, f"{said}; wider than tested: {', '.join(missing)}." if missing else f"{said}."


def _short(case: Case, dimension: str) -> str:
    wanted, met = getattr(case.reading.scope, dimension), getattr(case.tested, dimension)
    if wanted == (EVERY,):
        return f"claimed of every one, tested {met if isinstance(met, int) else len(set(met))}"
    if isinstance(wanted, int):
        return f"claimed {wanted}, tested {met if isinstance(met, int) else len(set(met))}"
    return "not tested: " + ", ".join(sorted(set(wanted) - (set() if isinstance(met, int) else set(met))))


def _split(case: Case, part: Part) -> tuple[Status, str]:
    named = [said for gate, said in case.gates.items() if "split" in gate]
    if not named:
        return Status.NOT_TESTED, "No gate looked at the split into facts that choose and facts that report."
    return Status.PASS, "Facts that chose the place are not among those that report; no subject is in both."
