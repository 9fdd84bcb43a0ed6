"""Intervals for a proportion of yes-or-no records.

The usual p +- 1.96 sqrt(p (1 - p) / n) is too narrow near 0 and 1 and claims certainty at 0 and 1. Wilson's interval
does not. For records in clusters use `clustered_proportion`, which draws clusters, and where it meets only zeros or only ones
falls back on the rule of three with the number of innermost clusters as `n`.
"""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics.bootstrap import cluster_bootstrap
from palimpsest.statistics.checks import Numbers, within_0_and_1
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels


def wilson(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """Wilson's score interval.

        centre = (p + z^2 / 2n) / (1 + z^2 / n),    half = z / (1 + z^2 / n) sqrt(p (1 - p) / n + z^2 / 4n^2),

    with p = successes / n, and z the normal quantile of (1 + level) / 2.

    Args:
        successes: how many of the n records, 0 to n.
        n: how many independent records, 1 or more.
        level: coverage aimed at.

    Returns:
        Estimate of p (a proportion, no unit); the interval lies in [0, 1].

    Raises:
        InputError: n is below 1, or successes is not between 0 and n, or either is not a whole number.
        SettingError: level is not strictly between 0 and 1.

    Source: Wilson 1927; Brown, Cai and DasGupta 2001.
    """
    successes, n = _checked(successes, n, level)
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    shrink = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, min(p, centre - half))
    high = 1.0 if successes == n else min(1.0, max(p, centre + half))
    return Estimate(value=p, low=low, high=high, n=n, clusters=n, level=level, method="Wilson score interval")


def rule_of_three(n: int, *, level: float = 0.95) -> Estimate:
    """The estimate when none of n independent records showed the event: 0, and at most about 3 / n.

        high = min(1, -ln(1 - level) / n)

    -ln(0.05) = 2.996: hence the name. The bound is one-sided, for nothing lies below 0.

    Args:
        n: how many independent records, 1 or more.
        level: coverage aimed at.

    Returns:
        Estimate with value 0 and low 0.

    Raises:
        InputError: n is below 1 or not a whole number.
        SettingError: level is not strictly between 0 and 1.

    Source: Hanley and Lippman-Hand 1983.
    """
    _, n = _checked(0, n, level)
    high = min(1.0, -math.log(1 - level) / n)
    return Estimate(value=0.0, low=0.0, high=high, n=n, clusters=n, level=level, method="rule of three, one-sided")


def proportion(successes: int, n: int, *, level: float = 0.95) -> Estimate:
    """Wilson's interval, or the rule of three where no record or every record is a success.

    Where every record is a success, the rule of three is applied to the failures: low = max(0, 1 + ln(1 - level) / n).

    Args:
        successes: how many of the n records, 0 to n.
        n: how many independent records, 1 or more.
        level: coverage aimed at.

    Returns:
        Estimate of the proportion, in [0, 1].

    Raises:
        InputError, SettingError: as `wilson`.

    Source: as `wilson` and `rule_of_three`.
    """
    successes, n = _checked(successes, n, level)
    if 0 < successes < n:
        return wilson(successes, n, level=level)
    none = rule_of_three(n, level=level)
    if successes == 0:
        return none
    return Estimate(value=1.0, low=1 - none.high, high=1.0, n=n, clusters=n, level=level, method=none.method)


def clustered_proportion(
    values: Numbers, clusters: Labels, *, level: float = 0.95, seed: int = 0, unit: str = ""
) -> Estimate:
    """The mean of shares between 0 and 1; where all are 0 or all are 1, bounded by the rule of three.

    A bootstrap of equal values has no width and would claim certainty. The bound counts each innermost cluster (each subject)
    once, because several records of one subject may stand or fall together.

    Args:
        values: (n,) booleans, or shares between 0 and 1.
        clusters, level, seed, unit: as in `cluster_bootstrap`.

    Raises:
        InputError: a value lies outside [0, 1], or as `cluster_bootstrap`.

    Source: Davison and Hinkley 1997, section 3.8; Hanley and Lippman-Hand 1983 for the ends.
    """
    shares = within_0_and_1(values, "values", "pass 0 and 1, or shares of a whole")
    estimate = cluster_bootstrap(shares, clusters, level=level, seed=seed, unit=unit)
    if np.ptp(shares) > 0 or 0 < shares[0] < 1:
        return estimate
    innermost = len({*clusters})
    bound = proportion(innermost * int(shares[0]), innermost, level=level)
    return replace(
        bound,
        n=estimate.n,
        clusters=estimate.clusters,
        unit=unit,
        method=f"{bound.method}, over {innermost} innermost clusters",
    )


def _checked(successes: int, n: int, level: float) -> tuple[int, int]:
    if not 0 < level < 1:
        raise SettingError(f"level must lie strictly between 0 and 1, got {level}; try 0.95.")
    if int(n) != n or n < 1:
        raise InputError(f"n must be a whole number of 1 or more records, got {n}; there is no proportion of nothing.")
    if int(successes) != successes or not 0 <= successes <= n:
        raise InputError(f"successes must be a whole number from 0 to n={n}, got {successes}; count them again.")
    return int(successes), int(n)
