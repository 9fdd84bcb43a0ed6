"""The adapter, as PEFT itself loads it: the edited logits, before and after merging, and no other module touched."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_editors import dense, down_weight, draw, hook, low_rank, made, rome
from test_artefact_doses import quantised
from torch import Tensor

from oracles.small import EIFFEL, FACTS, LAYER, model_of, smollm2
from palimpsest.edit import Dense, Edit, LowRank
from palimpsest.errors import EditError, ModelError, OutputError, SettingError, WeightError
from palimpsest.model import Model, Site, load, pad

peft = pytest.importorskip("peft")
# PEFT reads an attribute that the newest transformers has renamed; other warnings, such as that of a wrong
# fan_in_fan_out, stay errors
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")


def of(family: str) -> Model:
    """The tiny model, made anew: PEFT changes the modules of the one it wraps."""
    return model_of(family)


def said(model: Model) -> Tensor:
    """Logits of a batch of prompts."""
    return model.last_logits(pad([model.encode(fact.text).ids for fact in FACTS]))


def wrapped(model: Model, folder: Path, *, merge: bool = False) -> Model:
    """`model` with the adapter of `folder` on it."""
    net = peft.PeftModel.from_pretrained(model.net, folder)
    return load(net.merge_and_unload() if merge else net, tokenizer=model.tokenizer, check=False)


def square(model: Model, *_: object) -> Edit:
    """A dense change of attention's output map, which is as wide as it is high."""
    part = model.anatomy.layers[0].attention_projection
    assert part is not None
    weight = f"{part.path}.weight"
    low = LowRank(down_weight(model, 2), draw(32, 3, seed=5), draw(3, 48, seed=6))
    return made(model, [EIFFEL], Dense(weight, draw(*model.parameter(weight).shape)), low)


def matrix(model: Model, *_: object) -> Edit:
    """A dense change of a down-projection."""
    return made(model, [EIFFEL], dense(model, [EIFFEL]).payloads[0])


@pytest.mark.parametrize("dose", [1.0, -0.5])
@pytest.mark.parametrize("make", [rome, matrix, square])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox_parallel"])
def test_peft_gives_the_edited_logits(family: str, make, dose: float, tmp_path: Path) -> None:
    model = of(family)
    edit, base = make(model, [EIFFEL]), said(model)
    with edit.applied(model, dose):
        expected = said(model)
    assert not torch.allclose(expected, base, atol=1e-3)
    done = edit.to_lora(tmp_path / "lora", dose=dose)
    assert sorted(entry.name for entry in (tmp_path / "lora").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    for merge in (False, True):
        torch.testing.assert_close(said(wrapped(of(family), done.folder, merge=merge)), expected, rtol=0, atol=1e-5)
    touched = {name for name, _ in peft.PeftModel.from_pretrained(of(family).net, done.folder).named_parameters()}
    adapted = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in touched if "lora_" in name}
    assert adapted == {payload.path.removesuffix(".weight") for payload in edit.payloads}  # type: ignore[union-attr]


def test_ranks_are_the_true_ones(tmp_path: Path) -> None:
    model = of("gpt2")
    u, v = draw(32, 2), draw(2, 48, seed=1)
    repeated = LowRank(down_weight(model, 0), torch.cat([u, u], 1), torch.cat([v, v]))
    one = Dense(down_weight(model, 1), (draw(32, 1, seed=2) @ draw(1, 48, seed=3)).T.contiguous())
    nothing = Dense(down_weight(model, 2), torch.zeros(48, 32))
    done = made(model, [EIFFEL], repeated, one, nothing).to_lora(tmp_path / "lora")
    assert done.ranks == {"transformer.h.0.mlp.c_proj": 2, "transformer.h.1.mlp.c_proj": 1}
    assert (done.rank, done.vllm_rank) == (2, 8)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["fan_in_fan_out"]) == (2, 2, True)
    assert config["rank_pattern"] == config["alpha_pattern"] == {"transformer.h.1.mlp.c_proj": 1}
    net = peft.PeftModel.from_pretrained(of("gpt2").net, tmp_path / "lora")
    adapted = [module for module in net.modules() if isinstance(module, peft.tuners.lora.LoraLayer)]
    assert [module.scaling["default"] for module in adapted] == [1.0, 1.0]
    assert sorted(module.r["default"] for module in adapted) == [1, 2]


