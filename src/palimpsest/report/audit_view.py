"""The first screens of an audit's page, from plain data to what the template shows: tiles, ladders, headline numbers, forest.

A report is what `AuditReport.to_json` gives. A status is shown by a colour, a letter, an icon and a word, so that none of them is
needed alone; what was not measured is shown as not measured, with its reason.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.report.audit_forest import Row
from palimpsest.report.audit_records import Plain, Records, bare, estimate_of, highest_null, interval, slug, written
from palimpsest.report.svg import number

LENSES = ("Construct", "Internal", "External", "Measurement", "Interpretive")
# status to (class, letter, icon, word)
STATUSES = {
    "PASS": ("pass", "P", "✓", "pass"),
    "PARTIAL": ("partial", "½", "◑", "partial"),
    "WEAK": ("weak", "W", "≈", "weak"),
    "FAIL": ("fail", "F", "✗", "fail"),
    "NOT_TESTED": ("not_tested", "–", "○", "not tested"),
    "NA": ("na", "n", "∅", "not applicable"),
}
# endpoint to what the first screen calls it, and what it means
HEADLINES = (
    ("restoration", "Restoration share", "of the answer comes back when only this place is restored"),
    ("edit-advantage", "Edit advantage", "in success over the median of the other layers"),
    ("therapeutic-index", "Therapeutic index", "dose that harms a fifth of bystanders over dose that half-works"),
)


def status_of(result: Plain) -> dict[str, str]:
    """How a status is shown; one that is not known is shown as not tested."""
    kind, letter, icon, word = STATUSES.get(str(result.get("status")), STATUSES["NOT_TESTED"])
    weak = bool(result.get("underpowered"))
    says = word + (" (narrow)" if result.get("narrow") and kind == "pass" else "") + (", underpowered" if weak else "")
    order = str(list(STATUSES).index(str(result.get("status"))) if result.get("status") in STATUSES else len(STATUSES))
    return {
        "class": kind + (" underpowered" if weak else ""),
        "letter": letter,
        "icon": icon,
        "word": says,
        "order": order,
    }


def tiles(reading: Plain) -> list[dict[str, Any]]:
    """The criteria of one reading by lens; extensions stand outside the 27 and are in the table only."""
    criteria = [result for result in (reading.get("criteria") or {}).values() if not result.get("extension")]
    lenses = {str(one.get("lens")): one for one in reading.get("lenses") or ()}
    named = [*LENSES, *(lens for lens in dict.fromkeys(str(r.get("lens")) for r in criteria) if lens not in LENSES)]
    found = []
    for lens in named:
        own = [result for result in criteria if result.get("lens") == lens]
        if own:
            shown = [
                {
                    **status_of(r),
                    "id": r.get("criterion", ""),
                    "name": r.get("name", ""),
                    "href": f"#{criterion_anchor(r)}",
                }
                for r in own
            ]
            found.append(
                {
                    "lens": lens,
                    "tiles": shown,
                    "status": status_of(lenses.get(lens, {})) if lens in lenses else None,
                    "capped_by": lenses.get(lens, {}).get("capped_by", ""),
                }
            )
    return found


def criterion_anchor(result: Plain) -> str:
    """Where a criterion's row stands."""
    return f"criterion-{slug(str(result.get('criterion', '')))}"


def reading_card(reading: Plain) -> dict[str, Any]:
    """Sentence, licensed wording, verdict, ladder."""
    verdict, wording = reading.get("verdict") or {}, reading.get("wording") or {}
    ladder = list(verdict.get("ladder") or ())
    blocked = next((rung for rung in ladder if not rung.get("reached")), None)
    return {
        "id": str(reading.get("reading", "")),
        "pieces": pieces(wording, str(reading.get("text", ""))),
        "changed": bool(wording.get("licensed")) and wording.get("licensed") != wording.get("claimed"),
        "wording_reason": wording.get("reason", ""),
        "licensed": wording.get("licensed", ""),
        "tier": verdict.get("tier", "Not assessed"),
        "lateral": verdict.get("lateral", ""),
        "lateral_reason": verdict.get("lateral_reason", ""),
        "declared": verdict.get("declared_tag", reading.get("tag", "")),
        "licensed_tag": verdict.get("licensed_tag", ""),
        "ladder": [
            {
                "name": rung.get("name", ""),
                "state": "reached" if rung.get("reached") else "blocked" if rung is blocked else "ahead",
            }
            for rung in ladder
        ],
        "blocked_at": blocked.get("name", "") if blocked else "",
        "blocked_by": list((blocked or {}).get("blocked_by") or verdict.get("blocked_by") or ()),
        "gap": verdict.get("primary_gap", ""),
        "counts": dict(reading.get("counts") or {}),
        "next": reading.get("next"),
        "lenses": tiles(reading),
    }


def pieces(wording: Plain, text: str) -> list[tuple[str, str]]:
    """(kind, text) of the claim's sentence: what stays, what is struck, what is added."""
    found = [(str(kind), str(said)) for kind, said in wording.get("pieces") or ()]
    return found or [("kept", str(wording.get("claimed") or text))]


def headlines(report: Plain, records: Records) -> list[dict[str, Any]]:
    """The three numbers of the first screen, each with its interval, or the reason why it is not there."""
    shown = []
    for endpoint, name, meaning in HEADLINES:
        record = records.first(endpoint)
        found = estimate_of((record or {}).get("estimate"))
        known = found is not None and number(found.value) is not None
        shown.append(
            {
                "name": name,
                "meaning": meaning,
                "known": known,
                "value": bare((record or {}).get("estimate")),
                "interval": interval((record or {}).get("estimate")),
                "n": f"n={found.n}, {found.clusters} clusters" if known and found is not None else "",
                "href": records.href((record or {}).get("id", "")),
                "null": written(null.to_json())
                if record is not None and (null := highest_null(record)) is not None
                else "",
                "reason": "" if known else why_not(report, endpoint),
            }
        )
    return shown


