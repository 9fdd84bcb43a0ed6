"""The closed form against a textbook, against the published package, and against what theorem 4.3 says of it."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.leace import one_hot, textbook
from palimpsest.erase.leace import Eraser, LeaceFitter, random_eraser
from palimpsest.erase.leace.fitter import oas
from palimpsest.errors import InputError, SettingError

NAMES = ("a", "b", "c")


def sample(n: int, d: int, classes: int, seed: int) -> tuple[torch.Tensor, list[str]]:
    """States of correlated entries whose mean depends on the label, far from the origin."""
    draw = np.random.default_rng(seed)
    labels = [NAMES[i] for i in np.concatenate([np.arange(classes), draw.integers(classes, size=n - classes)])]
    shift = draw.standard_normal((classes, d)) * 2
    x = draw.standard_normal((n, d)) @ draw.standard_normal((d, d)) + 10 * draw.standard_normal(d)
    return torch.from_numpy(x + np.stack([shift[NAMES.index(label)] for label in labels])), labels


def fitted(x: torch.Tensor, labels: list[str]) -> LeaceFitter:
    fitter = LeaceFitter(x.shape[1], sorted(set(labels)))
    fitter.update(x, labels)
    return fitter


def as_matrix(eraser: Eraser) -> tuple[np.ndarray, np.ndarray]:
    return np.eye(len(eraser.bias)) - eraser.projection.numpy(), eraser.bias.numpy()


@pytest.mark.parametrize(("n", "d", "classes"), [(60, 5, 2), (200, 12, 3), (40, 3, 3), (400, 30, 2)])
def test_equal_to_the_textbook(n: int, d: int, classes: int) -> None:
    x, labels = sample(n, d, classes, seed=n)
    r, c = textbook(x.numpy(), one_hot(labels))
    eraser = fitted(x, labels).eraser("none")
    assert eraser.rank == classes - 1
    mine, bias = as_matrix(eraser)
    np.testing.assert_allclose(mine, r, atol=1e-5)
    np.testing.assert_allclose(bias, c, atol=1e-5)


@pytest.mark.parametrize(("n", "d", "classes"), [(60, 5, 2), (200, 12, 3), (400, 30, 2)])
def test_equal_to_the_published_package(n: int, d: int, classes: int) -> None:
    reference = pytest.importorskip("concept_erasure", reason="pip install concept-erasure==0.2.4 to run this test")
    x, labels = sample(n, d, classes, seed=n + 1)
    z = torch.from_numpy(one_hot(labels))
    theirs = reference.LeaceFitter(
        d, z.shape[1], dtype=torch.float64, shrinkage=False, constrain_cov_trace=False, svd_tol=1e-9
    )
    theirs.update(x, z)
    mine = fitted(x, labels).eraser("none")
    torch.testing.assert_close(mine(x), theirs.eraser(x), rtol=0, atol=1e-5)
    single = mine(x.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, theirs.eraser(x).float(), rtol=0, atol=1e-3)  # float32 states of size 30


@pytest.mark.parametrize("shrinkage", ["none", "oas"])
@pytest.mark.parametrize("classes", [2, 3])
def test_nothing_of_the_concept_is_left_in_the_covariance(classes: int, shrinkage: str) -> None:
    x, labels = sample(150, 8, classes, seed=3)
    fitter = fitted(x, labels)
    assert float(fitter.sigma_xz.abs().max()) > 0.1
    eraser = fitter.eraser(shrinkage)
    assert float(fitted(eraser(x), labels).sigma_xz.abs().max()) < 1e-10
    assert float(fitted(eraser.without_constant()(x), labels).sigma_xz.abs().max()) < 1e-10
    torch.testing.assert_close(eraser(x).mean(0), x.mean(0))  # and the mean stays
    assert float((eraser.without_constant()(x).mean(0) - x.mean(0)).abs().max()) > 0.1


@pytest.mark.parametrize("classes", [2, 3])
def test_no_linear_probe_beats_the_constant(classes: int) -> None:
    """Training loss of a logistic regression that is hardly bounded, which minimises it over all linear probes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    x, labels = sample(200, 6, classes, seed=5)
    shares = np.bincount(np.unique(labels, return_inverse=True)[1]) / len(labels)
    constant = -float((shares * np.log(shares)).sum())

    def best(states: torch.Tensor) -> float:
        z = ((states - states.mean(0)) / states.std(0)).numpy()
        probe = LogisticRegression(C=1e6, max_iter=5000, tol=1e-9).fit(z, labels)
        return float(log_loss(labels, probe.predict_proba(z)))

    assert best(x) < 0.8 * constant
    assert best(fitted(x, labels).eraser()(x)) == pytest.approx(constant, abs=1e-6)


