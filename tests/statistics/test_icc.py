"""Intraclass correlation: Shrout and Fleiss's own example, simulation, Spearman and Brown."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import icc_2_1, icc_2_k, raters_needed, spearman_brown

# Shrout and Fleiss 1979, table 2: 6 targets, 4 judges
TEXTBOOK = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])


def test_textbook_example():
    single, mean = icc_2_1(TEXTBOOK), icc_2_k(TEXTBOOK)
    assert round(single.value, 2) == 0.29
    assert round(mean.value, 2) == 0.62
    assert single.low <= single.value <= single.high
    assert (single.n, single.clusters) == (6, 6)
    assert single.method.startswith("ICC(2,1) of 4 raters, percentile bootstrap of targets, 2000 resamples")


def test_single_and_mean_are_linked_by_spearman_and_brown():
    assert spearman_brown(icc_2_1(TEXTBOOK).value, 4) == pytest.approx(icc_2_k(TEXTBOOK).value)


def test_variance_components_are_recovered():
    rng = np.random.default_rng(0)
    target, rater, error = 1.0, 0.5, 1.2
    table = rng.normal(0, target, (3000, 1)) + rng.normal(0, rater, (1, 200)) + rng.normal(0, error, (3000, 200))
    expected = target**2 / (target**2 + rater**2 + error**2)
    assert icc_2_1(table, resamples=39).value == pytest.approx(expected, abs=0.03)


def test_interval_covers():
    rng = np.random.default_rng(4)
    hits = 0
    for simulation in range(200):
        table = rng.normal(size=(80, 1)) + rng.normal(size=(80, 5))
        hits += not icc_2_1(table, resamples=199, seed=simulation).excludes(0.5)
    assert 0.90 <= hits / 200 <= 0.99


def test_perfect_agreement_and_no_spread():
    table = np.tile(np.arange(5.0)[:, None], (1, 3))
    assert icc_2_1(table).value == pytest.approx(1.0)
    assert math.isnan(icc_2_1(np.ones((4, 3))).value)
    assert str(icc_2_1(np.ones((4, 3)))).startswith("unknown")


def test_clusters_of_targets_are_drawn_whole():
    rng = np.random.default_rng(0)
    table = np.repeat(rng.normal(size=(10, 1)), 8, axis=0) + rng.normal(size=(80, 4))
    alone, together = icc_2_1(table), icc_2_1(table, np.arange(80) // 8)
    assert together.value == pytest.approx(alone.value)
    assert together.width > 1.5 * alone.width
    assert together.clusters == 10


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 5), st.floats(-1e3, 1e3), st.floats(0.01, 100))
def test_order_shift_and_scale_do_not_matter(seed, targets, raters, shift, scale):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(targets, raters))
    expected = icc_2_1(table, resamples=99)
    assert icc_2_1(table[rng.permutation(targets)], resamples=99) == expected
    moved = icc_2_1(table * scale + shift, resamples=99)
    assert moved.value == pytest.approx(expected.value, abs=1e-5)
    assert expected.value <= 1
    assert expected.low <= expected.value <= expected.high


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (4,), (2, 2, 2)])
def test_tables_too_small_are_refused(shape):
    with pytest.raises(InputError, match="at least 2 targets by 2 raters"):
        icc_2_1(np.zeros(shape))


def test_nan_and_bad_settings_are_refused():
    table = TEXTBOOK.astype(float)
    table[2, 1] = math.nan
    with pytest.raises(InputError, match=r"1 NaN of 24 \(the first at position \(2, 1\)\)"):
        icc_2_k(table)
    with pytest.raises(SettingError, match="resamples must be at least 40"):
        icc_2_1(TEXTBOOK, resamples=5)
    with pytest.raises(InputError, match="got 6 and 2"):
        icc_2_1(TEXTBOOK, ["a", "b"])


@pytest.mark.parametrize(("icc1", "wanted", "k"), [(0.15, 0.9, 51), (0.2, 0.9, 36), (0.4, 0.9, 14), (0.95, 0.9, 1)])
def test_raters_needed_by_hand(icc1, wanted, k):
    assert raters_needed(icc1, wanted) == k


@settings(deadline=None)
@given(st.floats(0.01, 1.0), st.floats(0.01, 0.99))
def test_raters_needed_are_enough_and_one_fewer_is_not(icc1, wanted):
    k = raters_needed(icc1, wanted)
    assert spearman_brown(icc1, k) >= wanted - 1e-9
    if k > 1:
        assert spearman_brown(icc1, k - 1) < wanted + 1e-9


def test_spearman_brown_limits_and_errors():
    assert spearman_brown(0.5, 1) == 0.5
    assert spearman_brown(0.5, 2) == pytest.approx(2 / 3)
    assert spearman_brown(0.0, 9) == 0.0
    for bad in (lambda: spearman_brown(1.2, 2), lambda: spearman_brown(0.5, 0), lambda: spearman_brown(-0.5, 4)):
        with pytest.raises(InputError):
            bad()
    for bad in (lambda: raters_needed(0.0, 0.9), lambda: raters_needed(0.5, 1.0), lambda: raters_needed(math.nan, 0.9)):
        with pytest.raises(InputError):
            bad()
