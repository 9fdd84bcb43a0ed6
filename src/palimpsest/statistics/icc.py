"""How far repeated measurements of the same targets agree: the intraclass correlation, two-way random effects.

Targets (facts) are rated by raters (noise seeds, templates). Both are samples from larger populations, and absolute
agreement counts, not only order. ICC(2,1) is the reliability of one rating, ICC(2,k) of the mean of k.

Symbols of Shrout and Fleiss 1979, table 2: BMS, JMS and EMS are the mean squares between targets, between judges
(raters), and of error (the residual).
"""

import math

import numpy as np
from jaxtyping import Float, Shaped

from palimpsest.errors import InputError
from palimpsest.statistics.bootstrap import percentile_ends, resamples_text
from palimpsest.statistics.checks import refuse_not_finite, tail_rank
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels, arrange


def icc_2_1(
    ratings: Shaped[np.ndarray, "targets raters"],
    clusters: Labels | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """ICC(2,1): the reliability of a single rating.

        ICC(2,1) = (BMS - EMS) / (BMS + (k - 1) EMS + k (JMS - EMS) / n)

    Args:
        ratings: (n targets, k raters), any unit.
        clusters: n labels of the targets (or tuples, outer and inner), drawn whole; None: targets stand alone.
        resamples, level, seed: of the percentile bootstrap over targets; raters are kept.

    Returns:
        Estimate, a pure number of at most 1 (it can be negative); the value is NaN where all ratings are equal, and
        minus infinity where targets differ so much less than chance that the denominator is not positive.

    Raises:
        InputError: not two-dimensional, fewer than two targets or two raters, or ratings hold NaN (it says how many).
        SettingError: level or resamples is out of range.

    Source: Shrout and Fleiss 1979, *Intraclass correlations: uses in assessing rater reliability*, case 2.
    """
    return _bootstrapped(ratings, clusters, False, resamples, level, seed)


def icc_2_k(
    ratings: Shaped[np.ndarray, "targets raters"],
    clusters: Labels | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """ICC(2,k): the reliability of the mean of all k ratings at hand.

        ICC(2,k) = (BMS - EMS) / (BMS + (JMS - EMS) / n)

    Args:
        ratings: (n targets, k raters), any unit.
        clusters, resamples, level, seed: as in `icc_2_1`.

    Returns:
        Estimate, a pure number of at most 1 (it can be negative); the value is NaN where all ratings are equal, and
        minus infinity where targets differ so much less than chance that the denominator is not positive.

    Raises:
        InputError, SettingError: as `icc_2_1`.

    Source: Shrout and Fleiss 1979, case 2.
    """
    return _bootstrapped(ratings, clusters, True, resamples, level, seed)


def spearman_brown(icc1: float, k: float | int) -> float:
    """The reliability of the mean of k ratings, given that of one.

        r_k = k r_1 / (1 + (k - 1) r_1)

    Args:
        icc1: the reliability of one rating, at most 1.
        k: how many ratings are averaged, more than 0 (a fraction is a shorter measurement).

    Returns:
        r_k, a pure number.

    Raises:
        InputError: icc1 is above 1 or not a number, k is not positive, or the formula has no value there.

    Source: Spearman 1910; Brown 1910.
    """
    if not icc1 <= 1:
        raise InputError(f"icc1 must be a reliability of at most 1, got {icc1}; pass the value of icc_2_1.")
    if not 0 < k < math.inf:
        raise InputError(f"k must be a finite number of ratings above 0, got {k}; pass how many are averaged.")
    below = 1 + (k - 1) * icc1
    if below <= 0:
        raise InputError(
            f"A reliability of {icc1} cannot be extended to {k} ratings, for 1 + (k - 1) icc1 = {below:.3g} is not "
            f"positive; the ratings share no signal to extend."
        )
    return k * icc1 / below


def raters_needed(icc1: float, wanted: float) -> int:
    """The smallest number of ratings whose mean has at least the reliability wanted.

        k = ceil( wanted (1 - r_1) / (r_1 (1 - wanted)) ), at least 1

    Args:
        icc1: the reliability of one rating, above 0 and at most 1.
        wanted: the reliability asked of the mean, strictly between 0 and 1.

    Returns:
        k, a whole number of ratings.

    Raises:
        InputError: icc1 is not in (0, 1] (no number of ratings is enough at 0), or wanted is not in (0, 1).

    Source: Spearman 1910 and Brown 1910, solved for k.
    """
    if not 0 < icc1 <= 1:
        raise InputError(
            f"icc1 must be above 0 and at most 1, got {icc1}; where one rating has no reliability, no number of them "
            f"is enough."
        )
    if not 0 < wanted < 1:
        raise InputError(f"wanted must lie strictly between 0 and 1, got {wanted}; try 0.9.")
    # the small term keeps 36.00000000000001 from becoming 37
    return max(1, math.ceil(wanted * (1 - icc1) / (icc1 * (1 - wanted)) - 1e-9))


def _bootstrapped(
    ratings: Shaped[np.ndarray, "targets raters"],
    clusters: Labels | None,
    averaged: bool,
    resamples: int,
    level: float,
    seed: int,
) -> Estimate:
    rank = tail_rank(level, resamples)
    try:
        table = np.asarray(ratings, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"ratings must be a table of numbers ({error}); pass one row a target.") from error
    if table.ndim != 2 or min(table.shape) < 2:
        raise InputError(
            f"ratings must be a table of at least 2 targets by 2 raters, got shape {table.shape}; pass one row a "
            f"target and one column a rater."
        )
    refuse_not_finite(table, "ratings")
    hierarchy = arrange(table, clusters)
    # the ICC does not change when a constant is added; measured from the median, rounding does not grow with the level
    rows = hierarchy.rows - np.median(hierarchy.rows)
    k = rows.shape[1]
    # every mean square is a function of these sums over targets: ones, ratings by rater, squares, squared row sums
    summands = np.concatenate(
        [np.ones((len(rows), 1)), rows, (rows**2).sum(axis=1)[:, None], (rows.sum(axis=1) ** 2)[:, None]], axis=1
    )
    value = float(_icc_of_sums(summands.sum(axis=0)[None, :], k, averaged)[0])
    resampled = _icc_of_sums(hierarchy.resampled_sums(summands, resamples, seed), k, averaged)
    defined = np.sort(resampled[~np.isnan(resampled)])
    low = high = math.nan
    if defined.size and not math.isnan(value):
        low, high = percentile_ends(value, defined, rank * defined.size // resampled.size)
    over = "targets" if clusters is None else f"targets ({hierarchy.drawn})"
    name = f"ICC(2,{k if averaged else 1})"
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=hierarchy.n,
        clusters=hierarchy.clusters,
        level=level,
        method=f"{name} of {k} raters, percentile bootstrap of {over}, "
        f"{resamples_text(resampled.size, resampled.size - defined.size)}, seed {seed}",
    )


def _icc_of_sums(sums: Float[np.ndarray, "samples summands"], k: int, averaged: bool) -> Float[np.ndarray, " samples"]:
    """ICC(2,1) or ICC(2,k) of each row of sums: n, each rater's ratings, squared ratings, squared row sums."""
    n, by_rater, squares, row_squares = sums[:, 0], sums[:, 1:-2], sums[:, -2], sums[:, -1]
    total = by_rater.sum(axis=1) ** 2 / (n * k)
    between = row_squares / k - total
    judges = (by_rater**2).sum(axis=1) / n - total
    # rounding can leave a residual of -1e-17 where targets and raters explain everything
    error = np.maximum(0.0, squares - total - between - judges)
    with np.errstate(divide="ignore", invalid="ignore"):
        bms = between / (n - 1)
        jms = judges / (k - 1)
        ems = error / ((n - 1) * (k - 1))
        below = bms + (jms - ems) / n if averaged else bms + (k - 1) * ems + k * (jms - ems) / n
        spread = np.abs(between) + np.abs(judges) + error
        icc = np.where(below > 0, (bms - ems) / below, -np.inf)
    return np.where(spread > 1e-12 * squares, icc, np.nan)
