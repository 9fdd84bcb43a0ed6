"""The three payloads: their sums, their doses and how factors are recompressed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_editors import down_weight, draw

from oracles.small import model_of
from palimpsest.edit import Dense, Hook, LowRank
from palimpsest.edit.sums import total
from palimpsest.errors import EditError
from palimpsest.model import Site

MODEL = model_of("gpt2")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 15), st.integers(0, 1000))
def test_recompression_is_exact_and_never_above_the_smaller_side(out: int, width: int, rank: int, seed: int) -> None:
    given_ = LowRank("w", draw(out, rank, seed=seed), draw(rank, width, seed=seed + 1))
    small = given_.recompressed()
    assert small.rank == min(rank, out, width)
    assert small.u.dtype == small.v.dtype == torch.float32
    exact = given_.u.double() @ given_.v.double()
    assert float((small.u.double() @ small.v.double() - exact).abs().max()) <= 1e-6 * float(exact.abs().max() + 1e-12)


def test_many_edits_of_one_weight_stay_one_payload_of_bounded_rank() -> None:
    edits = [LowRank("w", draw(4, 1, seed=i), draw(1, 6, seed=100 + i)) for i in range(9)]
    (summed,) = total(list(edits))
    assert isinstance(summed, LowRank)
    assert summed.rank == 4
    expected = sum((e.u.double() @ e.v.double() for e in edits), torch.zeros(4, 6, dtype=torch.float64))
    torch.testing.assert_close(summed.u.double() @ summed.v.double(), expected, rtol=0, atol=1e-7)


def test_sums_keep_weights_apart() -> None:
    a, b = LowRank("a", draw(4, 1), draw(1, 6)), LowRank("b", draw(4, 1), draw(1, 6))
    assert [payload.path for payload in total([a, b])] == ["a", "b"]
    (both,) = total([Dense("a", torch.ones(2)), Dense("a", torch.ones(2))])
    assert isinstance(both, Dense)
    assert torch.equal(both.delta, torch.full((2,), 2.0))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_a_low_rank_payload_is_its_dense_product(family: str, dtype: torch.dtype) -> None:
    model = model_of(family, dtype=dtype)
    path = down_weight(model)
    payload = LowRank(path, draw(32, 3), draw(3, 48, seed=1))
    product = payload.u @ payload.v
    as_stored = product.T if family == "gpt2" else product  # Conv1D keeps (in, out)
    new = payload.new_weight(model, 0.5)
    assert new.dtype == dtype
    exact = (model.parameter(path).double() + 0.5 * as_stored.double()).to(dtype)
    torch.testing.assert_close(new, exact)
    torch.testing.assert_close(new, Dense(path, as_stored).new_weight(model, 0.5))
    assert payload.norm == pytest.approx(float(product.norm()), rel=1e-5)
    assert Dense(path, as_stored).norm == pytest.approx(payload.norm, rel=1e-5)


def test_a_payload_of_the_wrong_shape_is_refused() -> None:
    path = down_weight(MODEL)
    with pytest.raises(EditError, match="shape"):
        LowRank(path, draw(48, 1), draw(1, 32)).new_weight(MODEL, 1.0)
    with pytest.raises(EditError, match="shape"):
        Dense(path, draw(32, 48)).new_weight(MODEL, 1.0)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_hook_is_its_affine_map(rank: int) -> None:
    payload = Hook(Site("resid_out", 1), draw(32, rank), draw(rank, 32, seed=1), draw(32, seed=2))
    x = draw(2, 5, 32, seed=3, scale=1.0)
    expected = x + 0.5 * (x @ payload.b.T @ payload.a.T + payload.c)
    found = payload.tap(0.5).function(x)
    assert found is not None
    torch.testing.assert_close(found, expected)
    assert payload.norm == pytest.approx(float((payload.a @ payload.b).norm() if rank else payload.c.norm()), rel=1e-5)
    half = payload.tap(1.0).function(x.bfloat16())
    assert half is not None
    assert half.dtype == torch.bfloat16
