"""Figures of the readings of the residual stream, with matplotlib (`pip install palimpsest[plot]`)."""

from typing import TYPE_CHECKING, Any

import numpy as np

from palimpsest.errors import PalimpsestError

if TYPE_CHECKING:
    from palimpsest.locate.reading.knockout import Knockout
    from palimpsest.locate.reading.lens import Lens
    from palimpsest.locate.reading.probes import Probes
    from palimpsest.locate.reading.profile import Profile
    from palimpsest.statistics import Estimate


def plot_lens(lens: "Lens") -> Any:
    """Heat map of the answer's log-probability: tokens down (the subject's starred), layers across, top tokens as text."""
    first, end = lens.subject or (0, 0)
    labels = [f"{text}*" if first <= i < end else text for i, text in enumerate(lens.tokens)]
    figure = _figure(1.5 + 0.55 * lens.log_p.shape[1], 0.3 * len(labels) + 1.6)
    axes = figure.add_subplot()
    image = axes.imshow(lens.log_p, cmap="viridis", aspect="auto", interpolation="nearest")
    middle = (lens.log_p.min() + lens.log_p.max()) / 2
    for t, row in enumerate(lens.top_text):
        for l, texts in enumerate(row):
            colour = "black" if lens.log_p[t, l] > middle else "white"
            axes.text(l, t, texts[0].strip()[:8], ha="center", va="center", fontsize=5, color=colour)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("layer whose output is read")
    axes.set_title(f"Logit lens: log p({lens.answer.strip()!r})")
    figure.colorbar(image, label="log-probability (nats)")
    return figure


def plot_knockout(found: "Knockout") -> Any:
    """The relative change of the answer's probability over layers, a line for each source, the controls' range shaded."""
    figure = _figure(7.0, 4.0)
    axes = figure.add_subplot()
    layers = np.arange(found.log_p.shape[1])
    for name, effect in zip(found.sources, found.effect, strict=True):
        axes.plot(layers, effect, label=name)
    low, high = found.control_range
    axes.fill_between(layers, low, high, color="grey", alpha=0.3, label="random sets")
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set_xlabel(f"middle of the window of {found.settings['window']} layers")
    axes.set_ylabel(f"relative change of p({found.answer.strip()!r})")
    axes.legend()
    return figure


def plot_profile(profile: "Profile") -> Any:
    """A panel for each measure: every curve over layers with its interval (controls dashed)."""
    measures = list(dict.fromkeys(curve.split("/")[0] for curve in profile.values))
    group = "known" if any(profile.known) else "unknown"
    figure = _figure(6.0 * len(measures), 4.0)
    for i, measure in enumerate(measures):
        axes = figure.add_subplot(1, len(measures), i + 1)
        for curve in profile.values:
            if curve.split("/")[0] == measure:
                style = "--" if curve.endswith("control") else "-"
                _band(axes, profile.estimates(curve, group=group), curve.partition("/")[2], style)
        axes.set_xlabel("layer")
        axes.set_ylabel(measure.replace("_", " "))
        axes.legend()
    figure.suptitle(f"{profile.instrument}, {group} facts")
    return figure


def plot_probes(probes: "Probes") -> Any:
    """Accuracy over layers of the probe and its baselines, with intervals."""
    figure = _figure(12.0, 4.0)
    panels = {
        "new subjects": {"task": probes.held_out, "majority class": probes.majority},
        "new wordings of the same subjects": {"task": probes.task, "control task": probes.control},
    }
    for i, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, 2, i + 1)
        for name, curve in curves.items():
            _band(axes, [curve(l) for l in probes.layers], name, "-" if name == "task" else "--", probes.layers)
        if i == 0 and probes.permuted.size:
            axes.plot(probes.layers, probes.permuted.mean(axis=0), ":", label="labels permuted among subjects")
        axes.set_ylim(-0.02, 1.02)
        axes.set_title(title)
        axes.set_xlabel("layer")
        axes.set_ylabel("accuracy")
        axes.legend()
    return figure


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PalimpsestError("Plotting needs matplotlib; run: pip install matplotlib") from None
    return Figure(figsize=(width, height), layout="constrained")


def _band(axes: Any, found: "list[Estimate]", label: str, style: str, layers: tuple[int, ...] | None = None) -> None:
    places = list(layers if layers is not None else range(len(found)))
    (line,) = axes.plot(places, [each.value for each in found], style, label=label)
    low, high = [each.low for each in found], [each.high for each in found]
    axes.fill_between(places, low, high, color=line.get_color(), alpha=0.15)
