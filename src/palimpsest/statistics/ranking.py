"""How well a score puts the right cells before the wrong ones: areas under the ROC and the precision-recall curve.

With P right cells, N wrong ones and scores s,

    AUROC = 1 / (P N) sum_{p, n} [s_p > s_n] + [s_p = s_n] / 2        chance 1/2
    AUPRC = sum_k (R_k - R_{k-1}) P_k                                 chance P / (P + N)

where R_k and P_k are recall and precision among all cells that score at least the k-th largest *distinct* value: cells that tie
enter together, so that the order in which they stand decides nothing. AUROC is Mann and Whitney's U / (P N) (Hanley and
McNeil 1982); AUPRC in this form is average precision, without interpolation (Davis and Goadrich 2006, section 4, say why).
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

from palimpsest.statistics.bootstrap import percentile_estimate
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length, tail_rank, yes_or_no
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Hierarchy, Labels, arrange


def auroc(scores: Numbers, positive: Numbers) -> float:
    """Chance that a right cell, drawn at random, scores more than a wrong one; a tie counts half.

    Args:
        scores: (n,) larger where a cell is more likely to be right.
        positive: (n,) whether it is; 1 or True.

    Returns:
        0 to 1, 1/2 by chance; NaN where all cells are right, or none is.

    Raises:
        InputError: lengths differ, scores are not finite, or `positive` is neither 0 nor 1 somewhere.

    Source: Mann and Whitney 1947; Hanley and McNeil 1982.
    """
    values, right = _checked(scores, positive)
    above, below = int(right.sum()), int((1 - right).sum())
    if not above or not below:
        return float("nan")
    ranks = stats.rankdata(values)
    return float(((ranks * right).sum() - above * (above + 1) / 2) / (above * below))


def auroc_estimate(
    scores: Numbers,
    positive: Numbers,
    clusters: Labels | None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """`auroc` with a percentile interval from resampled clusters, in which right and wrong cells are drawn together.

    A resample that draws record i t_i times has

        AUROC_b = sum_{p, n} t_p t_n ([s_p > s_n] + [s_p = s_n] / 2) / (sum_p t_p  sum_n t_n)

    Args:
        scores, positive: as in `auroc`.
        clusters: as in `cluster_bootstrap`.
        resamples, level, seed: as there.

    Returns:
        Estimate, n the number of right cells and wrong ones together; no interval where either is missing.

    Raises:
        InputError: as `auroc`, or as `cluster_bootstrap` of the labels.
        SettingError: as `cluster_bootstrap`.

    Source: Hanley and McNeil 1982; Field and Welsh 2007 for the clusters.
    """
    rank = tail_rank(level, resamples)
    values, right = _checked(scores, positive)
    hierarchy = arrange(np.stack([values, right], axis=1), clusters)
    ordered, kinds = hierarchy.rows.T
    order = np.argsort(ordered, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ordered[order]) != 0]))  # of each run of equal scores
    resampled: list[np.ndarray] = []
    for times in hierarchy.record_times(resamples, seed):
        above = np.add.reduceat((times * kinds)[:, order], starts, axis=1)
        below = np.add.reduceat((times * (1 - kinds))[:, order], starts, axis=1)
        won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(1)
        with np.errstate(invalid="ignore"):
            resampled.append(won / (above.sum(1) * below.sum(1)))
    return _estimate(auroc(values, right), resampled, hierarchy, rank, level, seed)


def compared_estimate(
    won: Float[np.ndarray, "right wrong"],
    clusters: Labels | None,
    order: Numbers,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """`auroc_estimate` where cells are compared two by two, by what both of them have, and have no score of their own.

        share_p = mean over n of won_pn        AUROC = mean over p of share_p        both over the comparisons that were made

    A resample weighs rows and columns by how often it draws them.

    Args:
        won: (right, wrong) 1 where the right cell scores more, 1/2 where they tie, 0 else; NaN where they cannot be compared.
        clusters: of the right cells and then the wrong ones, as in `cluster_bootstrap`.
        order: a number for each cell, in the same order, so that the interval does not depend on the order in which cells come
            (unless these numbers tie).
        resamples, level, seed: as in `cluster_bootstrap`.

    Returns:
        Estimate, n the number of cells that were compared with any.

    Raises:
        InputError: as `cluster_bootstrap` of the labels.
        SettingError: as `cluster_bootstrap`.
    """
    rank = tail_rank(level, resamples)
    made = ~np.isnan(won)
    counted = np.concatenate([made.any(1), made.any(0)])
    right = np.arange(counted.size) < won.shape[0]
    numbers = np.arange(counted.size, dtype=float)
    table = np.stack([finite_numbers(order, "order"), right.astype(float), numbers], axis=1)[counted]
    labels = None if clusters is None else [label for label, kept in zip(clusters, counted, strict=True) if kept]
    hierarchy = arrange(table, labels)
    cells = hierarchy.rows[:, 2].astype(int)
    above = hierarchy.rows[:, 1] == 1
    mine, others = cells[above], cells[~above] - won.shape[0]
    kept = np.ix_(mine, others)
    wins, pairs = np.where(made, won, 0.0)[kept], made[kept].astype(float)

    def value(times: Float[np.ndarray, "block n"]) -> Float[np.ndarray, "block"]:
        t, u = times[:, above], times[:, ~above]
        with np.errstate(invalid="ignore", divide="ignore"):
            shares = (u @ wins.T) / (u @ pairs.T)
            read = ~np.isnan(shares)
            return np.asarray((t * np.where(read, shares, 0.0)).sum(1) / (t * read).sum(1))

    resampled = [value(times) for times in hierarchy.record_times(resamples, seed)]
    return _estimate(float(value(np.ones((1, len(cells))))[0]), resampled, hierarchy, rank, level, seed)


def auprc(scores: Numbers, positive: Numbers) -> float:
    """Average precision: the mean, over the right cells, of the precision where each of them is found.

    Args:
        scores, positive: as in `auroc`.

    Returns:
        0 to 1; the share of right cells by chance, NaN where there is none.

    Raises:
        InputError: as `auroc`.

    Source: Davis and Goadrich 2006; Manning, Raghavan and Schütze 2008, section 8.4.
    """
    values, right = _checked(scores, positive)
    if not right.any():
        return float("nan")
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True)  # of each run of equal scores
    found = np.cumsum(right[order])[last]
    precision = found / (np.flatnonzero(last) + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / right.sum())


def _estimate(
    value: float, resampled: Sequence[np.ndarray], hierarchy: Hierarchy, rank: int, level: float, seed: int
) -> Estimate:
    return percentile_estimate(
        value=value,
        resampled=np.concatenate(resampled),
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name="AUROC",
        unit="",
    )


def _checked(scores: Numbers, positive: Numbers) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    values, right = finite_numbers(scores, "scores"), yes_or_no(positive, "positive", "cell")
    same_length(values.size, "scores", right.size, "positive")
    return values, right
