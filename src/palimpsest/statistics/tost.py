"""Whether two measurements of the same records are as good as equal: two one-sided tests against a margin said beforehand.

    H01: D <= -margin,    H02: D >= margin;        equal within the margin where both are rejected, p = max(p1, p2)

"No significant difference" is no evidence of equality: few records give it for free. Here the burden lies the other way, and few
records give "not shown". Rejecting both at `alpha` is the same as the interval of level 1 - 2 alpha lying inside (-margin, margin).

`non_inferior` asks only the first half: that a is not worse than b by the margin or more.

The p-values are the bootstrap's, p1 = (1 + #{D* <= -margin}) / (1 + resamples), in which clusters are drawn whole.

Source: Schuirmann 1987, *Journal of Pharmacokinetics and Biopharmaceutics* 15, 657-680; Piaggio et al. 2012 for non-inferiority.
"""

import math
from dataclasses import dataclass

import numpy as np

from palimpsest.errors import SettingError
from palimpsest.statistics.bootstrap import percentile_estimate
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length, tail_rank
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels, arrange


@dataclass(frozen=True)
class Equivalence:
    """The verdict of a test against a margin.

    Attributes:
        estimate: the mean difference a - b, with the interval of level 1 - 2 alpha that decides.
        margin: the difference that would matter, in the unit of a and b.
        equivalent: whether differences that matter are excluded.
        p: of the differences that matter; 1 where there is no interval.
    """

    estimate: Estimate
    margin: float
    equivalent: bool
    p: float


def equivalence(
    a: Numbers,
    b: Numbers,
    margin: float,
    clusters: Labels | None,
    *,
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = 0,
    unit: str = "",
) -> Equivalence:
    """Whether a and b differ by less than the margin, in either direction.

    Args:
        a, b: (n,) each, matched by position, in one unit.
        margin: the difference that would matter, above 0.
        clusters, resamples, seed, unit: as in `cluster_bootstrap`.
        alpha: the chance allowed of saying "equivalent" where the difference is the margin; below 0.5.

    Returns:
        Equivalence; `equivalent` is False for a single record, which has no interval.

    Raises:
        InputError: a and b differ in length, hold NaN, are empty, or do not match `clusters`.
        SettingError: margin or alpha is out of range, or as `cluster_bootstrap`.

    Source: Schuirmann 1987.
    """
    return _tested(a, b, margin, clusters, alpha, resamples, seed, unit, both=True)


def non_inferior(
    a: Numbers,
    b: Numbers,
    margin: float,
    clusters: Labels | None,
    *,
    alpha: float = 0.05,
    resamples: int = 2000,
    seed: int = 0,
    unit: str = "",
) -> Equivalence:
    """Whether a is less than the margin below b; how far above does not matter.

    Args:
        a, b: (n,) each, larger is better, matched by position, in one unit.
        margin, clusters, alpha, resamples, seed, unit: as in `equivalence`.

    Returns:
        Equivalence, `equivalent` saying "not inferior".

    Raises:
        InputError, SettingError: as `equivalence`.

    Source: Piaggio et al. 2012, *JAMA* 308, 2594-2604.
    """
    return _tested(a, b, margin, clusters, alpha, resamples, seed, unit, both=False)


def _tested(
    a: Numbers,
    b: Numbers,
    margin: float,
    clusters: Labels | None,
    alpha: float,
    resamples: int,
    seed: int,
    unit: str,
    *,
    both: bool,
) -> Equivalence:
    if not 0 < margin < math.inf:
        raise SettingError(f"margin must be a number above 0, got {margin}; say which difference would matter.")
    if not 0 < alpha < 0.5:
        raise SettingError(f"alpha must lie strictly between 0 and 0.5, got {alpha}; try 0.05.")
    rank = tail_rank(1 - 2 * alpha, resamples)
    left, right = finite_numbers(a, "a"), finite_numbers(b, "b")
    same_length(left.size, "a", right.size, "b")
    hierarchy = arrange((left - right)[:, None], clusters)
    # measured from the median, as in `cluster_bootstrap`, so that equal differences have no width of rounding noise
    centre = float(np.median(hierarchy.rows))
    apart = hierarchy.rows - centre
    sums = hierarchy.resampled_sums(np.concatenate([apart, np.ones_like(apart)], axis=1), resamples, seed)
    drawn = centre + sums[:, 0] / sums[:, 1]
    estimate = percentile_estimate(
        value=centre + float(apart.mean()),
        resampled=drawn,
        hierarchy=hierarchy,
        rank=rank,
        level=1 - 2 * alpha,
        seed=seed,
        name="paired difference a - b: mean",
        unit=unit,
    )
    if not estimate.is_known:
        return Equivalence(estimate, margin, False, 1.0)
    beyond = int((drawn <= -margin).sum())
    equivalent = estimate.low > -margin
    if both:
        beyond = max(beyond, int((drawn >= margin).sum()))
        equivalent = equivalent and estimate.high < margin
    return Equivalence(estimate, margin, equivalent, (1 + beyond) / (1 + resamples))
