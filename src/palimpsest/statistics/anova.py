"""Whether groups differ in their means: Welch's F, and how much of the spread the group accounts for.

    w_i = n_i / s_i^2,    mean = sum w_i xbar_i / sum w,    L = sum_i (1 - w_i / sum w)^2 / (n_i - 1)

    F = (sum_i w_i (xbar_i - mean)^2 / (k - 1)) / (1 + 2 (k - 2) L / (k^2 - 1)),    df = k - 1 and (k^2 - 1) / (3 L)

    eta2 = SS_between / SS_total,        omega2 = (SS_between - (k - 1) MS_within) / (SS_total + MS_within)

Welch's F does not assume that groups have one spread. eta2 is the share of the records' spread that the group accounts for: 0.01 is
small, 0.06 middling (Cohen 1988). It is above 0 by chance alone, by about (k - 1) / (n - 1), and the bootstrap adds that once more;
omega2 takes chance off.

Source: Welch 1951, *Biometrika* 38, 330-336; eta2: Fisher 1925; omega2: Hays 1963.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from palimpsest.errors import InputError
from palimpsest.statistics.bootstrap import percentile_estimate
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length, tail_rank
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels, arrange

Groups = Mapping[str, Numbers] | Sequence[Numbers]


class Welch(NamedTuple):
    """Welch's test, and the share of the spread between groups.

    Attributes:
        f: Welch's F; NaN where a group does not vary.
        p: of equal means; NaN where f is.
        eta2: SS_between / SS_total, 0 to 1, with its bootstrap interval.
    """

    f: float
    p: float
    eta2: Estimate


def welch(
    groups: Groups,
    clusters: Sequence[Labels] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Welch:
    """Welch's analysis of variance of one factor.

    F and its p take records for independent. The interval of eta2 need not: where the same facts stand in several groups (each fact
    in every wording), give each record's fact as its cluster, and a fact is drawn with all its records.

    Args:
        groups: k of them, each (n_i,) numbers, two or more; a mapping's names are used in messages.
        clusters: for each group its n_i labels, as in `cluster_bootstrap`; None: each record stands alone.
        resamples, level, seed: as there.

    Returns:
        Welch; its eta2 counts all records in n.

    Raises:
        InputError: fewer than two groups, a group of fewer than two records, numbers that are not finite, or labels that do not
            match.
        SettingError: level or resamples is out of range.

    Source: Welch 1951.
    """
    named = _checked(groups)
    arrays = list(named.values())
    sizes = np.array([array.size for array in arrays])
    variances = np.array([array.var(ddof=1) for array in arrays])
    f = p = float("nan")
    if (variances > 0).all():
        k, weights = len(arrays), sizes / variances
        means = np.array([array.mean() for array in arrays])
        spread = float(weights @ (means - weights @ means / weights.sum()) ** 2) / (k - 1)
        unequal = float(((1 - weights / weights.sum()) ** 2 / (sizes - 1)).sum())
        f = spread / (1 + 2 * (k - 2) * unequal / (k**2 - 1))
        p = float(stats.f.sf(f, k - 1, (k**2 - 1) / (3 * unequal)))
    return Welch(f, p, _share(named, clusters, resamples, level, seed, corrected=False))


def omega_squared(
    groups: Groups,
    clusters: Sequence[Labels] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The share of the spread that the group accounts for, with what chance gives taken off; it can be below 0.

    Args:
        groups, clusters, resamples, level, seed: as in `welch`.

    Raises:
        InputError, SettingError: as `welch`.

    Source: Hays 1963.
    """
    return _share(_checked(groups), clusters, resamples, level, seed, corrected=True)


def _share(
    named: Mapping[str, Float[np.ndarray, " n"]],
    clusters: Sequence[Labels] | None,
    resamples: int,
    level: float,
    seed: int,
    *,
    corrected: bool,
) -> Estimate:
    rank = tail_rank(level, resamples)
    arrays, k = list(named.values()), len(named)
    numbers = np.concatenate(arrays)
    group = np.repeat(np.arange(k), [array.size for array in arrays])
    labels = None
    if clusters is not None:
        same_length(k, "groups", len(clusters), "clusters")
        for name, array, of_group in zip(named, arrays, clusters, strict=True):
            same_length(array.size, f"group {name}", len(of_group), "its clusters")
        labels = [label for of_group in clusters for label in of_group]
    hierarchy = arrange(np.stack([numbers - np.median(numbers), group], axis=1), labels)
    values, members = hierarchy.rows[:, 0], hierarchy.rows[:, 1][:, None] == np.arange(k)
    # the sums of squares are functions of these sums: records and their total by group, and the squares
    summands = np.concatenate([members, members * values[:, None], values[:, None] ** 2], axis=1)
    sums = np.concatenate([summands.sum(axis=0)[None], hierarchy.resampled_sums(summands, resamples, seed)])
    shares = _share_of_sums(sums, k, corrected)
    return percentile_estimate(
        value=float(shares[0]),
        resampled=shares[1:],
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name=f"{'omega' if corrected else 'eta'} squared of {k} groups",
        unit="",
    )


def _share_of_sums(sums: Float[np.ndarray, "m columns"], k: int, corrected: bool) -> Float[np.ndarray, " m"]:
    """eta2 or omega2 from each row of counts by group, totals by group, and squares; NaN where records do not vary."""
    counts, totals, squares = sums[:, :k], sums[:, k : 2 * k], sums[:, -1]
    n = counts.sum(axis=1)
    grand = totals.sum(axis=1) ** 2 / n
    # a resample may have drawn no record of a group, which then adds nothing
    between = np.where(counts > 0, totals**2 / np.maximum(counts, 1), 0.0).sum(axis=1) - grand
    total = squares - grand
    between = np.clip(between, 0.0, np.maximum(total, 0.0))
    drawn = (counts > 0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        within = (total - between) / (n - drawn)
        share = (between - (drawn - 1) * within) / (total + within) if corrected else between / total
    return np.where(total > 1e-12 * squares, share, np.nan)


def _checked(groups: Groups) -> dict[str, Float[np.ndarray, " n"]]:
    named = groups if isinstance(groups, Mapping) else {str(index): group for index, group in enumerate(groups)}
    if len(named) < 2:
        raise InputError(
            f"An analysis of variance compares at least 2 groups, got {len(named)}; give one list a group."
        )
    arrays = {name: finite_numbers(group, f"group {name}") for name, group in named.items()}
    for name, array in arrays.items():
        if array.size < 2:
            raise InputError(f"group {name} must hold at least 2 records, got {array.size}; leave it out, and say so.")
    return arrays
