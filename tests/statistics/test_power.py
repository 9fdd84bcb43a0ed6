"""Records needed: by hand, by simulation, with clusters, errors."""

import math

import numpy as np
import pytest

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import design_effect, n_needed


def test_by_hand():
    # z(0.975) + z(0.8) = 1.959964 + 0.841621 = 2.801585; (2.801585 * 0.4 / 0.05)^2 = 502.3
    assert n_needed(0.4) == 503
    assert n_needed(0.5, 0.5) == math.ceil(2.801585**2)
    assert n_needed(0.4, power=0.5) == math.ceil((1.959964 * 8) ** 2)
    assert n_needed(0.0) == 2


def test_so_many_records_find_the_difference_so_often():
    n = n_needed(1.0, 0.3, power=0.8)
    draws = np.random.default_rng(1).normal(0.3, 1.0, size=(4000, n))
    z = draws.mean(1) / (draws.std(1, ddof=1) / math.sqrt(n))
    assert np.mean(np.abs(z) > 1.959964) == pytest.approx(0.8, abs=0.025)


def test_the_spread_of_a_first_run_is_taken_from_its_differences():
    values = np.random.default_rng(2).normal(size=50)
    assert n_needed(values, 0.1) == n_needed(float(values.std(ddof=1)), 0.1)


def test_records_that_go_together_count_less():
    rng = np.random.default_rng(3)
    labels = [i // 10 for i in range(200)]
    values = np.repeat(rng.normal(size=20), 10) + 0.1 * rng.normal(size=200)
    effect = design_effect(values, labels)
    assert effect > 5
    alone = (1.959964 + 0.841621) ** 2 * values.var(ddof=1) / 0.05**2
    assert n_needed(values, clusters=labels) == pytest.approx(effect * alone, rel=1e-5)
    # one relation: its subjects are the clusters
    assert n_needed(values, clusters=[("r", label) for label in labels]) == n_needed(values, clusters=labels)


def test_clusters_never_make_records_worth_more():
    # two opposite values in each cluster: the design effect is 0
    values, labels = [1.0, -1.0] * 10, [i // 2 for i in range(20)]
    assert design_effect(values, labels) < 1
    assert n_needed(values, clusters=labels) == n_needed(values)


def test_mistakes_are_named():
    with pytest.raises(SettingError, match="difference must be a number above 0, got 0"):
        n_needed(0.4, 0)
    with pytest.raises(SettingError, match="power must lie strictly between 0 and 1, got 1"):
        n_needed(0.4, power=1)
    with pytest.raises(InputError, match="standard deviation must be a number of 0 or more"):
        n_needed(-0.1)
    with pytest.raises(InputError, match="at least two differences"):
        n_needed([0.1])
    with pytest.raises(InputError, match="needs the differences themselves"):
        n_needed(0.4, clusters=["a"])
