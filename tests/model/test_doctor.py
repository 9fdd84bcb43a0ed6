"""The doctor passes every healthy family, and each kind of sabotage makes it fail and say where."""

import dataclasses

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import families
from palimpsest.errors import AnatomyError
from palimpsest.model import Anatomy, Model, examine, load

pytestmark = pytest.mark.floor


@pytest.mark.parametrize("name", families.NAMES)
def test_every_family_is_healthy(tiny, name):
    found = examine(tiny(name))
    failed = {check.name for check in found.checks if not check.passed}
    assert failed == (set() if families.FAMILIES[name].keeps else {"identity"}), found.verdict
    assert found.healthy
    assert "every site means what its name says" in found.verdict
    assert ("note: identity" in found.verdict) != families.FAMILIES[name].keeps
    names = {check.name for check in found.checks}
    assert {"stream", "widths", "mixing: MLP", "layers", "tokens", "tokens and layers", "head", "clean"} <= names
    assert ({"projection", "last"} <= names) == bool(families.FAMILIES[name].down)
    found.raise_on_failure()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_other_precisions_are_held_to_their_own_tolerance(name, dtype, tokenizer):
    model = load(families.build(name, dtype=dtype), tokenizer=tokenizer)
    assert examine(model).healthy, examine(model).verdict


def test_the_verdict_lists_the_parts(tiny):
    parts = examine(tiny("gpt2"), thorough=False).parts
    assert ("down", "transformer.h.*.mlp.c_proj", "Conv1D") in parts
    assert any(name == "down" and "mixture of experts" in why for name, _, why in examine(tiny("mixtral")).parts)


def model_of(net, tokenizer, anatomy=None) -> Model:
    return load(net, tokenizer=tokenizer, anatomy=anatomy, check=False)


def assert_fails(model: Model, name: str, where: str = "") -> None:
    found = examine(model)
    failed = [check for check in found.checks if not check.passed and check.required]
    assert name in {check.name for check in failed}, found.verdict
    assert not found.healthy
    assert found.verdict.startswith(f"{model.name}: failed: ")
    assert f"{name}{where}" in found.verdict
    with pytest.raises(AnatomyError, match="failed the check"):
        found.raise_on_failure()


@pytest.mark.parametrize("down", ["mlp.up_proj", "mlp.gate_proj"])
def test_down_is_another_map(down, tokenizer):
    net = families.build("llama")
    anatomy = Anatomy.find(net, mlp="mlp", down=down)
    assert_fails(model_of(net, tokenizer, anatomy), "last")
    assert_fails(model_of(net, tokenizer, anatomy), "widths", " at value[0]")


def test_down_inside_attention_is_refused_before_anything_runs():
    with pytest.raises(AnatomyError, match="lies inside the attention module"):
        Anatomy.find(families.build("llama"), down="self_attn.o_proj")


@pytest.mark.parametrize("down", ["mlp.up_proj", "mlp.gate_proj"])
def test_down_is_another_map_of_the_same_shape(down, tokenizer):
    net = families.build("llama", intermediate_size=families.WIDTH)
    assert_fails(model_of(net, tokenizer, Anatomy.find(net, down=down)), "last")


@pytest.mark.parametrize("name", ["llama", "gptj"])
def test_attention_and_mlp_swapped(name, tokenizer):
    net, family = families.build(name), families.FAMILIES[name]
    swapped = Anatomy.find(net, attention=family.mlp, mlp=family.attention, down=family.down)
    assert_fails(model_of(net, tokenizer, swapped), "mixing: MLP")


def test_layers_in_wrong_order(tokenizer):
    net = families.build("llama")
    anatomy = Anatomy.find(net)
    shuffled = [dataclasses.replace(anatomy.layers[i], index=place) for place, i in enumerate((1, 0, 2))]
    wrong = dataclasses.replace(anatomy, layers=tuple(shuffled))
    assert_fails(model_of(net, tokenizer, wrong), "stream", " at resid_out[")


class Flipped(Conv1D):
    """A Conv1D that uses its weight the other way round."""

    def forward(self, x):
        return x @ self.weight.T + self.bias


