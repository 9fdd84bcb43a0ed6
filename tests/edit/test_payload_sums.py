"""Sums of edits: associative, commutative, in the fewest numbers, and refused where they could not be exact."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_editors import dense, down_weight, draw, hook, low_rank, made, rome
from torch import Tensor

from oracles.small import EIFFEL, FACTS, JAPAN, model_of
from palimpsest.edit import Dense, Edit, Hook, LowRank
from palimpsest.edit.sums import change_of, compact, total, true_factors
from palimpsest.errors import EditError
from palimpsest.model import Model, Site, pad

GPT2, LLAMA = model_of("gpt2"), model_of("llama")


def change(edit: Edit, model: Model, path: str) -> Tensor:
    """What the edit adds to one weight, in float64 and as stored."""
    (payload,) = (p for p in edit.payloads if not isinstance(p, Hook) and p.path == path)
    return change_of(payload, transposed=edit.layouts[path]["order"] == "in out")


def an_edit(model: Model, kind: str, seed: int) -> Edit:
    """Of one down-projection: low rank 1 to 3, rank 30 (held dense), or dense."""
    path = down_weight(model)
    if kind == "dense":
        return made(model, [EIFFEL], Dense(path, draw(*model.parameter(path).shape, seed=seed)))
    return low_rank(model, [EIFFEL], rank={"thin": 1 + seed % 3, "wide": 30}[kind], seed=seed)


EDITS = st.tuples(st.sampled_from(["thin", "wide", "dense"]), st.integers(0, 50))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([GPT2, LLAMA]), EDITS, EDITS, EDITS)
def test_addition_is_associative_and_commutative_up_to_rounding(
    model: Model, a: tuple[str, int], b: tuple[str, int], c: tuple[str, int]
) -> None:
    path = down_weight(model)
    one, two, three = (an_edit(model, *x) for x in (a, b, c))
    expected = sum((change(edit, model, path) for edit in (one, two, three)), torch.tensor(0.0))
    for total_ in ((one + two) + three, one + (two + three), three + two + one):
        torch.testing.assert_close(change(total_, model, path), expected, rtol=0, atol=2e-6)
        assert total_.method == "small + small + small"
        assert len(total_.settings["parts"]) == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 15), st.booleans(), st.integers(0, 1000))
def test_compact_is_the_same_change_in_the_fewest_numbers(
    out: int, width: int, rank: int, transposed: bool, seed: int
) -> None:
    payload = LowRank("w", draw(out, rank, seed=seed), draw(rank, width, seed=seed + 1))
    small = compact(payload, transposed=transposed)
    assert sum(tensor.numel() for tensor in small.tensors().values()) <= out * width
    assert isinstance(small, LowRank) == (min(rank, out, width) * (out + width) <= out * width)
    exact = change_of(payload, transposed=transposed)
    torch.testing.assert_close(change_of(small, transposed=transposed), exact, rtol=0, atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(1, 12), st.booleans(), st.integers(0, 1000))
def test_true_factors_have_the_rank_of_the_change(out: int, width: int, rank: int, transposed: bool, seed: int) -> None:
    u, v = draw(out, rank, seed=seed, scale=1.0), draw(rank, width, seed=seed + 1, scale=1.0)
    repeated = LowRank("w", torch.cat([u, u], dim=1), torch.cat([v, 2 * v]))
    for payload in (repeated, Dense("w", change_of(repeated, transposed=transposed))):
        low, left_out = true_factors(payload, transposed=transposed)
        exact = repeated.u.double() @ repeated.v.double()
        assert low.rank == torch.linalg.matrix_rank(exact, rtol=1e-5) <= min(rank, out, width)
        torch.testing.assert_close(low.u.double() @ low.v.double(), exact, rtol=0, atol=1e-5)
        assert left_out < 1e-6


@pytest.mark.parametrize("small", [1e-4, 1e-9])
def test_true_factors_keep_a_small_part_of_a_change(small: float) -> None:
    u, v = (
        torch.linalg.qr(draw(2000, 2).double())[0].float(),
        torch.linalg.qr(draw(900, 2, seed=1).double())[0].T.float(),
    )
    payload = LowRank("w", u * torch.tensor([1.0, small]), v.contiguous())
    low, left_out = true_factors(payload, transposed=False)
    assert (low.rank, left_out) == (2, 0.0)
    part = u[:, 1:].double().T @ (low.u.double() @ low.v.double()) @ v[1:].double().T  # of the second direction alone
    assert float(part) == pytest.approx(small, rel=0.1 if small < 1e-7 else 1e-2)
    nothing = LowRank("w", torch.cat([payload.u, -payload.u], 1), torch.cat([payload.v, payload.v]))
    assert true_factors(nothing, transposed=False)[0].rank == 0


@pytest.mark.parametrize(("small", "rank"), [(1e-4, 2), (3e-7, 2), (1e-9, 1)])
def test_true_factors_of_a_dense_change_say_what_they_leave_out(small: float, rank: int) -> None:
    u, v = torch.linalg.qr(draw(300, 2).double())[0], torch.linalg.qr(draw(40, 2, seed=1).double())[0]
    low, left_out = true_factors(Dense("w", u * torch.tensor([1.0, small]).double() @ v.T), transposed=False)
    assert low.rank == rank
    assert left_out == pytest.approx(0.0 if rank == 2 else small, rel=1e-3, abs=1e-14)


@pytest.mark.parametrize("model", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_a_mixture_with_dense_is_dense_as_the_weight_is_stored(model: Model) -> None:
    low, full = low_rank(model, [EIFFEL]), dense(model, [JAPAN])
    both = low + full
    path = down_weight(model)
    assert [type(payload) for payload in both.payloads] == [Dense, Dense]
    assert both.facts == (EIFFEL, JAPAN)
    base = model.parameter(path).double()
    with both.applied(model):
        together = model.parameter(path).double()
    torch.testing.assert_close(together - base, change(low, model, path) + change(full, model, path), rtol=0, atol=1e-6)


def test_shapes_say_how_a_dense_change_is_stored_but_not_those_of_a_square() -> None:
    low = LowRank("w", draw(4, 1), draw(1, 6))
    for delta in (torch.zeros(4, 6), torch.zeros(6, 4)):
        (sum_,) = total([low, Dense("w", delta)])
        product = low.u @ low.v
        torch.testing.assert_close(sum_.delta, product if delta.shape == (4, 6) else product.T)  # type: ignore[union-attr]
    square = [LowRank("w", draw(4, 1), draw(1, 4)), Dense("w", torch.zeros(4, 4))]
    with pytest.raises(EditError, match="square"):
        total(square)
    (flipped,) = total(square, ["w"])
    (straight,) = total(square, [])
    assert torch.equal(flipped.delta, straight.delta.T)  # type: ignore[union-attr]


@pytest.mark.parametrize("other", [LowRank("w", draw(6, 1), draw(1, 4)), Dense("w", torch.zeros(4, 5))])
def test_changes_of_two_shapes_are_refused(other: LowRank | Dense) -> None:
    with pytest.raises(EditError, match="two models"):
        total([LowRank("w", draw(4, 1), draw(1, 6)), other])


def test_a_sum_of_edits_does_what_both_do() -> None:
    one, two = rome(LLAMA, [EIFFEL]), low_rank(LLAMA, [JAPAN], layer=2)
    batch = pad([LLAMA.encode(fact.text).ids for fact in FACTS])
    both = two + one
    with one.applied(LLAMA), two.applied(LLAMA):
        expected = LLAMA.last_logits(batch)
    with both.applied(LLAMA):
        assert torch.equal(LLAMA.last_logits(batch), expected)  # no weight is shared
    assert both.settings["parts"][1]["settings"]["preset"] == one.settings["preset"]
    assert both.notes["parts"][1]["notes"] == one.notes
    assert both.weights == {**one.weights, **two.weights}


def test_a_batch_of_n_facts_has_rank_n_at_most() -> None:
    edit = rome(LLAMA, FACTS)
    assert [payload.rank for payload in edit.payloads] == [len(FACTS)]  # type: ignore[union-attr]
    again = edit + edit
    assert again.facts == tuple(FACTS)


def test_edits_of_different_weights_at_one_path_are_refused() -> None:
    one = low_rank(LLAMA, [EIFFEL])
    with one.applied(LLAMA):
        later = low_rank(LLAMA, [EIFFEL])
    for pair in ((one, later), (later, one)):
        with pytest.raises(EditError, match=r"different values of model\.layers\.1\.mlp\.down_proj\.weight") as refused:
            pair[0] + pair[1]
        assert "\n" not in str(refused.value)


def test_a_sum_is_saved_and_loaded(tmp_path) -> None:
    both = rome(LLAMA, [EIFFEL]) + hook(LLAMA, [JAPAN])
    both.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(tmp_path / "edit.safetensors")
    assert (loaded.facts, loaded.settings, loaded.notes) == (both.facts, both.settings, both.notes)
    assert loaded.fingerprint() == both.fingerprint()


def shift(model: Model, seed: int) -> Edit:
    """A steering vector."""
    d = model.anatomy.width
    return made(model, [EIFFEL], Hook(Site("resid_out", 1), torch.zeros(d, 0), torch.zeros(0, d), draw(d, seed=seed)))


def test_shifts_of_one_state_add_up_and_maps_are_refused() -> None:
    one, two = shift(LLAMA, 1), shift(LLAMA, 2)
    both = one + two
    (payload,) = both.payloads
    assert isinstance(payload, Hook)
    assert torch.equal(payload.c, one.payloads[0].c + two.payloads[0].c)  # type: ignore[union-attr]
    for pair in ((one, hook(LLAMA, [EIFFEL])), (hook(LLAMA, [EIFFEL]), one)):
        with pytest.raises(EditError, match=r"resid_out\[1\] cannot be added exactly"):
            pair[0] + pair[1]
    elsewhere = replace(one, payloads=(replace(payload, site=Site("resid_out", 0)),))
    assert len((elsewhere + hook(LLAMA, [EIFFEL])).payloads) == 2


def test_files_that_do_not_say_how_weights_are_stored_still_add_up() -> None:
    low, full = (replace(edit, layouts={}) for edit in (low_rank(GPT2, [EIFFEL]), dense(GPT2, [EIFFEL])))
    path = down_weight(GPT2)
    (both,) = (p for p in (low + full).payloads if p.path == path)  # type: ignore[union-attr]
    exact = low_rank(GPT2, [EIFFEL]) + dense(GPT2, [EIFFEL])
    torch.testing.assert_close(change_of(both, transposed=True), change(exact, GPT2, path))  # type: ignore[arg-type]
