"""Random effects: the published BCG example, by hand, coverage of the prediction interval, errors."""

import math

import numpy as np
import pytest
from scipy import stats

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import random_effects

# Colditz et al. 1994: thirteen trials of the BCG vaccine; ill and well among the vaccinated, ill and well among the others
TRIALS = [
    (4, 119, 11, 128),
    (6, 300, 29, 274),
    (3, 228, 11, 209),
    (62, 13536, 248, 12619),
    (33, 5036, 47, 5761),
    (180, 1361, 372, 1079),
    (8, 2537, 10, 619),
    (505, 87886, 499, 87892),
    (29, 7470, 45, 7232),
    (17, 1699, 65, 1600),
    (186, 50448, 141, 27197),
    (5, 2493, 3, 2338),
    (27, 16886, 29, 17825),
]


def test_worked_example():
    a, b, c, d = np.array(TRIALS, dtype=float).T
    found = random_effects(np.log(a / (a + b) / (c / (c + d))), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d))
    # the log relative risk, as printed for this method by the usual programs
    assert found.mean.value == pytest.approx(-0.7141, abs=5e-5)
    assert (found.mean.low, found.mean.high) == pytest.approx((-1.0644, -0.3638), abs=5e-5)
    assert found.tau2 == pytest.approx(0.3088, abs=5e-5)
    assert found.i2 == pytest.approx(0.9212, abs=5e-5)
    assert found.q == pytest.approx(152.2330, abs=5e-5)
    assert found.prediction.low < found.mean.low
    half = stats.t.ppf(0.975, 11) * math.sqrt(found.tau2 + (found.mean.width / 2 / stats.norm.ppf(0.975)) ** 2)
    assert found.prediction.high == pytest.approx(found.mean.value + half)


def test_by_hand():
    # weights 1 and 1, mean 2, Q = 2, tau2 = (2 - 1) / (2 - 1) = 1, then weights 1/2 and 1/2
    found = random_effects([1.0, 3.0], [1.0, 1.0])
    assert (found.mean.value, found.tau2, found.i2, found.q) == (2.0, 1.0, 0.5, 2.0)
    assert found.mean.high == pytest.approx(2 + 1.959964)
    assert math.isnan(found.prediction.low)
    alike = random_effects([1.0, 1.0, 1.0], [0.5, 0.5, 0.5])
    assert (alike.tau2, alike.i2) == (0.0, 0.0)
    assert math.isnan(random_effects([1.0], [0.5]).i2)


def test_prediction_interval_holds_the_next_group_and_that_of_the_mean_does_not():
    rng = np.random.default_rng(0)
    predicted = mean = 0
    for _ in range(500):
        effects = rng.normal(0.5, 0.3, size=13)
        found = random_effects(effects[:-1] + rng.normal(0, 0.1, size=12), np.full(12, 0.01))
        predicted += not found.prediction.excludes(effects[-1])
        mean += not found.mean.excludes(effects[-1])
    assert 0.91 <= predicted / 500 <= 0.98
    assert mean / 500 < 0.6


def test_bad_input_is_refused():
    with pytest.raises(InputError, match=r"variances must be above 0, got 0\.0"):
        random_effects([1.0, 2.0], [0.1, 0.0])
    with pytest.raises(InputError, match="got 2 and 1"):
        random_effects([1.0, 2.0], [0.1])
    with pytest.raises(SettingError, match="level must lie"):
        random_effects([1.0], [0.1], level=1)
