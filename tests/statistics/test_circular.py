"""Spearman's correlation and circular shifts: against scipy, by hand, uniform under the null, errors."""

import math

import numpy as np
import pytest
from scipy.stats import kstest, spearmanr

from palimpsest.errors import InputError
from palimpsest.statistics import circular_shift_p, spearman


def test_agrees_with_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, 12), rng.normal(size=12)
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman([1, 2, 3], [10, 20, 21]) == 1.0
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_shifts_by_hand():
    # of the four turns of 1 2 3 4 only the one in place rises with it
    assert circular_shift_p([1, 2, 3, 4], [5, 6, 7, 9]) == (1.0, 0.25)
    assert circular_shift_p([1, 2, 3, 4], [4, 3, 2, 1]) == (-1.0, 1.0)
    rho, p = circular_shift_p([1, 1, 1], [1, 2, 3])
    assert math.isnan(rho)
    assert p == 1.0


def _smooth(rng, n):
    """A profile round a circle, each layer like its neighbours."""
    return np.fft.irfft(np.fft.rfft(rng.normal(size=n)) / (1 + np.arange(n // 2 + 1)), n)


def test_p_is_uniform_for_unrelated_smooth_profiles_where_the_usual_p_is_not():
    rng = np.random.default_rng(5)
    p, usual = [], []
    for _ in range(400):
        a, b = _smooth(rng, 60), _smooth(rng, 60)
        p.append(circular_shift_p(a, b).p - rng.random() / 60)  # spread over the steps of 1 / n
        usual.append(spearmanr(a, b, alternative="greater").pvalue)
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(usual) < 0.05) > 0.2


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="at least 2 layers, got 1"):
        circular_shift_p([1], [1])
    with pytest.raises(InputError, match="profile and other must describe the same records, got 2 and 3"):
        circular_shift_p([1, 2], [1, 2, 3])
    with pytest.raises(InputError, match="a must be finite numbers, got 1 NaN"):
        spearman([1, math.nan], [1, 2])
