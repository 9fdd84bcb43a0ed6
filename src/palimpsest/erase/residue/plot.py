"""Figures of residue, with matplotlib (`pip install palimpsest[plot]`)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from palimpsest.errors import PalimpsestError

COLUMN = re.compile(r"^(?P<readout>.*?): (?P<path>.*?)(, layer (?P<layer>\d+))?(, head (?P<head>\d+))?$")


def plot_residue(stored: Mapping[str, Any]) -> Any:
    """Left, the residue AUC of each readout before and after, with intervals; right, lenses by layer on the prompt.

    Args:
        stored: what `Residue.to_json` gave.
    """
    return plot_residues({"": stored})


def plot_residues(several: Mapping[str, Mapping[str, Any]]) -> Any:
    """The same for several methods on the same facts: a colour a method; hollow and grey, the unedited model.

    Args:
        several: name of a method to what `Residue.to_json` gave.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PalimpsestError("Plotting needs matplotlib; run: pip install matplotlib") from None
    first = next(iter(several.values()))
    readouts = list(first["auc"]["same answer"])
    lenses = list(first["standing"]) or []
    figure = Figure(figsize=(4.8 + 3.6 * len(lenses), 3.8), layout="constrained")
    bars, *panels = np.atleast_1d(figure.subplots(1, 1 + len(lenses), squeeze=False)[0])
    shift = 0.8 / (len(several) + 1)
    _points(bars, first, readouts, "before", -0.4, "grey", "unedited")
    for i, (name, stored) in enumerate(several.items()):
        _points(bars, stored, readouts, "after", -0.4 + (i + 1) * shift, f"C{i}", name or "edited")
    bars.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    bars.set_xticks(range(len(readouts)), readouts, rotation=30, ha="right", fontsize=7)
    bars.set_ylabel("residue AUC")
    bars.legend(fontsize=6)
    for axes, lens in zip(panels, lenses, strict=True):
        axes.plot(*by_layer(first, lens, "before"), color="grey", linewidth=1.2)
        for i, stored in enumerate(several.values()):
            axes.plot(*by_layer(stored, lens, "after"), color=f"C{i}", linewidth=1.2)
        axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
        axes.set_title(f"{lens}, prompt", fontsize=9)
        axes.set_xlabel("layer")
    return figure


def by_layer(stored: Mapping[str, Any], readout: str, when: str, path: str = "prompt") -> tuple[list[int], list[float]]:
    """Layers, and the AUC of one readout's column at each."""
    layers, values = [], []
    for name, value in zip(stored["columns"], stored["column_auc"][when], strict=True):
        found = COLUMN.match(name)
        if found and found["readout"] == readout and found["path"] == path and found["layer"] is not None:
            layers.append(int(found["layer"]))
            values.append(np.nan if value is None else float(value))
    return layers, values


def _points(
    axes: Any, stored: Mapping[str, Any], readouts: Sequence[str], when: str, shift: float, colour: str, label: str
) -> None:
    """A dot with its interval for each readout."""
    cells = [stored["auc"]["same answer"][name][when] for name in readouts]
    known = [(i, cell) for i, cell in enumerate(cells) if cell is not None and cell["low"] is not None]
    values = np.array([cell["value"] for _, cell in known])
    ends = np.array([[cell["value"] - cell["low"], cell["high"] - cell["value"]] for _, cell in known]).T
    at = np.array([i for i, _ in known]) + shift
    axes.errorbar(at, values, yerr=ends, fmt="o", markersize=3, linewidth=1, color=colour, label=label)
