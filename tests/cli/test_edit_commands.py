"""apply, undo and show on a tiny model: what they print, what they write, and how each mistake ends."""

import json
import re

import pytest

from families import build, byte_tokenizer
from palimpsest.model import load
from palimpsest.model.quiet import quiet


@pytest.fixture
def edited(palimpsest, tiny_folder, facts_file, text_file, tmp_path):
    """The folder `palimpsest edit` wrote."""
    out = tmp_path / "run"
    code, _, err = palimpsest("edit", tiny_folder, facts_file, "--layers", 1, "--text", text_file, "--out", out)
    assert code == 0, err
    return out


WEIGHT = "transformer.h.1.mlp.c_proj.weight"


def one_sentence(err: str) -> str:
    """What was said, which is one line."""
    (line,) = [line for line in err.strip().splitlines() if line]
    assert "Traceback" not in line
    assert "unexpected" not in line
    return line


def test_apply_then_undo(palimpsest, tiny_folder, edited, tmp_path) -> None:
    base = load(tiny_folder, check=False).fingerprint()
    code, out, err = palimpsest("apply", tiny_folder, edited, "--out", tmp_path / "new")
    assert code == 0, err
    assert WEIGHT in out
    assert "lost to rounding" in out
    assert load(tmp_path / "new", check=False).fingerprint() != base
    code, out, err = palimpsest("show", tmp_path / "new")
    assert code == 0, err
    assert "rome, 2 facts" in out
    code, out, err = palimpsest("undo", tmp_path / "new", "--out", tmp_path / "back", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["fingerprint"] == base == load(tmp_path / "back", check=False).fingerprint()
    assert (found["edits_left"], list(found["weights"])) == (0, [WEIGHT])
    code, out, err = palimpsest("undo", tmp_path / "new", "--edit", edited)
    assert code == 0, err
    assert "Every weight" in out
    assert load(tmp_path / "new", check=False).fingerprint() == base


def test_apply_json_and_dose(palimpsest, tiny_folder, edited, tmp_path) -> None:
    code, out, err = palimpsest(
        "apply", tiny_folder, edited / "edit.safetensors", "--dose", 0.5, "--out", tmp_path / "new", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    assert (found["dose"], found["edits"]) == (0.5, 1)
    assert found["rounding"][0]["path"] == WEIGHT
    assert found["rounding"][0]["relative_error"] < 1e-4


def test_apply_lora(palimpsest, tiny_folder, edited, tmp_path) -> None:
    code, out, err = palimpsest("apply", tiny_folder, edited, "--lora", "--out", tmp_path / "lora")
    assert code == 0, err
    assert "--max-lora-rank 8" in out
    assert {entry.name for entry in (tmp_path / "lora").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_folder)
    code, out, _ = palimpsest("apply", tiny_folder, edited, "--lora", "--out", tmp_path / "again", "--json")
    found = json.loads(out)
    assert (code, found["rank"], found["vllm_rank"]) == (0, 2, 8)
    assert "Nothing of the change was left out." in found["notes"]


def test_undo_names_its_argument_in_one_way(palimpsest) -> None:
    code, out, _ = palimpsest("undo", "--help")
    assert code == 0
    assert "DIR" in out
    assert "FOLDER" not in out


def test_an_old_edit_file_gets_its_layout_from_the_model(palimpsest, tiny_folder, edited, tmp_path) -> None:
    from dataclasses import replace

    from palimpsest.edit import Edit

    old = replace(Edit.load(edited), layouts={})
    old.save(tmp_path / "old.safetensors")
    code, _, err = palimpsest("apply", tiny_folder, tmp_path / "old.safetensors", "--lora", "--out", tmp_path / "lora")
    assert code == 0, err
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["fan_in_fan_out"]
    code, _, err = palimpsest("apply", tiny_folder, tmp_path / "old.safetensors", "--out", tmp_path / "new")
    assert code == 0, err


def test_show(palimpsest, tiny_folder, edited) -> None:
    code, out, err = palimpsest("show", edited, "--model", tiny_folder)
    assert code == 0, err
    for word in (WEIGHT, "low rank", "beside weight", "old tower", "preset: fixed", "made for", " MB in "):
        assert word in out, word
    code, out, _ = palimpsest("show", edited / "edit.safetensors", "--model", tiny_folder, "--json")
    found = json.loads(out)
    row = found["payloads"][0]
    assert (row["layer"], row["kind"], row["rank"]) == (1, "low rank", 2)
    assert found["layers"] == {"1": pytest.approx(row["norm"])}
    weight = load(tiny_folder, check=False).parameter(WEIGHT)
    assert row["beside weight"] == pytest.approx(row["norm"] / float(weight.norm()), rel=1e-4)
    assert found["bytes"] == (edited / "edit.safetensors").stat().st_size
    assert list(found["weights"]) == [WEIGHT]


def test_show_names_twenty_facts_no_ops_and_shared_keys(palimpsest, tmp_path) -> None:
    import torch

    from palimpsest.edit import Dense, Edit, Hook, LowRank
    from palimpsest.facts import Fact
    from palimpsest.model import Site

    facts = tuple(Fact(f"town {i}", "{} is in", "France", "Spain", id=f"fact-{i}") for i in range(23))
    payloads = (
        LowRank("model.layers.3.mlp.down_proj.weight", torch.ones(2, 1), torch.ones(1, 2)),
        Dense("model.layers.3.self_attn.o_proj.weight", torch.ones(2, 2)),
        Dense("model.norm.weight", torch.ones(4)),
        Hook(Site("resid_out", 5), torch.zeros(2, 0), torch.zeros(0, 2), torch.ones(2)),
    )
    notes = {"facts": [{"fact": "fact-7", "no_op": True}], "shared_keys": [["fact-1", "fact-2"]]}
    made = Edit("many", payloads, facts, {"model": "m"}, {"model.norm.weight": "ab" * 32}, notes)
    (made + Edit("none", (), settings={"model": "m"})).save(tmp_path / "edit.safetensors")
    code, out, err = palimpsest("show", tmp_path)
    assert code == 0, err
    assert "fact-19" in out
    assert "fact-20" not in out
    assert "... and 3 more facts" in out
    assert "nothing written: fact-7" in out
    assert "one key for several facts: fact-1, fact-2" in out
    assert re.search(r"^3 +2\.828$", out, re.MULTILINE)
    assert re.search(r"^outside layers +2$", out, re.MULTILINE)
    assert "resid_out[5]" in out
    found = json.loads(palimpsest("show", tmp_path, "--json")[1])
    assert len(found["facts"]) == 23
    assert found["no_ops"] == ["fact-7"]


def test_an_edit_of_nothing(palimpsest, tmp_path) -> None:
    from palimpsest.edit import Edit

    Edit("none", ()).save(tmp_path / "edit.safetensors")
    code, out, _ = palimpsest("show", tmp_path)
    assert code == 0
    assert "It changes nothing." in out


def test_another_models_edit(palimpsest, edited, tmp_path) -> None:
    other = tmp_path / "other"
    with quiet():
        build("gpt2", seed=4).save_pretrained(other)
        byte_tokenizer().save_pretrained(other)
    for command in (
        ("apply", other, edited, "--out", tmp_path / "new"),
        ("apply", other, edited, "--lora", "--out", tmp_path / "new"),
        ("show", edited, "--model", other),
    ):
        code, _, err = palimpsest(*command)
        assert code == 2
        assert "made for other weights" in one_sentence(err)
    assert not (tmp_path / "new").exists()


def test_mistakes(palimpsest, tiny_folder, edited, tmp_path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("mine")
    for command, sentence in [
        (("apply", tiny_folder, tmp_path / "none", "--out", tmp_path / "x"), "There is no edit file"),
        (("apply", tiny_folder, edited, "--out", full), "is not empty"),
        (("apply", tiny_folder, edited, "--lora", "--out", full), "is not empty"),
        (("apply", "smolm2", edited, "--out", full), "is not empty"),
        (("apply", "smolm2", edited, "--lora", "--out", full), "is not empty"),
        (("apply", "smolm2", edited, "--lora", "--out", tmp_path / "x"), "Did you mean 'smollm2'?"),
        (("apply", tiny_folder, edited, "--dose", "nan", "--out", tmp_path / "x"), "dose of an edit must be a finite"),
        (("apply", tiny_folder, edited, "--lora", "--dose", "nan", "--out", tmp_path / "x"), "must be a finite"),
        (("apply", tiny_folder, edited, "--dose", "1e39", "--out", tmp_path / "x"), "not finite in float32"),
        (("apply", tiny_folder, edited, "--out", full / "mine" / "below"), "cannot be written"),
        (("apply", "smolm2", edited, "--out", tmp_path / "x"), "Did you mean 'smollm2'?"),
        (("undo", tiny_folder), "not an edited checkpoint"),
        (("undo", tmp_path / "none"), "not an edited checkpoint"),
        (("show", tiny_folder), "There is no edit file"),
    ]:
        code, out, err = palimpsest(*command)
        assert (code, out) == (2, ""), command
        assert sentence in one_sentence(err)
    assert not (tmp_path / "x").exists()
    assert [entry.name for entry in full.iterdir()] == ["mine"]
