"""The panel of dose and response: what one edit moves and what it harms, as it is scaled from nothing to three times its size.

Two figures over one axis of doses: above, what should move; below, what should stay. ED50 and TD20 stand in both, so that the
window between them is seen where it matters. The plain data are those of `palimpsest.audit.artefacts.dose_response`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from palimpsest.report.audit_artefacts import absence, artefact
from palimpsest.report.audit_blocks import Panel, figure, grid, record_words, sortable, words
from palimpsest.report.audit_charts import Axes, Curve, Mark, curves
from palimpsest.report.audit_records import Plain, Records
from palimpsest.report.svg import number

MOVED = ("target", "paraphrases", "entailed")
KEPT = ("same_subject", "neighbours", "far")


def dose(report: Plain, records: Records) -> Panel:
    """Curves of every stratum with bands, the random direction, ED50, TD20 and the window."""
    found, blocks = artefact(report, "dose"), []
    if found.get("curves"):
        blocks += [
            figure(_moved(found), "What the edit should move. Grey: a random direction of equal norm."),
            figure(
                _kept(found),
                "What it should leave alone. ED50 half-works, TD20 harms a fifth; shaded: the window between.",
            ),
        ]
        if (room := found.get("window")) and room.get("sentence"):
            blocks.append(words(str(room["sentence"]), records.href("therapeutic-index")))
        names = list(found.get("td20") or found.get("index") or {})
        parts = ("td20", "index", "safety", "above_one")
        rows = [
            [
                _said(one),
                *(sortable((found.get(part) or {}).get(one), records.href("therapeutic-index")) for part in parts),
            ]
            for one in names
        ]
        if rows:
            blocks.append(
                grid("Doses by kind of harm", ["harm to", "TD20", "TD20 / ED50", "TD05 / ED95", "P(TI > 1)"], rows)
            )
    for endpoint, said in (
        ("therapeutic-index", "Therapeutic index, worst kind of harm"),
        ("graded", "Graded up to the peak"),
        ("graded-fit", "Hill's curve fits"),
        ("graded-decline", "Decline after the peak"),
        ("selectivity-same-subject", "Selectivity, same subject"),
        ("selectivity-near", "Selectivity, neighbours"),
    ):
        blocks += record_words(records, endpoint, said)
    return Panel(
        "dose",
        "Dose and response",
        "One edit, scaled from nothing to three times its size and never optimised again: where it works, where it harms, and the "
        "room between.",
        blocks,
        absence(report, "dose", "graded", "therapeutic-index"),
    )


def _moved(found: Plain) -> Markup:
    """Probability of the new answer; Hill's curve lies along the mean of the target."""
    series = _curves(found, MOVED)
    random = found.get("random") or {}
    if held := (random.get("curves") or {}).get("target"):
        series.append(_curve("a random direction", random.get("doses") or (), held, quiet=True))
    if hill := found.get("hill"):
        series.append(Curve("Hill's curve of the mean", found["doses"], hill.get("curve") or (), dotless=True))
    return _drawn("what the edit should move, by dose", "probability of the new answer", series, found)


def _kept(found: Plain) -> Markup:
    """Share of prompts that are still right."""
    return _drawn(
        "what the edit should leave alone, by dose", "share still right", _curves(found, KEPT, first=3), found
    )


def _curves(found: Plain, names: Sequence[str], first: int = 0) -> list[Curve]:
    held = found["curves"]
    return [
        _curve(str(held[name].get("text") or _said(name)), found["doses"], held[name], colour=first + place)
        for place, name in enumerate(names)
        if name in held
    ]


def _curve(name: str, doses: Sequence[float], held: Mapping[str, Any], **style: Any) -> Curve:
    value, low, high = (held.get(end) or () for end in ("value", "low", "high"))
    return Curve(name, doses, value, low, high, **style)


def _drawn(label: str, y: str, series: Sequence[Curve], found: Plain) -> Markup:
    room = found.get("window") or {}
    first, last = number(room.get("from")), number(room.get("to"))
    largest = max(map(float, found["doses"]))
    marks = [
        Mark(at, f"{name} {at:.2f}")
        for name, at in (("ED50", first), ("TD20", last))
        if at is not None and at <= largest
    ]
    shaded = (first, min(last, largest)) if room.get("open") and first is not None and last is not None else None
    return curves(label, series, Axes("dose of the edit", y, (0.0, 1.0), marks, shaded, 260.0))


def _said(name: object) -> str:
    return str(name).replace("_", " ")