def why_not(report: Plain, *names: str) -> str:
    """Why an endpoint was not measured, from what the scoring or the plan said of it."""
    for reading in report.get("readings") or ():
        for result in (reading.get("criteria") or {}).values():
            for endpoint in result.get("endpoints") or ():
                if endpoint.get("endpoint") in names and not endpoint.get("evidence") and endpoint.get("reason"):
                    return str(endpoint["reason"])
    for sentence in report.get("left_out") or ():
        if any(name in str(sentence) for name in names):
            return str(sentence)
    return "no evidence of it is in this report"


def endpoint_results(report: Plain) -> list[tuple[Plain, Plain]]:
    """(criterion, endpoint) over all readings, once each, in the order of the criteria."""
    seen: dict[tuple[Any, ...], tuple[Plain, Plain]] = {}
    for reading in report.get("readings") or ():
        for result in (reading.get("criteria") or {}).values():
            for endpoint in result.get("endpoints") or ():
                seen.setdefault(
                    (result.get("criterion"), endpoint.get("endpoint"), endpoint.get("evidence")), (result, endpoint)
                )
    order = [str(c) for reading in report.get("readings") or () for c in reading.get("criteria") or {}]
    return sorted(seen.values(), key=lambda pair: order.index(str(pair[0].get("criterion"))))


def forest_rows(report: Plain, records: Records) -> list[Row]:
    """A row for each endpoint that a rule speaks of and that was measured."""
    by_id = {str(record.get("id")): record for record in records.all}
    rows = []
    for result, endpoint in endpoint_results(report):
        record = by_id.get(str(endpoint.get("evidence")))
        found = estimate_of(endpoint.get("estimate"))
        if record is None or found is None:
            continue
        null = highest_null(record)
        about = str(record.get("about") or "")
        name = f"{result.get('criterion', '')}  {endpoint.get('endpoint', '')}{f' ({about})' if about else ''}"
        status = str(endpoint.get("status", "NOT_TESTED"))
        rows.append(
            Row(
                name=name,
                value=number(found.value),
                low=number(found.low),
                high=number(found.high),
                floor=number(endpoint.get("floor")),
                bar=number(endpoint.get("bar")),
                null_low=None if null is None else number(null.low),
                null_high=None if null is None else number(null.high),
                status=status,
                says=f"{name}: {found}; floor {endpoint.get('floor')}, bar {endpoint.get('bar')}",
                href=records.href(record.get("id")),
            )
        )
    return rows


def criteria_table(report: Plain, records: Records) -> list[dict[str, Any]]:
    """Every criterion, with its status in each reading and the endpoints of the first that names it."""
    readings = list(report.get("readings") or ())
    rows = []
    for name in dict.fromkeys(c for reading in readings for c in reading.get("criteria") or {}):
        by_reading = [(reading.get("criteria") or {}).get(name) for reading in readings]
        result: Mapping[str, Any] = next(r for r in by_reading if r)
        rows.append(
            {
                "anchor": criterion_anchor(result),
                "id": name,
                "name": result.get("name", ""),
                "question": result.get("question", ""),
                "lens": result.get("lens", ""),
                "extension": bool(result.get("extension")),
                "procedural": bool(result.get("procedural")),
                "statuses": [None if one is None else status_of(one) for one in by_reading],
                "later": result.get("later_word", ""),
                "reasons": list(dict.fromkeys(str(one["reason"]) for one in by_reading if one and one.get("reason"))),
                "upgrades": _upgrades([one for one in by_reading if one]),
                "n_needed": max((one["n_needed"] for one in by_reading if one and one.get("n_needed")), default=None),
                "endpoints": [endpoint_line(e, records) for e in result.get("endpoints") or ()],
            }
        )
    return rows


def _upgrades(results: Sequence[Plain]) -> list[str]:
    """What would raise the status, once each; what only says the reason again is left out."""
    reasons = [str(one.get("reason", "")) for one in results]
    said = dict.fromkeys(str(one["upgrade"]) for one in results if one.get("upgrade"))
    return [one for one in said if not any(reason and one.endswith(reason) for reason in reasons)]


def endpoint_line(endpoint: Plain, records: Records) -> dict[str, Any]:
    """One endpoint with its number, its rule and its link."""
    about = records.about(endpoint.get("evidence"))
    return {
        "name": f"{endpoint.get('endpoint', '')}{f' ({about})' if about else ''}",
        "href": records.href(endpoint["evidence"]) if endpoint.get("evidence") else "",
        "estimate": written(endpoint.get("estimate")),
        "floor": endpoint.get("floor"),
        "bar": endpoint.get("bar"),
        "reason": endpoint.get("reason", ""),
        **{key: value for key, value in status_of(endpoint).items() if key in ("class", "icon", "word")},
    }


def judged_and_measured(report: Plain, records: Records) -> list[dict[str, Any]]:
    """The published case study's judgement beside what was measured here; none where the claim is not that one."""
    readings: Sequence[Plain] = list(report.get("readings") or ())
    rows = []
    for line in criteria_table(report, records):
        own = [(r.get("criteria") or {}).get(line["id"]) or {} for r in readings]
        published = next((one["published"] for one in own if (one.get("published") or {}).get("status")), None)
        if published:
            rows.append({**line, "judged": published.get("status", ""), "because": published.get("reason", "")})
    return rows
