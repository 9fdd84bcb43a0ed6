"""Figures of traces, with matplotlib (`pip install palimpsest[plot]`)."""

from typing import TYPE_CHECKING, Any

from palimpsest.errors import PalimpsestError

if TYPE_CHECKING:
    from palimpsest.locate.trace import Trace


def plot_trace(trace: "Trace") -> Any:
    """Heat map of the indirect effect: tokens down, those of the subject starred, layers across."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PalimpsestError("Plotting needs matplotlib; run: pip install matplotlib") from None
    first, end = trace.subject
    labels = [f"{text}*" if first <= i < end else text for i, text in enumerate(trace.tokens)]
    figure = Figure(figsize=(7, 0.3 * len(labels) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    bound = max(float(abs(trace.effect).max()), 1e-9)
    image = axes.imshow(trace.effect, cmap="PuOr", aspect="auto", interpolation="nearest", vmin=-bound, vmax=bound)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("layer whose output is restored")
    axes.set_title(f"Restoring one state: p({trace.answer.strip()!r})")
    figure.colorbar(image, label=f"indirect effect (total effect {trace.total_effect:.3f})")
    return figure
