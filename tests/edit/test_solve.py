"""The closed form against constrained least squares by brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.brute_force import least_change
from palimpsest.edit import SecondMoment
from palimpsest.edit.solve import rank_one

SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(0, 10_000))


def problem(d: int, d_key: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """W, C, k, v*."""
    draw = np.random.default_rng(seed)
    keys = draw.normal(size=(4 * d_key, d_key)) * np.exp(draw.normal(size=d_key))
    return draw.normal(size=(d, d_key)), keys.T @ keys / len(keys), draw.normal(size=d_key), draw.normal(size=d)


def closed_form(weight: np.ndarray, moment: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The product of the factors that are stored."""
    key, residual = torch.from_numpy(k), torch.from_numpy(v - weight @ k)
    c = SecondMoment(torch.from_numpy(moment), 0, {})
    left, right = rank_one(c, key, key, residual)
    assert left.dtype == right.dtype == torch.float32
    assert left.shape == (len(v), 1)
    assert right.shape == (1, len(k))
    return (left.double() @ right.double()).numpy()


@settings(max_examples=60, deadline=None)
@given(SHAPES)
def test_the_formula_is_the_least_change(shape: tuple[int, int, int]) -> None:
    weight, moment, k, v = problem(*shape)
    whitened = SecondMoment(torch.from_numpy(moment), 0, {}).solve(torch.from_numpy(k)).numpy()
    formula = np.outer(v - weight @ k, whitened) / (whitened @ k)
    brute = least_change(weight, moment, k[:, None], v[:, None])
    np.testing.assert_allclose(formula, brute, atol=1e-8 * np.abs(brute).max())
    np.testing.assert_allclose((weight + brute) @ k, v, atol=1e-8 * max(1, np.abs(v).max()))


@settings(max_examples=60, deadline=None)
@given(SHAPES)
def test_the_stored_factors_are_it_in_float32(shape: tuple[int, int, int]) -> None:
    weight, moment, k, v = problem(*shape)
    brute = least_change(weight, moment, k[:, None], v[:, None])
    np.testing.assert_allclose(closed_form(weight, moment, k, v), brute, atol=1e-6 * np.abs(brute).max())


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_another_direction_still_meets_the_constraint(shape: tuple[int, int, int]) -> None:
    d, d_key, seed = shape
    weight, moment, k, v = problem(d, d_key, seed)
    direction = k + 0.1 * np.random.default_rng(seed + 1).normal(size=d_key)
    residual = v - weight @ k
    c = SecondMoment(torch.from_numpy(moment), 0, {})
    left, right = rank_one(c, *(torch.from_numpy(x) for x in (direction, k, residual)))
    change = (left.double() @ right.double()).numpy()
    size = np.linalg.norm(change) * np.linalg.norm(k)
    np.testing.assert_allclose(change @ k, residual, atol=1e-6 * size)
    along = np.linalg.solve(moment, direction)
    cosine = abs(right[0].double().numpy() @ along) / (np.linalg.norm(right.double().numpy()) * np.linalg.norm(along))
    assert cosine == pytest.approx(1, abs=1e-6)


def test_no_change_where_there_is_nothing_to_change() -> None:
    k = torch.ones(4, dtype=torch.float64)
    left, right = rank_one(SecondMoment.identity(4), k, k, torch.zeros(3, dtype=torch.float64))
    assert torch.equal(left @ right, torch.zeros(3, 4))
    assert torch.isfinite(right).all()


@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_factors_are_balanced_so_that_float32_holds_them(size: float) -> None:
    draw = torch.Generator().manual_seed(0)
    k = torch.randn(6, generator=draw, dtype=torch.float64)
    residual = size * torch.randn(4, generator=draw, dtype=torch.float64)
    left, right = rank_one(SecondMoment.identity(6), k, k, residual)
    torch.testing.assert_close((left.double() @ right.double()) @ k, residual, rtol=1e-5, atol=0)
    assert float(left.norm()) == pytest.approx(float(right.norm()), rel=1e-4)
