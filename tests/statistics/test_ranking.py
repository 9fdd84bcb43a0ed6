"""AUROC and AUPRC: textbook values, ties, and scikit-learn as an oracle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palimpsest.errors import InputError
from palimpsest.statistics.ranking import auprc, auroc

CELLS = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40)


def test_by_hand():
    scores, right = [0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 0]
    assert auroc(scores, right) == pytest.approx(5 / 6)  # of 6 pairs, only (0.7, 0.8) is the wrong way round
    assert auprc(scores, right) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_manning_raghavan_schuetze_average_precision():
    # relevant documents at ranks 1, 3 and 6 of a ranking of 6: (1 + 2/3 + 3/6) / 3
    assert auprc([6, 5, 4, 3, 2, 1], [1, 0, 1, 0, 0, 1]) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


@pytest.mark.parametrize(
    ("scores", "area", "precision"), [([2, 1, 0, 0], 1, 1), ([0, 0, 1, 1], 0, 0.5), ([7] * 4, 0.5, 0.5)]
)
def test_perfect_wrong_and_constant(scores, area, precision):
    right = [1, 1, 0, 0]
    assert auroc(scores, right) == pytest.approx(area)
    assert auprc(scores, right) == pytest.approx(precision)


@settings(deadline=None)
@given(CELLS)
def test_auroc_is_the_share_of_pairs_in_the_right_order(cells):
    scores, right = np.array([s for s, _ in cells]), np.array([r for _, r in cells])
    pairs = [(p > n) + (p == n) / 2 for p in scores[right] for n in scores[~right]]
    expected = float(np.mean(pairs)) if pairs else math.nan
    assert auroc(scores, right) == pytest.approx(expected, nan_ok=True)


@settings(deadline=None)
@given(CELLS, st.randoms(use_true_random=False))
def test_the_order_of_cells_decides_nothing(cells, random):
    mixed = list(cells)
    random.shuffle(mixed)
    for area in (auroc, auprc):
        first, second = (area([s for s, _ in some], [r for _, r in some]) for some in (cells, mixed))
        assert first == pytest.approx(second, nan_ok=True)


def test_scikit_learn_agrees():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, right = rng.integers(0, 6, 60) / 5, rng.random(60) < 0.3
        assert auroc(scores, right) == pytest.approx(metrics.roc_auc_score(right, scores))
        assert auprc(scores, right) == pytest.approx(metrics.average_precision_score(right, scores))


def test_nothing_to_find():
    assert math.isnan(auroc([1, 2], [1, 1]))
    assert math.isnan(auroc([1, 2], [0, 0]))
    assert math.isnan(auprc([1, 2], [0, 0]))


@pytest.mark.parametrize(
    ("scores", "right", "message"),
    [
        ([1, 2], [1], "same records"),
        ([1, float("nan")], [1, 0], "finite"),
        ([1, 2], [1, 2], "0 or 1"),
        ([], [], "at least one"),
    ],
)
def test_bad_input(scores, right, message):
    for area in (auroc, auprc):
        with pytest.raises(InputError, match=message):
            area(scores, right)