def test_a_weight_stored_the_other_way_round(tokenizer):
    net = families.build("gpt2", n_inner=families.WIDTH)
    flipped = Flipped(families.WIDTH, families.WIDTH)
    flipped.load_state_dict(net.transformer.h[1].mlp.c_proj.state_dict())
    net.transformer.h[1].mlp.c_proj = flipped
    assert_fails(model_of(net, tokenizer), "projection", " at layer 1")


def test_a_projection_with_something_after_it_in_the_same_module(tokenizer):
    class Scaled(nn.Linear):
        def forward(self, x):
            return 1.01 * super().forward(x)

    net = families.build("llama")
    scaled = Scaled(families.INNER, families.WIDTH, bias=False)
    scaled.load_state_dict(net.model.layers[2].mlp.down_proj.state_dict())
    net.model.layers[2].mlp.down_proj = scaled
    assert_fails(model_of(net, tokenizer), "projection", " at layer 2")


class Remade(nn.Module):
    """A layer around a layer, with the same parts."""

    def __init__(self, block):
        super().__init__()
        self.self_attn, self.mlp, self.block, self.calls = block.self_attn, block.mlp, [block], 0
        self.attention_type = getattr(block, "attention_type", "full_attention")


class Counting(Remade):
    """A layer that remembers: each call gives a little more than the one before."""

    def forward(self, hidden_states, **kwargs):
        self.calls += 1
        return self.block[0](hidden_states, **kwargs) + 0.01 * self.calls


def test_a_layer_that_changes_from_call_to_call(tokenizer):
    net = families.build("llama")
    net.model.layers[1] = Counting(net.model.layers[1])
    assert_fails(model_of(net, tokenizer), "layers")


def test_the_head_was_replaced(tokenizer):
    net = families.build("llama")
    model = model_of(net, tokenizer)
    net.set_output_embeddings(nn.Linear(families.WIDTH, families.VOCABULARY, bias=False))
    assert_fails(model, "head", " (AnatomyError: The output head of this network was replaced")


def test_a_layer_was_replaced_after_the_anatomy_was_found(tokenizer):
    net = families.build("llama")
    model = model_of(net, tokenizer)
    net.model.layers[1] = families.build("llama", seed=1).model.layers[1]
    assert_fails(model, "stream", " (AnatomyError: The run did not reach")


class Deaf(Remade):
    """A layer that calls its parts and throws away what they give."""

    def forward(self, hidden_states, **kwargs):
        self.block[0](hidden_states, **kwargs)
        return hidden_states


def test_a_layer_that_ignores_its_parts(tokenizer):
    net = families.build("llama")
    net.model.layers[1] = Deaf(net.model.layers[1])
    for kind in ("attn_out", "key", "mlp_out"):
        assert_fails(model_of(net, tokenizer), f"alive: {kind}", " at layer 1")


def test_attention_that_reads_nothing(tokenizer):
    net = families.build("llama")
    with torch.no_grad():
        net.model.layers[2].self_attn.v_proj.weight.zero_()
    assert_fails(model_of(net, tokenizer), "mixing: attention", " at layer 2")


def test_numbers_that_are_not_finite_never_pass(tokenizer):
    net = families.build("llama")
    model = model_of(net, tokenizer)
    with torch.no_grad():
        net.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    assert_fails(model, "projection", " at layer 1")


def test_a_hook_left_behind_is_noticed(tiny, monkeypatch, tokenizer):
    net = families.build("gpt2")
    model = model_of(net, tokenizer)
    original = Model.last_logits

    def leaving(self, batch):
        self.net.register_forward_hook(lambda *_: None)
        return original(self, batch)

    monkeypatch.setattr(Model, "last_logits", leaving)
    assert_fails(model, "clean")


def test_load_refuses_what_the_doctor_fails(tokenizer):
    net = families.build("llama")
    with pytest.raises(AnatomyError, match=r"failed the check 'widths' at value\[0\].*name its parts by hand"):
        load(net, tokenizer=tokenizer, anatomy=Anatomy.find(net, down="mlp.up_proj"))