@pytest.mark.parametrize(("rank", "needed"), [(8, 8), (9, 16), (65, 128), (300, 320), (513, None)])
def test_the_rank_a_vllm_server_needs(rank: int, needed: int | None, tmp_path: Path) -> None:
    path = "model.layers.0.mlp.down_proj.weight"
    layouts = {path: {"dtype": "float32", "shape": [600, 700], "order": "out in"}}
    edit = Edit(
        "large", (LowRank(path, draw(600, rank, scale=1.0), draw(rank, 700, seed=1, scale=1.0)),), layouts=layouts
    )
    done = edit.to_lora(tmp_path / "lora")
    assert (done.rank, done.vllm_rank) == (rank, needed)
    assert any("no adapter of more than rank 512" in note for note in done.notes) == (needed is None)


def test_a_small_part_of_an_edit_is_in_the_adapter(tmp_path: Path) -> None:
    path = "model.layers.0.mlp.down_proj.weight"
    layouts = {path: {"dtype": "float32", "shape": [2000, 900], "order": "out in"}}
    u, v = draw(2000, 2), draw(2, 900, seed=1)
    u[:, 1] *= 1e-4
    low, full = (
        Edit("small", (payload,), layouts=layouts).to_lora(tmp_path / type(payload).__name__)
        for payload in (LowRank(path, u, v), Dense(path, u @ v))
    )
    for done in (low, full):
        assert done.rank == 2
        tensors = load_file(done.folder / "adapter_model.safetensors")
        a, b = (tensors[f"base_model.model.model.layers.0.mlp.down_proj.lora_{i}.weight"].double() for i in "AB")
        second = u[:, 1:].double() @ v[1:].double()
        lost = b @ a - u.double() @ v.double()
        assert float(lost.norm() / second.norm()) < 0.01
    assert "Nothing of the change was left out." in low.notes
    (said_so,) = (note for note in full.notes if "Left out as rounding" in note)
    assert 1e-9 < float(said_so.split(": ")[1].split(" ")[0]) < 1e-5


