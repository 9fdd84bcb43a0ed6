"""The evidence forest: the whole audit in one figure, one row an endpoint, every row on its own rule's scale.

An endpoint has a floor and a bar (the rule's), so its interval [low, high] can be drawn on one axis with all others:

    x = (value - floor) / (bar - floor)          0 is the floor, 1 is the bar
    t = x - 1/2;    beyond |t| = 1 it is drawn at sign(t) (1 + ln |t|), so that strong effects and failures fit

An interval wholly right of 1 passes, one wholly left of 0 fails, one that crosses 0 cannot exclude the floor. Where floor and bar
are one number the distance from it is measured in the interval's own half-width, and it stands at 1. What lies beyond the axis ends
in an arrow. Grey underneath is the highest null, on the same scale.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from palimpsest.report.audit_charts import shortened
from palimpsest.report.svg import Scale, drawing, element, line, link, path, titled, words

LOW, HIGH = -2.5, 3.5
WIDTH, LEFT, RIGHT, ROW, TOP = 900.0, 250.0, 18.0, 22.0, 34.0


@dataclass(frozen=True)
class Row:
    """One endpoint with its rule and its highest null; every number in the endpoint's own unit, None where not known."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    floor: float | None
    bar: float | None
    null_low: float | None
    null_high: float | None
    status: str
    says: str
    href: str


def position(number: float, row: Row) -> float | None:
    """Where a number of a row's unit stands on the axis; None where the row has no rule.

    >>> position(0.6, Row("a", 0.6, 0.5, 0.7, 0.5, 0.7, None, None, "PARTIAL", "", ""))
    0.5
    """
    if row.floor is None or row.bar is None:
        return None
    if row.bar != row.floor:
        from_middle = (number - row.floor) / (row.bar - row.floor) - 0.5
    else:
        half = max(
            (abs(end - row.bar) for end in (row.low, row.high) if end is not None and math.isfinite(end)), default=0.0
        )
        from_middle = 0.5 + ((number - row.bar) / half if half else 0.0)
    if abs(from_middle) > 1:
        from_middle = math.copysign(1 + math.log(abs(from_middle)), from_middle)
    return round(0.5 + from_middle, 9)


def forest(label: str, rows: Sequence[Row]) -> Markup:
    """The figure; rows that have no rule or no estimate are left out and stand in the table of evidence."""
    drawable = [row for row in rows if row.value is not None and row.floor is not None and row.bar is not None]
    if not drawable:
        return Markup("")
    across = Scale(LOW, HIGH, LEFT, WIDTH - RIGHT)
    bottom = TOP + ROW * len(drawable)
    drawn: list[object] = [
        element(
            "rect", x=across(1), y=TOP - 6, width=across(HIGH) - across(1), height=bottom - TOP + 8, class_="past-bar"
        ),
        line(across(0), TOP - 8, across(0), bottom, class_="floor-line"),
        line(across(1), TOP - 8, across(1), bottom, class_="bar-line"),
        words(across(0), TOP - 14, "floor", text_anchor="middle", class_="small"),
        words(across(1), TOP - 14, "bar", text_anchor="middle", class_="small"),
    ]
    for place, row in enumerate(drawable):
        drawn += _row(row, TOP + ROW * place + ROW / 2, across)
    return drawing(WIDTH, bottom + 10, label, *drawn, role="group")


def _row(row: Row, y: float, across: Scale) -> list[object]:
    drawn: list[object] = []
    nulls = [position(end, row) for end in (row.null_low, row.null_high) if end is not None and math.isfinite(end)]
    if len(nulls) == 2 and nulls[0] is not None and nulls[1] is not None:
        first, last = sorted((across(nulls[0]), across(nulls[1])))
        drawn.append(
            titled(
                "rect",
                f"{row.name}: highest null",
                x=first,
                y=y - 7,
                width=max(3.0, last - first),
                height=14,
                rx=5,
                class_="null",
            )
        )
    ends = [None if end is None else _place(end, row) for end in (row.low, row.value, row.high)]
    kind = f"interval {row.status.lower()}"
    if ends[0] is not None and ends[2] is not None:
        drawn.append(line(across(ends[0]), y, across(ends[2]), y, class_=kind))
        for end, edge, lean in ((ends[0], LOW, 6), (ends[2], HIGH, -6)):
            if (end < edge) if edge == LOW else (end > edge):
                tip = across(edge)
                drawn.append(path([(tip + lean, y - 4), (tip, y), (tip + lean, y + 4)], class_=f"{kind} arrow"))
    if ends[1] is not None:
        drawn.append(titled("circle", row.says, cx=across(ends[1]), cy=y, r=4.5, class_=f"point {row.status.lower()}"))
    name = words(LEFT - 12, y + 4, shortened(row.name, 34), text_anchor="end", class_="row-name")
    return [link(row.href, name), *drawn]


def _place(value: float, row: Row) -> float | None:
    """On the axis; an infinite end stands beyond the edge."""
    return math.copysign(HIGH - LOW + HIGH, value) if math.isinf(value) else position(value, row)
