"""Every row of the table is a real model's shape, names real layers and settings, and unknown models get the rule, said so."""

from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any
from unittest.mock import patch

import pytest
import torch
import transformers

from families import byte_tokenizer
from oracles.small import model_of, smollm2
from palimpsest.edit.defaults import (
    VOCABULARY_PADDING,
    default_layer,
    default_layers,
    default_settings,
    defaults,
    same_shape,
    shape_of,
    table,
    table_entry,
)
from palimpsest.edit.registry import METHODS
from palimpsest.model import Model, anatomy

TOKENIZER = byte_tokenizer()
ROWS = {row["name"]: row for row in table()}
CONFIGS = {
    "gpt2": "GPT2", "gptj": "GPTJ", "gpt_neox": "GPTNeoX", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2",
    "qwen3": "Qwen3", "gemma": "Gemma", "gemma2": "Gemma2", "phi": "Phi", "phi3": "Phi3",
}  # fmt: skip
# classes of transformers whose defaults are a published model
DEFAULT_CONFIGS = {
    "GPT2": "GPT-2", "GPTJ": "GPT-J 6B", "GPTNeoX": "GPT-NeoX 20B", "Llama": "Llama 2 7B", "Mistral": "Mistral 7B",
    "Gemma": "Gemma 7B", "Gemma2": "Gemma 2 2B", "Phi3": "Phi-3 mini",
}  # fmt: skip


def weightless(config: Any) -> Model:
    """The model of a config, its weights shapes alone."""
    with torch.device("meta"), patch.object(anatomy, "_returns_tuple", return_value=False):  # it would run the model
        net = transformers.AutoModelForCausalLM.from_config(config)
        return Model(net, TOKENIZER, anatomy.Anatomy.find(net), "weightless")


def config_of(shape: dict[str, Any], *, extra: int = 0) -> Any:
    """A config with the sizes of a row, its vocabulary padded by `extra`."""
    made = getattr(transformers, f"{CONFIGS[shape['model_type']]}Config")
    inner = "n_inner" if shape["model_type"] in ("gpt2", "gptj") else "intermediate_size"
    heads = {"num_attention_heads": 8} | ({} if shape["model_type"] == "gptj" else {"num_key_value_heads": 8})
    config = made(
        hidden_size=shape["width"], num_hidden_layers=shape["layers"], vocab_size=shape["vocabulary"][0] + extra,
        bos_token_id=0, eos_token_id=1, pad_token_id=None, **{inner: shape["inner"]}, **heads,
    )  # fmt: skip
    assert config.model_type == shape["model_type"]
    return config


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_found_by_the_shape_of_its_model_and_by_no_other(name: str) -> None:
    shape = ROWS[name]["shape"]
    model = weightless(config_of(shape, extra=47))
    assert [other for other, row in ROWS.items() if same_shape(row["shape"], shape_of(model))] == [name]
    assert table_entry(model) == ROWS[name]
    last = ROWS[name]["methods"].get("rome", {"layers": [round(0.3 * shape["layers"])]})["layers"]
    assert default_layer(model) == last[-1]


@pytest.mark.parametrize(("kind", "name"), DEFAULT_CONFIGS.items())
def test_the_published_shape_is_that_of_transformers(kind: str, name: str) -> None:
    model = weightless(getattr(transformers, f"{kind}Config")())
    assert table_entry(model) == ROWS[name]


@pytest.mark.parametrize("name", ROWS)
def test_layers_of_a_row_are_there_and_say_where_they_come_from(name: str) -> None:
    row = ROWS[name]
    assert row["source"] in ("measured", "published", "rule")
    assert (row["source"] == "rule") == (not row["methods"])
    for entry in row["methods"].values():
        assert entry["layers"] == sorted(set(entry["layers"]))
        assert all(0 <= layer < row["shape"]["layers"] for layer in entry["layers"])
        assert entry["provenance"]


