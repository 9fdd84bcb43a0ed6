"""Holm's adjustment: by hand, by simulation, errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.errors import InputError
from palimpsest.statistics import holm


def test_by_hand():
    # in order: 3 * 0.01, 2 * 0.03, then 1 * 0.04, which may not fall below what came before
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.0, 1.0]) == [0.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_between_the_raw_values_and_bonferroni_in_the_same_order(p):
    adjusted = holm(p)
    for raw, new in zip(p, adjusted, strict=True):
        assert raw <= new <= min(1.0, len(p) * raw)
    order = np.argsort(p, kind="stable")
    assert list(np.asarray(adjusted)[order]) == sorted(adjusted)


def test_a_table_of_true_null_hypotheses_rarely_shows_anything():
    rng = np.random.default_rng(0)
    tables = rng.uniform(size=(2000, 10))
    raw = np.mean([(table <= 0.05).any() for table in tables])
    kept = np.mean([min(holm(table)) <= 0.05 for table in tables])
    assert raw > 0.35
    assert kept == pytest.approx(0.05, abs=0.015)


def test_only_p_values():
    with pytest.raises(InputError, match=r"p_values must lie from 0 to 1, got 2\.1"):
        holm([0.1, 2.1])
    with pytest.raises(InputError, match="1 NaN"):
        holm([0.1, float("nan")])
