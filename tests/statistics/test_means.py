"""Statistics of several columns: values by hand, intervals against plain resampling of facts that stand alone."""

import numpy as np
import pytest

from palimpsest.errors import InputError
from palimpsest.statistics import cluster_bootstrap, of_means, of_records, of_two, ratio_estimate, spearman

NUMBERS = np.random.default_rng(3).normal([1.0, 2.0, 4.0], 0.5, (30, 3))
CLUSTERS = [(f"r{i % 6}", f"s{i}") for i in range(30)]


def test_a_mean_and_a_ratio_of_means_are_those_of_their_own_functions():
    mean = of_means(NUMBERS, CLUSTERS, lambda means: float(means[0]), name="first")
    plain = cluster_bootstrap(NUMBERS[:, 0], CLUSTERS)
    assert (mean.value, mean.low, mean.high) == pytest.approx((plain.value, plain.low, plain.high))
    ratio = of_means(NUMBERS, CLUSTERS, lambda means: float(means[0] / means[1]), name="ratio")
    sums = ratio_estimate(NUMBERS[:, 0], NUMBERS[:, 1], CLUSTERS)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((sums.value, sums.low, sums.high))


def test_a_statistic_of_whole_records_keeps_their_columns_together():
    both = np.column_stack([NUMBERS[:, 0], 2 * NUMBERS[:, 0] + 1])
    found = of_records(lambda drawn: spearman(*both[drawn].T), len(both), CLUSTERS, name="rho", resamples=200)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.method.startswith("rho, percentile bootstrap")


def test_two_tables_are_resampled_apart():
    found = of_two(
        (NUMBERS[:, :1], NUMBERS[:20, 1:2]),
        (CLUSTERS, CLUSTERS[:20]),
        lambda a, b: np.asarray(a[:, 0] - b[:, 0]),
        name="difference",
        unit="logits",
    )
    assert found.value == pytest.approx(NUMBERS[:, 0].mean() - NUMBERS[:20, 1].mean())
    assert found.low < found.value < found.high
    assert found.n == 30
    # apart, the variances add: the width is about that of independent means
    alone = [
        cluster_bootstrap(NUMBERS[:30, 0], CLUSTERS).width,
        cluster_bootstrap(NUMBERS[:20, 1], CLUSTERS[:20]).width,
    ]
    assert found.width == pytest.approx(np.hypot(*alone), rel=0.2)


def test_nothing_has_no_mean():
    with pytest.raises(InputError, match="needs at least one record"):
        of_means(NUMBERS[:0], None, lambda means: 0.0, name="nothing")
    with pytest.raises(InputError, match="on each side"):
        of_two((NUMBERS, NUMBERS[:0]), (CLUSTERS, []), lambda a, b: a[:, 0], name="nothing")
