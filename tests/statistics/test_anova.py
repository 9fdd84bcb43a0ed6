"""Welch's analysis of variance: two groups are Welch's t-test, scipy, uniform p, shares by hand, errors."""

import math

import numpy as np
import pytest
from scipy import stats

from palimpsest.errors import InputError
from palimpsest.statistics import omega_squared, welch


def test_two_groups_are_welchs_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 12), rng.normal(0.5, 3, 20)
    t = stats.ttest_ind(a, b, equal_var=False)
    f, p, _ = welch([a, b])
    assert (f, p) == pytest.approx((t.statistic**2, t.pvalue))


def test_worked_example():
    # R's oneway.test(weight ~ group, PlantGrowth): F = 5.181, denominator df = 17.128, p = 0.01739
    plants = {
        "ctrl": [4.17, 5.58, 5.18, 6.11, 4.50, 4.61, 5.17, 4.53, 5.33, 5.14],
        "trt1": [4.81, 4.17, 4.41, 3.59, 5.87, 3.83, 6.03, 4.89, 4.32, 4.69],
        "trt2": [6.31, 5.12, 5.54, 5.50, 5.37, 5.29, 4.92, 6.15, 5.80, 5.26],
    }
    f, p, eta2 = welch(plants)
    assert (f, p) == pytest.approx((5.181, 0.01739), abs=5e-4)
    assert eta2.value == pytest.approx(3.76634 / (3.76634 + 10.49209), abs=1e-6)  # its analysis of variance table
    assert (eta2.n, eta2.low > 0) == (30, True)


def test_p_is_uniform_under_the_null_with_unequal_spreads():
    rng = np.random.default_rng(4)
    p = [welch([rng.normal(0, s, n) for s, n in ((1, 25), (3, 15), (2, 40))], resamples=40).p for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_shares_by_hand():
    # means 1 and 3 about 2: between 2 * 1 + 2 * 1 = 4, within 2 + 2 = 4
    groups = [[0.0, 2.0], [2.0, 4.0]]
    assert welch(groups).eta2.value == pytest.approx(0.5)
    assert omega_squared(groups).value == pytest.approx((4 - 2) / (8 + 2))
    assert welch([[1.0, 1.0], [2.0, 2.0]]).eta2.value == pytest.approx(1.0)
    assert math.isnan(welch([[1.0, 1.0], [2.0, 2.0]]).f)
    assert math.isnan(welch([[1.0, 1.0], [1.0, 1.0]]).eta2.value)


def test_chance_share_is_taken_off():
    rng = np.random.default_rng(0)
    eta, omega = [], []
    for _ in range(200):
        groups = [rng.normal(size=20) for _ in range(4)]
        eta.append(welch(groups, resamples=40).eta2.value)
        omega.append(omega_squared(groups, resamples=40).value)
    assert np.mean(eta) == pytest.approx(3 / 79, abs=0.006)
    assert np.mean(omega) == pytest.approx(0, abs=0.006)


def test_a_fact_is_drawn_with_all_its_records():
    rng = np.random.default_rng(0)
    fact = rng.normal(0, 3, 40)
    groups = [fact + shift + rng.normal(0, 0.1, 40) for shift in (0.0, 0.0, 2.0)]
    together, apart = welch(groups, [list(range(40))] * 3).eta2, welch(groups).eta2
    assert together.value == pytest.approx(apart.value)
    assert together.clusters == 40
    assert together.width < apart.width  # what facts share cancels between groups


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="at least 2 groups, got 1"):
        welch([[1.0, 2.0]])
    with pytest.raises(InputError, match="group b must hold at least 2 records, got 1"):
        welch({"a": [1.0, 2.0], "b": [1.0]})
    with pytest.raises(InputError, match="group a must be finite numbers"):
        welch({"a": [1.0, math.nan], "b": [1.0, 2.0]})
    with pytest.raises(InputError, match="group 1 and its clusters must describe the same records, got 2 and 1"):
        welch([[1.0, 2.0], [1.0, 2.0]], [[1, 2], [1]])
