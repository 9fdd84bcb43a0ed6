"""Whether two things scored on the same records differ in the harmonic mean of their columns, CounterFact's S.

    D = S(a) - S(b),        S(x) = m / sum_j (1 / mean_i x_ij)

Every resample draws records whole, with the scores of both, so that what they share cancels. S is no mean over records: the mean
of the differences of single records is another quantity, and can have another sign.
"""

from collections.abc import Sequence

import numpy as np

from palimpsest.errors import InputError
from palimpsest.statistics.bootstrap import _harmonic_mean, percentile_estimate
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length, tail_rank
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels, arrange


def harmonic_difference(
    a: Sequence[Numbers],
    b: Sequence[Numbers],
    clusters: Labels | None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """S(a) - S(b) with the interval of `cluster_bootstrap`.

    Args:
        a, b: m columns each of (n,) numbers, zero or more, matched by position.
        clusters, resamples, level, seed: as in `cluster_bootstrap`.

    Returns:
        Estimate in the unit of the columns; positive where a is larger.

    Raises:
        InputError: there is no column, columns differ in number or length, or hold NaN or a negative number.
        SettingError: level or resamples is out of range.

    Source: Davison and Hinkley 1997, section 3.8, applied to differences of S (Meng et al. 2022, section 3.3).
    """
    rank = tail_rank(level, resamples)
    if not a or len(a) != len(b):
        raise InputError(
            f"A difference of S compares as many columns, got {len(a)} and {len(b)}; give ES, PS and NS of both."
        )
    columns = [finite_numbers(column, f"column {i}") for i, column in enumerate([*a, *b])]
    for i, column in enumerate(columns):
        same_length(columns[0].size, "column 0", column.size, f"column {i}")
        if (column < 0).any():
            raise InputError(f"column {i} must be zero or more for a harmonic mean, got {column.min()}; use scores.")
    hierarchy = arrange(np.stack(columns, axis=1), clusters)
    counted = np.concatenate([hierarchy.rows, np.ones((hierarchy.n, 1))], axis=1)
    sums = hierarchy.resampled_sums(counted, resamples, seed)
    means = np.concatenate([hierarchy.rows.mean(axis=0)[None], sums[:, :-1] / sums[:, -1:]])
    gaps = _harmonic_mean(means[:, : len(a)]) - _harmonic_mean(means[:, len(a) :])
    return percentile_estimate(
        value=float(gaps[0]),
        resampled=gaps[1:],
        hierarchy=hierarchy,
        rank=rank,
        level=level,
        seed=seed,
        name=f"paired difference a - b of harmonic means of {len(a)} means",
        unit="",
    )
