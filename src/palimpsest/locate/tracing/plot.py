"""Figures of maps and of their averages, with matplotlib (`pip install palimpsest[plot]`)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from palimpsest.errors import InputError, PalimpsestError
from palimpsest.locate.tracing.maps import Maps, records_of
from palimpsest.locate.tracing.roles import ROLES, RoleProfile

KIND_NAMES = {"state": "state", "mlp": "MLP output", "attn": "attention output"}


def plot_maps(maps: Maps) -> Any:
    """Heat maps side by side on one colour scale: tokens down, those of the subject starred, layers across.

    Args:
        maps: of one prompt, as objects or as plain data read from a file.

    Raises:
        InputError: there are none, or their prompts differ.
        PalimpsestError: matplotlib is not installed.
    """
    records = records_of(maps)
    if not records or any(one["tokens"] != records[0]["tokens"] for one in records):
        raise InputError(f"Panels side by side show maps of one prompt, got {len(records)} maps of several or none.")
    _one_score([one["score"] for one in records])
    tokens, (first, end) = records[0]["tokens"], records[0]["subject"]
    figure = _figure(figsize=(2.2 + 4.2 * len(records), max(3.0, 0.3 * len(tokens) + 1.8)))
    panels = figure.subplots(1, len(records), sharey=True, squeeze=False)[0]
    bound = max(max(float(np.abs(one["effect"]).max()) for one in records), 1e-9)
    for axes, one in zip(panels, records, strict=True):
        image = axes.imshow(one["effect"], cmap="PuOr", aspect="auto", interpolation="nearest", vmin=-bound, vmax=bound)
        axes.set_title(f"{_title(one['settings'])}: {one['score']} of {one['answer'].strip()!r}", fontsize=9)
        total = one["total_effect"]
        beside = "" if total is None else f" (total effect {total:.3f})"
        axes.set_xlabel(f"layer\n{one['what']}{beside}", fontsize=8)
        _number_layers(axes, one["layers"])
    labels = [f"{text}*" if first <= i < end else text for i, text in enumerate(tokens)]
    panels[0].set_yticks(range(len(labels)), labels)
    figure.colorbar(image, ax=list(panels), label=f"{_common(one['what'] for one in records)} ({records[0]['score']})")
    return figure


def plot_profiles(profiles: Sequence[RoleProfile]) -> Any:
    """Effects by layer, one panel a profile and one line a token role, with the band of its interval."""
    figure = _figure(figsize=(1 + 4.2 * len(profiles), 3.6))
    panels = figure.subplots(1, len(profiles), sharey=True, squeeze=False)[0]
    lines: dict[str, Any] = {}
    for axes, profile in zip(panels, profiles, strict=True):
        for role in profile.roles:
            mean, low, high = profile.line(role)
            colour = f"C{ROLES.index(role)}"  # one role has one colour in every panel
            (lines[role],) = axes.plot(profile.layers, mean, color=colour, linewidth=1.4)
            axes.fill_between(profile.layers, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_title(f"{profile.label} (n={profile.n})", fontsize=9)
        axes.set_xlabel("layer")
    _one_score([profile.score for profile in profiles])
    panels[0].set_ylabel(f"{_common(profile.what for profile in profiles)} ({profiles[0].score})")
    shown = [role for role in ROLES if role in lines]
    figure.legend([lines[role] for role in shown], shown, loc="outside right upper", fontsize=7)
    return figure


def plot_role_maps(profiles: Sequence[RoleProfile]) -> Any:
    """Average maps side by side on one colour scale: token roles down, layers across."""
    figure = _figure(figsize=(2.2 + 4.2 * len(profiles), 3.2))
    panels = figure.subplots(1, len(profiles), sharey=True, squeeze=False)[0]
    maps = [np.array([profile.line(role)[0] for role in profile.roles]) for profile in profiles]
    bound = max(max(float(np.nanmax(np.abs(one))) for one in maps), 1e-9)
    for axes, profile, values in zip(panels, profiles, maps, strict=True):
        image = axes.imshow(values, cmap="PuOr", aspect="auto", interpolation="nearest", vmin=-bound, vmax=bound)
        axes.set_title(f"{profile.label} (n={profile.n})", fontsize=9)
        axes.set_xlabel("layer")
        _number_layers(axes, profile.layers)
    starred = [f"{role}*" if "subject" in role and "next" not in role else role for role in profiles[0].roles]
    panels[0].set_yticks(range(len(starred)), starred)
    figure.colorbar(
        image, ax=list(panels), label=f"average {_common(profile.what for profile in profiles)} ({profiles[0].score})"
    )
    _one_score([profile.score for profile in profiles])
    return figure


def _one_score(scores: Sequence[str]) -> None:
    if len(set(scores)) > 1:
        raise InputError(
            f"Panels on one scale show one score, got {', '.join(sorted(set(scores)))}; choose with scored()."
        )


def _common(names: Iterable[str]) -> str:
    """What all panels show, or each of what they show."""
    return " or ".join(dict.fromkeys(names))


def _title(settings: Any) -> str:
    title = KIND_NAMES[str(settings["kind"])]
    if (how := settings.get("corruption") or settings.get("by")) != "noise":
        title += f", {how}"
    if settings.get("donor", "clean") != "clean":
        title += f", {settings['donor']}"
    if int(settings["window"]) > 1:
        title += f", window {settings['window']}"
    if settings.get("severed"):
        title += f", {settings['severed']} severed"
    return title


def _number_layers(axes: Any, layers: Sequence[int]) -> None:
    shown = range(0, len(layers), max(1, len(layers) // 6))
    axes.set_xticks(list(shown), [str(layers[i]) for i in shown])


def _figure(figsize: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PalimpsestError("Plotting needs matplotlib; run: pip install matplotlib") from None
    return Figure(figsize=figsize, layout="constrained")
