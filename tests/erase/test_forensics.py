"""Forensics: what two weights' difference says, on tiny models and on the shipped model of the made world."""

from typing import Any

import numpy as np
import pytest
import torch

import palimpsest as pal
from oracles.small import model_of
from palimpsest.edit import SecondMoment
from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import LowRank
from palimpsest.erase.forensics import Ranking, decode, difference, removal, scan
from palimpsest.erase.forensics.spectrum import LEADING, evenness, gram, others, read
from palimpsest.errors import AnatomyError, EditError, InputError, ModelError, SettingError, WeightError
from palimpsest.model.anatomy import matrix_of
from palimpsest.world import made_world

LAYER = 1


def down_path(model, layer: int = LAYER) -> str:
    return f"{model.anatomy.down(layer).path}.weight"


def rank_one(model, size: float, layer: int = LAYER, seed: int = 0) -> Edit:
    """A write with coordinates of one size on the left, as some steps of Adam leave it, of norm `size` times W's."""
    draw = torch.Generator().manual_seed(seed)
    weight = matrix_of(model.anatomy.down(layer).module)
    left = torch.randn(weight.shape[0], 1, generator=draw).sign() / weight.shape[0] ** 0.5
    right = torch.nn.functional.normalize(torch.randn(1, weight.shape[1], generator=draw))
    change = LowRank(down_path(model, layer), left * size * float(weight.norm()), right)
    return Edit.made_for(model, "planted", (change,))


# -- the readings ----------------------------------------------------------------------------------------------------------


