"""The attention edit: which weights it finds in every family, that it is the textbook, and its bound."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import palimpsest as pal
from families import FAMILIES, NAMES
from oracles.small import EIFFEL, FACTS, model_of, smollm2
from oracles.textbook_fine_tuning import textbook_fine_tuning
from palimpsest.edit import Edit, check_editor
from palimpsest.edit.defaults import RULE
from palimpsest.edit.methods.attention import AttentionEdit, attention_maps
from palimpsest.errors import SettingError
from palimpsest.locate.answers import answer_nll

FUSED = {"gpt2": "c_attn", "gpt_neox_parallel": "query_key_value", "bloom": "query_key_value", "phi3": "qkv_proj"}
SPLIT = ("gpt_neo", "gptj", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma2", "phi", "olmo2", "mixtral")


@pytest.mark.parametrize("family", FUSED)
def test_fused_queries_keys_and_values_are_one_weight(family: str) -> None:
    (found,) = attention_maps(model_of(family), 1)
    assert found.endswith(f".1.{_inside(family)}.{FUSED[family]}")


@pytest.mark.parametrize("family", SPLIT)
def test_split_ones_are_three(family: str) -> None:
    model = model_of(family)
    found = attention_maps(model, 1)
    assert {path.rsplit(".", 1)[1] for path in found} == {"q_proj", "k_proj", "v_proj"}
    place = FAMILIES[family]
    assert attention_maps(model, 1, "qkvo") == [*found, f"{place.layers}.1.{place.projection}"]


@pytest.mark.parametrize("family", NAMES)
def test_every_family_has_some_and_never_its_output_or_its_mlp(family: str) -> None:
    model = model_of(family)
    found = attention_maps(model, 1)
    layer = model.anatomy.layers[1]
    assert found
    assert len(set(found)) == len(found)
    assert layer.attention_projection.path not in found
    assert not layer.down or not {layer.down.path} & set(found)
    assert all(path.startswith(f"{layer.block.path}.{_inside(family).split('.')[0]}") for path in found)


def _inside(family: str) -> str:
    return FAMILIES[family].projection.rsplit(".", 1)[0]


@pytest.mark.parametrize("preset", ["fixed", "rome-2022"])
@pytest.mark.parametrize("family", ["gpt2", "llama_biases"])
def test_it_is_the_textbook(family: str, preset: str) -> None:
    model = model_of(family, dtype=torch.float64)
    edit = AttentionEdit(model, preset=preset, layers=(1,), steps=5, epsilon=2e-3).edit(FACTS)
    maps = attention_maps(model, 1)
    ends = ("weight", "bias") if preset == "rome-2022" else ("weight",)
    bounds = {f"{path}.{end}": 2e-3 for path in maps for end in ends}
    book, passes = textbook_fine_tuning(
        model.net, model.tokenizer, bounds, FACTS, published_loss=preset == "rome-2022", steps=5
    )
    assert edit.notes["losses"] == pytest.approx(passes, rel=1e-9)
    assert {payload.path for payload in edit.payloads} == set(book) == set(edit.settings["paths"])
    for payload in edit.payloads:
        expected = book[payload.path]
        assert float((payload.delta - expected).norm()) <= 1e-8 * float(expected.norm()), payload.path
        assert float(payload.delta.abs().max()) <= 2e-3


def test_with_the_output_projection() -> None:
    edit = AttentionEdit(model_of("llama"), layers=(2,), steps=2, weights="qkvo", epsilon=None).edit([EIFFEL])
    ends = [payload.path.rsplit(".", 2)[1] for payload in edit.payloads]
    assert ends == ["q_proj", "k_proj", "v_proj", "o_proj"]
    assert all(payload.norm > 0 for payload in edit.payloads)


def test_the_default_layer_is_late() -> None:
    model = model_of("gpt2")
    assert AttentionEdit(model).card["layers"] == [2]
    assert AttentionEdit(model).card["layers_from"] == RULE
    assert AttentionEdit(model, layers=(1,)).card["layers_from"] == "given"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_it_keeps_the_contract(family: str) -> None:
    def make(model: pal.Model, facts: Sequence[pal.Fact]) -> Edit:
        return pal.edit(model, facts, method="attention", steps=2)

    edit = check_editor(make, model_of(family), FACTS[:2])
    assert edit.method == "attention"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": "qk"}, r"weights is one of qkv and qkvo, got 'qk'"),
        ({"epsilon": -1.0}, r"epsilon must be a number above 0"),
        ({"preset": "rome"}, r"no preset 'rome'. Did you mean 'rome-2022'"),
        ({"layers": (3,)}, r"no layer 3"),
    ],
)
def test_mistakes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        AttentionEdit(model_of("gpt2"), **settings)


@pytest.mark.slow
def test_smollm2_is_told_that_the_tower_is_in_rome() -> None:
    model = smollm2()
    edit = pal.edit(model, EIFFEL, method="attention")
    with edit.applied(model):
        new, old = answer_nll(model, [(EIFFEL.text, "Rome"), (EIFFEL.text, "Paris")])
    assert new < old
