"""Kaplan and Meier's quantiles: by hand, against scipy's curve, censoring, coverage, errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import CensoredData, ecdf

from palimpsest.errors import InputError, SettingError
from palimpsest.statistics import kaplan_meier, kaplan_meier_quantile

# 6-MP group of Freireich et al. 1963 (Cox and Oakes 1984, table 1.1): weeks of remission, 9 of 21 relapsed
WEEKS = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
RELAPSED = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]


def test_textbook_curve_and_median():
    times, survival = kaplan_meier(WEEKS, RELAPSED)
    curve = dict(zip(times, survival, strict=True))
    textbook = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    for week, share in textbook.items():
        assert curve[week] == pytest.approx(share, abs=5e-4)
    median = kaplan_meier_quantile(WEEKS, RELAPSED)
    assert (median.value, median.n, median.clusters) == (23, 21, 21)
    assert median.low == pytest.approx(13, abs=3)
    assert median.high == math.inf
    assert "9 of 21 reached" in median.method


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=25), st.sampled_from([0.25, 0.5, 0.8])
)
def test_agrees_with_scipy(records, q):
    when, event = np.array([r[0] for r in records], dtype=float), np.array([r[1] for r in records])
    estimate = kaplan_meier_quantile(when, event, q, resamples=40)
    if not event.any():
        assert estimate.value == math.inf
        return
    curve = ecdf(CensoredData(uncensored=when[event], right=when[~event])).sf
    times, survival = kaplan_meier(when, event)
    assert survival == pytest.approx(curve.evaluate(times), abs=1e-12)
    reached = [t for t in times if curve.evaluate(t) <= 1 - q + 1e-12]
    assert estimate.value == (min(reached) if reached else math.inf)


def test_without_censoring_it_is_the_sample_quantile():
    assert kaplan_meier_quantile([4, 1, 3, 2], [1, 1, 1, 1]).value == 2
    assert kaplan_meier_quantile([4, 1, 3, 2, 5], [1] * 5, 0.8).value == 4


def test_weights_of_resamples_are_copies_of_records():
    rng = np.random.default_rng(0)
    when, event = rng.exponential(size=30).round(1) + 0.1, rng.random(30) < 0.7
    labels = np.repeat(np.arange(10), 3)
    medians = []
    for _ in range(3000):
        chosen = (rng.integers(0, 10, 10)[:, None] * 3 + np.arange(3)).ravel()
        times, survival = kaplan_meier(when[chosen], event[chosen])
        medians.append(min([t for t, s in zip(times, survival, strict=True) if s <= 0.5 + 1e-12], default=math.inf))
    estimate = kaplan_meier_quantile(when, event, clusters=labels, resamples=3999)
    assert estimate.clusters == 10
    assert estimate.low == pytest.approx(np.sort(medians)[75], abs=0.11)
    assert estimate.high == pytest.approx(np.sort(medians)[-75], abs=0.11)


def test_interval_covers_the_true_median():
    rng = np.random.default_rng(3)
    hits = 0
    for simulation in range(200):
        truth, end = rng.exponential(size=60), rng.uniform(0.3, 3, size=60)
        estimate = kaplan_meier_quantile(np.minimum(truth, end), truth <= end, resamples=199, seed=simulation)
        hits += not estimate.excludes(math.log(2))
    assert 0.90 <= hits / 200 <= 0.99


def test_bad_input_is_refused():
    with pytest.raises(InputError, match=r"reached must be 0 or 1 for every record, got 2\.0"):
        kaplan_meier([1, 2], [1, 2])
    with pytest.raises(InputError, match="times must be finite numbers, got 1 infinite"):
        kaplan_meier_quantile([1, math.inf], [1, 0])
    with pytest.raises(SettingError, match="q must lie strictly between 0 and 1"):
        kaplan_meier_quantile([1, 2], [1, 1], 1.0)
