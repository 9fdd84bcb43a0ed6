"""From an interval to a status, from statuses to a criterion: total, deterministic, monotone.

With [lo, hi] the interval of an endpoint (larger is better), and tau_F <= tau_P its floor and its bar:

    PASS        lo >= tau_P
    PARTIAL     tau_F <= lo < tau_P
    WEAK        lo < tau_F <= hi            the floor cannot be excluded
    FAIL        hi < tau_F                  reliably below the floor, or below `fail_below` where the rules set that lower
    wide        hi - lo > tau_P - tau_F     the interval cannot tell floor from bar

Only PARTIAL and WEAK can be underpowered: what has passed or failed stays so, however many records are added. The number of
records that would do is n ((hi - lo) / (tau_P - tau_F))^2, for intervals narrow with the square root of n; where floor and bar
are the same, n ((value - lo) / (value - tau_F))^2, with which `lo` would reach the floor if the value stayed.

Then, in this order, each downwards only:

1. where a test was made, PASS needs a p below the rules' significance after Holm's adjustment over every record they name;
2. a missing control that the rules ask for makes a record NOT_TESTED, or caps it at PARTIAL, as the rules say; a control
   designed by the claim's own author is missing, and so is one whose number is not known;
3. a control that failed its own check takes one step: PASS to PARTIAL to WEAK. It stops there, for a null that misbehaves says
   that the measurement cannot be read, and not that the claim is false;
4. evidence of an instrument, a quotation, or numbers from facts that also chose the place cap at PARTIAL.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf, isfinite, isnan

from palimpsest.audit.evidence import NULLS, Control, Evidence
from palimpsest.audit.report_data import EndpointResult, Status, worst
from palimpsest.audit.rules import Bar, Part, Rules
from palimpsest.statistics import Estimate, holm

ROUNDING = 1e-9  # relative; a bar of 0.1 is met by 0.1 computed as 0.3 - 0.2
CAPPED = {
    "instrument": "it is about the instrument, on organisms, and not about this model",
    "literature": "a quotation never passes by itself",
}


def interval_status(low: float, high: float, floor: float, bar: float, fail_below: float | None = None) -> Status:
    """The status of an interval; one that is not known excludes nothing.

    Args:
        low, high: its ends.
        floor, bar: what they are held against.
        fail_below: where a number between this and the floor says nothing either way, such as a likelihood ratio near 1.
    """
    low, high = (-inf if isnan(low) else low), (inf if isnan(high) else high)
    slack = ROUNDING * max(abs(floor), abs(bar), 1.0)
    if low >= bar - slack:
        return Status.PASS
    if low >= floor - slack:
        return Status.PARTIAL
    fails = floor if fail_below is None else fail_below
    return Status.WEAK if high >= fails - slack else Status.FAIL


def needed(estimate: Estimate, floor: float, bar: float) -> int | None:
    """Records for an interval as narrow as the band from floor to bar; None where no number of records is known to do."""
    ratio = inf
    if bar > floor:
        ratio = estimate.width / (bar - floor)
    elif estimate.value > floor:
        ratio = (estimate.value - estimate.low) / (estimate.value - floor)
    return ceil(estimate.n * ratio**2 - ROUNDING) if isfinite(ratio) and estimate.n and ratio > 1 else None


def counted(evidence: Sequence[Evidence], rules: Rules) -> dict[str, list[Evidence]]:
    """Endpoint to the records that count, in order of their ids: named by the rules, and not from the discovery facts."""
    found: dict[str, list[Evidence]] = {}
    for one in sorted(evidence, key=lambda one: (one.id, repr(one.to_json()))):
        if one.endpoint in rules.endpoints and one.split != "discovery":
            found.setdefault(one.endpoint, []).append(one)
    return found


def adjusted(found: Mapping[str, Sequence[Evidence]], endpoints: frozenset[str]) -> dict[int, float]:
    """Holm's adjusted p by identity of the record, over every record of these endpoints that has a p."""
    tested = [
        one for name in sorted(endpoints) for one in found.get(name, ()) if one.p is not None and not isnan(one.p)
    ]
    return {id(one): p for one, p in zip(tested, holm([float(one.p or 0.0) for one in tested]), strict=True)}


