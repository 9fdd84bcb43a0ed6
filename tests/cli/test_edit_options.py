"""`palimpsest edit` with settings, moments from a file, shared keys, contradictions and answers that are there already."""

import json
from pathlib import Path

import pytest

SMALL = ("--layers", "0-1", "--set", "contexts=[[5,1]]", "--set", "steps=3")


def write(path: Path, *rows: dict[str, str | None]) -> Path:
    path.write_text(
        "".join(json.dumps({"prompt": "The {} is in", "target_new": "the south", **row}) + "\n" for row in rows)
    )
    return path


def memit(model: Path, facts: Path, text: Path) -> tuple[object, ...]:
    """The command for a small edit by MEMIT, without its folder."""
    return ("edit", model, facts, "--method", "memit", *SMALL, "--set", "moment_weight=20", "--text", text)


@pytest.mark.parametrize("method", ["memit", "alphaedit"])
def test_settings_reach_the_method(palimpsest, tiny_folder, text_file, tmp_path, method: str) -> None:
    facts = write(tmp_path / "f.jsonl", {"subject": "old tower"}, {"subject": "market"})
    own = ("--set", "moment_weight=20") if method == "memit" else ("--set", "energy=0.3")
    code, out, err = palimpsest(
        "edit", tiny_folder, facts, "--method", method, *SMALL, *own, "--text", text_file, "--out", tmp_path / "e"
    )
    assert code == 0, err
    code, out, err = palimpsest("show", tmp_path / "e", "--json")
    settings = json.loads(out)["settings"]
    assert settings["layers"] == [0, 1]
    assert settings["layers_from"] == "given"
    assert settings["contexts"] == [[5, 1]]
    assert settings["values"]["steps"] == 3
    assert settings["moment_weight" if method == "memit" else "energy"] == (20 if method == "memit" else 0.3)


def test_moments_come_from_a_file_and_must_be_of_this_model(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    facts = write(tmp_path / "f.jsonl", {"subject": "old tower"})
    moments = tmp_path / "m"
    assert palimpsest("moments", tiny_folder, "--layers", "0-1", "--text", text_file, "--out", moments)[0] == 0
    file = moments / "moments.safetensors"
    command = ("edit", tiny_folder, facts, "--method", "memit", *SMALL, "--set", "moment_weight=20", "--moments", file)
    code, _, err = palimpsest(*command, "--out", tmp_path / "e")
    assert code == 0, err
    code, _, err = palimpsest(*command, "--layers", "0,2", "--out", tmp_path / "other")
    assert code == 2
    assert "No second moment was given for layer 2" in err


def test_facts_that_share_a_key_are_named(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    facts = write(
        tmp_path / "f.jsonl",
        {"id": "one", "subject": "Old Tower", "prompt": "{} is in"},
        {"id": "two", "subject": "Old Tower", "prompt": "{} was built by"},
        {"id": "three", "subject": "Market", "prompt": "{} is in"},
    )
    command = memit(tiny_folder, facts, text_file)
    code, out, err = palimpsest(*command, "--out", tmp_path / "e")
    assert code == 0, err
    assert "one and two share a key" in err
    code, out, err = palimpsest(*command, "--set", "same_key=refuse", "--out", tmp_path / "refused")
    assert code == 2
    assert "one and the same key" in err
    assert not (tmp_path / "refused" / "edit.safetensors").exists()


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (("--set", "steps"), "name=value"),
        (("--set", "stps=3"), "Did you mean 'steps'"),
        (("--set", "steps=2.5"), "whole number"),
        (("--set", "spread=evn"), "even and root"),
        (("--method", "memitt"), "Did you mean 'memit'"),
        (("--preset", "memit-2023"), "Did you mean 'memit-2022'"),
        (("--moments", "nowhere.safetensors"), "nowhere.safetensors"),
    ],
)
def test_mistakes_of_settings(palimpsest, tiny_folder, text_file, tmp_path, extra, sentence: str) -> None:
    facts = write(tmp_path / "f.jsonl", {"subject": "old tower"})
    command = ("edit", tiny_folder, facts, "--method", "memit", *SMALL, "--text", text_file, "--out", tmp_path / "e")
    code, out, err = palimpsest(*command, *extra)
    assert code == 2
    assert sentence in err + out
    assert "Traceback" not in err


def test_contradictions_are_named(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    facts = write(
        tmp_path / "f.jsonl",
        {"id": "a", "subject": "old tower", "target_new": "the south"},
        {"id": "b", "subject": "old tower", "target_new": "the north"},
    )
    code, _, err = palimpsest(
        "edit", tiny_folder, facts, "--method", "memit", *SMALL, "--text", text_file, "--out", tmp_path / "e"
    )
    assert code == 2
    assert "a asks for 'the south' and b for 'the north'" in err


def test_what_cannot_be_written_is_left_out_and_the_rest_is(palimpsest, tiny_folder, text_file, tmp_path) -> None:
    facts = write(
        tmp_path / "f.jsonl",
        {"id": "good", "subject": "old tower"},
        {"id": "long", "subject": "old tower", "prompt": "the sea and " * 200 + "{} is in"},
        {"id": "nothing", "subject": "market", "target_new": None},
    )
    command = memit(tiny_folder, facts, text_file)
    code, out, err = palimpsest(*command, "--out", tmp_path / "e", "--json")
    assert code == 1
    assert "fact long is left out. The text is " in err
    assert "fact nothing is left out. The fact nothing ('The market is in') has no target_new" in err
    assert "2 facts could not be written; each is named above" in err
    assert [one["fact"] for one in json.loads(out)["left_out"]] == ["long", "nothing"]
    shown = json.loads(palimpsest("show", tmp_path / "e", "--json")[1])
    assert [note["fact"] for note in shown["facts"]] == ["good"]
    bad = write(tmp_path / "bad.jsonl", {"id": "nothing", "subject": "market", "target_new": None})
    code, _, err = palimpsest(*memit(tiny_folder, bad, text_file), "--out", tmp_path / "none")
    assert code == 2
    assert "no fact to edit" in err


def test_neurons_are_erased_for_facts_that_ask_for_nothing(palimpsest, tiny_folder, tmp_path) -> None:
    facts = write(tmp_path / "f.jsonl", {"subject": "old tower", "target_true": "north", "target_new": None})
    command = ("edit", tiny_folder, facts, "--method", "neurons", "--set", "mode=erase", "--out", tmp_path / "e")
    code, _, err = palimpsest(*command)
    assert code == 0, err
    assert json.loads(palimpsest("show", tmp_path / "e", "--json")[1])["settings"]["mode"] == "erase"
