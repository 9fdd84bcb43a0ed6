"""The random edit is as large as the edit it stands beside, at the same place, and points nowhere in particular."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, JAPAN, LAYER, documents, model_of
from palimpsest.edit import Dense, Edit, LowRank, check_editor
from palimpsest.edit.methods.neurons import NeuronEdit
from palimpsest.edit.methods.random_direction import RandomDirection
from palimpsest.edit.registry import editor
from palimpsest.errors import SettingError

ROME: dict[str, Any] = {"layers": (LAYER,), "steps": 3, "contexts": ((5, 1),), "text": documents()}
CHEAP: dict[str, dict[str, Any]] = {
    "rome": ROME,
    "ft": {"layers": (LAYER,), "steps": 2},
    "attention": {"steps": 2},
    "neurons": {"attribution_steps": 4},
}


@pytest.mark.parametrize("like", list(CHEAP))
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_size_place_and_rank_are_those_of_the_other_edit(family: str, like: str) -> None:
    model = model_of(family)
    settings = CHEAP[like]
    other = editor(model, like, **settings).edit(FACTS)
    drawn = RandomDirection(model, like=like, **settings).edit(FACTS)
    assert [payload.path for payload in drawn.payloads] == [payload.path for payload in other.payloads]
    for ours, theirs in zip(drawn.payloads, other.payloads, strict=True):
        assert type(ours) is type(theirs)
        assert ours.norm == pytest.approx(theirs.norm, rel=1e-6)
        for name, tensor in theirs.tensors().items():
            assert ours.tensors()[name].shape == tensor.shape
            assert ours.tensors()[name].dtype == tensor.dtype
            assert not torch.allclose(ours.tensors()[name], tensor)
        if isinstance(theirs, LowRank):
            assert isinstance(ours, LowRank)
            found, expected = (torch.linalg.svdvals((p.u @ p.v).double()) for p in (ours, theirs))
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert drawn.notes["like"][0]["norm"] == pytest.approx(drawn.norm, rel=1e-6)
    assert drawn.settings["like"]["method"] == like
    assert drawn.settings["like"]["layers"] == other.settings["layers"]
    assert drawn.facts == FACTS


def test_with_the_keys_kept_the_same_inputs_are_heard() -> None:
    model = model_of("llama")
    found = NeuronEdit(model, **CHEAP["neurons"]).edit(FACTS)
    drawn = RandomDirection(model, like="neurons", keep="keys", **CHEAP["neurons"]).edit(FACTS)
    for ours, theirs in zip(drawn.payloads, found.payloads, strict=True):
        assert isinstance(ours, LowRank)
        assert isinstance(theirs, LowRank)
        assert ours.norm == pytest.approx(theirs.norm, rel=1e-6)
        inside, change = ours.v.double(), theirs.u.double() @ theirs.v.double()
        torch.testing.assert_close(inside @ inside.T, torch.eye(len(inside), dtype=torch.float64), rtol=0, atol=1e-6)
        torch.testing.assert_close(change @ inside.T @ inside, change, rtol=0, atol=1e-6)  # the same row space
        drawn_change = ours.u.double() @ inside
        assert abs(float((drawn_change * change).sum())) < 0.6 * ours.norm * theirs.norm


def test_on_average_it_points_nowhere() -> None:
    """Mean cosine with the other edit over 200 draws within 4 standard errors of 0, and one draw's spread as it must be."""
    model = model_of("gpt2")
    other = editor(model, "rome", **ROME).edit([EIFFEL])
    for keep, dimensions in (("keys", 32), ("nothing", 32 * 48)):
        method = RandomDirection(model, keep=keep, **ROME)
        method.like.edit = lambda facts: other  # type: ignore[method-assign]
        cosines = []
        for draw in range(200):
            method.draw = draw
            ours, theirs = method.edit([EIFFEL]).payloads[0], other.payloads[0]
            product = ((ours.u @ ours.v).double() * (theirs.u @ theirs.v).double()).sum()
            cosines.append(float(product) / (ours.norm * theirs.norm))
        spread = torch.tensor(cosines).std()
        assert abs(torch.tensor(cosines).mean()) < 4 * spread / 200**0.5
        assert float(spread) == pytest.approx(dimensions**-0.5, rel=0.25)


def test_draws_are_reproducible_and_differ_by_number_fact_and_weight() -> None:
    model = model_of("gpt2")
    settings = {"like": "ft", "layers": (0, 1), "steps": 1}
    first, again, second = (RandomDirection(model, draw=draw, **settings).edit([EIFFEL]).payloads for draw in (0, 0, 1))
    other = RandomDirection(model, **settings).edit([JAPAN]).payloads
    assert torch.equal(first[0].delta, again[0].delta)
    directions = [payload.delta.flatten() / payload.norm for payload in (*first, second[0], other[0])]
    gram = torch.stack(directions) @ torch.stack(directions).T
    assert float((gram - torch.eye(4)).abs().max()) < 0.15  # normal draws in 1536 dimensions


@pytest.mark.parametrize("keep", ["nothing", "keys"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_keeps_the_contract(family: str, keep: str) -> None:
    def make(model: pal.Model, facts: Sequence[pal.Fact]) -> Edit:
        return pal.edit(model, facts, method="random", keep=keep, **ROME)

    edit = check_editor(make, model_of(family), FACTS[:2])
    assert edit.method == "random"
    assert edit.settings["like"]["preset"] == edit.settings["preset"] == "fixed"


def test_the_preset_is_that_of_the_other_method() -> None:
    method = RandomDirection(model_of("gpt2"), like="ft", preset="ft-l", seed=7)
    assert method.card["preset"] == "ft-l"
    assert method.card["like"]["epsilon"] is not None
    assert method.card["like"]["training"]["seed"] == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"like": "rmoe"}, r"no editing method 'rmoe'. Did you mean 'rome'"),
        ({"like": "random"}, r"got 'random' itself"),
        ({"keep": "values"}, r"keep is one of nothing and keys, got 'values'"),
        ({"draw": -1}, r"draw must be 0 or more"),
        ({"like": "ft", "clamp": 1.0}, r"no setting 'clamp'"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        RandomDirection(model_of("gpt2"), **settings)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("keep", ["nothing", "keys"])
def test_a_dense_matrix_has_a_spectrum_too(family: str, keep: str) -> None:
    model = model_of(family)
    settings: dict[str, Any] = {"layers": LAYER, "steps": 2}
    (meant,) = editor(model, "ft", **settings).edit([EIFFEL]).payloads
    (drawn,) = RandomDirection(model, like="ft", keep=keep, **settings).edit([EIFFEL]).payloads
    assert isinstance(meant, Dense)
    assert isinstance(drawn, Dense)
    ours, theirs = (torch.linalg.svd(p.delta.double()) for p in (drawn, meant))
    torch.testing.assert_close(ours.S, theirs.S, rtol=1e-4, atol=1e-6 * float(theirs.S[0]))
    inputs = (ours.U, theirs.U) if family == "gpt2" else (ours.Vh.T, theirs.Vh.T)
    first = abs(float(inputs[0][:, 0] @ inputs[1][:, 0]))
    assert (first > 0.99) == (keep == "keys")