def judge(one: Evidence, bar: Bar, p: float | None, significance: float) -> EndpointResult:
    """One record against one floor and bar; see the module's text."""
    estimate = one.estimate
    result = EndpointResult(
        endpoint=one.endpoint,
        evidence=one.id,
        status=interval_status(estimate.low, estimate.high, bar.floor, bar.bar, bar.fails),
        floor=bar.floor,
        bar=bar.bar,
        estimate=estimate,
        p_adjusted=p,
        wide=bar.bar > bar.floor and estimate.width > (bar.bar - bar.floor) * (1 + ROUNDING),
        n_needed=None,
        reason="",
    )
    if isnan(estimate.value):
        why = estimate.method or one.note  # an estimate that could not be made says why in its method
        because = f"{one.endpoint} could not be estimated" + (f": {why.rstrip('.')}" if why else "")
        return replace(result, status=Status.NOT_TESTED, reason=f"{because}.")
    status, said = result.status, [_said(one, bar, result.status)]
    if status is Status.WEAK and bar.partial_on and bar.partial_on in one.data:
        middle = Estimate.from_json(one.data[bar.partial_on])
        status = worst(Status.PARTIAL, interval_status(middle.low, middle.high, bar.floor, bar.floor))
        said.append(f"its {bar.partial_on} is {middle}")
    if status is Status.PASS and p is not None and p >= significance:
        status = Status.PARTIAL
        said.append(f"its p is {p:.2g} after Holm's adjustment")
    independent = {control.kind for control in one.controls if _is_there(control)}
    if missing := [kind for kind in bar.requires if kind not in independent]:
        status = Status.NOT_TESTED
        said.append(f"without {missing[0]} ({NULLS[missing[0]]}) it is not scored")
    if status is Status.PASS and (missing := [kind for kind in bar.cap_without if kind not in independent]):
        status = Status.PARTIAL
        said.append(f"without {missing[0]} ({NULLS[missing[0]]}) it does not pass")
    if insane := [control for control in one.controls if not control.sane]:
        lower = {Status.PASS: Status.PARTIAL, Status.PARTIAL: Status.WEAK}.get(status, status)
        names = ", ".join(sorted({f"{control.kind} ({NULLS[control.kind]})" for control in insane}))
        step = "a step was taken off because its" if lower is not status else "its"
        said.append(f"{step} control {names} did not come out as a null must")
        status = lower
    if status is Status.PASS and (why := _capped(one)):
        status = Status.PARTIAL
        said.append(f"it does not pass, for {why}")
    can_decide = status in (Status.PARTIAL, Status.WEAK) and bar.countable and status is result.status
    n = needed(estimate, bar.floor, bar.bar) if can_decide and (result.wide or status is Status.WEAK) else None
    return replace(result, status=status, n_needed=n, reason="; ".join(said) + ".")


def _is_there(control: Control) -> bool:
    """Whether a control counts: its number is known, and somebody else than the claim's author designed it."""
    return control.provenance != "claim-author" and not isnan(control.estimate.value)


def _said(one: Evidence, bar: Bar, status: Status) -> str:
    where = {
        Status.PASS: f"lies above the bar {bar.bar:g}",
        Status.PARTIAL: f"lies above the floor {bar.floor:g} and not above the bar {bar.bar:g}",
        Status.WEAK: f"cannot exclude the floor {bar.floor:g}",
        Status.FAIL: f"lies below {'the floor ' if bar.fail_below is None else ''}{bar.fails:g}",
    }[status]
    name = one.endpoint if not one.about else f"{one.endpoint} ({one.about})"
    return f"{name}, {one.estimate}, {where}"


def _capped(one: Evidence) -> str:
    if one.level in CAPPED:
        return CAPPED[one.level]
    return "the facts it was measured on also chose the place" if one.split == "all" else ""


@dataclass(frozen=True)
class PartResult:
    """How one part of a criterion stands: its status, the endpoints that decide it, all its endpoints."""

    status: Status
    deciding: tuple[EndpointResult, ...]
    endpoints: tuple[EndpointResult, ...]
    part: Part
    reason: str


def judge_part(
    part: Part, found: Mapping[str, Sequence[Evidence]], p: Mapping[int, float], significance: float
) -> PartResult:
    """The `need`-th best of the endpoints that were measured, each the worst of its records."""
    each: list[tuple[Status, tuple[EndpointResult, ...]]] = []
    every: list[EndpointResult] = []
    absent: list[str] = []
    for bar in part.of:
        results = [judge(one, bar, p.get(id(one)), significance) for one in found.get(bar.endpoint, ())]
        every += results
        if measured := [one for one in results if one.status is not Status.NOT_TESTED]:
            status = worst(*(one.status for one in measured))
            each.append((status, tuple(one for one in measured if one.status is status)))
        else:
            absent.append(results[0].reason.rstrip(".") if results else f"{bar.endpoint} was not measured")
    each.sort(key=lambda pair: -pair[0].rank)
    if len(each) < part.need:
        few = f" ({len(each)} of {part.need} that are needed were)" if part.need > 1 else ""
        return PartResult(Status.NOT_TESTED, (), tuple(every), part, "; ".join(absent) + few + ".")
    status = each[part.need - 1][0]
    deciding = tuple(one for got, results in each[: part.need] if got is status for one in results)
    return PartResult(status, deciding, tuple(every), part, deciding[0].reason)


def combine(parts: Sequence[PartResult]) -> tuple[Status, PartResult | None, list[str]]:
    """The status of a criterion, the part that decides it, and what capped it, as sentences."""
    caps = [one for one in parts if one.part.cap]
    main = [one for one in parts if not one.part.cap]
    there = [one for one in main if not (one.part.optional and one.status is Status.NOT_TESTED)]
    if not there:
        return Status.NOT_TESTED, next(iter(main), None), []
    decides = min(there, key=lambda one: one.status.rank)
    capped = [one.reason for one in main if one not in there]
    capped += [one.reason for one in caps if one.status is not Status.PASS]
    if decides.status is not Status.PASS or not capped:
        return decides.status, decides, []
    return Status.PARTIAL, decides, capped
