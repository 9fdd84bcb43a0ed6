"""The erasure certificate: the old answer shows nowhere more than a control's 95th percentile of the same maximum.

    z_ij shows      where at most n - k of n controls have a maximum of at least z_ij        k = ceil(0.95 (n + 1))
                    (z_ij exceeds the k-th smallest of the controls' maxima)
    erased_i        where no column of the fact shows

The threshold is a conformal quantile: a fact that is exchangeable with its controls exceeds it with a chance of at most 5 %,
whatever the distribution and however many columns there are (Vovk et al. 2005). For that the maxima must be over the same
columns: a fact is read at those of its columns that at least half of the controls have (`read` says at how many), and compared
with the controls that have all of them (`of`). Controls of the fact's own fold are left out, so that the share of controls that
get a certificate can be read off in the same way, and is about 95 % by construction; it stands beside the facts' share as the
base rate. With fewer than 19 such controls nothing is said of a fact.

A certificate speaks of the columns that were read. It does not say that no other readout would find the answer.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from palimpsest.erase.residue.readout import Column
from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import Estimate


@dataclass(frozen=True)
class Certificate:
    """One fact's.

    Attributes:
        fact: its id.
        erased: whether it shows nowhere; None where too few controls could be read at its columns, or nothing of it.
        read: at how many columns.
        as_much: so many controls show at least as much at some column as the fact does where it shows most.
        of: of so many.
        shows: where it shows, most first.
    """

    fact: str
    erased: bool | None
    read: int
    as_much: int
    of: int
    shows: tuple[Column, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data; the ten columns where it shows most, and how many there are."""
        return {
            "fact": self.fact,
            "erased": self.erased,
            "read": self.read,
            "as_much": self.as_much,
            "of": self.of,
            "shows": [str(column) for column in self.shows[:10]],
            "shows_at": len(self.shows),
        }

    def __str__(self) -> str:
        controls = f"{self.as_much} of {self.of} controls show as much"
        if self.erased is None:
            return f"{self.fact}: nothing can be said, for {self.of} controls could be read where it could"
        if self.erased:
            return f"{self.fact}: erased at {self.read} columns ({controls})"
        most = ", ".join(map(str, self.shows[:3]))
        return f"{self.fact}: shows at {len(self.shows)} of {self.read} columns, most at {most} ({controls})"


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
