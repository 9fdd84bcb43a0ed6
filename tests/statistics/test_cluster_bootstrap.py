"""The cluster bootstrap: hand-computed cases, invariances, coverage by simulation, and its errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import cluster_bootstrap, design_effect, harmonic_mean_estimate, ratio_estimate

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
records = st.lists(st.tuples(numbers, st.integers(0, 4), st.integers(0, 3)), min_size=2, max_size=25)


def test_mean_of_two_clusters_takes_the_three_values_it_can():
    # clusters of mean 0 (2 records) and 1 (1 record): the resamples are AA -> 0, AB -> 1/3, BB -> 1
    estimate = cluster_bootstrap([0.0, 0.0, 1.0], ["a", "a", "b"])
    assert estimate.value == pytest.approx(1 / 3)
    assert (estimate.low, estimate.high) == (0.0, 1.0)
    assert (estimate.n, estimate.clusters) == (3, 2)


def test_interval_agrees_with_a_plain_loop_over_copied_records():
    rng = np.random.default_rng(3)
    values = rng.normal(size=60) + np.repeat(rng.normal(size=12), 5)
    labels = [(i // 15, i // 5) for i in range(60)]
    by_outer = [[values[15 * o + 5 * i : 15 * o + 5 * i + 5] for i in range(3)] for o in range(4)]
    means = []
    for _ in range(20_000):
        drawn = []
        for outer in rng.integers(0, 4, 4):
            drawn += [by_outer[outer][inner] for inner in rng.integers(0, 3, 3)]
        means.append(np.concatenate(drawn).mean())
    estimate = cluster_bootstrap(values, labels, resamples=19_999)
    assert estimate.value == pytest.approx(values.mean())
    spread = np.std(means)
    assert estimate.low == pytest.approx(np.quantile(means, 0.025), abs=0.06 * spread)
    assert estimate.high == pytest.approx(np.quantile(means, 0.975), abs=0.06 * spread)


def test_a_function_for_the_mean_gives_the_same_as_the_fast_path():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=40), [(i % 7, i % 3) for i in range(40)]
    fast = cluster_bootstrap(values, labels, resamples=300)
    slow = cluster_bootstrap(values, labels, resamples=300, statistic=np.mean)
    assert [slow.value, slow.low, slow.high] == pytest.approx([fast.value, fast.low, fast.high], abs=1e-12)


def test_undefined_resamples_are_left_out_and_counted():
    def mean_of_positive(values: np.ndarray) -> float:
        return float(values[values > 0].mean()) if (values > 0).any() else math.nan

    estimate = cluster_bootstrap([1.0, -1.0, -1.0], ["a", "b", "c"], statistic=mean_of_positive)
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 1.0, 1.0)
    left_out = int(estimate.method.split("of which ")[1].split()[0])
    assert left_out / 2000 == pytest.approx((2 / 3) ** 3, abs=0.05)


def test_one_cluster_falls_back_to_records_and_says_so():
    estimate = cluster_bootstrap([1.0, 2.0, 3.0, 4.0], ["a"] * 4)
    assert estimate.low < 2.5 < estimate.high
    assert estimate.clusters == 1
    assert "records, for there is only one cluster" in estimate.method
    nested = cluster_bootstrap([1.0, 2.0, 3.0, 4.0], [("a", i // 2) for i in range(4)])
    assert (nested.low, nested.high) == (1.5, 3.5)
    assert "inner clusters, for there is only one outer cluster" in nested.method


def test_a_single_record_has_no_interval():
    estimate = cluster_bootstrap([0.5], ["a"])
    assert estimate.value == 0.5
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
    assert "single record" in estimate.method


def test_without_labels_every_record_is_a_cluster():
    values = np.random.default_rng(0).normal(size=30)
    alone = cluster_bootstrap(values, None)
    assert (alone.low, alone.high) == (
        cluster_bootstrap(values, range(30)).low,
        cluster_bootstrap(values, np.arange(30)).high,
    )
    assert alone.clusters == 30


def test_seed_decides_and_booleans_count():
    values = [True, False, True, True] * 5
    labels = [i // 2 for i in range(20)]
    first, again = (cluster_bootstrap(values, labels, seed=1) for _ in range(2))
    assert first == again
    assert first.value == 0.75
    spread = np.random.default_rng(0).normal(size=20)
    assert cluster_bootstrap(spread, labels, seed=1) != cluster_bootstrap(spread, labels, seed=2)


@settings(max_examples=60, deadline=None)
@given(records, st.randoms(use_true_random=False), st.sampled_from(["resample", "keep"]))
def test_order_of_records_and_names_of_clusters_do_not_matter(rows, random, within):
    def estimate(rows, name):
        labels = [(name(outer), name(inner)) for _, outer, inner in rows]
        return cluster_bootstrap([row[0] for row in rows], labels, resamples=99, within=within)

    shuffled = list(rows)
    random.shuffle(shuffled)
    expected = estimate(rows, int)
    assert estimate(shuffled, int) == expected
    assert estimate(shuffled, lambda label: f"cluster {9 - label}") == expected


@settings(max_examples=60, deadline=None)
@given(records)
def test_interval_contains_the_value(rows):
    estimate = cluster_bootstrap([row[0] for row in rows], [row[1:] for row in rows], resamples=99)
    assert estimate.low <= estimate.value <= estimate.high


@settings(max_examples=40, deadline=None)
@given(numbers, st.lists(st.integers(0, 5), min_size=2, max_size=30))
def test_constant_data_have_zero_width(value, labels):
    estimate = cluster_bootstrap([value] * len(labels), labels, resamples=99)
    assert (estimate.low, estimate.value, estimate.high) == (value, value, value)


@settings(max_examples=30, deadline=None)
@given(records, st.floats(-100, 100), st.floats(0.01, 100))
def test_interval_moves_with_shift_and_scale(rows, shift, scale):
    # rounded: a value of 1e-82 is lost when 1 is added to it, and with it which of two records is the larger
    values, labels = np.round([row[0] for row in rows], 6), [row[1] for row in rows]
    before = cluster_bootstrap(values, labels, resamples=99)
    after = cluster_bootstrap(values * scale + shift, labels, resamples=99)
    size = 1e-9 * (1 + np.abs(values).max()) * (1 + scale + abs(shift))
    for name in ("value", "low", "high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) * scale + shift, abs=size)


def _coverage(within: str, between: float, nested: bool, simulations: int = 1200) -> float:
    """How often the 95 % interval holds the true mean 0, over 60 clusters of 6 records (nested: 2 inner ones of 3)."""
    rng = np.random.default_rng(11)
    labels = [(i // 6, i // 3) if nested else i // 6 for i in range(360)]
    hits = 0
    for simulation in range(simulations):
        values = rng.normal(size=360) + between * np.repeat(rng.normal(size=60), 6)
        estimate = cluster_bootstrap(values, labels, resamples=399, seed=simulation, within=within)
        hits += not estimate.excludes(0.0)
    return hits / simulations


def test_coverage_of_plain_clusters():
    assert 0.93 <= _coverage("resample", between=0.7, nested=False) <= 0.97


def test_coverage_of_nested_clusters_that_are_kept():
    assert 0.93 <= _coverage("keep", between=0.3, nested=True, simulations=600) <= 0.97


def test_coverage_of_nested_clusters_that_are_resampled_is_conservative():
    assert _coverage("resample", between=0.3, nested=True, simulations=600) >= 0.95


def test_coverage_ignoring_clusters_is_too_low():
    rng = np.random.default_rng(5)
    hits = 0
    for simulation in range(200):
        values = rng.normal(size=360) + np.repeat(rng.normal(size=60), 6)
        hits += not cluster_bootstrap(values, None, resamples=199, seed=simulation).excludes(0.0)
    assert hits / 200 < 0.85


def test_nan_is_refused_and_counted():
    with pytest.raises(InputError, match=r"2 NaN of 4 \(the first at position 1\)"):
        cluster_bootstrap([1.0, math.nan, 2.0, math.nan], [1, 1, 2, 2])
    with pytest.raises(InputError, match="1 infinite of 2"):
        cluster_bootstrap([1.0, math.inf], [1, 2])


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([], [], "at least one number"),
        ([1.0, 2.0], [1], "got 2 and 1"),
        ([[1.0], [2.0]], [1, 2], "one dimension"),
        (["x", "y"], [1, 2], "flat list of numbers"),
        ([1.0, 2.0], [("a", 1), "b"], "1 tuples among 2"),
        ([1.0, 2.0], [("a", 1, 2), ("a", 1, 3)], r"tuple \(outer, inner\)"),
        ([1.0, 2.0], [math.nan, 1.0], "must not be NaN"),
        ([1.0, 2.0], [{"a"}, {"b"}], "hashable"),
        ([1.0, 2.0], "ab", "list of labels"),
    ],
)
def test_malformed_input_is_refused(values, clusters, message):
    with pytest.raises(InputError, match=message):
        cluster_bootstrap(values, clusters)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, "strictly between 0 and 1"),
        ({"level": 95}, "strictly between 0 and 1"),
        ({"resamples": 10}, "at least 40"),
        ({"resamples": 0}, "at least"),
        ({"within": "drop"}, "'resample' or 'keep'"),
        ({"statistic": "mode"}, "'mean' or a function"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(SettingError, match=message):
        cluster_bootstrap([1.0, 2.0, 3.0], [1, 2, 3], **options)


def test_fewest_resamples_named_are_enough():
    assert cluster_bootstrap([1.0, 2.0, 3.0], [1, 2, 3], resamples=39).low >= 1.0


def test_ratio_is_of_sums_and_contains_itself():
    estimate = ratio_estimate([1.0, 2.0, 3.0], [2.0, 2.0, 8.0], ["a", "b", "c"], unit="x")
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(3 / 8)
    assert estimate.high == pytest.approx(1.0)
    assert estimate.unit == "x"
    proportional = ratio_estimate([3.0, 6.0, 9.0], [1.0, 2.0, 3.0], None)
    assert (proportional.low, proportional.high) == (3.0, 3.0)


def test_ratio_to_a_sum_that_can_be_zero_is_unbounded():
    estimate = ratio_estimate([1.0, 1.0, 1.0], [1.0, 0.0, 0.0], None)
    assert estimate.value == 3.0
    assert estimate.high == math.inf
    both = ratio_estimate([1.0, 0.0], [1.0, 0.0], None)
    assert "undefined and left out" in both.method
    assert both.high == 1.0


def test_ratio_refuses_nothing_and_different_lengths():
    with pytest.raises(InputError, match="must not sum to zero"):
        ratio_estimate([1.0, 2.0], [1.0, -1.0], None)
    with pytest.raises(InputError, match="got 2 and 3"):
        ratio_estimate([1.0, 2.0], [1.0, 1.0, 1.0], None)
    with pytest.raises(InputError, match="denominators must be finite"):
        ratio_estimate([1.0, 2.0], [1.0, math.nan], None)


def test_harmonic_mean_by_hand():
    columns = {"ES": [1.0, 1.0], "PS": [0.5, 0.5], "NS": [0.2, 0.3]}
    estimate = harmonic_mean_estimate(columns, None)
    assert estimate.value == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 0.25))
    assert estimate.low == pytest.approx(3 / (1 + 2 + 5))
    assert estimate.high == pytest.approx(3 / (1 + 2 + 1 / 0.3))


def test_harmonic_mean_keeps_records_whole():
    # two columns that mirror each other: drawn apart, their means could both be high; drawn together they sum to one
    rng = np.random.default_rng(0)
    score = rng.integers(0, 2, 60)
    estimate = harmonic_mean_estimate([score, 1 - score], None)
    assert estimate.high <= 0.5 + 1e-12
    same = harmonic_mean_estimate([score, score], None)
    assert same.low == pytest.approx(cluster_bootstrap(score, None).low, abs=0.03)


def test_harmonic_mean_is_zero_with_any_zero_column():
    estimate = harmonic_mean_estimate([[0.0, 0.0], [1.0, 1.0]], ["a", "b"])
    assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)


def test_harmonic_mean_errors():
    with pytest.raises(InputError, match="PS must be zero or more"):
        harmonic_mean_estimate({"ES": [1.0], "PS": [-0.1]}, None)
    with pytest.raises(InputError, match="ES and PS must describe the same records, got 1 and 2"):
        harmonic_mean_estimate({"ES": [1.0], "PS": [0.1, 0.2]}, None)
    with pytest.raises(InputError, match="at least one column"):
        harmonic_mean_estimate([], None)
    with pytest.raises(InputError, match="PS must be finite numbers, got 1 NaN"):
        harmonic_mean_estimate({"ES": [1.0, 1.0], "PS": [0.1, math.nan]}, None)


def test_design_effect_by_hand():
    # two pairs of equal records: the mean of four is worth two records; K/(K-1) = 2 and n(n-1)/n^2 = 3/4
    assert design_effect([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"]) == pytest.approx(2 * (1 + 1) / 16 / (1 / 12))
    values = np.random.default_rng(0).normal(size=25)
    assert design_effect(values, range(25)) == pytest.approx(1.0)
    assert math.isnan(design_effect([1.0, 1.0], ["a", "b"]))
    assert math.isnan(design_effect([1.0, 2.0], ["a", "a"]))


def test_design_effect_matches_one_plus_m_minus_one_rho():
    rng = np.random.default_rng(1)
    values = np.repeat(rng.normal(size=4000), 5) * math.sqrt(0.3) + rng.normal(size=20_000) * math.sqrt(0.7)
    assert design_effect(values, np.arange(20_000) // 5) == pytest.approx(1 + 4 * 0.3, abs=0.08)


def test_ten_thousand_records_are_drawn_in_blocks_and_soon():
    values = np.random.default_rng(0).normal(size=10_000)
    estimate = cluster_bootstrap(values, [(i % 34, i // 3) for i in range(10_000)], resamples=600)
    assert estimate.low < estimate.value < estimate.high
    assert estimate.clusters == 34
