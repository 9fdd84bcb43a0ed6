"""The difference of S against S of resamples built row by row."""

import numpy as np
import pytest
from scipy.stats import hmean

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics.harmonic import harmonic_difference
from palimpsest.statistics.hierarchy import arrange

CLUSTERS = [(f"r{i // 4}", f"s{i}") for i in range(16)]


def scores(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 1.0, (3, 16))


@pytest.mark.parametrize("seed", range(3))
def test_it_is_that_of_resamples_built_row_by_row(seed: int) -> None:
    a, b = scores(seed), scores(seed + 10)
    found = harmonic_difference(list(a), list(b), CLUSTERS, resamples=60, seed=seed)
    value = hmean(a.mean(1)) - hmean(b.mean(1))
    rows = arrange(np.concatenate([a, b]).T, CLUSTERS).resampled_rows(60, seed)
    drawn = [hmean(one[:, :3].mean(0)) - hmean(one[:, 3:].mean(0)) for one in rows]
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx((min(*drawn, value), max(*drawn, value)))
    assert (found.n, found.clusters) == (16, 4)


def test_what_both_share_cancels() -> None:
    a = scores(0)
    found = harmonic_difference(list(a), list(a), CLUSTERS)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_it_is_not_the_mean_of_differences_of_facts() -> None:
    a, b = [np.full(6, 0.6)] * 3, [np.ones(6), np.ones(6), np.zeros(6)]
    assert harmonic_difference(a, b, None).low == pytest.approx(0.6)  # arithmetically b is ahead by 0.07
    assert harmonic_difference(b, a, None).high == pytest.approx(-0.6)


def test_mistakes_are_named() -> None:
    a = list(scores(0))
    with pytest.raises(InputError, match="as many columns, got 3 and 2"):
        harmonic_difference(a, a[:2], CLUSTERS)
    with pytest.raises(InputError, match="column 4 must be zero or more"):
        harmonic_difference(a, [a[0], -a[1], a[2]], CLUSTERS)
    with pytest.raises(InputError, match="NaN"):
        harmonic_difference(a, [a[0], a[1], np.full(16, np.nan)], CLUSTERS)
    with pytest.raises(SettingError, match="resamples must be at least"):
        harmonic_difference(a, a, CLUSTERS, resamples=10)
