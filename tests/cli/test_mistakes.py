"""A mistake of each kind: one sentence on standard error, the right exit code, no traceback, nothing half-written."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file


def _one_sentence(err: str) -> str:
    lines = [line for line in err.strip().splitlines() if line]
    assert "Traceback" not in err
    return lines[-1]


def test_unknown_command_is_suggested(palimpsest) -> None:
    code, _, err = palimpsest("docotr")
    assert code == 2
    assert "did you mean 'doctor'" in err


def test_unknown_model_is_suggested(palimpsest) -> None:
    code, _, err = palimpsest("doctor", "smolm2")
    assert code == 2
    assert "Did you mean 'smollm2'?" in _one_sentence(err)


def test_bad_records_are_named_the_rest_is_done_and_the_end_is_1(palimpsest, tiny_folder, facts_file) -> None:
    bad = [
        {"subject": "tower", "target_true": "north"},
        {"subject": " ", "prompt": "The {} is in", "target_true": "north"},
        {"subject": "tower", "prompt": "The {} {} is in", "target_true": "north"},
        {"subject": "tower", "prompt": "The {} is in", "target_true": "  "},
    ]
    facts_file.write_text(facts_file.read_text() + "".join(json.dumps(record) + "\n" for record in bad))
    code, out, err = palimpsest("known", tiny_folder, facts_file)
    assert code == 1
    assert "of 2 facts" in out
    assert "facts.jsonl, line 3, field 'prompt'" in err
    assert "line 4" in err
    assert "line 5" in err
    assert "line 6" in err
    assert "4 bad records" in _one_sentence(err)


def test_a_file_cut_short_gives_the_good_records(palimpsest, tiny_folder, facts_file, tmp_path) -> None:
    records = [json.loads(line) for line in facts_file.read_text().splitlines()]
    whole = json.dumps(records, indent=1)
    cut = tmp_path / "cut.json"
    cut.write_text(whole[: len(whole) - 30])
    code, out, err = palimpsest("known", tiny_folder, cut)
    assert code == 1
    assert "of 1 facts" in out
    assert "ends in the middle" in err


def test_not_utf8(palimpsest, tiny_folder, tmp_path) -> None:
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"subject": "Zürich", "prompt": "{} is in"}'.encode("latin-1"))
    code, _, err = palimpsest("known", tiny_folder, path)
    assert code == 2
    assert "UTF-8" in _one_sentence(err)


def test_missing_file(palimpsest, tiny_folder, tmp_path) -> None:
    code, _, err = palimpsest("known", tiny_folder, tmp_path / "none.json")
    assert code == 2
    assert "none.json" in _one_sentence(err)


def test_layer_out_of_range(palimpsest, tiny_folder, facts_file, text_file, tmp_path) -> None:
    out = tmp_path / "run"
    code, _, err = palimpsest("edit", tiny_folder, facts_file, "--layers", 7, "--text", text_file, "--out", out)
    assert code == 2
    assert "Did you mean 2?" in _one_sentence(err)
    assert not list(out.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("option", "value", "hint"), [("--method", "rmoe", "rome"), ("--preset", "rome-2021", "rome-2022")]
)
def test_misspelt_method_and_preset(
    option, value, hint, palimpsest, tiny_folder, facts_file, text_file, tmp_path
) -> None:
    code, _, err = palimpsest(
        "edit", tiny_folder, facts_file, option, value, "--text", text_file, "--out", tmp_path / "r"
    )
    assert code == 2
    assert f"Did you mean '{hint}'?" in _one_sentence(err)


@pytest.mark.parametrize("command", ["edit", "trace", "moments"])
def test_folder_that_cannot_be_written(command, palimpsest, tiny_folder, facts_file, text_file, tmp_path) -> None:
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    args = {"edit": (facts_file, "--text", text_file), "trace": (facts_file,), "moments": ("--text", text_file)}[
        command
    ]
    code, _, err = palimpsest(command, tiny_folder, *args, "--out", blocked / "below")
    assert code == 2
    assert "a-file" in _one_sentence(err)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_weights_that_are_not_finite(palimpsest, tiny_folder, tmp_path) -> None:
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    weights = load_file(folder / "model.safetensors")
    weights["transformer.h.1.mlp.c_fc.weight"][0, 0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    code, _, err = palimpsest("doctor", folder)
    assert code == 2
    assert "transformer.h.1.mlp.c_fc.weight" in _one_sentence(err)


def test_another_models_edit_is_refused(palimpsest, tiny_folder, facts_file, text_file, tmp_path) -> None:
    import shutil

    out = tmp_path / "run"
    assert palimpsest("edit", tiny_folder, facts_file, "--layers", 1, "--text", text_file, "--out", out)[0] == 0
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    weights = load_file(other / "model.safetensors")
    weights["transformer.h.1.mlp.c_proj.weight"] += 0.01
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    code, _, err = palimpsest("evaluate", other, facts_file, "--edit", out / "edit.safetensors")
    assert code in (1, 2)
    assert "made for other weights" in err


def test_a_prompt_longer_than_the_context_is_kept_with_its_error(palimpsest, tiny_folder, facts_file, tmp_path) -> None:
    long = {"id": "long", "subject": "tower", "prompt": "very " * 300 + "{} is in", "target_true": "north"}
    facts_file.write_text(facts_file.read_text() + json.dumps(long) + "\n")
    code, out, err = palimpsest("trace", tiny_folder, facts_file, "--samples", 1, "--out", tmp_path / "t")
    assert code == 1
    assert "tokens long" in err
    assert len((tmp_path / "t" / "samples.jsonl").read_text().splitlines()) == 3


def test_another_plan_in_the_folder_is_refused(palimpsest, tiny_folder, facts_file, tmp_path) -> None:
    out = tmp_path / "t"
    assert palimpsest("trace", tiny_folder, facts_file, "--samples", 1, "--out", out)[0] == 0
    code, _, err = palimpsest("trace", tiny_folder, facts_file, "--samples", 2, "--out", out)
    assert code == 2
    assert "samples" in _one_sentence(err)


def test_a_fact_that_cannot_be_asked_stops_no_other(palimpsest, tiny_folder, facts_file) -> None:
    bad = {"id": "new", "subject": "tower", "prompt": "The {} is in", "target_new": "north"}
    facts_file.write_text(facts_file.read_text() + json.dumps(bad) + "\n")
    code, out, err = palimpsest("known", tiny_folder, facts_file)
    assert code == 1
    assert "of 2 facts" in out
    assert "no target_true" in err


@pytest.mark.parametrize("layers", ["5-2", "a", "1,,2"])
def test_layers_that_are_no_layers(layers, palimpsest, tiny_folder, text_file, tmp_path) -> None:
    code, _, err = palimpsest("moments", tiny_folder, "--layers", layers, "--text", text_file, "--out", tmp_path / "m")
    assert code == 2
    assert "write layers as" in err


@pytest.mark.parametrize(("option", "value"), [("--preset", "bogus"), ("--noise-level", "nan")])
def test_a_setting_no_trace_can_have_ends_the_work(
    option, value, palimpsest, tiny_folder, facts_file, tmp_path
) -> None:
    code, _, err = palimpsest("trace", tiny_folder, facts_file, option, value, "--out", tmp_path / "t")
    assert code == 2
    assert value in _one_sentence(err)
    assert not (tmp_path / "t" / "results.json").exists()


def test_a_methods_setting_without_a_method(palimpsest, tiny_folder, facts_file) -> None:
    code, _, err = palimpsest("evaluate", tiny_folder, facts_file, "--preset", "fixed")
    assert code == 2
    assert "no method is named" in _one_sentence(err)


def test_a_cache_that_cannot_be_written(palimpsest, tiny_folder, facts_file, text_file, tmp_path, monkeypatch) -> None:
    (tmp_path / "in-the-way").write_text("")
    monkeypatch.setenv("PALIMPSEST_CACHE", str(tmp_path / "in-the-way" / "cache"))
    code, _, err = palimpsest(
        "edit", tiny_folder, facts_file, "--layers", 1, "--text", text_file, "--out", tmp_path / "r"
    )
    assert code == 2
    assert "in-the-way" in _one_sentence(err)
    assert "unexpected" not in err


def test_changed_facts_are_another_run(palimpsest, tiny_folder, facts_file, tmp_path) -> None:
    out = tmp_path / "t"
    assert palimpsest("trace", tiny_folder, facts_file, "--samples", 1, "--out", out)[0] == 0
    facts_file.write_text(facts_file.read_text().replace('"target_true": "north"', '"target_true": "south"'))
    code, _, err = palimpsest("trace", tiny_folder, facts_file, "--samples", 1, "--out", out)
    assert code == 2
    assert "facts" in _one_sentence(err)