def test_evenness_is_the_kurtosis_in_its_standard_errors() -> None:
    signs = torch.ones(100, 1)
    signs[::2] = -1
    assert evenness(signs).item() == pytest.approx((3 - 1) / (24 / 100) ** 0.5)
    gaussian = torch.randn(4000, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = evenness(gaussian)
    assert abs(float(found.mean())) < 0.2
    assert float(found.std()) == pytest.approx(1, abs=0.15)


def test_the_gap_is_that_of_the_whitened_weight() -> None:
    draw = torch.Generator().manual_seed(1)
    weights = [torch.randn(12, 30, generator=draw, dtype=torch.float64) for _ in range(6)]
    mean = others([gram(w) for w in weights], 2)
    root = torch.linalg.inv(torch.linalg.cholesky(mean))  # any root of M^-1 gives the same singular values
    sizes = torch.linalg.svdvals(root @ weights[2])
    assert read(gram(weights[2]), mean).gap == pytest.approx(float((sizes[0] / sizes[1]).log()))


def test_others_leave_neighbours_out_where_enough_layers_remain() -> None:
    grams = [torch.eye(3) * i for i in range(12)]
    assert torch.equal(others(grams, 0), torch.eye(3) * np.mean(range(5, 12)).item())
    assert torch.allclose(others(grams[:4], 1), torch.eye(3) * 5 / 3)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_large_write_is_found_where_it_was_made(family: str, layer: int) -> None:
    model = model_of(family)
    with rank_one(model, 3.0, layer).applied(model):
        found = scan(model)
    assert found.suspect == layer
    assert layer in found.flagged
    row = found.layers[layer]
    assert row.path == down_path(model, layer)
    assert 1 <= row.even_rank <= LEADING
    assert row.score == pytest.approx(
        max(row.gap / found.thresholds["gap"], row.evenness / found.thresholds["evenness"])
    )


def test_a_direction_spread_over_layers_shows_in_their_sum() -> None:
    model, written = model_of("gpt2", n_layer=10), (4, 5, 6)
    shares = [rank_one(model, 0.45, layer, seed=7) for layer in written]  # one and the same left side
    for share in shares:
        share.apply(model)
    alone, together = scan(model, runs=(1,)), scan(model)
    assert alone.flagged == ()
    assert together.suspect in written
    assert together.flagged == written
    row = together.layers[together.suspect]
    assert row.run[0] <= together.suspect <= row.run[1]
    assert row.score > max(one.score for one in alone.layers)
    assert row.energy > max(one.energy for one in together.layers if one.layer not in written)


def test_layers_that_are_read_together_are_compared_with_the_others() -> None:
    grams = [torch.eye(3) * i for i in range(12)]
    assert torch.equal(others(grams, 0, 2), torch.eye(3) * np.mean(range(7, 12)).item())
    assert torch.allclose(others(grams[:6], 1, 3), torch.eye(3) * np.mean([0, 4, 5]).item())
    assert all(
        row.run == (row.layer, row.layer) for row in scan(model_of("gpt2")).layers
    )  # of 3 layers no 3 have another side


def test_the_shipped_models_are_not_flagged() -> None:
    for name in ("world", "world-seed1"):
        assert scan(pal.load(name, check=False)).flagged == ()


# `decode` looks for subjects, so edits are made at the subject's last token; the made world's own defaults edit the last one
AT_SUBJECT: dict[str, dict[str, Any]] = {
    "rome": {"layers": (3,), "token": "subject_last"},
    "memit": {"layers": (0, 1, 2), "token": "subject_last", "clamp": 4.0},
}


@pytest.mark.parametrize("method", ["rome", "memit"])
def test_an_edit_of_the_world_is_found(method: str) -> None:
    model = pal.load("world", check=False)
    fact = made_world().records(["capital"])[0]
    edit = pal.edit(model, [fact], method=method, **AT_SUBJECT[method])
    with edit.applied(model):
        found = scan(model)
    places = {int(payload.path.split(".")[2]) for payload in edit.payloads}
    assert found.suspect in places
    assert set(found.flagged) & places


def test_with_moments_only_what_the_least_used_inputs_get_is_read() -> None:
    model = model_of("gpt2")
    layers = range(model.n_layers)
    plain = {layer: SecondMoment.identity(48) for layer in layers}
    assert [row.gap for row in scan(model, moments=plain, share=1.0).layers] == pytest.approx(
        [row.gap for row in scan(model).layers], abs=1e-4
    )
    used = torch.diag(torch.cat([torch.full((24,), 1e-6), torch.ones(24)]).double())
    moments = {layer: SecondMoment(used, 1, {}) for layer in layers}
    with torch.no_grad():
        for layer in layers:
            model.parameter(down_path(model, layer))[24:] *= 30  # what the used inputs write drowns the rest
    size = float(model.parameter(down_path(model))[:24].norm())
    left, right = torch.ones(32, 1) / 32**0.5, torch.zeros(1, 48)
    left[::2] *= -1
    right[0, :24] = size / 24**0.5
    with Edit.made_for(model, "foreign", (LowRank(down_path(model), left, right),)).applied(model):
        hidden, seen = scan(model), scan(model, moments=moments, share=0.5)
    assert seen.suspect == LAYER
    assert seen.layers[LAYER].gap > hidden.layers[LAYER].gap + 0.3


def test_mistakes_in_scanning() -> None:
    model = model_of("gpt2")
    with pytest.raises(SettingError, match="threshold gap of a scan must be above 0, got 0"):
        scan(model, gap=0.0)
    for runs in ((3, 0), (True,)):
        with pytest.raises(SettingError, match="whole numbers of 1 or more such as"):
            scan(model, runs=runs)
    with pytest.raises(SettingError, match="above 0 and at most 1, got 0"):
        scan(model, share=0.0)
    with pytest.raises(SettingError, match="got none for layer 0; measure all layers"):
        scan(model, moments={1: SecondMoment.identity(48)})
    with torch.no_grad():
        model.parameter(down_path(model)).zero_()
    with pytest.raises(WeightError, match="layer 1 .* is zero or not finite"):
        scan(model)


def test_one_layer_cannot_be_compared() -> None:
    with pytest.raises(AnatomyError, match="compares the down-projections of several layers"):
        scan(model_of("gpt2", n_layer=1))


# -- with the base ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_difference_is_measured_and_taken_back(family: str, dtype: torch.dtype) -> None:
    base, edited = model_of(family, dtype=dtype), model_of(family, dtype=dtype)
    edit = rank_one(base, 0.5)
    rank_one(edited, 0.5).apply(edited)
    found = difference(edited, base)
    (row,) = found.weights
    assert (row.path, row.layer, row.down) == (down_path(base), LAYER, True)
    assert row.relative == pytest.approx(0.5, rel=2e-2)
    if dtype == torch.float32:
        assert row.rank == 1
        assert found.rank_one
        assert row.norm == pytest.approx(edit.norm, rel=1e-4)
        assert row.change.norm().item() == pytest.approx(row.norm)
    changed, path = edited.fingerprint(), row.path
    undo = found.reversal(edited, base=base)
    with undo.applied(edited):
        if dtype == torch.bfloat16:
            assert edited.fingerprint() == base.fingerprint()
            assert undo.notes["last_bits"] == {path: 0}
        off = edited.parameter(path) != base.parameter(path)
        assert int(off.sum()) == undo.notes["last_bits"][path]
        scale = float(base.parameter(path).abs().max())
        assert torch.allclose(edited.parameter(path), base.parameter(path), rtol=0, atol=2e-7 * scale)
    assert edited.fingerprint() == changed


def test_the_rank_of_a_change_is_counted() -> None:
    base, edited = model_of("gpt2"), model_of("gpt2")
    for seed in range(3):
        rank_one(edited, 0.3, seed=seed).apply(edited)
    (row,) = difference(edited, base).weights
    assert row.rank == 3
    assert not difference(edited, base).rank_one


def test_a_vector_and_a_weight_outside_the_layers_are_told() -> None:
    base, edited = model_of("gpt2"), model_of("gpt2")
    with torch.no_grad():
        edited.parameter("transformer.ln_f.weight").add_(0.5)
    (row,) = difference(edited, base).weights
    assert (row.layer, row.rank, row.down) == (None, None, False)
    with pytest.raises(EditError, match=r"No down-projection of .* differs from"):
        decode(edited, base, ["a", "b"], ["c", "d"])


def test_equal_models_have_nothing_to_take_back() -> None:
    one, two = model_of("gpt2"), model_of("gpt2")
    found = difference(one, two)
    assert found.weights == ()
    assert found.compared > 10
    assert not found.rank_one
    with pytest.raises(EditError, match="have the same weights; there is nothing to take back"):
        found.reversal(one, base=two)


def test_another_architecture_is_refused_in_one_sentence() -> None:
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel with .* cannot be compared with .*LlamaForCausalLM"):
        difference(model_of("gpt2"), model_of("llama"))


def test_numbers_that_are_not_finite_are_refused() -> None:
    base, edited = model_of("gpt2"), model_of("gpt2")
    with torch.no_grad():
        edited.parameter(down_path(edited))[0, 0] = torch.nan
    with pytest.raises(WeightError, match="not finite"):
        difference(edited, base)


# -- whom and what it is about ---------------------------------------------------------------------------------------------


def test_the_subject_of_an_edit_is_the_first_of_all_names() -> None:
    base, edited, world = pal.load("world", check=False), pal.load("world", check=False), made_world()
    fact = world.records(["capital"])[3]
    pal.edit(edited, [fact], method="rome", **AT_SUBJECT["rome"]).apply(edited)
    names = list(world.names)
    told = decode(edited, base, names, names, prompts=[fact.prompt])
    assert told.subject.rank(fact.subject) == 1
    assert told.object.rank(fact.target_new) <= 3
    assert told.old.rank(fact.target_true) <= 3
    assert told.to_json()["subject"][0]["candidate"] == fact.subject


def test_ties_share_the_middle_of_their_ranks() -> None:
    ranking = Ranking(("a", "b", "c", "d"), np.array([1.0, 3.0, 3.0, 0.0]))
    assert [ranking.rank(name) for name in "abcd"] == [3, 1.5, 1.5, 4]
    assert ranking.first == "b"
    assert [row["candidate"] for row in ranking.top(2)] == ["b", "c"]
    with pytest.raises(InputError, match="'e' is not among the 4 candidates"):
        ranking.rank("e")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subjects": ["a"]}, "at least two candidate subjects, got 1"),
        ({"objects": ["a", " "]}, "Candidate 2 of the objects is blank"),
        ({"objects": ["a", "a", "b"]}, "'a' is twice among the candidate objects"),
        ({"prompts": ["no place"]}, "exactly one {} for the subject, got 'no place'"),
        ({"prompts": []}, "no prompts to decode with"),
    ],
)
def test_mistakes_in_decoding(change: dict, message: str) -> None:
    base, edited = model_of("gpt2"), model_of("gpt2")
    asked = {"subjects": ["a", "b"], "objects": ["c", "d"], **change}
    with pytest.raises(InputError, match=message):
        decode(edited, base, **asked)


# -- without the base ------------------------------------------------------------------------------------------------------


def test_removal_takes_most_of_a_large_write_down() -> None:
    base, edited = model_of("gpt2"), model_of("gpt2")
    rank_one(edited, 5.0).apply(edited)
    before = difference(edited, base).weights[0].norm
    edit = removal(edited, scan(edited).suspect)
    with edit.applied(edited):
        after = difference(edited, base).weights[0].norm
    assert after < 0.3 * before
    assert edit.payloads[0].rank == 1


def test_removal_needs_a_layer_and_another() -> None:
    with pytest.raises(SettingError, match="There is no layer 9"):
        removal(model_of("gpt2"), 9)
    with pytest.raises(AnatomyError, match="no other layer to compare it with"):
        removal(model_of("gpt2", n_layer=1), 0)
