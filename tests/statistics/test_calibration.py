"""Calibration and signal detection: by hand, a map that has not seen what it judges, errors."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import (
    auroc,
    brier_score,
    calibrate,
    cross_validated_isotonic,
    d_a,
    d_prime,
    expected_calibration_error,
)


def test_scores_by_hand():
    assert brier_score([0.5, 1.0, 0.0], [1, 1, 1], None).value == pytest.approx((0.25 + 0 + 1) / 3)
    # two bins: mean 0.2 against 1/2, mean 0.9 against 1
    stated, came = [0.2, 0.2, 0.9, 0.9], [1, 0, 1, 1]
    assert expected_calibration_error(stated, came, None, bins=2).value == pytest.approx(0.3 / 2 + 0.1 / 2)
    assert expected_calibration_error(stated, came, None, bins=1).value == pytest.approx(0.2)
    assert expected_calibration_error([1.0, 0.0], [1, 0], None).value == 0


def test_honest_probabilities_have_a_small_error_and_boastful_ones_a_large_one():
    rng = np.random.default_rng(0)
    truth = rng.uniform(size=4000)
    came = rng.random(4000) < truth
    assert expected_calibration_error(truth, came, None).value < 0.03
    boastful = np.where(truth > 0.5, 1.0, 0.0)
    assert expected_calibration_error(boastful, came, None).value == pytest.approx(0.25, abs=0.03)
    assert brier_score(truth, came, None).value == pytest.approx(1 / 6, abs=0.01)


def test_map_calibrates_a_score_of_any_scale():
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 20)
    scores = rng.normal(size=1200)
    came = rng.random(1200) < 1 / (1 + np.exp(-3 * scores))
    found = calibrate(np.exp(scores), came, groups)
    assert found.ece.value < 0.05
    assert found.brier.value < 0.17
    assert found.ece.clusters == 60
    assert np.corrcoef(found.probabilities, 1 / (1 + np.exp(-3 * scores)))[0, 1] > 0.97


def test_a_group_never_judges_itself():
    scores, came, groups = [1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0], ["a", "a", "b", "b"]
    # the map of b says 0 everywhere and judges a; that of a says 1 everywhere and judges b
    assert cross_validated_isotonic(scores, came, groups).tolist() == [0, 0, 1, 1]
    assert calibrate(scores, came, groups).ece.value == 1.0


def test_scores_of_noise_get_the_base_rate():
    rng = np.random.default_rng(2)
    came = rng.random(800) < 0.2
    found = calibrate(rng.normal(size=800), came, np.repeat(np.arange(40), 20))
    assert found.brier.value == pytest.approx(0.16, abs=0.03)


def test_bad_probabilities_are_refused():
    with pytest.raises(InputError, match=r"probabilities must lie from 0 to 1, got 1\.5"):
        brier_score([1.5], [1], None)
    with pytest.raises(InputError, match="outcomes must be 0 or 1"):
        brier_score([0.5], [0.5], None)
    with pytest.raises(InputError, match="at least 2 groups, got 1"):
        calibrate([1.0, 2.0], [0, 1], ["a", "a"])
    with pytest.raises(SettingError, match="folds must be 2 or more"):
        cross_validated_isotonic([1.0, 2.0], [0, 1], ["a", "b"], folds=1)
    with pytest.raises(SettingError, match="bins must be 1 or more"):
        expected_calibration_error([0.5], [1], None, bins=0)


def test_d_prime_by_hand_and_from_scores():
    assert d_prime(5, 10, 5, 10) == 0
    assert d_prime(20, 25, 10, 25) == pytest.approx(norm.ppf(20.5 / 26) - norm.ppf(10.5 / 26))
    assert 0 < d_prime(10, 10, 0, 10) < math.inf
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(1.5, 1, 4000), rng.normal(0, 1, 4000)])
    there = np.repeat([1, 0], 4000)
    assert d_a(scores, there) == pytest.approx(1.5, abs=0.06)
    assert norm.cdf(d_a(scores, there) / math.sqrt(2)) == pytest.approx(auroc(scores, there), abs=0.005)
    assert d_a([1, 1, 0, 0], [1, 1, 0, 0]) == math.inf
    assert math.isnan(d_a([1, 0, 0], [1, 0, 0]))
    with pytest.raises(InputError, match="hits must be a whole number from 0 to 10, got 11"):
        d_prime(11, 10, 0, 10)
    with pytest.raises(InputError, match="positive must be 0 or 1"):
        d_a([1, 2], [1, 2])
