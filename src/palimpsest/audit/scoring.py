"""`score`: from a claim, evidence and rules to a report. Pure, deterministic and monotone; it measures nothing.

    report = score(claim, "storage", evidence, read_rules("mv27-formal"), weights=setting.weights, gates=gates, tested=tested)
    report.criteria["V4"].status            # Status.WEAK
    report.verdict.lateral                  # "Underdetermined"

The same evidence gives the same report, in whatever order it comes. A sub-test that fails never raises a status, nor does an
interval that becomes wider turn WEAK into PASS; both are tested as properties of all inputs, not of examples. Nothing is scored
before its gates have passed: where one has not, every criterion is NOT_TESTED, with the gate's own sentence.

Evidence measured on the discovery facts is ignored, because it chose the place it would speak for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from palimpsest.audit.claim import Claim, Reading, Scope
from palimpsest.audit.evidence import Evidence
from palimpsest.audit.grammar import PartResult, adjusted, combine, counted, judge, judge_part
from palimpsest.audit.procedures import Case, licences, proceed
from palimpsest.audit.report_data import (
    LATER_WORD,
    CriterionResult,
    PredictionResult,
    ReadingReport,
    Status,
    worst,
)
from palimpsest.audit.rules import Bar, Rules
from palimpsest.audit.verdict import lenses, next_experiment, verdict
from palimpsest.audit.wording import licensed_wording

PASSED = ("", "passed")
OUTCOMES = {
    Status.PASS: "confirmed",
    Status.PARTIAL: "supported",
    Status.WEAK: "undecided",
    Status.FAIL: "contradicted",
    Status.NOT_TESTED: "not tested",
}
LAST = ("V2",)  # it looks at the other criteria, so it is computed after them
NARROW = ("Construct", "Internal", "External")


def score(
    claim: Claim,
    reading: str | Reading,
    evidence: Sequence[Evidence],
    rules: Rules,
    *,
    weights: str,
    gates: Mapping[str, str] | None = None,
    tested: Scope | None = None,
) -> ReadingReport:
    """One reading of a claim, scored.

    Args:
        claim: whose reading it is.
        reading: it, or its id.
        evidence: all there is, in any order; what the rules do not name is not looked at.
        rules: see `read_rules`.
        weights: fingerprint of the model the evidence is about.
        gates: gate to "" (or "passed") where it passed, or to the sentence that says why it did not; none: none was asked.
        tested: models, relations, wordings, languages and number of facts that were measured, for V5.
    """
    one, gates = claim.reading(reading) if isinstance(reading, str) else reading, dict(gates or {})
    failed = [
        f"The gate {name!r} did not pass: {said.rstrip('.')}."
        for name, said in sorted(gates.items())
        if said not in PASSED
    ]
    found = {} if failed else counted(evidence, rules)
    named = frozenset(
        bar.endpoint for name in rules.parts for part in rules.parts_for(name, one.tag) for bar in part.of
    )
    p = adjusted(found, named | {prediction.endpoint for prediction in one.predictions})
    predictions = tuple(_predicted(one, rules, found, p))
    criteria: dict[str, CriterionResult] = {}
    for name in sorted(rules.criteria, key=lambda name: name in LAST):
        statuses = {other: result.status for other, result in criteria.items()}
        case = Case(one, rules, found, statuses, predictions, tested, gates)
        criteria[name] = _criterion(name, case, p, failed)
    criteria = {name: _narrowed(criteria[name], criteria) for name in rules.criteria}
    of_lenses = lenses(criteria)
    judged = verdict(one, rules, criteria, of_lenses, [] if failed else predictions, failed)
    statuses = {name: result.status for name, result in criteria.items()}
    licensed = frozenset() if failed else licences(rules, statuses)
    return ReadingReport(
        reading=one.id,
        text=one.text,
        tag=one.tag,
        rules=rules.name,
        rules_sha256=rules.sha256,
        weights=weights,
        criteria=criteria,
        lenses=of_lenses,
        predictions=predictions,
        verdict=judged,
        wording=licensed_wording(one.text, rules, licensed, statuses),
        next=None if failed else next_experiment(rules, criteria, judged.tier, one.tag),
        counts=_counts(criteria),
    )


def score_all(
    claim: Claim,
    evidence: Sequence[Evidence],
    rules: Rules,
    *,
    weights: str,
    gates: Mapping[str, str] | None = None,
    tested: Scope | None = None,
) -> tuple[ReadingReport, ...]:
    """Every reading of a claim, on the same evidence."""
    return tuple(
        score(claim, one.id, evidence, rules, weights=weights, gates=gates, tested=tested) for one in claim.readings
    )


def _criterion(name: str, case: Case, p: Mapping[int, float], failed: Sequence[str]) -> CriterionResult:
    rules, reading = case.rules, case.reading
    about = rules.criteria[name]
    blank = CriterionResult(
        criterion=name,
        name=about.name,
        lens=about.lens,
        question=about.question,
        extension=about.extension,
        procedural=rules.procedural(name),
        status=Status.NOT_TESTED,
        published=about.published,
    )
    if name in reading.not_applicable:
        return _filled(blank, Status.NA, f"Not applicable: {reading.not_applicable[name].rstrip('.')}.")
    if failed:
        return _filled(blank, Status.NOT_TESTED, failed[0])
    parts = []
    for part in rules.parts_for(name, reading.tag):
        if part.procedure:
            status, said = proceed(case, part)
            parts.append(PartResult(status, (), (), part, said))
        else:
            parts.append(judge_part(part, case.found, p, rules.significance))
    if not parts:
        return _filled(
            blank, Status.NOT_TESTED, f"The rules {rules.name!r} have no part of {name} for this reading's level."
        )
    status, decides, capped = combine(parts)
    assert decides is not None  # there are parts
    reason = decides.reason if not capped else f"{decides.reason} It does not pass: {' '.join(capped)}"
    endpoints = tuple(one for part in parts for one in part.endpoints)
    n = max((one.n_needed for one in decides.deciding if one.n_needed), default=None)
    return CriterionResult(
        **{
            **vars(_filled(blank, status, reason)),
            "underpowered": n is not None,
            "n_needed": n,
            "evidence": tuple(dict.fromkeys(one.evidence for one in endpoints if one.evidence)),
            "endpoints": endpoints,
            "upgrade": _upgrade(status, decides, capped, n),
        }
    )


def _filled(blank: CriterionResult, status: Status, reason: str) -> CriterionResult:
    return CriterionResult(
        **{**vars(blank), "status": status, "reason": reason, "later_word": LATER_WORD[status.value]}
    )


def _upgrade(status: Status, decides: PartResult, capped: Sequence[str], n: int | None) -> str:
    if status is Status.PASS:
        return ""
    if capped:
        return f"What caps it: {' '.join(capped)}"
    if status is Status.NOT_TESTED:
        return f"Measure it: {decides.reason}"
    if n is not None:
        return f"About {n} records in place of {_records(decides)} would tell, if the value stays where it is."
    if status is Status.FAIL:
        return "No further record of this kind raises it."
    if decides.deciding:
        return "More records alone do not raise it: the effect itself, or its control, would have to come out better."
    return f"What is missing: {decides.reason}"


def _records(decides: PartResult) -> int:
    return max((one.estimate.n for one in decides.deciding if one.estimate is not None), default=0)


def _narrowed(result: CriterionResult, criteria: Mapping[str, CriterionResult]) -> CriterionResult:
    """Marks what passed on the primary wording only, while robustness did not pass."""
    robust = "E5" not in criteria or criteria["E5"].status in (Status.PASS, Status.NA)
    narrow = result.status is Status.PASS and result.lens in NARROW and not result.procedural and not robust
    return CriterionResult(**{**vars(result), "narrow": narrow})


def _predicted(
    reading: Reading, rules: Rules, found: Mapping[str, Sequence[Evidence]], p: Mapping[int, float]
) -> list[PredictionResult]:
    made = []
    for one in reading.predictions:
        judged = [
            judge(
                record,
                _bar(one.endpoint, one.floor, one.bar, rules, one.criterion, reading.tag),
                p.get(id(record)),
                rules.significance,
            )
            for record in found.get(one.endpoint, ())
        ]
        results = [result for result in judged if result.status is not Status.NOT_TESTED]
        status = worst(*(result.status for result in results)) if results else Status.NOT_TESTED
        deciding = next((result for result in results if result.status is status), None)
        made.append(
            PredictionResult(
                id=one.id,
                text=one.text,
                criterion=one.criterion,
                endpoint=one.endpoint,
                floor=one.floor,
                bar=one.bar,
                rivals=one.rivals,
                outcome="not tested" if one.post_hoc else OUTCOMES[status],
                evidence=tuple(result.evidence for result in results if result.evidence),
                reason="Made after evidence was seen; it does not count."
                if one.post_hoc
                else _why(one.endpoint, judged, deciding),
            )
        )
    return made


def _why(endpoint: str, judged: Sequence[object], deciding: object) -> str:
    shown = deciding if deciding is not None else next(iter(judged), None)
    return getattr(shown, "reason", f"{endpoint} was not measured.")


def _bar(endpoint: str, floor: float, bar: float, rules: Rules, criterion: str, tag: str) -> Bar:
    """The prediction's floor and bar with the nulls that the rules ask of this endpoint."""
    for part in rules.parts_for(criterion, tag):
        for one in part.of:
            if one.endpoint == endpoint:
                return Bar(endpoint, floor, bar, one.requires, one.cap_without, one.partial_on, one.countable)
    return Bar(endpoint, floor, bar)


def _counts(criteria: Mapping[str, CriterionResult]) -> dict[str, int]:
    of = [one for one in criteria.values() if not one.extension]
    counts = {status.value: sum(one.status is status for one in of) for status in Status}
    return {
        "criteria": len(of),
        "measured": sum(one.status not in (Status.NOT_TESTED, Status.NA) for one in of),
        "underpowered": sum(one.underpowered for one in of),
        **counts,
    }
