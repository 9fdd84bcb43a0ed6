"""The figure of a certificate, with matplotlib (`pip install palimpsest[plot]`)."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from palimpsest.errors import InputError, PalimpsestError
from palimpsest.world.certificate.instrument import POSITIONS
from palimpsest.world.certificate.measures import Finding

ACROSS = 5
MARKS = "os^xd"


def plot_reported(findings: Sequence[Finding]) -> Any:
    """Reported against planted layer, a panel for each reading and a mark for each organism; dotted: what would be right.

    Raises:
        InputError: there is nothing to draw.
        PalimpsestError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PalimpsestError("Plotting needs matplotlib; run: pip install matplotlib") from None
    readings = sorted(dict.fromkeys(one.reading for one in findings), key=lambda one: POSITIONS.index(one.position))
    kinds = list(dict.fromkeys(one.kind for one in findings))
    if not readings:
        raise InputError("There are no findings to draw; certify at least two organisms of one kind.")
    down = ceil(len(readings) / ACROSS)
    across = min(ACROSS, len(readings))
    figure = Figure(figsize=(2.3 * across, 0.6 + 2.3 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    lines: dict[str, Any] = {}
    for axes, reading in zip(panels, readings, strict=False):
        own = [one for one in findings if one.reading == reading]
        layers = own[0].profiles.shape[1]
        axes.plot([0, layers - 1], [0, layers - 1], color="black", linewidth=0.8, linestyle=":")
        for one in own:
            number = kinds.index(one.kind)
            at = np.array(one.planted) + 0.16 * (number - (len(kinds) - 1) / 2) + _apart(one)
            (lines[one.kind],) = axes.plot(
                at, one.reported, MARKS[number % len(MARKS)], color=f"C{number}", markersize=4, alpha=0.7
            )
        axes.set_title(f"{reading.name}\n{reading.position}", fontsize=7)
        axes.set_xticks(range(layers))
        axes.set_yticks(range(layers))
        axes.tick_params(labelsize=6)
    for axes in panels[len(readings) :]:
        axes.set_visible(False)
    figure.supxlabel("planted layer", fontsize=8)
    figure.supylabel("reported layer", fontsize=8)
    figure.legend(list(lines.values()), list(lines), loc="outside upper right", fontsize=7, ncols=len(lines))
    return figure


def _apart(finding: Finding) -> np.ndarray:
    """A small step to the side for each organism that would hide another."""
    seen: dict[tuple[int, float], int] = {}
    steps = []
    for place in zip(finding.planted, finding.reported, strict=True):
        seen[place] = seen.get(place, 0) + 1
        steps.append(0.06 * (seen[place] - 1))
    return np.array(steps)
