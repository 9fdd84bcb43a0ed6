"""Intervals for means, ratios and harmonic means of records that come in clusters.

    cluster_bootstrap(scores, [(fact.relation, fact.subject) for fact in facts])

Drawing clusters instead of records keeps what is alike together (Davison and Hinkley 1997, section 3.8; Field and Welsh
2007). All intervals here are percentile intervals (Efron and Tibshirani 1993, chapter 13): the middle `level` of the
statistic over the resamples, widened where needed so that they contain the estimate itself.

Read with two things in mind. Percentile intervals of few clusters (fewer than about 15) are too narrow; `Estimate`
carries the number. And data without any spread give an interval of zero width: for a proportion of 0 or 1, use
`proportion`, which does not claim certainty.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length, tail_rank
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Hierarchy, Labels, Within, arrange

Statistic: TypeAlias = Literal["mean"] | Callable[[np.ndarray], float]


def cluster_bootstrap(
    values: Numbers,
    clusters: Labels | None,
    *,
    statistic: Statistic = "mean",
    within: Within = "resample",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    unit: str = "",
) -> Estimate:
    """A statistic of `values` with a percentile interval from resampled clusters.

    With K outer clusters, each resample draws K of them with replacement; within each one drawn it draws as many inner
    clusters as that one has, with replacement, and keeps their records. For the mean,

        theta = sum_i x_i / n,        theta*_b = sum_c t_bc S_c / sum_c t_bc n_c,

    where S_c and n_c are the sum and count of cluster c, and t_bc how often resample b drew it; nothing is copied. The
    result depends on the contents and the seed alone, not on the order of records nor on the names of clusters.

    Drawing inner clusters as well adds their sampling variance a second time: outer means vary with it already. The
    interval is then conservative, the more so the less outer clusters differ; `within="keep"` keeps every inner cluster
    of a drawn outer one, and covers at the nominal level when outer clusters are many (Davison and Hinkley 1997,
    section 3.8).

    Args:
        values: (n,) one number a record; booleans count as 0 and 1.
        clusters: n labels; or n tuples (outer, inner) such as (relation, subject); or None: each record stands alone.
            Where there is only one outer cluster, the next level down is drawn, and `method` says so.
        statistic: "mean", or a function of the resampled values (m,) that does not depend on their order. Resamples
            where it gives NaN are left out, and `method` says how many.
        within: "resample" or "keep", see above; no difference for plain labels.
        resamples: how many; 2000 for a 95 % interval.
        level: coverage aimed at.
        seed: of numpy's default generator.
        unit: unit of the values, carried into the result.

    Returns:
        Estimate in the unit of `values`; low and high are NaN for a single record.

    Raises:
        InputError: values hold NaN (it says how many), are empty, or do not match `clusters`; labels are malformed.
        SettingError: level, resamples, within or statistic is out of range.

    Source: Davison and Hinkley 1997, *Bootstrap Methods and their Application*, section 3.8; Efron and Tibshirani 1993,
    *An Introduction to the Bootstrap*, chapter 13.
    """
    rank = tail_rank(level, resamples)
    numbers = finite_numbers(values, "values")
    hierarchy = arrange(numbers[:, None], clusters, within)
    ordered = hierarchy.rows[:, 0]
    if statistic == "mean":
        # measured from the median, so that equal values give exactly their value and no width of rounding noise
        centre = float(np.median(ordered))
        columns = np.stack([ordered - centre, np.ones_like(ordered)], axis=1)
        sums = hierarchy.resampled_sums(columns, resamples, seed)
        return percentile_estimate(
            value=centre + float(np.mean(ordered - centre)),
            resampled=centre + sums[:, 0] / sums[:, 1],
            hierarchy=hierarchy,
            rank=rank,
            level=level,
            seed=seed,
            name="mean",
            unit=unit,
        )
    if not callable(statistic):
        raise SettingError(f"statistic must be 'mean' or a function of the values, got {statistic!r}; pass either.")
    resampled = [float(statistic(rows[:, 0])) for rows in hierarchy.resampled_rows(resamples, seed)]
    return percentile_estimate(
        value=float(statistic(ordered.copy())),
        resampled=np.array(resampled),
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name=getattr(statistic, "__name__", "statistic"),
        unit=unit,
    )


def ratio_estimate(
    numerators: Numbers,
    denominators: Numbers,
    clusters: Labels | None,
    *,
    within: Within = "resample",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    unit: str = "",
) -> Estimate:
    """Sum of numerators over sum of denominators, with the interval of `cluster_bootstrap`.

        R = sum_i a_i / sum_i b_i,        R*_b = sum_c t_bc A_c / sum_c t_bc B_c

    This is the ratio of totals, not the mean of ratios: a record whose denominator is near zero does no harm. A
    resample whose denominators sum to zero counts as infinite, with the sign of its numerators' sum; where that is zero
    too, it is left out, and `method` says how many were.

    Args:
        numerators: (n,) a_i.
        denominators: (n,) b_i, not summing to zero.
        clusters, within, resamples, level, seed, unit: as in `cluster_bootstrap`.

    Returns:
        Estimate; an end may be infinite where denominators can sum to zero.

    Raises:
        InputError: as `cluster_bootstrap`, or the denominators sum to zero.
        SettingError: as `cluster_bootstrap`.

    Source: Davison and Hinkley 1997, example 2.15 and section 3.8; Cochran 1977, *Sampling Techniques*, chapter 6.
    """
    rank = tail_rank(level, resamples)
    above = finite_numbers(numerators, "numerators")
    below = finite_numbers(denominators, "denominators")
    same_length(above.size, "numerators", below.size, "denominators")
    hierarchy = arrange(np.stack([above, below], axis=1), clusters, within)
    total_above, total_below = (float(total) for total in hierarchy.rows.sum(axis=0))
    if total_below == 0:
        raise InputError(
            f"denominators must not sum to zero, got a sum of 0 over {below.size} records; a ratio to nothing is "
            f"undefined, so report the difference instead."
        )
    sums = hierarchy.resampled_sums(hierarchy.rows, resamples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        # adding 0.0 turns a sum of -0.0 into 0.0, so that the sign of infinity is that of the numerator
        resampled = sums[:, 0] / (sums[:, 1] + 0.0)
    return percentile_estimate(
        value=total_above / total_below,
        resampled=resampled,
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name="ratio of sums",
        unit=unit,
    )


def harmonic_mean_estimate(
    columns: Mapping[str, Numbers] | Sequence[Numbers],
    clusters: Labels | None,
    *,
    within: Within = "resample",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    unit: str = "",
) -> Estimate:
    """The harmonic mean of the means of several columns measured on the same records: CounterFact's score S.

        S = m / sum_j (1 / mean_i x_ij),        S = 0 where any column's mean is 0

    Records are drawn whole, so the columns' dependence on one another is kept.

    Args:
        columns: m columns of (n,) numbers, zero or more each; a mapping's names are used in messages.
        clusters, within, resamples, level, seed, unit: as in `cluster_bootstrap`.

    Returns:
        Estimate in the unit of the columns.

    Raises:
        InputError: as `cluster_bootstrap`, or there is no column, columns differ in length, or hold a negative number.
        SettingError: as `cluster_bootstrap`.

    Source: Meng et al. 2022 (ROME), section 3.3: S is the harmonic mean of ES, PS and NS.
    """
    rank = tail_rank(level, resamples)
    named = columns if isinstance(columns, Mapping) else {f"column {i}": column for i, column in enumerate(columns)}
    if not named:
        raise InputError("columns must hold at least one column, got none; pass for example ES, PS and NS.")
    arrays = {name: finite_numbers(column, str(name)) for name, column in named.items()}
    first_name, first = next(iter(arrays.items()))
    for name, array in arrays.items():
        same_length(first.size, str(first_name), array.size, str(name))
        if (array < 0).any():
            raise InputError(
                f"{name} must be zero or more for a harmonic mean, got {array.min()}; use scores, not differences."
            )
    table = np.stack(list(arrays.values()), axis=1)
    hierarchy = arrange(table, clusters, within)
    centre = np.median(hierarchy.rows, axis=0)
    deviations = hierarchy.rows - centre
    counted = np.concatenate([deviations, np.ones((hierarchy.n, 1))], axis=1)
    sums = hierarchy.resampled_sums(counted, resamples, seed)
    return percentile_estimate(
        value=float(_harmonic_mean((centre + deviations.mean(axis=0))[None, :])[0]),
        resampled=_harmonic_mean(centre + sums[:, :-1] / sums[:, -1:]),
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name=f"harmonic mean of {len(arrays)} means",
        unit=unit,
    )


def design_effect(values: Numbers, clusters: Labels) -> float:
    """How many times larger the variance of the mean is than if every record stood alone.

        deff = [K/(K-1) sum_k (sum_{i in k} (x_i - xbar))^2 / n^2]  /  [sum_i (x_i - xbar)^2 / (n (n-1))]

    n / deff is the number of independent records the data are worth. It is 1 when each record is its own cluster.
    Only the outer level of (outer, inner) labels counts.

    Args:
        values: (n,) one number a record.
        clusters: n labels or n tuples (outer, inner).

    Returns:
        deff, a pure number of 0 or more; NaN with a single cluster or values without spread, where it is undefined.

    Raises:
        InputError: values hold NaN, are empty, or do not match `clusters`.

    Source: Kish 1965, *Survey Sampling*, section 8.2, with the linearised (between-cluster) variance of a mean.
    """
    numbers = finite_numbers(values, "values")
    hierarchy = arrange(numbers[:, None], clusters, "keep")
    deviations = hierarchy.rows - np.median(hierarchy.rows)
    deviations = deviations - deviations.mean(axis=0)
    squares = float((deviations**2).sum())
    if hierarchy.clusters < 2 or squares == 0:
        return float("nan")
    n, k = hierarchy.n, hierarchy.clusters
    clustered = k / (k - 1) * float((hierarchy.outer_sums(deviations) ** 2).sum()) / n**2
    return clustered / (squares / (n * (n - 1)))


def _harmonic_mean(means: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, " rows"]:
    """Row by row, 0 where any mean is 0 (or below it by rounding)."""
    positive = np.all(means > 0, axis=1)
    safe = np.where(positive[:, None], means, 1.0)
    return np.where(positive, means.shape[1] / (1 / safe).sum(axis=1), 0.0)


def percentile_estimate(
    *,
    value: float,
    resampled: Float[np.ndarray, " resamples"],
    hierarchy: Hierarchy,
    rank: int,
    level: float,
    seed: int,
    name: str,
    unit: str,
) -> Estimate:
    """The estimate whose interval runs from the rank-th smallest to the rank-th largest resampled value."""
    defined = np.sort(resampled[~np.isnan(resampled)])
    left_out = resampled.size - defined.size
    counted = resamples_text(resampled.size, left_out)
    method = f"{name}, percentile bootstrap of {hierarchy.drawn}, {counted}, seed {seed}"
    low = high = float("nan")
    if hierarchy.n == 1:
        method = f"{name} of a single record, which has no interval"
    elif defined.size and not np.isnan(value):
        low, high = percentile_ends(value, defined, rank * defined.size // resampled.size)
    return Estimate(
        value=value,
        low=low,
        high=high,
        n=hierarchy.n,
        clusters=hierarchy.clusters,
        level=level,
        method=method,
        unit=unit,
    )


def percentile_ends(value: float, ordered: Float[np.ndarray, " defined"], rank: int) -> tuple[float, float]:
    """The rank-th smallest and the rank-th largest of resampled values in order, moved apart to hold the value itself."""
    kept = max(1, rank)
    return min(float(ordered[kept - 1]), value), max(float(ordered[-kept]), value)


def resamples_text(resamples: int, left_out: int) -> str:
    """For `Estimate.method`: "2000 resamples", or "2000 resamples of which 3 were undefined and left out"."""
    return f"{resamples} resamples" + (f" of which {left_out} were undefined and left out" if left_out else "")
