"""Estimate: its text, its JSON, NaN, and its errors."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError
from palimpsest.statistics import Estimate

anything = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.81, 0.74, 0.87, "0.81 [0.74, 0.87]"),
        (0.8123, 0.8051, 0.8199, "0.812 [0.805, 0.820]"),
        (81.2, 74.1, 87.3, "81 [74, 87]"),
        (-0.0001, -0.2, 0.2, "0.00 [-0.20, 0.20]"),
        (1.0, 1.0, 1.0, "1.00 [1.00, 1.00]"),
        (0.00012, 0.00012, 0.00012, "0.00012 [0.00012, 0.00012]"),
        (3.0, 1.0, math.inf, "3.0 [1.0, inf]"),
        (0.5, math.nan, math.nan, "0.50 [no interval]"),
        (math.nan, math.nan, math.nan, "unknown"),
    ],
)
def test_text_shows_two_digits_of_the_width(value, low, high, text):
    assert str(Estimate(value, low, high, n=100, clusters=23)) == f"{text} (n=100, 23 clusters)"


def test_text_with_a_unit_and_one_cluster():
    assert str(Estimate(1.5, 1.0, 2.0, n=9, clusters=1, unit="nats")) == "1.5 [1.0, 2.0] nats (n=9, 1 cluster)"


@settings(deadline=None)
@given(anything, anything, anything, st.integers(0, 10**9))
def test_json_is_strict_and_reads_back_equal(value, low, high, n):
    if low > high:
        low, high = high, low
    estimate = Estimate(value, low, high, n=n, clusters=n, level=0.9, method="made up", unit="bits")
    text = json.dumps(estimate.to_json(), allow_nan=False)
    again = Estimate.from_json(json.loads(text))
    assert again == estimate
    assert hash(again) == hash(estimate)
    str(estimate)


def test_defaults_and_questions():
    estimate = Estimate(0.5, 0.4, 0.7, n=10, clusters=5)
    assert (estimate.level, estimate.method, estimate.unit) == (0.95, "", "")
    assert estimate.width == pytest.approx(0.3)
    assert estimate.excludes(0.39)
    assert not estimate.excludes(0.4)
    assert estimate.is_known
    unknown = Estimate(math.nan, math.nan, math.nan, n=0, clusters=0)
    assert not unknown.excludes(0.0)
    assert not unknown.is_known
    assert estimate != "0.5"
    assert Estimate.from_json({"value": 1, "low": 0, "high": 2, "n": 3, "clusters": 3}).level == 0.95


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": -1}, "n of an Estimate must be 0 or more"),
        ({"level": 95.0}, "strictly between 0 and 1"),
        ({"low": 2.0, "high": 1.0}, "must not run backwards"),
        ({"value": "x"}, "holds numbers"),
        ({"n": None}, "holds numbers"),
        ({"vlaue": 1}, "unknown: vlaue"),
    ],
)
def test_malformed_json_is_refused(change, message):
    record = Estimate(0.5, 0.4, 0.7, n=10, clusters=5).to_json() | change
    with pytest.raises(InputError, match=message):
        Estimate.from_json(record)


def test_missing_fields_are_named():
    with pytest.raises(InputError, match="missing: low, high, n, clusters"):
        Estimate.from_json({"value": 1.0})
    with pytest.raises(InputError, match="read from a JSON object"):
        Estimate.from_json([1.0])


def test_what_is_not_known_what_is_exact_and_what_is_below_a_limit():
    unknown = Estimate.unknown("too few facts", 2)
    assert not unknown.is_known
    assert (unknown.n, unknown.method) == (2, "too few facts")
    count = Estimate.exact(3, 7, 2, method="count", unit="edges")
    assert (count.value, count.low, count.high, count.width) == (3, 3, 3, 0)
    turned = Estimate(0.02, 0.01, 0.04, 6, 5, unit="depth").below(0.1)
    assert (turned.value, turned.low, turned.high) == pytest.approx((0.08, 0.06, 0.09))
    assert (turned.n, turned.clusters, turned.unit) == (6, 5, "0.1 - depth")
    assert Estimate(1, 0, 2, 6, 5).below(0, "sign turned").unit == "sign turned"
