"""Statistics of several columns, with intervals: ranks, slopes, ratios and correlations that no record has by itself.

    theta = g(xbar_1, ..., xbar_k)          g: any function of the column means, such as "the rank of column 3 among all"
    theta = g(x_1, ..., x_n)                g: any function of whole records, such as the correlation of two columns

Records are resampled in their clusters and g is taken of every resample, so that a statistic which no record has by itself (the
rank of a layer, the slope of a line) still has an interval that respects relations and subjects (Davison and Hinkley 1997,
section 2.7 on smooth functions of means, section 3.8 on clusters).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from palimpsest.errors import InputError
from palimpsest.statistics.bootstrap import cluster_bootstrap, percentile_estimate
from palimpsest.statistics.checks import tail_rank
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels, arrange

Means = Float[np.ndarray, " columns"]
Draws = Float[np.ndarray, "draws _"]


def of_means(
    table: Float[np.ndarray, "records columns"],
    clusters: Labels | None,
    statistic: Callable[[Means], float],
    *,
    name: str,
    unit: str = "",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """g of the column means, with a percentile interval over resampled clusters.

    Args:
        table: finite numbers, one row a record.
        clusters: as in `cluster_bootstrap`.
        statistic: g; NaN where a resample does not define it.
        name: of the statistic, in words, for `Estimate.method`.
        unit, resamples, level, seed: as in `cluster_bootstrap`.

    Raises:
        InputError: there is no record.
    """
    if not len(table):
        raise InputError(f"The {name} needs at least one record, got none; measure some facts first.")
    rank = tail_rank(level, resamples)
    hierarchy = arrange(np.asarray(table, dtype=np.float64), clusters)
    counted = np.column_stack([np.ones(hierarchy.n), hierarchy.rows])
    sums = hierarchy.resampled_sums(counted, resamples, seed)
    return percentile_estimate(
        value=float(statistic(hierarchy.rows.mean(axis=0))),
        resampled=np.array([statistic(row) for row in sums[:, 1:] / sums[:, :1]], dtype=np.float64),
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name=name,
        unit=unit,
    )


def of_two(
    tables: tuple[Float[np.ndarray, "records columns"], Float[np.ndarray, "others more"]],
    clusters: tuple[Labels, Labels],
    statistic: Callable[[Draws, Draws], Means],
    *,
    name: str,
    unit: str = "",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """g of the column means of two tables that share no record; each is resampled by itself.

    Args:
        tables, clusters: of each side; n and the number of clusters are those of the first.
        statistic: g of all resamples at once: from (resamples, columns) of both sides to a number each.
        name, unit, resamples, level, seed: as in `of_means`.

    Raises:
        InputError: a side has no record.
    """
    rank = tail_rank(level, resamples)
    drawn, whole, trees = [], [], []
    for which, (table, labels) in enumerate(zip(tables, clusters, strict=True)):
        if not len(table):
            raise InputError(f"The {name} needs at least one record on each side, got none; measure some facts first.")
        tree = arrange(np.asarray(table, dtype=np.float64), labels)
        sums = tree.resampled_sums(np.column_stack([np.ones(tree.n), tree.rows]), resamples, seed + which)
        drawn.append(sums[:, 1:] / sums[:, :1])
        whole.append(tree.rows.mean(axis=0))
        trees.append(tree)
    return percentile_estimate(
        value=float(statistic(whole[0][None], whole[1][None])[0]),
        resampled=np.asarray(statistic(drawn[0], drawn[1]), dtype=np.float64),
        hierarchy=trees[0],
        rank=rank,
        level=level,
        seed=seed,
        name=f"{name}, two tables resampled apart",
        unit=unit,
    )


def of_records(
    statistic: Callable[[Int[np.ndarray, " drawn"]], float],
    n: int,
    clusters: Labels | None,
    *,
    name: str,
    unit: str = "",
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """g of whole records: it is given the positions, 0 to n - 1, of those that were drawn.

    Positions are drawn in place of values, so that all that a record holds stays together.

    Args:
        statistic: g; NaN where a resample does not define it.
        n: how many records there are.
        clusters, unit, resamples, seed: as in `cluster_bootstrap`.
        name: of the statistic, in words, for `Estimate.method`.

    Raises:
        InputError: there is no record, or labels do not match n.
    """

    def drawn(positions: np.ndarray) -> float:
        return statistic(positions.astype(int))

    drawn.__name__ = name
    return cluster_bootstrap(np.arange(n), clusters, statistic=drawn, resamples=resamples, unit=unit, seed=seed)
