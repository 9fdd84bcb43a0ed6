"""Benjamini and Hochberg's adjustment: by hand, against scipy, by simulation, errors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from palimpsest.errors import InputError
from palimpsest.statistics import benjamini_hochberg, holm


def test_by_hand():
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert benjamini_hochberg([0.2]) == [0.2]
    assert benjamini_hochberg([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
def test_agrees_with_scipy_and_is_never_above_holm(p):
    adjusted = benjamini_hochberg(p)
    assert adjusted == pytest.approx(false_discovery_control(p).tolist())
    assert all(bh <= h + 1e-12 for bh, h in zip(adjusted, holm(p), strict=True))


def test_share_of_false_ones_among_those_kept():
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(1000):
        p = np.concatenate([rng.uniform(size=40), rng.uniform(0, 0.002, size=10)])
        kept = np.array(benjamini_hochberg(p)) <= 0.1
        shares.append(kept[:40].sum() / max(1, kept.sum()))
    assert np.mean(shares) == pytest.approx(0.08, abs=0.015)  # q times the share of true null hypotheses


def test_only_p_values():
    with pytest.raises(InputError, match=r"p_values must lie from 0 to 1, got -0\.1"):
        benjamini_hochberg([0.1, -0.1])
