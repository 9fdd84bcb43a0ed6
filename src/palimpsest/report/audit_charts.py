"""Charts of the audit page: curves with bands, maps on one scale, scatters and bars, all from plain lists of numbers.

Each chart takes plain data, leaves out what is not known (None), and returns SVG text; nothing is measured or decided here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from palimpsest.report.svg import Scale, drawing, element, extent, line, number, path, tick_text, titled, words

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640.0, 56.0, 16.0, 12.0, 40.0
SERIES = 6  # classes s0 .. s5 of the style sheet; each has a colour, a dash and a marker


@dataclass(frozen=True)
class Curve:
    """A line through points, with a band where intervals are known.

    Attributes:
        name: in the legend.
        x, y, low, high: as many each; what is None is left out.
        quiet: a control, drawn in grey.
        dotless: a fit, drawn as a thin grey line without points.
        colour: its place among the series' colours; None: the next.
    """

    name: str
    x: Sequence[float]
    y: Sequence[object]
    low: Sequence[object] = ()
    high: Sequence[object] = ()
    quiet: bool = False
    dotless: bool = False
    colour: int | None = None


@dataclass(frozen=True)
class Mark:
    """A dotted vertical line with its words, such as ED50."""

    x: float
    text: str


@dataclass(frozen=True)
class Axes:
    """What the axes say, what they must include, and a shaded range of x."""

    x: str
    y: str
    include: Sequence[float] = (0.0,)
    marks: Sequence[Mark] = ()
    shaded: tuple[float, float] | None = None
    height: float = 280.0
    x_ticks: Sequence[float] = field(default=())


def curves(label: str, series: Sequence[Curve], axes: Axes) -> Markup:
    """Curves with bands over one pair of axes, named in a legend below."""
    if not any(number(y) is not None for curve in series for y in curve.y):
        return Markup("")
    places = _legend([curve.name for curve in series])
    height = axes.height + 8 + places[-1][1]
    across = Scale(*extent([number(x) for curve in series for x in curve.x], room=0.02), LEFT, WIDTH - RIGHT)
    ends = [number(v) for curve in series for v in (*curve.y, *curve.low, *curve.high)]
    up = Scale(*extent(ends, include=axes.include), axes.height - BOTTOM, TOP)
    drawn: list[object] = []
    if axes.shaded is not None:
        first, last = (across(end) for end in axes.shaded)
        drawn.append(
            titled(
                "rect",
                "therapeutic window",
                x=first,
                y=TOP,
                width=max(0.0, last - first),
                height=axes.height - BOTTOM - TOP,
                class_="window",
            )
        )
    drawn += frame(across, up, axes.x, axes.y, axes.x_ticks)
    colour = 0
    for place, curve in enumerate(series):
        kind = (
            "fit"
            if curve.dotless
            else "quiet"
            if curve.quiet
            else f"s{(colour if curve.colour is None else curve.colour) % SERIES}"
        )
        colour += not (curve.quiet or curve.dotless)
        drawn += [*_band(curve, across, up, kind), *_points(curve, across, up, kind)]
        x, y = places[place][0], axes.height + places[place][1]
        drawn.append(line(x, y - 4, x + 24, y - 4, class_=f"curve {kind}"))
        if not curve.dotless:
            drawn.append(_marker(kind, x + 12, y - 4, curve.name))
        drawn.append(words(x + 30, y, curve.name, class_="small"))
    for place, mark in enumerate(axes.marks):
        x = across(mark.x)
        drawn.append(line(x, TOP, x, axes.height - BOTTOM, class_="mark"))
        near = x > WIDTH - 120
        drawn.append(
            words(
                x - 4 if near else x + 4,
                TOP + 10 + 13 * (place % 3),
                mark.text,
                class_="small named",
                text_anchor="end" if near else None,
            )
        )
    return drawing(WIDTH, height, label, *drawn)


def _legend(names: Sequence[str]) -> list[tuple[float, float]]:
    """Where each name of a legend starts: one after the other, in as many lines as they need."""
    places: list[tuple[float, float]] = []
    x, y = LEFT, 8.0
    for name in names:
        wide = 46 + 6.4 * len(name)
        if places and x + wide > WIDTH:
            x, y = LEFT, y + 18
        places.append((x, y))
        x += wide
    return places


def shortened(text: object, letters: int) -> str:
    """Text that fits into so many letters."""
    whole = str(text)
    return whole if len(whole) <= letters else whole[: letters - 1] + "…"


def frame(across: Scale, up: Scale, x: str, y: str, x_ticks: Sequence[float] = ()) -> list[object]:
    """Grid lines, their numbers, the line at nothing and what the axes mean."""
    drawn: list[object] = []
    for tick in up.ticks():
        at = up(tick)
        drawn.append(line(across.start, at, across.end, at, class_="zero" if tick == 0 else "grid"))
        drawn.append(words(across.start - 6, at + 4, tick_text(tick), text_anchor="end", class_="small"))
    for tick in x_ticks or across.ticks(8):
        drawn.append(words(across(tick), up.start + 15, tick_text(tick), text_anchor="middle", class_="small"))
    middle = (across.start + across.end) / 2
    drawn.append(words(middle, up.start + 31, x, text_anchor="middle", class_="small soft"))
    turned = f"rotate(-90 12 {(up.start + up.end) / 2:.0f})"
    drawn.append(words(12, (up.start + up.end) / 2, y, text_anchor="middle", class_="small soft", transform=turned))
    return drawn


def _band(curve: Curve, across: Scale, up: Scale, kind: str) -> list[Markup]:
    ends = [
        (across(x), up(low), up(high))
        for x, low, high in zip(*(map(number, one) for one in (curve.x, curve.low, curve.high)), strict=False)
        if x is not None and low is not None and high is not None
    ]
    if len(ends) < 2:
        return []
    around = [(x, high) for x, _, high in ends] + [(x, low) for x, low, _ in reversed(ends)]
    return [path(around, close=True, class_=f"band {kind}")]


def _points(curve: Curve, across: Scale, up: Scale, kind: str) -> list[Markup]:
    both = zip(map(number, curve.x), map(number, curve.y), strict=False)
    found = [(x, y) for x, y in both if x is not None and y is not None]
    drawn = [path([(across(x), up(y)) for x, y in found], class_=f"curve {kind}")] if len(found) > 1 else []
    if curve.dotless:
        return drawn
    return drawn + [_marker(kind, across(x), up(y), f"{curve.name}: {y:.3g} at {x:g}") for x, y in found]


def _marker(kind: str, x: float, y: float, title: str) -> Markup:
    """A shape for each series, so that no two differ by colour alone."""
    shapes = {"s1": 4, "s2": 3, "s3": -4, "s4": -3}
    if kind not in shapes:
        return titled("circle", title, cx=x, cy=y, r=3 if kind == "s0" else 2, class_=f"dot {kind}")
    corners, turn = abs(shapes[kind]), (math.pi / 4 if shapes[kind] == 4 else math.pi if shapes[kind] == -3 else 0)
    around = [
        (
            x + 4 * math.sin(turn + 2 * math.pi * i / corners),
            y - 4 * math.cos(turn + 2 * math.pi * i / corners),
        )
        for i in range(corners)
    ]
    steps = "M" + " L".join(f"{a:.1f} {b:.1f}" for a, b in around) + " Z"
    return titled("path", title, d=steps, class_=f"dot {kind}")


def heat(
    label: str,
    rows: Sequence[str],
    columns: Sequence[object],
    values: Sequence[Sequence[object]],
    largest: float,
    titles: Sequence[Sequence[str]] = (),
) -> Markup:
    """A map: darker is larger, the other colour is below nothing, crossed is not measured; `largest` is the scale's end."""
    cell_height, left = 24.0, 150.0
    cell = min(34.0, (WIDTH - left - 12) / max(1, len(columns)))
    drawn: list[object] = []
    for r, name in enumerate(rows):
        y = 4 + r * cell_height
        drawn.append(words(left - 8, y + 16, shortened(name, 24), text_anchor="end", class_="small"))
        for c, column in enumerate(columns):
            value = number(values[r][c]) if c < len(values[r]) else None
            says = (
                titles[r][c] if titles else f"{name}, {column}: {'not measured' if value is None else f'{value:.3g}'}"
            )
            share = 0.0 if value is None or largest <= 0 else min(1.0, abs(value) / largest)
            kind = "cell none" if value is None else "cell below" if value < 0 else "cell above"
            drawn.append(
                titled(
                    "rect",
                    says,
                    x=left + c * cell,
                    y=y,
                    width=cell - 1,
                    height=cell_height - 1,
                    class_=kind,
                    fill_opacity=None if value is None else round(share, 3),
                )
            )
    bottom = 4 + len(rows) * cell_height + 14
    step = max(1, math.ceil(len(columns) / 16))
    for c in range(0, len(columns), step):
        drawn.append(words(left + (c + 0.5) * cell, bottom, columns[c], text_anchor="middle", class_="small"))
    return drawing(left + len(columns) * cell + 12, bottom + 8, label, *drawn)


