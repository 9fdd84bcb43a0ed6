"""Figures of a sweep, with matplotlib (`pip install palimpsest[plot]`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palimpsest.errors import PalimpsestError


def plot_cells(stored: Mapping[str, Any], metrics: Sequence[str]) -> Any:
    """One panel a metric and one line a token, layers across, with the band of the interval; dotted: the unedited model.

    Args:
        stored: what `Sweep.to_json` gave.
        metrics: of the cells; "s" too.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PalimpsestError("Plotting needs matplotlib; run: pip install matplotlib") from None
    figure = Figure(figsize=(1 + 4.2 * len(metrics), 3.6), layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    lines: dict[str, Any] = {}
    for axes, metric in zip(panels, metrics, strict=True):
        for i, token in enumerate(stored["tokens"]):
            cells = [cell for cell in stored["cells"] if cell["token"] == token and cell[metric] is not None]
            at = [cell["layer"] for cell in cells]
            mean, low, high = (_line(cells, metric, end) for end in ("value", "low", "high"))
            (lines[token],) = axes.plot(at, mean, color=f"C{i}", linewidth=1.4, marker=".")
            axes.fill_between(at, low, high, color=f"C{i}", alpha=0.15, linewidth=0)
        before = stored["unedited"].get(metric)
        if before is not None:
            axes.axhline(before["value"], color="black", linewidth=0.8, linestyle=":")
        axes.set_title(metric.upper() if len(metric) < 3 else metric, fontsize=9)
        axes.set_xlabel("edited layer")
    figure.legend(list(lines.values()), list(lines), loc="outside right upper", fontsize=7)
    return figure


def _line(cells: Sequence[Mapping[str, Any]], metric: str, end: str) -> np.ndarray:
    """One end of the interval by layer; a single fact has none."""
    return np.array([np.nan if cell[metric][end] is None else cell[metric][end] for cell in cells], dtype=float)
