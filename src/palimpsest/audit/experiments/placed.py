"""An effect at the place with null N1 beside it: the same module and position in the other layers.

    estimate    sum of effects at the place / sum of total effects
    N1          the same, of each fact's mean (or median) over the other layers
    contrast    estimate - N1, fact by fact
    p           of the contrast being no more than chance, signs flipped by subject

For restorations the other layers are all others, and their median counts, as in `experiments.tracing`. For lesions their mean
counts, and those whose windows share a layer with the place's do not: cutting half of the place is no null. Where every window
shares one, all do, which is the harder null.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from palimpsest.audit.evidence import Control
from palimpsest.audit.experiments.roles import SCORE, Effects
from palimpsest.audit.setting import Setting
from palimpsest.errors import InputError
from palimpsest.locate.tracing.maps import SCORES
from palimpsest.statistics import Estimate, sign_flip_p

SANE = 0.05  # share of the total effect that the other layers may have on average (validity of I1: the null's mean below 0.05)
Over = Literal["mean", "median"]


@dataclass(frozen=True)
class Placed:
    """What stands at the place, what stands elsewhere, and how they differ."""

    estimate: Estimate
    control: Control
    contrast: Estimate
    p: float


def placed(table: Effects, setting: Setting, *, over: Over = "mean", sane: float | None = SANE) -> Placed:
    """The place against the other layers.

    Args:
        table: effects of facts by layer.
        setting: names the place.
        over: how the other layers become one number a fact.
        sane: the largest share at which the control counts as sane; None: any.

    Raises:
        InputError: there is no fact whose total effect can be divided by, or no other layer.
    """
    if not len(table):
        raise InputError("No fact has a total effect that can be divided by, so there is no share of it.")
    here = table.at(setting.place.centre)
    there = table.elsewhere(setting.place.centre) if over == "median" else apart(table, setting)
    null, seed = table.share(there, seed=setting.seed), setting.seed
    layers = other_layers(setting) if over == "mean" else [l for l in table.layers if l != setting.place.centre]
    note = f"{over} of layers {', '.join(map(str, layers))}"
    control = Control("N1", null, note, sane is None or bool(null.value < sane))
    p = sign_flip_p(here - there, list(table.clusters), flip="inner", alternative="greater", seed=seed)
    return Placed(table.share(here, seed=seed), control, table.share(here - there, seed=seed), p)


def too_small(total: float, score: str = SCORE) -> str:
    """Why a fact's effects are not divided by the total effect of swaps; "" where they are.

    A swap has as many samples as there are subjects that fit, often two or three: too few for an interval of one fact. In a
    ratio of totals a small one does no harm, so only those that are not there at all are left out.
    """
    return "" if total >= (least := SCORES[score]) else f"the total effect {total:.4f} is below {least}"


def apart(table: Effects, setting: Setting) -> Float[np.ndarray, "facts"]:
    """Each fact's mean over the other layers."""
    columns = [table.layers.index(l) for l in other_layers(setting)]
    return np.asarray(table.effects[:, columns].mean(axis=1))


def other_layers(setting: Setting) -> Sequence[int]:
    """Measured layers whose windows share no layer with the place's; all other centres where each shares one.

    Raises:
        InputError: only the place's own layer is measured.
    """
    others = [l for l in setting.layers if l != setting.place.centre]
    if not others:
        raise InputError(
            f"Only layer {setting.place.centre} is measured, so there is no other to compare with; measure more."
        )
    inside = set(setting.place.layers(setting.n_layers))
    outside = [l for l in others if not inside & set(setting.at(l).place.layers(setting.n_layers))]
    return outside or others
