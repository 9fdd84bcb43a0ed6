"""A trace as an inline picture: geometry and colours in Python, drawing in the template, so that every string is escaped."""

from dataclasses import dataclass

from palimpsest.locate import Trace

CELL_WIDTH, CELL_HEIGHT, LEFT, TOP, BOTTOM = 18, 20, 130, 8, 40
# a sequential purple ramp, light to dark; negative effects are drawn in orange
POSITIVE, NEGATIVE = (84, 39, 143), (204, 102, 0)


@dataclass(frozen=True)
class Cell:
    """One rectangle with its colour and what it says when pointed at."""

    x: int
    y: int
    fill: str
    title: str


@dataclass(frozen=True)
class Heatmap:
    """Everything the template draws."""

    title: str
    cells: tuple[Cell, ...]
    labels: tuple[tuple[int, str, bool], ...]
    ticks: tuple[tuple[int, int], ...]
    width: int
    height: int
    legend: tuple[tuple[int, str], ...]
    largest: float
    cell_width: int = CELL_WIDTH
    cell_height: int = CELL_HEIGHT
    left: int = LEFT


def heatmap(trace: Trace) -> Heatmap:
    """Tokens down, layers across; the subject's tokens are starred; darker is a larger indirect effect."""
    effect = trace.effect
    low, high = trace.interval()
    largest = max(float(effect.max()), 1e-9)
    n_tokens, n_layers = effect.shape
    cells = []
    for t in range(n_tokens):
        for i, layer in enumerate(trace.layers):
            value = float(effect[t, i])
            title = f"{trace.tokens[t].strip()!r}, layer {layer}: {value:+.4f} [{low[t, i]:+.4f}, {high[t, i]:+.4f}]"
            cells.append(Cell(LEFT + i * CELL_WIDTH, TOP + t * CELL_HEIGHT, _colour(value / largest), title))
    first, end = trace.subject
    labels = tuple(
        (TOP + t * CELL_HEIGHT + 14, f"{text.strip() or '␣'}{'*' if first <= t < end else ''}", first <= t < end)
        for t, text in enumerate(trace.tokens)
    )
    ticks = tuple((LEFT + i * CELL_WIDTH + CELL_WIDTH // 2, trace.layers[i]) for i in range(0, n_layers, 5))
    legend = tuple((LEFT + i * 12, _colour(i / 10)) for i in range(11))
    height = TOP + n_tokens * CELL_HEIGHT + BOTTOM
    return Heatmap(
        trace.fact.text, tuple(cells), labels, ticks, LEFT + n_layers * CELL_WIDTH + 10, height, legend, largest
    )


def _colour(share: float) -> str:
    """White at 0, full colour at 1; below 0 towards the other colour."""
    end = POSITIVE if share >= 0 else NEGATIVE
    share = min(abs(share), 1.0)
    return "#" + "".join(f"{round(255 + (channel - 255) * share):02x}" for channel in end)