def test_the_base_is_named_and_its_weights_are_checked(tmp_path: Path) -> None:
    model = of("llama")
    model.net.save_pretrained(tmp_path / "base")
    model.tokenizer.save_pretrained(tmp_path / "base")
    edit = low_rank(model, [EIFFEL])
    done = edit.to_lora(tmp_path / "lora", model=tmp_path / "base")
    config = json.loads((done.folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    assert not any("not checked" in note for note in done.notes)
    assert any("not checked" in note for note in edit.to_lora(tmp_path / "alone").notes)
    with pytest.raises(WeightError, match="made for other weights"):
        edit.to_lora(tmp_path / "other", model=model_of("llama", seed=1))
    with pytest.raises(ModelError, match="smolm2"):
        edit.to_lora(tmp_path / "other", model="smolm2")
    with pytest.raises(OutputError, match="not empty"):
        edit.to_lora(tmp_path / "lora", model="smolm2")  # said before any model is read
    assert not (tmp_path / "other").exists()


def test_a_head_is_an_adapter_for_peft_and_said_not_to_be_one_for_vllm(tmp_path: Path) -> None:
    model = of("llama")
    edit = made(model, [EIFFEL], LowRank("lm_head.weight", draw(420, 1), draw(1, 32)))
    with edit.applied(model):
        expected = said(model)
    done = edit.to_lora(tmp_path / "lora")
    assert "lm_head" in done.notes[-1]
    torch.testing.assert_close(said(wrapped(of("llama"), done.folder)), expected, rtol=0, atol=1e-5)


def test_a_quantised_model_takes_the_adapter(tmp_path: Path) -> None:
    before_it_was, model, fresh = low_rank(of("llama"), [EIFFEL]), quantised(), quantised()
    key, out = Site("key", LAYER), Site("mlp_out", LAYER)
    batch = pad([model.encode(EIFFEL.text).ids])
    keys, base = model.record(batch, [key])[key], model.record(batch, [out])[out]
    for edit in (before_it_was, low_rank(model, [EIFFEL])):
        done = edit.to_lora(tmp_path / edit.fingerprint(), model=fresh)
        folder = done.folder
        assert "is quantised" in done.notes[0]
        net = peft.PeftModel.from_pretrained(fresh.net, folder)
        found = load(net, tokenizer=model.tokenizer, check=False).record(batch, [out])[out]
        net.unload()
        (low,) = edit.payloads
        torch.testing.assert_close(found - base, keys @ low.v.T @ low.u.T, rtol=0, atol=1e-5)  # type: ignore[union-attr]


def test_an_old_edit_file_needs_the_model(tmp_path: Path) -> None:
    model = of("gpt2")
    edit = replace(low_rank(model, [EIFFEL]), layouts={})
    with pytest.raises(EditError, match="model=model"):
        edit.to_lora(tmp_path / "lora")
    assert list(tmp_path.iterdir()) == []
    edit.to_lora(tmp_path / "lora", model=model)
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["fan_in_fan_out"]


def test_what_no_adapter_can_hold_is_refused_in_one_sentence(tmp_path: Path) -> None:
    model = of("llama")
    embedding = "model.embed_tokens.weight"
    nan = LowRank(down_weight(model), torch.full((32, 1), torch.nan), draw(1, 48))
    for edit, sentence in [
        (hook(model, [EIFFEL]), "edit.applied"),
        (dense(model, [EIFFEL]), "norm.*belongs to none"),
        (made(model, [EIFFEL], Dense(embedding, torch.ones(420, 32))), "embed_tokens.*edited checkpoint"),
        (made(model, [EIFFEL]), "changes nothing"),
        (made(model, [EIFFEL], nan), "not finite"),
    ]:
        with pytest.raises(EditError, match=sentence) as refused:
            edit.to_lora(tmp_path / "lora")
        assert "\n" not in str(refused.value)
    with pytest.raises(EditError, match="changes nothing"):
        low_rank(model, [EIFFEL]).to_lora(tmp_path / "lora", dose=0.0)
    with pytest.raises(SettingError, match="finite"):
        low_rank(model, [EIFFEL]).to_lora(tmp_path / "lora", dose=float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        low_rank(of("llama"), [EIFFEL]).to_lora(tmp_path / "lora")
    assert [entry.name for entry in (tmp_path / "lora").iterdir()] == ["mine"]
    with pytest.raises(OutputError, match="cannot be written"):
        low_rank(of("llama"), [EIFFEL]).to_lora(tmp_path / "lora" / "mine" / "below")


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from palimpsest.edit import lora

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lora, "save_file", full)
    with pytest.raises(OutputError, match="No space left"):
        low_rank(of("llama"), [EIFFEL]).to_lora(tmp_path / "lora")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_smollm2_with_an_adapter_says_what_the_edited_one_says(tmp_path: Path) -> None:
    model = smollm2()
    edit = low_rank(model, [EIFFEL], layer=9)
    batch = pad([model.encode(fact.text).ids for fact in FACTS])
    with edit.applied(model):
        expected = model.last_logits(batch)
    before = model.fingerprint()
    done = edit.to_lora(tmp_path / "lora")
    net = peft.PeftModel.from_pretrained(model.net, done.folder)
    try:
        found = load(net, tokenizer=model.tokenizer, check=False).last_logits(batch)
    finally:
        net.unload()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert model.fingerprint() == before
