"""Wilson's interval and the rule of three."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import cluster_bootstrap, clustered_proportion, proportion, rule_of_three, wilson


@settings(deadline=None)
@given(st.integers(1, 500), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_agrees_with_scipy(n, data, level):
    successes = data.draw(st.integers(0, n))
    estimate = wilson(successes, n, level=level)
    expected = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_wilson_textbook():
    # Newcombe 1998, table I: 81 of 263
    estimate = wilson(81, 263)
    assert (round(estimate.low, 4), round(estimate.high, 4)) == (0.2553, 0.3662)
    assert (estimate.n, estimate.clusters) == (263, 263)


def test_rule_of_three():
    assert rule_of_three(300).high == pytest.approx(0.01, rel=0.002)
    assert rule_of_three(1).high == 1.0
    assert rule_of_three(100, level=0.99).high == pytest.approx(-math.log(0.01) / 100)


def test_proportion_never_claims_certainty():
    assert (proportion(0, 30).low, proportion(0, 30).high) == (0.0, pytest.approx(0.09986, abs=1e-4))
    assert (proportion(30, 30).low, proportion(30, 30).high) == (pytest.approx(0.90014, abs=1e-4), 1.0)
    assert proportion(3, 30) == wilson(3, 30)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5), (1.5, 5), (1, 2.5)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(InputError, match="whole number"):
        proportion(successes, n)


def test_impossible_level_is_refused():
    with pytest.raises(SettingError, match="strictly between"):
        wilson(1, 2, level=0.0)


def test_shares_in_clusters_are_bootstrapped_unless_all_are_alike() -> None:
    clusters = [("a", "x"), ("a", "x"), ("a", "y"), ("b", "z")]
    mixed = clustered_proportion([1, 0, 1, 0.5], clusters, unit="share")
    assert mixed == cluster_bootstrap([1, 0, 1, 0.5], clusters, unit="share")
    ones, none = clustered_proportion([1] * 4, clusters), clustered_proportion([False] * 4, clusters)
    assert (ones.low, ones.high) == (1 - rule_of_three(3).high, 1.0)  # three subjects, not four records
    assert (none.low, none.high) == (0.0, rule_of_three(3).high)
    assert (ones.n, ones.clusters) == (4, 2)
    with pytest.raises(InputError, match=r"values must lie from 0 to 1, got 2\.0"):
        clustered_proportion([0, 2, 1, 1], clusters)
