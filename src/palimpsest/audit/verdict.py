"""From criteria to a verdict: five lenses in order of dependence, a ladder of rungs, and what would move it.

    Construct -> Measurement -> Internal -> External -> Interpretive

A lens has the status that more than half of its criteria reach (their lower median). What it rests on caps it: no lens passes
above one that did not pass, and above one that failed it is WEAK at best.

A rung is reached when every criterion it asks for is established (PASS or PARTIAL; some must PASS), and what does not apply is
not asked for. The tier is the highest rung below which none is blocked. Beside the ladder stand two verdicts of another kind:
*Disconfirmed*, where a criterion that is decisive for the reading FAILED, and *Underdetermined*, where the evidence is as likely
under a rival (V4 is WEAK). A strong reading may be disconfirmed while a weaker one of the same claim stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from palimpsest.audit.claim import Reading
from palimpsest.audit.procedures import highest_licence
from palimpsest.audit.report_data import (
    LENSES,
    CriterionResult,
    EndpointResult,
    LensResult,
    NextExperiment,
    PredictionResult,
    Rung,
    Status,
    Verdict,
    worst,
)
from palimpsest.audit.rules import Rules, RungRule

NOT_ASSESSED = "Not assessed"
ALTERNATIVES = "V4"  # the criterion whose WEAK says that a rival does as well


def lenses(criteria: Mapping[str, CriterionResult]) -> tuple[LensResult, ...]:
    """Each lens with its strongest and weakest criterion, in order of dependence; extensions do not count."""
    made: list[LensResult] = []
    for lens in LENSES:
        of = [
            one for one in criteria.values() if one.lens == lens and not one.extension and one.status is not Status.NA
        ]
        if not of:
            made.append(LensResult(lens, "", "", Status.NA, Status.NA, ""))
            continue
        ordered = sorted(of, key=lambda one: one.status.rank)
        own = ordered[(len(ordered) - 1) // 2].status
        status, by = own, ""
        for below in made:
            cap = _cap(below.status)
            if cap.rank < status.rank:
                status, by = cap, below.lens
        strongest = max(of, key=lambda one: one.status.rank)
        made.append(LensResult(lens, strongest.criterion, ordered[0].criterion, own, status, by))
    return tuple(made)


def _cap(below: Status) -> Status:
    if below in (Status.PASS, Status.NA):
        return Status.PASS
    return Status.WEAK if below is Status.FAIL else Status.PARTIAL


def verdict(
    reading: Reading,
    rules: Rules,
    criteria: Mapping[str, CriterionResult],
    of_lenses: Sequence[LensResult],
    predictions: Sequence[PredictionResult],
    gates_failed: Sequence[str],
) -> Verdict:
    """The verdict on one reading."""
    statuses = {name: one.status for name, one in criteria.items()}
    ladder = tuple(_rung(rule, criteria, of_lenses, predictions, gates_failed) for rule in rules.rungs)
    tier, blocked = NOT_ASSESSED, ladder[0].blocked_by if ladder else ()
    for rung in ladder:
        blocked = rung.blocked_by
        if not rung.reached:
            break
        tier = rung.name
    lateral, why = _lateral(reading, criteria)
    return Verdict(
        tier=tier,
        lateral=lateral,
        lateral_reason=why,
        ladder=ladder,
        blocked_by=blocked,
        declared_tag=reading.tag,
        licensed_tag="" if gates_failed else highest_licence(rules, statuses, reading.tag),
        primary_gap=_primary_gap(rules, criteria, tier),
    )


def _rung(
    rule: RungRule,
    criteria: Mapping[str, CriterionResult],
    of_lenses: Sequence[LensResult],
    predictions: Sequence[PredictionResult],
    gates_failed: Sequence[str],
) -> Rung:
    blocked = list(gates_failed)
    for name in (*rule.requires, *rule.passed):
        one = criteria[name]
        enough = one.status is Status.PASS if name in rule.passed else one.status.establishes
        if not enough and one.status is not Status.NA:
            wanted = "PASS" if name in rule.passed else "PARTIAL or better"
            blocked.append(f"{name} {one.name} is {one.status.value}, and {wanted} is needed.")
    confirmed = [one for one in predictions if one.outcome == "confirmed"]
    by = {record.split("/")[0] for one in confirmed for record in one.evidence}
    measured = [one for one in criteria.values() if one.evidence]
    for got, least, what in (
        (len(predictions), rule.predictions, "frozen predictions"),
        (len(confirmed), rule.confirmed, "confirmed predictions"),
        (len(by), rule.experiments, "experiments that confirm one"),
        (len(measured), rule.measured, "measured criteria"),
    ):
        if got < least:
            blocked.append(f"There are {got} {what}, and {least} are needed.")
    if rule.every_lens:
        blocked += [
            f"The lens {one.lens} is {one.status.value}, and PASS is needed."
            for one in of_lenses
            if one.status not in (Status.PASS, Status.NA)
        ]
    return Rung(rule.name, not blocked, tuple(blocked))


def _lateral(reading: Reading, criteria: Mapping[str, CriterionResult]) -> tuple[str, str]:
    for name in reading.decisive:
        if criteria[name].status is Status.FAIL:
            return "Disconfirmed", f"{name} {criteria[name].name} is decisive for this reading, and failed."
    if ALTERNATIVES in criteria and criteria[ALTERNATIVES].status is Status.WEAK:
        return "Underdetermined", f"A rival account is not excluded: {criteria[ALTERNATIVES].reason}"
    return "", ""


def _wanted(rules: Rules, criteria: Mapping[str, CriterionResult], tier: str) -> list[CriterionResult]:
    """The criteria that block the rungs above a tier, nearest rung first, in order of dependence within a rung."""
    names = [rule.name for rule in rules.rungs]
    wanted: dict[str, CriterionResult] = {}
    for rule in rules.rungs[names.index(tier) + 1 if tier in names else 0 :]:
        of = [criteria[name] for name in (*rule.requires, *rule.passed)]
        if rule.every_lens:
            of += [one for one in criteria.values() if not one.extension]
        enough = [
            one
            for one in of
            if one.status not in (Status.PASS, Status.NA)
            and not (one.criterion in rule.requires and one.status.establishes)
        ]
        wanted |= {
            one.criterion: one
            for one in sorted(enough, key=lambda one: LENSES.index(one.lens))
            if one.criterion not in wanted
        }
    return list(wanted.values())


def _primary_gap(rules: Rules, criteria: Mapping[str, CriterionResult], tier: str) -> str:
    wanted = _wanted(rules, criteria, tier)
    if not wanted:
        return "Nothing is missing."
    one = wanted[0]
    return f"{one.criterion} {one.name}: {one.status.value}. {one.reason}"


def next_experiment(
    rules: Rules, criteria: Mapping[str, CriterionResult], tier: str, tag: str
) -> NextExperiment | None:
    """The experiment whose result could raise the verdict: the first blocking criterion that a measurement can still decide.

    What has FAILED is not asked again: another run of the same experiment would only be another chance to be lucky. Where it
    blocks the next rung, the sentence says so first.
    """
    wanted = _wanted(rules, criteria, tier)
    names = [rule.name for rule in rules.rungs]
    rung = rules.rungs[names.index(tier) + 1 if tier in names else 0] if tier != names[-1] else None
    lost = [
        one for one in wanted if one.status is Status.FAIL and rung and one.criterion in (*rung.requires, *rung.passed)
    ]
    found = next((one for one in (_undecided(rules, one, tag) for one in wanted) if one is not None), None)
    if not lost or rung is None:
        return found
    named = ", ".join(one.criterion for one in lost)
    sentence = (
        f"{named} failed, so no further measurement at this place reaches {rung.name!r}: claim a weaker reading, "
        "or another place."
    )
    if found is None:
        return NextExperiment(lost[0].criterion, "", "", None, sentence)
    return replace(found, sentence=f"{sentence} Still open: {found.sentence}")


def _undecided(rules: Rules, criterion: CriterionResult, tag: str) -> NextExperiment | None:
    if criterion.status in (Status.FAIL, Status.PASS, Status.NA):
        return None
    by_name: dict[str, list[EndpointResult]] = {}
    for result in criterion.endpoints:
        by_name.setdefault(result.endpoint, []).append(result)
    for part in rules.parts_for(criterion.criterion, tag):
        for bar in part.of:
            results = by_name.get(bar.endpoint, [])
            status = worst(*(one.status for one in results)) if results else Status.NOT_TESTED
            experiment = rules.endpoints[bar.endpoint].experiment
            if status is Status.NOT_TESTED:
                sentence = f"Measure {bar.endpoint} ({experiment}): it decides {criterion.criterion} {criterion.name}."
                return NextExperiment(criterion.criterion, bar.endpoint, experiment, None, sentence)
            n = max((one.n_needed for one in results if one.n_needed), default=None)
            if n is not None:
                sentence = (
                    f"Repeat {bar.endpoint} ({experiment}) on about {n} records: its interval is too wide to decide "
                    f"{criterion.criterion} {criterion.name}."
                )
                return NextExperiment(criterion.criterion, bar.endpoint, experiment, n, sentence)
    return None
