"""Hill curves, bells and rising steps: known parameters come back; steps against the min-max formula; errors."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError
from palimpsest.statistics import BellFit, HillFit, bell_fit, dose_fit, hill_fit, isotonic_at, isotonic_fit

DOSES = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.25, 1.5, 1.75, 2, 2.5, 3])


@settings(max_examples=40, deadline=None)
@given(st.floats(-5, 5), st.floats(0.5, 10), st.floats(0.15, 2.0), st.floats(0.8, 8.0), st.sampled_from([-1, 1]))
def test_hill_recovers_known_parameters(bottom, height, ed50, slope, sign):
    effects = bottom + sign * height * DOSES**slope / (DOSES**slope + ed50**slope)
    fit = hill_fit(DOSES, effects)
    assert (fit.bottom, fit.top) == pytest.approx((bottom, bottom + sign * height), abs=0.02 * height)
    assert (fit.ed50, fit.slope) == pytest.approx((ed50, slope), rel=0.02)
    assert fit.r2 > 0.9999
    assert fit.is_reached
    assert fit.at(DOSES) == pytest.approx(effects, abs=0.02 * height)


def test_hill_recovers_known_parameters_through_noise():
    rng = np.random.default_rng(0)
    effects = -2 + 6 * DOSES**3 / (DOSES**3 + 0.6**3)
    fits = [hill_fit(DOSES, effects + rng.normal(0, 0.3, DOSES.size)) for _ in range(30)]
    assert np.median([fit.ed50 for fit in fits]) == pytest.approx(0.6, abs=0.03)
    assert np.median([fit.slope for fit in fits]) == pytest.approx(3, abs=0.4)
    assert all(0.95 < fit.r2 < 1 for fit in fits)


def test_half_of_the_way_beyond_the_doses_is_said():
    fit = hill_fit(DOSES, DOSES**2 / (DOSES**2 + 8**2))
    assert fit.ed50 > 3
    assert not fit.is_reached


def test_effects_that_do_not_vary_have_no_curve():
    fit = hill_fit(DOSES, np.full(17, 0.3))
    assert all(math.isnan(number) for number in (fit.bottom, fit.top, fit.ed50, fit.slope, fit.r2))
    assert not fit.is_reached
    assert math.isnan(bell_fit(DOSES, np.zeros(17)).peak)
    assert isinstance(dose_fit(DOSES, np.zeros(17)), HillFit)


def test_noise_alone_fits_badly():
    rng = np.random.default_rng(1)
    assert np.median([hill_fit(DOSES, rng.normal(size=17)).r2 for _ in range(20)]) < 0.5


def test_bell_recovers_known_parameters_and_is_chosen_where_effects_decline():
    truth = BellFit(bottom=-1, height=5, ed50=0.5, fall50=1.8, slope=4, r2=1, n=17)
    effects = truth.at(DOSES) + np.random.default_rng(0).normal(0, 0.05, 17)
    fit = dose_fit(DOSES, effects)
    assert isinstance(fit, BellFit)
    assert (fit.bottom, fit.height) == pytest.approx((-1, 5), abs=0.2)
    assert (fit.ed50, fit.fall50, fit.slope) == pytest.approx((0.5, 1.8, 4), rel=0.05)
    assert fit.peak == pytest.approx(math.sqrt(0.5 * 1.8), rel=0.05)
    rising = -1 + 5 * DOSES**2 / (DOSES**2 + 1) + np.random.default_rng(0).normal(0, 0.05, 17)
    assert isinstance(dose_fit(DOSES, rising), HillFit)
    assert isinstance(dose_fit(DOSES[:7], effects[:7]), HillFit)


@pytest.mark.parametrize(
    ("doses", "effects", "message"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], "at least 5 different doses, got 4"),
        ([0, 1, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5], "got 2"),
        ([-1, 0, 1, 2, 3], [0, 1, 2, 3, 4], "doses must be 0 or more, got -1"),
        ([0, 1, 2, 3, 4], [0, 1, 2, 3], "got 5 and 4"),
        ([0, 1, 2, 3, 4], [0, 1, math.nan, 3, 4], "effects must be finite numbers, got 1 NaN"),
    ],
)
def test_doses_that_cannot_be_fitted_are_refused(doses, effects, message):
    with pytest.raises(InputError, match=message):
        hill_fit(doses, effects)


def _steps(x, y):
    """max over starts, min over ends, of the mean between: the min-max formula of Barlow et al. 1972, on distinct x."""
    places = sorted(set(x))
    means = [np.mean([b for a, b in zip(x, y, strict=True) if a == place]) for place in places]
    counts = [sum(a == place for a in x) for place in places]
    found = {}
    for i, place in enumerate(places):
        found[place] = max(
            min(np.average(means[a : b + 1], weights=counts[a : b + 1]) for b in range(i, len(places)))
            for a in range(i + 1)
        )
    return [found[place] for place in x]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.floats(-5, 5)), min_size=1, max_size=15))
def test_steps_agree_with_the_min_max_formula(points):
    x, y = [point[0] for point in points], [point[1] for point in points]
    assert isotonic_fit(x, y).fitted == pytest.approx(_steps(x, y), abs=1e-9)
    assert isotonic_fit(x, [-v for v in y], increasing=False).fitted == pytest.approx(
        [-v for v in _steps(x, y)], abs=1e-9
    )


def test_steps_by_hand():
    fitted, r2 = isotonic_fit([3, 1, 2, 4], [1.0, 0.0, 2.0, 4.0])
    assert fitted.tolist() == [1.5, 0.0, 1.5, 4.0]
    assert r2 == pytest.approx(1 - 0.5 / 8.75)
    assert isotonic_fit([1, 2], [1.0, 2.0]).r2 == 1.0
    assert math.isnan(isotonic_fit([1, 2], [1.0, 1.0]).r2)
    assert isotonic_at([3, 1, 2, 4], fitted, [0, 1.5, 9]).tolist() == [0.0, 0.75, 4.0]


def test_steps_refuse_what_does_not_match():
    with pytest.raises(InputError, match="x and y must describe the same records, got 2 and 1"):
        isotonic_fit([1, 2], [1.0])
    with pytest.raises(InputError, match="two values at one x"):
        isotonic_at([1, 1], [0.0, 1.0], [1])
