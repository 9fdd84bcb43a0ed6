"""The erasure certificate: the old answer shows nowhere more than a control's 95th percentile of the same maximum.

    erased_i    m_i <= q_i      m_i the largest z of the fact over all columns (`standard`)
                                q_i the ceil(0.95 (n + 1))-th smallest of the same maximum of n controls
    shows_i     the columns where z_ij > q_i

The maximum of a control is taken over the columns that the fact has too; one that lacks some of these can only lower q. q is a
conformal quantile: a fact that is exchangeable with its controls exceeds it with a chance of at most 5 %, whatever the
distribution and however many columns there are (Vovk et al. 2005). Controls of the fact's own fold are left out of q, so that
the share of controls that get a certificate can be read off in the same way, and is about 95 % by construction; it stands
beside the facts' share as the base rate. With fewer than 19 controls q does not exist, and no certificate is given.

A certificate speaks of the columns that were read. It does not say that no other readout would find the answer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from palimpsest.erase.residue.readout import Column
from palimpsest.erase.residue.standard import columns_alike, maxima
from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import Estimate


@dataclass(frozen=True)
class Certificate:
    """One fact's.

    Attributes:
        fact: its id.
        erased: whether it shows nowhere; None where nothing of it, or of too few controls with it, could be read.
        maximum, threshold: m and q, in standard deviations of the controls.
        shows: where it shows, most first.
    """

    fact: str
    erased: bool | None
    maximum: float
    threshold: float
    shows: tuple[Column, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data; the ten columns where it shows most, and how many there are."""
        return {
            "fact": self.fact,
            "erased": self.erased,
            "maximum": self.maximum,
            "threshold": self.threshold,
            "shows": [str(column) for column in self.shows[:10]],
            "shows_at": len(self.shows),
        }

    def __str__(self) -> str:
        if self.erased is None:
            return f"{self.fact}: not said, for nothing was read of it that could be read of enough controls"
        if self.erased:
            return f"{self.fact}: erased (maximum {self.maximum:.2f}, threshold {self.threshold:.2f})"
        most = ", ".join(map(str, self.shows[:3]))
        return f"{self.fact}: shows at {len(self.shows)} columns, most at {most} ({self.maximum:.2f} over {self.threshold:.2f})"


@dataclass(frozen=True)
class Certificates:
    """Of all facts, and how many there would be without anything to erase.

    Attributes:
        facts: one each.
        share: of the facts.
        controls: of the controls, about 95 %.
        unknown: of facts never known; None where none were read.
        unedited: of the facts before any edit.
    """

    facts: tuple[Certificate, ...]
    share: Estimate
    controls: Estimate
    unknown: Estimate | None
    unedited: Estimate

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        shares: Mapping[str, Estimate | None] = {
            "share": self.share,
            "controls": self.controls,
            "unknown": self.unknown,
            "unedited": self.unedited,
        }
        told = {name: None if estimate is None else estimate.to_json() for name, estimate in shares.items()}
        return told | {"facts": [certificate.to_json() for certificate in self.facts]}


def quantile_rank(count: int, level: float) -> int:
    """Which of `count` controls' maxima, counted from the smallest, is the threshold.

    >>> quantile_rank(99, 0.95)
    95

    Raises:
        SettingError: the level is not strictly between 0 and 1.
        InputError: there are too few for a threshold at this level.
    """
    if not 0 < level < 1:
        raise SettingError(f"The level of a certificate must lie strictly between 0 and 1, got {level}; try 0.95.")
    rank = math.ceil(round(level * (count + 1), 9))
    if rank > count:
        needed = math.ceil(round(level / (1 - level), 9))
        raise InputError(
            f"A certificate at level {level} needs at least {needed} controls beside those of the fact's own fold, got {count}; "
            f"give more facts or more controls."
        )
    return rank


def thresholds(
    z: Float[np.ndarray, "pairs columns"],
    controls: Bool[np.ndarray, "pairs"],
    folds: Int[np.ndarray, "pairs"],
    level: float,
) -> Float[np.ndarray, "pairs"]:
    """q of each pair: of the controls outside its fold, over its own columns; NaN where too few of them have any of those.

    Raises:
        InputError: there are too few controls in all.
    """
    found = np.full(len(z), np.nan)
    for fold in np.unique(folds):
        others = z[controls & (folds != fold)]
        quantile_rank(len(others), level)
        for mask, rows in columns_alike(z):
            largest = maxima(others[:, mask])
            largest = np.sort(largest[~np.isnan(largest)])
            own = rows[folds[rows] == fold]
            try:
                found[own] = largest[quantile_rank(len(largest), level) - 1]
            except InputError:
                continue  # these pairs are not said to be erased, nor to show
    return found
