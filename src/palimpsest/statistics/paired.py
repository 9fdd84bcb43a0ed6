"""Two measurements of the same records: their mean difference, and whether it could be chance.

Pairing removes what both share, so a contrast such as "target site against null site" needs far fewer facts.
"""

from typing import Literal

import numpy as np

from palimpsest.errors import SettingError
from palimpsest.statistics.bootstrap import Statistic, cluster_bootstrap
from palimpsest.statistics.checks import Numbers, finite_numbers, same_length
from palimpsest.statistics.estimate import Estimate
from palimpsest.statistics.hierarchy import Labels, Within, arrange

# Sign patterns are drawn so many at a time that no block holds more numbers than this (32 MB).
_BLOCK_ENTRIES = 4_000_000


def paired_difference(
    a: Numbers,
    b: Numbers,
    clusters: Labels | None,
    *,
    statistic: Statistic = "mean",
    within: Within = "resample",
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    unit: str = "",
) -> Estimate:
    """The mean of a_i - b_i over the same records, with the interval of `cluster_bootstrap`.

        D = sum_i (a_i - b_i) / n

    Args:
        a, b: (n,) each, matched by position, in the same unit.
        clusters, statistic, within, resamples, level, seed, unit: as in `cluster_bootstrap`.

    Returns:
        Estimate in the unit of a and b; positive where a is larger.

    Raises:
        InputError: a and b differ in length, hold NaN, are empty, or do not match `clusters`.
        SettingError: as `cluster_bootstrap`.

    Source: Davison and Hinkley 1997, section 3.8, applied to differences.
    """
    left, right = finite_numbers(a, "a"), finite_numbers(b, "b")
    same_length(left.size, "a", right.size, "b")
    estimate = cluster_bootstrap(
        left - right,
        clusters,
        statistic=statistic,
        within=within,
        resamples=resamples,
        level=level,
        seed=seed,
        unit=unit,
    )
    return Estimate(**{**estimate.__dict__, "method": f"paired difference a - b: {estimate.method}"})


def sign_flip_p(
    differences: Numbers,
    clusters: Labels | None,
    *,
    permutations: int = 1999,
    seed: int = 0,
    flip: Literal["outer", "inner"] = "outer",
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
) -> float:
    """The p-value of "paired differences are symmetric about zero", by flipping the signs of whole clusters.

    With S_c the sum of the differences in cluster c and signs e_c = +1 or -1 with equal chance,

        T = sum_c S_c,    T* = sum_c e_c S_c,    p = (1 + #{T* at least as extreme as T}) / (1 + permutations).

    With so few clusters that all 2^K sign patterns number no more than permutations + 1, every one is tried
    instead, and p = #{T* at least as extreme as T} / 2^K exactly; p cannot then be smaller than 2 / 2^K (two-sided).

    Args:
        differences: (n,) one a_i - b_i a record.
        clusters: n labels, n tuples (outer, inner), or None: each record stands alone.
        permutations: how many sign patterns to draw; 1999 gives p in steps of 0.0005.
        seed: of numpy's default generator.
        flip: which level's signs are flipped with (outer, inner) labels. "outer" is safe; "inner", such as the subject,
            has more power and is right only where outer clusters share nothing beyond their inner ones.
        alternative: "two-sided" (|T*| >= |T|), "greater" (T* >= T) or "less" (T* <= T).

    Returns:
        p, in (0, 1].

    Raises:
        InputError: differences hold NaN (it says how many), are empty, or do not match `clusters`.
        SettingError: permutations is below 1, or flip or alternative is unknown.

    Source: Fisher 1935, *The Design of Experiments*, section 21; the added one: Phipson and Smyth 2010.
    """
    if permutations < 1:
        raise SettingError(f"permutations must be 1 or more, got {permutations}; 1999 is customary.")
    if flip not in ("outer", "inner"):
        raise SettingError(f"flip must be 'outer' or 'inner', got {flip!r}; choose one of the two.")
    if alternative not in ("two-sided", "greater", "less"):
        raise SettingError(f"alternative must be 'two-sided', 'greater' or 'less', got {alternative!r}; choose one.")
    numbers = finite_numbers(differences, "differences")
    hierarchy = arrange(numbers[:, None], clusters, fall_back=False)
    sums = (hierarchy.outer_sums if flip == "outer" else hierarchy.inner_sums)(hierarchy.rows)[:, 0]
    observed = float(sums.sum())
    tolerance = 1e-12 * float(np.abs(sums).sum())  # sums equal but for rounding count as equal

    def extreme(flipped: np.ndarray) -> int:
        if alternative == "two-sided":
            return int((np.abs(flipped) >= abs(observed) - tolerance).sum())
        if alternative == "greater":
            return int((flipped >= observed - tolerance).sum())
        return int((flipped <= observed + tolerance).sum())

    if sums.size < 63 and 2**sums.size <= permutations + 1:
        patterns = (np.arange(2**sums.size)[:, None] >> np.arange(sums.size)) & 1
        return extreme((1 - 2 * patterns) @ sums) / 2**sums.size
    generator = np.random.default_rng(seed)
    block = max(1, _BLOCK_ENTRIES // sums.size)
    count = 0
    for first in range(0, permutations, block):
        signs = 1 - 2 * generator.integers(0, 2, size=(min(block, permutations - first), sums.size), dtype=np.int8)
        count += extreme(signs @ sums)
    return (1 + count) / (1 + permutations)
