"""Paired differences and sign flips: by hand, under the null, invariances, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import cluster_bootstrap, paired_difference, sign_flip_p


def test_paired_difference_is_the_bootstrap_of_differences():
    rng = np.random.default_rng(0)
    a, b, labels = rng.normal(size=30), rng.normal(size=30), [i // 3 for i in range(30)]
    estimate = paired_difference(a, b, labels)
    plain = cluster_bootstrap(a - b, labels)
    assert (estimate.value, estimate.low, estimate.high) == (plain.value, plain.low, plain.high)
    assert estimate.method.startswith("paired difference a - b: mean, percentile bootstrap of clusters")
    assert paired_difference(a, a, labels).width == 0


def test_swapping_sides_turns_the_sign():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=200), rng.normal(size=200)
    assert paired_difference(a, b, None).value == pytest.approx(-paired_difference(b, a, None).value)


def test_pairs_must_match():
    with pytest.raises(InputError, match="a and b must describe the same records, got 2 and 3"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], None)
    with pytest.raises(InputError, match="b must be finite numbers, got 1 NaN"):
        paired_difference([1.0, 2.0], [1.0, math.nan], None)


def test_sign_flips_by_hand():
    # 5 clusters, all positive: of 32 patterns only +++++ and ----- are as far from zero
    assert sign_flip_p([1.0, 2.0, 3.0, 1.0, 1.0], None) == 2 / 32
    assert sign_flip_p([1.0, 2.0, 3.0, 1.0, 1.0], None, alternative="greater") == 1 / 32
    assert sign_flip_p([1.0, 2.0, 3.0, 1.0, 1.0], None, alternative="less") == 1.0
    # clusters of two: sums 3 and 3, four patterns, two as extreme
    assert sign_flip_p([1.0, 2.0, 1.0, 2.0], ["a", "a", "b", "b"]) == 0.5
    assert sign_flip_p([1.0, 2.0, 3.0], ["a", "a", "a"]) == 1.0
    assert sign_flip_p([0.0] * 20, None) == 1.0


def test_flip_chooses_the_level():
    differences, labels = [1.0] * 6, [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("b", 2)]
    assert sign_flip_p(differences, labels) == 2 / 4
    assert sign_flip_p(differences, labels, flip="inner") == 2 / 64
    assert sign_flip_p([1.0, 1.0], [("a", 0), ("a", 1)]) == 1.0
    assert sign_flip_p([1.0, 1.0], [("a", 0), ("a", 1)], flip="inner") == 0.5
    assert sign_flip_p([1.0, 1.0], ["a", "a"], flip="inner") == 1.0


def test_drawn_patterns_agree_with_all_of_them():
    differences = np.random.default_rng(2).normal(0.3, 1, size=12)
    exact = sign_flip_p(differences, None, permutations=4095)
    drawn = sign_flip_p(differences, None, permutations=4094)
    assert drawn == pytest.approx(exact, abs=0.03)


def test_a_strong_effect_reaches_the_smallest_p():
    assert sign_flip_p(np.full(40, 1.0), None) == 1 / 2000


@pytest.mark.parametrize("records_each", [1, 4])
def test_p_is_uniform_under_the_null(records_each):
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(25), records_each)
    p_values = []
    for simulation in range(400):
        differences = rng.normal(size=labels.size) + np.repeat(rng.normal(size=25), records_each)
        p_values.append(sign_flip_p(differences, labels, permutations=499, seed=simulation))
    assert kstest(p_values, "uniform").pvalue > 0.01
    assert np.mean(np.array(p_values) <= 0.05) == pytest.approx(0.05, abs=0.03)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-10, 10), st.integers(0, 15)), min_size=1, max_size=40),
    st.randoms(use_true_random=False),
)
def test_p_ignores_order_names_and_side(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    p = sign_flip_p([row[0] for row in rows], [row[1] for row in rows], permutations=99)
    assert 0 < p <= 1
    assert sign_flip_p([row[0] for row in shuffled], [f"c{-row[1]}" for row in shuffled], permutations=99) == p


def test_settings_out_of_range_are_refused():
    with pytest.raises(SettingError, match="permutations must be 1 or more"):
        sign_flip_p([1.0], None, permutations=0)
    with pytest.raises(SettingError, match="flip must be"):
        sign_flip_p([1.0], None, flip="all")
    with pytest.raises(SettingError, match="alternative must be"):
        sign_flip_p([1.0], None, alternative="both")
    with pytest.raises(InputError, match="differences must be finite numbers, got 1 NaN"):
        sign_flip_p([math.nan], None)
