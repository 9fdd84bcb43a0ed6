"""Drawing: SVG from plain numbers, in which every string is escaped and every colour is a class of the page's style sheet.

    element("rect", x=1, y=2, class_="bar")            # <rect x="1" y="2" class="bar"/>
    element("text", "<script>", x=1)                   # <text x="1">&lt;script&gt;</text>

No colour stands in a drawing: `class_="s0"` is the first series, and the style sheet says what that is on a light, on a dark and on
a printed page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape


def element(name: str, *children: object, **attributes: object) -> Markup:
    """One element; `class_` is written `class`, `stroke_width` is written `stroke-width`, and None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join(str(escape(child)) for child in children)
    return Markup(f"<{name}{written}>{inside}</{name}>" if inside else f"<{name}{written}/>")


def drawing(width: float, height: float, label: str, *children: object, role: str = "img") -> Markup:
    """An SVG that scales with its box; `label` is what a screen reader says of it."""
    return element(
        "svg",
        *children,
        viewBox=f"0 0 {_short(width)} {_short(height)}",
        width=width,
        height=height,
        role=role,
        aria_label=label,
    )


def words(x: float, y: float, text: object, **attributes: object) -> Markup:
    """Text at a point."""
    return element("text", text, x=x, y=y, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, **attributes: object) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **attributes)


def link(href: str, *children: object) -> Markup:
    """Something that leads to an anchor of the page."""
    return element("a", *children, href=href)


def titled(name: str, title: str, **attributes: object) -> Markup:
    """A shape that says something when pointed at."""
    return element(name, element("title", title), **attributes)


def path(points: Sequence[tuple[float, float]], *, close: bool = False, **attributes: object) -> Markup:
    """A line through points."""
    steps = " ".join(f"{'M' if i == 0 else 'L'}{_short(x)} {_short(y)}" for i, (x, y) in enumerate(points))
    return element("path", d=steps + (" Z" if close else ""), **attributes)


@dataclass(frozen=True)
class Scale:
    """A straight map from [low, high] to [start, end]; what lies outside is drawn at the edge.

    >>> Scale(0, 10, 100, 200)(5)
    150.0
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        share = 0.5 if span == 0 else (value - self.low) / span
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers of the scale, about so many."""
        span = self.high - self.low
        if span <= 0 or not math.isfinite(span):
            return [self.low]
        raw = span / max(1, about)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [round(k * step, 10) + 0.0 for k in range(first, math.floor(self.high / step + 1e-9) + 1)]


def number(value: object) -> float | None:
    """What plain data holds as a number: None for what is missing or not known, infinities as they are written."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return None if math.isnan(found) else found


def extent(values: Sequence[float | None], *, include: Sequence[float] = (), room: float = 0.05) -> tuple[float, float]:
    """The smallest and the largest finite number with a little room; (0, 1) where there is none."""
    finite = [value for value in (*values, *include) if value is not None and math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - 0.5, high + 0.5
    margin = (high - low) * room
    return low - margin, high + margin


def tick_text(value: float) -> str:
    """A tick's number, without zeros that say nothing."""
    return f"{value:.6g}".replace("-", "−")


def _short(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
