"""Figures of neurons, with matplotlib (`pip install palimpsest[plot]`)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from palimpsest.errors import PalimpsestError

if TYPE_CHECKING:
    from palimpsest.locate.neuron.attribution import Attribution
    from palimpsest.locate.neuron.shared import KnowledgeNeurons


def plot_attribution(found: "Attribution") -> Any:
    """Bars: what each layer's neurons add up to, and the largest of them."""
    axes = _axes(f"Attribution of {found.answer.strip()!r}")
    layers = np.arange(len(found.attr))
    axes.bar(layers, found.attr.sum(axis=1), color="#cbc3e3", label="sum of all neurons")
    axes.plot(layers, found.attr.max(axis=1), "o", color="#54278f", label="largest neuron")
    axes.set_ylabel(f"attribution ({found.settings['score']})")
    axes.legend()
    return axes.figure


def plot_neurons(found: "KnowledgeNeurons") -> Any:
    """Bars: how many knowledge neurons each layer holds."""
    axes = _axes(f"Neurons shared by the wordings of {found.fact.text!r}")
    counts = np.zeros(len(found.widths))
    for layer, count in found.per_layer.items():
        counts[layer] = count
    axes.bar(np.arange(len(counts)), counts, color="#54278f")
    axes.set_ylabel("neurons")
    return axes.figure


def _axes(title: str) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PalimpsestError("Plotting needs matplotlib; run: pip install matplotlib") from None
    axes = Figure(figsize=(7, 3), layout="constrained").add_subplot()
    axes.set_xlabel("layer")
    axes.set_title(title)
    return axes
