"""Sites are found by structure, in every family, where a person would say they are."""

import pytest
import torch
from torch import nn

import families
from palimpsest.errors import AnatomyError, SettingError
from palimpsest.model import Anatomy, Site
from palimpsest.model.anatomy import in_out_features, matrix_of

pytestmark = pytest.mark.floor


@pytest.mark.parametrize("name", families.NAMES)
def test_every_part_is_where_the_table_says(tiny, name):
    family, anatomy = families.FAMILIES[name], tiny(name).anatomy
    assert len(anatomy) == tiny(name).net.config.num_hidden_layers
    assert anatomy.width == families.WIDTH
    for index, layer in enumerate(anatomy.layers):
        block = f"{family.layers}.{index}"
        assert layer.index == index
        assert layer.block.path == block
        assert layer.attention.path == f"{block}.{family.attention}"
        assert layer.attention_projection.path == f"{block}.{family.projection}"
        mlps = (family.mlp,) if isinstance(family.mlp, str) else family.mlp
        assert layer.mlp.path in {f"{block}.{mlp}" for mlp in mlps}
        assert (layer.down.path if layer.down else None) == family.down_of(index)
        for part in (layer.block, layer.attention, layer.attention_projection, layer.mlp, layer.down):
            assert part is None or tiny(name).net.get_submodule(part.path) is part.module


@pytest.mark.parametrize("name", families.EDITABLE)
def test_down_maps_keys_to_the_stream(tiny, name):
    down = tiny(name).anatomy.down(0).module
    inputs, outputs = in_out_features(down)
    assert (inputs, outputs) == (4 * families.WIDTH if name == "bloom" else families.INNER, families.WIDTH)
    assert matrix_of(down).shape == (outputs, inputs)
    assert matrix_of(down).data_ptr() == down.weight.data_ptr()


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_fused_experts_can_be_located_but_not_edited(tiny, name):
    anatomy = tiny(name).anatomy
    with pytest.raises(
        AnatomyError, match=r"Layer 1 has no single down-projection .*: its MLP is a mixture of experts"
    ):
        anatomy.down(1)
    with pytest.raises(AnatomyError, match="weight edits do not"):
        anatomy.module_of(Site("key", 1))
    for kind in ("resid_in", "attn_out", "mlp_out", "resid_out"):
        assert isinstance(anatomy.module_of(Site(kind, 1)), nn.Module)


def test_experts_as_many_as_layers_are_not_taken_for_layers():
    anatomy = Anatomy.find(families.build("mixtral", num_local_experts=3))
    assert [layer.block.path for layer in anatomy.layers] == [f"model.layers.{i}" for i in range(3)]


@pytest.mark.parametrize(("name", "settings"), [("llama", {"intermediate_size": 32}), ("gpt2", {"n_inner": 32})])
def test_an_mlp_as_wide_as_the_stream(name, settings):
    anatomy = Anatomy.find(families.build(name, **settings))
    assert anatomy.down(1).path == families.FAMILIES[name].down_of(1)


def test_every_part_can_be_named_by_hand():
    net = families.build("llama")
    found = Anatomy.find(net)
    named = Anatomy.find(net, layers="model.layers", attention="self_attn", mlp="mlp", down="mlp.down_proj")
    assert named == found
    gate = Anatomy.find(net, down="mlp.gate_proj")
    assert gate.down(2).path == "model.layers.2.mlp.gate_proj"


@pytest.mark.parametrize(
    ("option", "path", "message"),
    [
        ("layers", "model.layer", r"layers='model.layer' is not a module here: LlamaModel has no 'layer'.*'layers'"),
        ("layers", "model.layers.0", r"layers='model.layers.0' holds 4 modules but the config says 3 hidden layers"),
        ("down", "mlp.down_prj", r"down='mlp.down_prj' .*LlamaMLP has no 'down_prj'. Did you mean 'down_proj'"),
        ("down", "mlp", r"down='mlp' must name a linear map .* is a LlamaMLP"),
        ("attention", "attn", r"attention='attn' is not a module here.*'self_attn'"),
        ("mlp", "mlp.act_fn.deeper", r"mlp='mlp.act_fn.deeper' .* no modules inside"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(option, path, message):
    with pytest.raises(AnatomyError, match=message):
        Anatomy.find(families.build("llama"), **{option: path})


def test_several_candidates_are_named():
    net = families.build("llama")
    for block in net.model.layers:
        block.mlp.extra = nn.Linear(families.INNER, families.WIDTH)
    with pytest.raises(AnatomyError, match=r"choose one with down=\.\.\., of \['mlp.down_proj', 'mlp.extra'\]"):
        Anatomy.find(net)
    assert Anatomy.find(net, down="mlp.down_proj").down(0).path == "model.layers.0.mlp.down_proj"


def test_a_network_without_layers_is_refused():
    net = families.build("llama")
    net.config.num_hidden_layers = 7
    with pytest.raises(AnatomyError, match=r"No list of 7 decoder layers was found in LlamaForCausalLM; name it with"):
        Anatomy.find(net)


def test_a_network_that_does_not_run_is_refused(monkeypatch):
    net = families.build("llama")
    monkeypatch.setattr(net.model.layers[0].mlp, "forward", lambda _: torch.zeros(7, 7, 7, 7))
    with pytest.raises(AnatomyError, match="LlamaForCausalLM does not run on two tokens of text alone"):
        Anatomy.find(net)


def test_a_layer_out_of_range_is_answered_with_the_nearest(tiny):
    with pytest.raises(SettingError, match=r"There is no layer 9: .* layers 0 to 2. Did you mean 2\?"):
        tiny("gpt2").anatomy.down(9)
    with pytest.raises(SettingError, match=r"Did you mean 0\?"):
        tiny("gpt2").anatomy.module_of(Site("key", -3))
    with pytest.raises(SettingError, match=r"There is no site called 'resid_ot'. Did you mean 'resid_out'\?"):
        Site("resid_ot", 1)