def settings_of(method: str) -> set[str] | None:
    """Names of the settings of a method, those inside its dataclasses too; None where it cannot be imported (yet)."""
    module, name = METHODS[{"ft-l": "ft", "pmet": "memit"}.get(method, method)].split(":")
    try:
        room = import_module(module)
    except ModuleNotFoundError:
        return None
    presets = getattr(getattr(room, name), "presets", None) or room.PRESETS
    settings = next(iter(presets.values()))
    own = {field.name for field in fields(settings)}
    return own | {field.name for name in own if is_dataclass(part := getattr(settings, name)) for field in fields(part)}


@pytest.mark.parametrize("method", ["rome", "memit", "alphaedit", "emmet", "pmet", "ft", "ft-l"])
def test_settings_of_the_table_are_settings_of_the_method(method: str) -> None:
    names = settings_of(method)
    given = {setting for row in ROWS.values() for setting in row["methods"].get(method, {}).get("settings", {})}
    assert any(method in row["methods"] for row in ROWS.values())
    if names is None:
        pytest.skip(f"{method} cannot be imported")
    assert given <= names


def test_published_values_reach_the_user() -> None:
    xl = weightless(config_of(ROWS["GPT-2 XL"]["shape"]))
    assert default_layers(xl, "rome") == (17,)
    assert default_layers(xl, "memit") == (13, 14, 15, 16, 17)
    assert default_settings(xl, "memit")["moment_weight"] == 20000.0
    found = defaults(xl, "memit")
    assert found.known
    assert "hparams/MEMIT/gpt2-xl.json" in found.provenance
    medium = weightless(config_of(ROWS["GPT-2 medium"]["shape"]))
    assert default_settings(medium, "rome")["clamp"] == 3.0
    found = defaults(medium, "memit")  # no published values: five layers that end at ROME's
    assert (found.layers, found.settings, found.known) == ((4, 5, 6, 7, 8), {}, False)
    assert "not measured" in found.provenance
    assert "ROME's layer of GPT-2 medium" in found.provenance


def test_a_row_without_published_values_says_that_a_rule_gave_them() -> None:
    pythia = weightless(config_of(ROWS["Pythia 1.4B"]["shape"]))
    assert "no published values" in ROWS["Pythia 1.4B"]["provenance"]
    for method, layers in (("rome", (7,)), ("memit", (3, 4, 5, 6, 7)), ("attention", (17,))):
        found = defaults(pythia, method)
        assert (found.layers, found.known) == (layers, False)
        assert "sweep" in found.provenance


def test_an_unknown_model_gets_the_rule() -> None:
    model = model_of("llama")  # three layers
    assert table_entry(model) is None
    assert default_layer(model) == 1
    assert default_layers(model, "memit") == (0, 1)  # a shallow model has fewer than five layers below
    assert default_layers(model, "attention") == (2,)
    assert default_layers(model, "someone else's") == (1,)
    assert default_settings(model, "memit") == {}
    assert not defaults(model, "rome").known
    assert str(defaults(model, "memit")) == (
        "No default is known for this model: layers 0, 1 by the rule; `palimpsest sweep` proposes one."
    )


def test_a_padded_vocabulary_is_the_same_model_and_another_one_is_not() -> None:
    row = ROWS["Llama 2 7B"]["shape"]
    shape = {**row, "vocabulary": 32000}
    assert same_shape(row, shape | {"vocabulary": 32064})
    assert not same_shape(row, shape | {"vocabulary": 32001 + VOCABULARY_PADDING})
    assert not same_shape(row, shape | {"vocabulary": 64000})
    assert not same_shape(row, shape | {"inner": 14336})
    assert not same_shape(row, shape | {"inner": None})


def test_smollm2_has_the_layer_that_was_measured() -> None:
    found = defaults(smollm2(), "rome")
    assert found.layers == (5,)
    assert found.known
    assert str(found).startswith("The default is layer 5, measured for SmolLM2-135M (best S of layers")