def scatter(label: str, points: Sequence[tuple[object, object, str]], x: str, y: str, slope: float | None) -> Markup:
    """Dots with the line on which both would be equal, and the fitted one through the middle where there is a slope."""
    known = [
        (a, b, says)
        for a, b, says in ((number(p[0]), number(p[1]), p[2]) for p in points)
        if a is not None and b is not None
    ]
    if not known:
        return Markup("")
    side = 340.0
    ends = extent([end for a, b, _ in known for end in (a, b)], room=0.08)
    across, up = Scale(*ends, LEFT, side - RIGHT), Scale(*ends, side - BOTTOM, TOP)
    drawn: list[object] = [*frame(across, up, x, y), path([(across(e), up(e)) for e in ends], class_="mark")]
    if slope is not None:
        middle_a, middle_b = (sum(ends) / len(known) for ends in ([p[0] for p in known], [p[1] for p in known]))
        drawn.append(path([(across(e), up(middle_b + slope * (e - middle_a))) for e in ends], class_="curve s0"))
    drawn += [titled("circle", says, cx=across(a), cy=up(b), r=4, class_="dot s0 through") for a, b, says in known]
    return drawing(side, side, label, *drawn)


def bars(
    label: str, rows: Sequence[Mapping[str, object]], *, include: Sequence[float] = (0.0,), axis: str = ""
) -> Markup:
    """Horizontal bars from nothing, each with its interval: rows of name, value, low, high."""
    known = [(row, value) for row in rows if (value := number(row.get("value"))) is not None]
    if not known:
        return Markup("")
    left, height = 190.0, 26.0
    ends = extent([number(row.get(key)) for row, _ in known for key in ("value", "low", "high")], include=include)
    across = Scale(*ends, left, WIDTH - RIGHT)
    bottom = 6 + len(known) * height
    drawn: list[object] = []
    for tick in across.ticks(6):
        drawn.append(line(across(tick), 4, across(tick), bottom, class_="zero" if tick == 0 else "grid"))
        drawn.append(words(across(tick), bottom + 15, tick_text(tick), text_anchor="middle", class_="small"))
    for place, (row, value) in enumerate(known):
        y, nothing = 6 + place * height, across(0.0)
        drawn.append(words(left - 8, y + 15, shortened(row.get("name", ""), 28), text_anchor="end", class_="small"))
        drawn.append(
            titled(
                "rect",
                f"{row.get('name', '')}: {value:.3g}",
                x=min(nothing, across(value)),
                y=y + 3,
                width=abs(across(value) - nothing),
                height=height - 10,
                class_="bar s0",
            )
        )
        low, high = number(row.get("low")), number(row.get("high"))
        if low is not None and high is not None:
            drawn.append(line(across(low), y + 11, across(high), y + 11, class_="whisker"))
    if axis:
        drawn.append(words((left + WIDTH) / 2, bottom + 32, axis, text_anchor="middle", class_="small soft"))
    return drawing(WIDTH, bottom + (40 if axis else 22), label, *drawn)


