"""What editors ask of C: solutions, the null space, the report, and whether it is this model's."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.small import LAYER, documents, down_of, model_of, moment_of
from palimpsest.edit import SecondMoment, collect_moments
from palimpsest.edit.moments.provenance import weights_below
from palimpsest.edit.moments.triangle import add_outer, mirror, pack, unpack
from palimpsest.errors import EditError, SettingError, WeightError


def with_eigenvalues(values: list[float], seed: int = 0, count: int = 0) -> tuple[SecondMoment, np.ndarray]:
    """C with these eigenvalues, and its eigenvectors, one a column."""
    vectors, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    return SecondMoment(torch.from_numpy(vectors @ np.diag(values) @ vectors.T), count, {"module": "h.1"}), vectors


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 1000))
def test_many_right_hand_sides_are_solved_as_one_by_one(d: int, n: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    half, k = draw.normal(size=(d, 2 * d)), torch.from_numpy(draw.normal(size=(d, n)))
    moment = SecondMoment(torch.from_numpy(half @ half.T), 0, {})
    found = moment.solve(k)
    assert found.shape == (d, n)
    for i in range(n):
        torch.testing.assert_close(found[:, i], moment.solve(k[:, i]), rtol=1e-9, atol=0)
    np.testing.assert_allclose(moment.matrix.numpy() @ found.numpy(), k.numpy(), atol=1e-8 * (1 + float(found.norm())))


def test_float32_keys_are_solved_in_float64() -> None:
    moment, _ = with_eigenvalues([1.0, 1e-5, 3.0])
    k = torch.tensor([1.0, 2.0, 3.0])
    assert moment.solve(k).dtype == torch.float64
    np.testing.assert_allclose(moment.solve(k), np.linalg.solve(moment.matrix, k.double().numpy()), rtol=1e-9)


def test_the_null_space_is_spanned_by_the_eigenvectors_below_the_threshold() -> None:
    values = [3.0, 0.019, 0.5, 0.001, 0.021, 0.0]
    moment, vectors = with_eigenvalues(values)
    basis = moment.null_space()
    assert basis.dtype == torch.float64
    assert basis.shape == (6, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    own = vectors[:, [1, 3, 5]]
    np.testing.assert_allclose((basis @ basis.T).numpy(), own @ own.T, atol=1e-10)
    assert moment.null_share() == 0.5
    assert moment.null_size(1e-2) == 2
    assert moment.null_space(0.6).shape == (6, 5)


def test_an_energy_takes_the_smallest_eigenvalues_that_hold_at_most_that_much() -> None:
    moment, vectors = with_eigenvalues([90.0, 0.25, 0.5, 0.25, 9.0])
    assert moment.null_size(energy=0.0101) == 3  # 1 of 100
    assert moment.null_size(energy=0.0099) == 2
    assert moment.null_size(energy=0.101) == 4
    own = vectors[:, [1, 2, 3]]
    basis = moment.null_space(energy=0.02)
    np.testing.assert_allclose((basis @ basis.T).numpy(), own @ own.T, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=8), st.floats(0.001, 0.999))
def test_the_energy_of_the_null_space_is_what_was_asked_and_not_one_direction_less(
    values: list[float], energy: float
) -> None:
    moment, _ = with_eigenvalues(values)
    size, ordered = moment.null_size(energy=energy), np.sort(values)
    slack = 1e-9 * ordered.sum()
    assert ordered[:size].sum() <= energy * ordered.sum() + slack
    assert ordered[: size + 1].sum() > energy * ordered.sum() - slack


def test_without_a_null_space_the_sentence_tells_the_smallest_eigenvalue() -> None:
    moment, _ = with_eigenvalues([3.0, 0.5])
    assert moment.null_share() == 0
    with pytest.raises(EditError, match=r"h\.1 has no null space at a threshold of 0\.02: its smallest .* 5\.00e-01"):
        moment.null_space()
    with pytest.raises(EditError, match=r"no null space at an energy of 0\.01"):
        moment.null_space(energy=0.01)


@pytest.mark.parametrize("asked", [{"threshold": 0.0}, {"threshold": -1.0}, {"energy": 0.0}, {"energy": 1.0}])
def test_thresholds_and_energies_that_mean_nothing(asked: dict[str, float]) -> None:
    with pytest.raises(SettingError, match="energy between 0 and 1"):
        SecondMoment.identity(3).null_space(**asked)


def test_too_few_tokens_have_no_null_space_because_unseen_is_not_unused() -> None:
    moment = collect_moments(model_of("llama"), [LAYER], documents(), tokens=30)[LAYER]
    assert moment.null_size(1e-6 * float(moment.eigen[0][-1])) >= 18
    with pytest.raises(
        EditError, match="48 wide and was measured on 30 tokens; measure it on 480 tokens, the default,"
    ):
        moment.null_space()
    report = moment.report()
    assert not report["solvable"]
    assert "480 tokens, the default" in report["problem"]
    assert (report["condition"], report["null_space"]) == (None, None)  # what was not read is not unused


def test_numbers_that_are_not_finite_are_refused() -> None:
    broken = SecondMoment(torch.full((2, 2), torch.nan, dtype=torch.float64), 100, {})
    for ask in (broken.null_space, broken.report, lambda: broken.condition):
        with pytest.raises(EditError, match="singular"):
            ask()


def test_the_report_is_plain_data() -> None:
    values = [1e-4, *([0.015] * 4), *([2.0] * 15)]
    moment, _ = with_eigenvalues(values, count=500)
    report = moment.report()
    assert json.loads(json.dumps(report)) == report
    assert report["width"] == 20
    assert report["tokens"] == 500
    assert report["module"] == "h.1"
    assert report["solvable"]
    assert report["problem"] is None
    assert report["condition"] == pytest.approx(2e4, rel=1e-6)
    assert report["smallest_eigenvalue"] == pytest.approx(1e-4, rel=1e-6)
    assert report["largest_eigenvalue"] == pytest.approx(2.0)
    assert report["null_space"] == {
        "threshold 0.02": {"size": 5, "share": 0.25, "safe": True},
        "threshold 0.01": {"size": 1, "share": 0.05, "safe": True},
        "energy 0.01": {"size": 5, "share": 0.25, "safe": True},
    }
    everything = with_eigenvalues([1e-3] * 20)[0].report()["null_space"]
    assert everything["threshold 0.02"] == {"size": 20, "share": 1.0, "safe": False}
    assert not everything["energy 0.01"]["safe"]


def test_moments_of_another_model_are_refused() -> None:
    model = model_of("gpt2", seed=21)
    moment = moment_of(model)
    moment.check_made_for(model, LAYER)
    with pytest.raises(WeightError, match=f"another model.* layer {LAYER} of .* has .*measure"):
        moment.check_made_for(model_of("gpt2", seed=22), LAYER)
    with pytest.raises(WeightError, match="another model or layer: module is"):
        moment.check_made_for(model, 2)
    wider = model_of("gpt2", seed=21, n_inner=64)
    with pytest.raises(WeightError, match="are 64 wide, but the second moments given are 48 wide.*another model"):
        moment.check_made_for(wider, LAYER)


def test_weights_above_the_layer_may_differ_and_those_below_may_not() -> None:
    model = model_of("gpt2", seed=23)
    moment = moment_of(model)
    with torch.no_grad():
        down_of(model, "gpt2", 2).weight.add_(1.0)
    moment.check_made_for(model, LAYER)
    with torch.no_grad():
        down_of(model, "gpt2", 0).weight[0, 0] += 1e-3
    with pytest.raises(WeightError, match="another model.*weights is"):
        moment.check_made_for(model, LAYER)


def test_moments_that_name_no_weights_are_checked_by_width() -> None:
    model = model_of("gpt2")
    SecondMoment.identity(48).check_made_for(model, LAYER)
    with pytest.raises(WeightError, match="47 wide"):
        SecondMoment.identity(47).check_made_for(model, LAYER)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_each_weight_is_hashed_once_and_into_the_models_own_fingerprint(family: str) -> None:
    model = model_of(family)
    found = weights_below(model, [2, 0, 1, 0])
    for layer in range(3):
        above = tuple(f"{part.block.path}." for part in model.anatomy.layers[layer + 1 :])
        paths = [path for path, _ in model.net.named_parameters() if not path.startswith(above)]
        assert found[layer] == model.fingerprint(paths)
    assert len(set(found.values())) == 3


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_one_triangle_is_enough(d: int, n: int, dtype: torch.dtype, sliced: bool) -> None:
    keys = torch.randn(n, 2 * d, generator=torch.Generator().manual_seed(d + 13 * n), dtype=dtype)
    keys = keys[:, ::2] if sliced else keys[:, :d].contiguous()
    total = torch.zeros(d, d, dtype=torch.float64)
    add_outer(total, keys)
    add_outer(total, keys)
    expected = 2 * keys.double().T @ keys.double()
    torch.testing.assert_close(mirror(total), expected, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)
    assert torch.equal(unpack(pack(mirror(total)), d), mirror(total))


def test_a_triangle_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="10 numbers are not half of a matrix 5 wide"):
        unpack(torch.zeros(10), 5)
