"""The joint edit is one optimisation over two places, each within its own bound."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import palimpsest as pal
from oracles.small import EIFFEL, FACTS, model_of
from oracles.textbook_fine_tuning import textbook_fine_tuning
from palimpsest.edit import Edit, check_editor
from palimpsest.edit.defaults import RULE
from palimpsest.edit.methods.attention import attention_maps
from palimpsest.edit.methods.joint import JointEdit
from palimpsest.errors import SettingError


@pytest.mark.parametrize(("mlp", "attention"), [(0, 2), (2, 1), (1, 1)])
def test_it_is_the_textbook(mlp: int, attention: int) -> None:
    model = model_of("llama", dtype=torch.float64)
    editor = JointEdit(
        model, mlp_layers=(mlp,), attention_layers=(attention,), mlp_epsilon=None, attention_epsilon=1e-3, steps=5
    )
    edit = editor.edit(FACTS)
    bounds: dict[str, float | None] = {f"{model.anatomy.down(mlp).path}.weight": None}
    bounds |= {f"{path}.weight": 1e-3 for path in attention_maps(model, attention)}
    book, passes = textbook_fine_tuning(model.net, model.tokenizer, bounds, FACTS, steps=5)
    assert edit.notes["losses"] == pytest.approx(passes, rel=1e-9)
    assert {payload.path for payload in edit.payloads} == set(book)
    for payload in edit.payloads:
        expected = book[payload.path]
        assert float((payload.delta - expected).norm()) <= 1e-8 * float(expected.norm()), payload.path


def test_each_place_has_its_own_bound() -> None:
    model = model_of("gpt2")
    edit = JointEdit(
        model, mlp_layers=(0,), attention_layers=(2,), mlp_epsilon=6e-4, attention_epsilon=9e-4, steps=4
    ).edit([EIFFEL])
    mlp, attention = edit.payloads
    assert (mlp.path, attention.path) == ("transformer.h.0.mlp.c_proj.weight", "transformer.h.2.attn.c_attn.weight")
    assert float(mlp.delta.abs().max()) == pytest.approx(6e-4)
    assert float(attention.delta.abs().max()) == pytest.approx(9e-4)


def test_the_default_places_are_early_and_late() -> None:
    card = JointEdit(model_of("gpt2")).card
    assert (card["mlp_layers"], card["attention_layers"]) == ([1], [2])
    assert card["layers_from"] == f"MLP: {RULE}; attention: {RULE}"
    assert JointEdit(model_of("gpt2"), mlp_layers=(0,)).card["layers_from"] == f"MLP: given; attention: {RULE}"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_keeps_the_contract(family: str) -> None:
    def make(model: pal.Model, facts: Sequence[pal.Fact]) -> Edit:
        return pal.edit(model, facts, method="joint", steps=2)

    assert check_editor(make, model_of(family), FACTS[:2]).method == "joint"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mlp_epsilon": 0.0}, r"mlp_epsilon must be a number above 0"),
        ({"attention_epsilon": float("inf")}, r"attention_epsilon must be a number above 0"),
        ({"mlp_layers": (9,)}, r"no layer 9"),
        ({"attention_layers": ()}, r"at least one layer"),
        ({"layers": (1,)}, r"no setting 'layers' but two, mlp_layers and attention_layers"),
        ({"weights": "o"}, r"weights is one of qkv and qkvo"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        JointEdit(model_of("gpt2"), **settings)