def test_no_other_eraser_costs_less_in_any_norm() -> None:
    """r' = r + C (x - mu) with C Sigma_xz = 0 has the same covariance with z; every such r' is dearer, in each norm M."""
    x, labels = sample(300, 7, 3, seed=7)
    fitter = fitted(x, labels)
    eraser, centred = fitter.eraser(), x - x.mean(0)
    draw = np.random.default_rng(0)
    q = torch.linalg.qr(fitter.sigma_xz)[0][:, :2]
    for _ in range(20):
        m = torch.from_numpy(draw.standard_normal((7, 7)))
        other = torch.from_numpy(draw.standard_normal((7, 7))) * float(10 ** draw.uniform(-4, 0))
        other = other - (other @ q) @ q.T
        assert float((other @ fitter.sigma_xz).abs().max()) < 1e-9
        moved = [float((((y - x) @ m.T) ** 2).sum(1).mean()) for y in (eraser(x), eraser(x) + centred @ other.T)]
        assert moved[0] < moved[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(2, 3), st.integers(0, 1000))
def test_erasing_twice_is_erasing_once(d: int, classes: int, seed: int) -> None:
    x, labels = sample(80, d, classes, seed)
    eraser = fitted(x, labels).eraser()
    once = eraser(x)
    torch.testing.assert_close(eraser(once), once, rtol=0, atol=1e-7)
    assert fitted(once, labels).eraser().rank == 0  # and a second fit finds nothing


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(0, 1000))
def test_erasing_goes_with_every_invertible_change_of_coordinates(d: int, seed: int) -> None:
    x, labels = sample(100, d, 2, seed)
    draw = np.random.default_rng(seed)
    a = torch.from_numpy(np.linalg.qr(draw.standard_normal((d, d)))[0] * draw.uniform(0.5, 2, d))
    b = torch.from_numpy(draw.standard_normal(d))
    there = x @ a.T + b
    torch.testing.assert_close(
        fitted(there, labels).eraser()(there), fitted(x, labels).eraser()(x) @ a.T + b, rtol=0, atol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 90), max_size=4), st.integers(0, 1000))
