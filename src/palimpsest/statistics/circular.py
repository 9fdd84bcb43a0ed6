"""Whether two lists rise together: Spearman's rank correlation, and its p-value for profiles over layers.

    rho = corr(ranks of a, ranks of b),        p = #{shifts s of n : rho(a, b shifted by s) >= rho} / n

A profile over layers is smooth: each layer resembles its neighbours. Shuffling layers would destroy that and make two unrelated
smooth profiles look significantly alike. Turning one of them round as a whole, the layers that fall off one end entering at the
other, keeps its smoothness and breaks only its place. There are n such shifts, no shift among them, so p is a multiple of 1 / n
and never below it: 10 layers cannot give less than 0.1, and many profiles are needed before such tests add up to anything.

Source: Spearman 1904; circular shifts: Harrison 1973 in cross-correlation, Harris 2020 ("Nonsense correlations in neuroscience").
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from palimpsest.errors import InputError
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length


class CircularShift(NamedTuple):
    """A rank correlation and how rarely a turned profile has one as large.

    Attributes:
        rho: Spearman's correlation, -1 to 1; NaN where a profile does not vary.
        p: one-sided, 1 / n to 1; 1 where rho is NaN.
    """

    rho: float
    p: float


def spearman(a: Numbers, b: Numbers) -> float:
    """Spearman's rank correlation; equal numbers share their mean rank.

    Args:
        a, b: (n,) each, matched by position.

    Returns:
        -1 to 1; NaN where a or b does not vary.

    Raises:
        InputError: lengths differ, or numbers are missing or not finite.

    Source: Spearman 1904, *American Journal of Psychology* 15, 72-101.
    """
    left, right = finite_numbers(a, "a"), finite_numbers(b, "b")
    same_length(left.size, "a", right.size, "b")
    return _correlation(stats.rankdata(left), stats.rankdata(right))


def circular_shift_p(profile: Numbers, other: Numbers) -> CircularShift:
    """Whether two profiles over the same layers are alike beyond what their smoothness gives.

    Args:
        profile, other: (n,) each, in the order of the layers; at least 2.

    Returns:
        CircularShift.

    Raises:
        InputError: lengths differ, there are fewer than two layers, or numbers are not finite.
    """
    left, right = finite_numbers(profile, "profile"), finite_numbers(other, "other")
    same_length(left.size, "profile", right.size, "other")
    if left.size < 2:
        raise InputError(f"A profile has at least 2 layers, got {left.size}; measure more layers.")
    first, second = stats.rankdata(left), stats.rankdata(right)
    rho = _correlation(first, second)
    if np.isnan(rho):
        return CircularShift(rho, 1.0)
    turned = np.array([_correlation(first, np.roll(second, shift)) for shift in range(left.size)])
    # correlations equal but for rounding count as equal
    return CircularShift(rho, float((turned >= rho - 1e-12).mean()))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    left, right = a - a.mean(), b - b.mean()
    size = float(np.sqrt((left @ left) * (right @ right)))
    return max(-1.0, min(1.0, float(left @ right) / size)) if size > 0 else float("nan")
