"""Equivalence and non-inferiority: the interval decides, errors are rare at the margin, few records show nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import cluster_bootstrap, equivalence, non_inferior


def test_interval_is_the_bootstrap_of_differences_and_decides():
    rng = np.random.default_rng(0)
    a = rng.normal(size=200)
    b = a + rng.normal(0, 0.1, 200)
    close = equivalence(a, b, 0.05, None)
    plain = cluster_bootstrap(a - b, None, level=0.9)
    assert (close.estimate.value, close.estimate.low, close.estimate.high) == pytest.approx(
        (plain.value, plain.low, plain.high), abs=1e-12
    )
    assert close.equivalent
    assert close.p < 0.05
    assert close.estimate.level == pytest.approx(0.9)
    assert not equivalence(a, a + 1, 0.05, None).equivalent
    assert not equivalence(a + 1, a, 0.05, None).equivalent


def test_non_inferior_asks_one_side_only():
    a = np.random.default_rng(0).normal(size=100)
    assert non_inferior(a + 1, a, 0.05, None).equivalent
    assert not equivalence(a + 1, a, 0.05, None).equivalent
    assert not non_inferior(a - 1, a, 0.05, None).equivalent
    assert non_inferior(a - 1, a, 0.05, None).p == 1.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1.0))
def test_p_and_verdict_agree(seed, margin):
    difference = np.random.default_rng(seed).normal(0.1, 0.5, size=25)
    for test in (equivalence, non_inferior):
        found = test(difference, np.zeros(25), margin, None, resamples=199)
        assert found.equivalent == (found.p <= 0.05)


def test_a_difference_of_the_margin_is_seldom_called_equal_and_none_often_is():
    rng = np.random.default_rng(1)
    wrong = right = 0
    for simulation in range(400):
        noise = rng.normal(0, 0.5, size=100)
        wrong += equivalence(noise + 0.2, np.zeros(100), 0.2, None, resamples=199, seed=simulation).equivalent
        right += equivalence(noise, np.zeros(100), 0.2, None, resamples=199, seed=simulation).equivalent
    assert wrong / 400 == pytest.approx(0.05, abs=0.03)
    assert right / 400 > 0.9


def test_a_single_record_shows_nothing_and_equal_records_are_equal():
    alone = equivalence([1.0], [1.0], 0.1, None)
    assert not alone.equivalent
    assert alone.p == 1.0
    assert math.isnan(alone.estimate.low)
    assert equivalence([0.1, 0.3, 0.7], [0.1, 0.3, 0.7], 0.1, None).equivalent


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"margin": 0.0}, SettingError, "margin must be a number above 0"),
        ({"margin": math.inf}, SettingError, "margin must be"),
        ({"alpha": 0.5}, SettingError, "alpha must lie"),
        ({"a": [1.0]}, InputError, "got 1 and 2"),
    ],
)
def test_bad_input_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        equivalence(**{"a": [1.0, 2.0], "b": [1.0, 2.0], "margin": 0.1, "clusters": None, **options})