def test_a_stream_gives_what_one_pass_gives(cuts: list[int], seed: int) -> None:
    x, labels = sample(90, 5, 3, seed)
    whole = fitted(x, labels)
    parts = []
    stream = LeaceFitter(5, NAMES)
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), 90], strict=True):
        stream.update(x[begin:end], labels[begin:end])
        parts.append(LeaceFitter(5, NAMES))
        parts[-1].update(x[begin:end], labels[begin:end])
    there, back = LeaceFitter(5, NAMES), LeaceFitter(5, NAMES)
    for part in parts:
        there = there.merged(part)
    for part in reversed(parts):
        back = back.merged(part)
    for other in (stream, there, back):
        assert other.count == whole.count == 90
        for name in ("mean", "counts", "sigma_xx", "sigma_xz"):
            torch.testing.assert_close(getattr(other, name), getattr(whole, name), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(other.eraser()(x), whole.eraser()(x), rtol=0, atol=1e-7)


def test_a_large_mean_costs_no_digits() -> None:
    x, labels = sample(200, 4, 2, seed=1)
    near, far = fitted(x, labels), fitted(x + 1e6, labels)
    torch.testing.assert_close(far.sigma_xx, near.sigma_xx, rtol=1e-6, atol=1e-6)


def test_states_around_set_the_scale_and_nothing_else() -> None:
    """The covariance with the concept is gone all the same; no other eraser moves the states around less."""
    x, labels = sample(200, 6, 3, seed=8)
    around, _ = sample(500, 6, 2, seed=9)
    fitter, alone = fitted(x, labels), fitted(x, labels).eraser()
    fitter.surround(around[:300])
    other = LeaceFitter(6, NAMES)
    other.surround(around[300:])
    for both in (fitter.merged(other), other.merged(fitter)):
        assert (both.count, both.acted_on.count) == (200, 500)
        torch.testing.assert_close(both.acted_on.covariance, torch.cov(around.T, correction=0))
        eraser = both.eraser()
        assert float(fitted(eraser(x), labels).sigma_xz.abs().max()) < 1e-9
        torch.testing.assert_close(eraser(around).mean(0), around.mean(0))
    centred = around - around.mean(0)
    assert float((centred @ eraser.projection.T).norm()) < 0.99 * float((centred @ alone.projection.T).norm())
    q = torch.linalg.qr(fitter.sigma_xz)[0][:, :2]
    draw = np.random.default_rng(0)
    for _ in range(10):
        more = torch.from_numpy(draw.standard_normal((6, 6))) * 0.01
        more = eraser.projection + more - (more @ q) @ q.T  # takes the same covariance out
        assert float((centred @ eraser.projection.T).norm()) < float((centred @ more.T).norm())
    around[3, 1] = float("nan")
    with pytest.raises(InputError, match="hold nan in state 3, entry 1, and 1 such"):
        fitter.surround(around)


def test_fewer_states_than_dimensions_are_shrunken_with_a_warning() -> None:
    from sklearn.covariance import oas as reference

    x, labels = sample(12, 20, 2, seed=2)
    fitter = fitted(x, labels)
    with pytest.warns(UserWarning, match="12 states are no more than the 20 dimensions.*shrunken by 0"):
        eraser = fitter.eraser()
    assert oas(fitter.sigma_xx, 12) == pytest.approx(reference(x.numpy())[1], rel=1e-9)
    assert float(fitted(eraser(x), labels).sigma_xz.abs().max()) < 1e-9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw = fitter.eraser("none")  # exact on these states too, and says nothing
    assert float(fitted(raw(x), labels).sigma_xz.abs().max()) < 1e-9
    other, more = sample(4000, 20, 2, seed=2)
    moved = [float((e(other[:12]) - other[:12]).norm()) for e in (raw, eraser)]
    assert moved[0] != pytest.approx(moved[1], rel=1e-3)
    assert oas(torch.eye(4, dtype=torch.float64), 10) == 1.0
    assert len(more) == 4000


def test_a_random_projection_keeps_the_mean_and_has_the_rank() -> None:
    x, _ = sample(50, 6, 2, seed=4)
    eraser = random_eraser(x.mean(0), 2, seed=1)
    assert eraser.rank == 2
    torch.testing.assert_close(eraser(x).mean(0), x.mean(0))
    torch.testing.assert_close(eraser.projection, eraser.projection.T)
    assert int(torch.linalg.matrix_rank(eraser(x) - x.mean(0))) == 4
    with pytest.raises(InputError, match="rank of 0 to 6, got 7"):
        random_eraser(x.mean(0), 7, seed=1)


def test_mistakes_are_one_sentence() -> None:
    x, labels = sample(20, 4, 2, seed=0)
    with pytest.raises(InputError, match="at least two classes to be erased, got \\['a'\\]"):
        LeaceFitter(4, ["a", "a"])
    only = LeaceFitter(4, NAMES, place="states at resid_out[3]")
    with pytest.raises(InputError, match="got 0 of none"):
        only.eraser()
    only.update(x, ["a"] * 20)
    with pytest.raises(InputError, match="got 20 of \\['a'\\]; add states of another"):
        only.eraser()
    bad = x.clone()
    bad[7, 2] = float("nan")
    bad[8, 1] = float("inf")
    with pytest.raises(InputError, match=r"resid_out\[3\] hold nan in state 7 \(of label 'b'\), entry 2, and 2 such"):
        only.update(bad, ["b"] * 20)
    assert only.count == 20  # nothing of the bad batch was added
    with pytest.raises(InputError, match="'d' is no class"):
        only.update(x, ["d"] * 20)
    with pytest.raises(InputError, match=r"shape \(20, 4\), one a label, got \(20, 3\)"):
        only.update(x[:, :3], labels)
    with pytest.raises(InputError, match="one width and one concept"):
        only.merged(LeaceFitter(5, NAMES))
    with pytest.raises(SettingError, match="Did you mean 'oas'"):
        only.eraser("oass")