def strip(label: str, values: Sequence[object], ends: tuple[float, float], marks: Sequence[Mark], axis: str) -> Markup:
    """A dot for each fact on one line, spread a little so that equal ones are seen."""
    known = [value for value in map(number, values) if value is not None]
    if not known:
        return Markup("")
    across = Scale(*ends, LEFT, WIDTH - RIGHT)
    drawn: list[object] = [line(LEFT, 70, WIDTH - RIGHT, 70, class_="grid")]
    drawn += [words(across(t), 88, tick_text(t), text_anchor="middle", class_="small") for t in across.ticks(8)]
    for mark in marks:
        drawn += [
            line(across(mark.x), 14, across(mark.x), 72, class_="mark"),
            words(across(mark.x), 10, mark.text, text_anchor="middle", class_="small"),
        ]
    for place, value in enumerate(sorted(known)):
        drawn.append(
            titled("circle", f"{value:.3g}", cx=across(value), cy=28 + 7 * (place % 6), r=3.5, class_="dot s0 through")
        )
    drawn.append(words((LEFT + WIDTH) / 2, 106, axis, text_anchor="middle", class_="small soft"))
    return drawing(WIDTH, 112, label, *drawn)


def spark(low: object, value: object, high: object, largest: float) -> Markup:
    """A tiny interval under a matrix's number, on a scale that all its cells share."""
    ends = [number(low), number(value), number(high)]
    if any(end is None for end in ends) or largest <= 0:
        return Markup("")
    across = Scale(-largest, largest, 2, 62)
    first, middle, last = (across(end) for end in ends if end is not None)
    return element(
        "svg",
        line(32, 0, 32, 10, class_="grid"),
        line(first, 5, last, 5, class_="whisker"),
        element("circle", cx=middle, cy=5, r=2.5, class_="dot s0"),
        viewBox="0 0 64 10",
        width=64,
        height=10,
        aria_hidden="true",
        class_="spark",
    )
