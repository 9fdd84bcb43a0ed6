"""`palimpsest sweep`: the table, the proposal on other subjects, resuming, and mistakes in one sentence."""

import json
from pathlib import Path

import pytest

QUICK = ("--steps", 3)


@pytest.fixture
def more_facts(tmp_path: Path) -> Path:
    """Four facts of four subjects, of several tokens each."""
    rows = [
        {
            "id": name,
            "relation": "place",
            "subject": subject,
            "prompt": "The {} is in",
            "target_true": "north",
            "target_new": "south",
            "paraphrases": [f"You find the {subject} in"],
            "neighbours": [{"prompt": "The river is in", "answer": "north"}],
        }
        for name, subject in (("a", "old tower"), ("b", "market hall"), ("c", "great river"), ("d", "white house"))
    ]
    path = tmp_path / "more.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_sweep_prints_a_table_and_proposes_a_layer(palimpsest, tiny_folder, more_facts, text_file, tmp_path) -> None:
    command = (
        "sweep",
        tiny_folder,
        more_facts,
        "--text",
        text_file,
        "--layers",
        "0-2:2",
        "--tokens",
        "subject_first, subject_last",
        *QUICK,
    )
    code, out, err = palimpsest(*command, "--out", tmp_path / "run")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "rewrite by edited layer and token"
    assert lines[1].split() == ["layer", "subject_first", "subject_last"]
    assert [line.split()[0] for line in lines[2:5]] == ["0", "2", "facts"]
    assert "No default is known for this model: layer 1 by the rule." in out
    assert "on half of the subjects (2 facts), reported on the other half (2 facts)" in out
    assert "no evidence that the fact is stored there" in out
    code, again, _ = palimpsest(*command, "--out", tmp_path / "run", "--json")
    stored = json.loads(again)
    assert code == 0
    assert stored["layers"] == [0, 2]
    assert len(stored["cells"]) == 4
    assert stored["proposal"]["layer"] in (0, 2)
    assert stored["default"]["known"] is False
    assert json.loads((tmp_path / "run" / "results.json").read_text())["cells"] == stored["cells"]


def test_an_interrupted_sweep_goes_on_and_shards_merge(
    palimpsest, tiny_folder, facts_file, text_file, tmp_path
) -> None:
    command = (
        "sweep",
        tiny_folder,
        facts_file,
        "--text",
        text_file,
        "--layers",
        "0-1",
        "--tokens",
        "subject_last",
        *QUICK,
    )
    assert palimpsest(*command, "--out", tmp_path / "whole")[0] == 0
    assert palimpsest(*command, "--out", tmp_path / "cut")[0] == 0
    lines = (tmp_path / "cut" / "samples.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut" / "samples.jsonl").write_bytes(lines[0] + lines[1][:20])
    (tmp_path / "cut" / "results.json").unlink()
    assert palimpsest(*command, "--out", tmp_path / "cut")[0] == 0
    for shard in ("1/2", "2/2"):
        code, out, _ = palimpsest(*command, "--out", tmp_path / "shards", "--shard", shard)
        assert code == 0
        assert f"Shard {shard} is done" in out
    assert palimpsest(*command, "--out", tmp_path / "shards")[0] == 0
    for folder in ("cut", "shards"):
        for name in ("samples.jsonl", "results.json"):
            assert (tmp_path / folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_fact_that_fails_is_named_and_the_exit_code_says_so(
    palimpsest, tiny_folder, facts_file, text_file, tmp_path
) -> None:
    rows = [json.loads(line) for line in facts_file.read_text().splitlines()]
    del rows[1]["target_new"]
    rows[1]["id"] = "b: the second"
    facts_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = palimpsest(
        "sweep", tiny_folder, facts_file, "--text", text_file, "--layers", "1", "--tokens", "subject_last", *QUICK,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    assert "palimpsest: layer 1/subject_last/0: b: the second: The fact b: the second" in err
    assert "1 facts could not be measured" in err
    assert "No layer is proposed: Choosing a layer" in out


def test_a_method_without_a_choice_of_token_needs_no_option(palimpsest, tiny_folder, facts_file, tmp_path) -> None:
    command = ("sweep", tiny_folder, facts_file, "--layers", "1", *QUICK, "--out", tmp_path / "run", "--method")
    code, out, err = palimpsest(*command, "ft")
    assert code == 0, err
    assert out.splitlines()[1].split() == ["layer", "subject_last"]
    code, _, err = palimpsest(*command, "joint")
    assert code == 2
    assert "cannot be swept over one" in err
    code, _, err = palimpsest(*command, "ft", "--tokens", "last")
    assert code == 2
    assert "swept over layers alone" in err


def test_a_figure_is_written(palimpsest, tiny_folder, facts_file, text_file, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    code, out, err = palimpsest(
        "sweep", tiny_folder, facts_file, "--text", text_file, "--layers", "1", "--tokens", "last", "--plot", *QUICK,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert code == 0, err
    assert (tmp_path / "run" / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    assert "No layer is proposed, because subject_last was not swept." in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "0-2:0"], "write layers as 9 or 5,6,7 or 5-9 or 0-29:3, got '0-2:0'"),
        (["--layers", "nine"], "write layers as"),
        (["--layers", "9"], "There is no layer 9"),
        (["--tokens", "subject_lst"], "Did you mean 'subject_last'"),
        (["--method", "rmoe"], "Did you mean 'rome'"),
        (["--metric", "esp"], "no metric 'esp'"),
        (["--shard", "0/2"], "i from 1 to n"),
    ],
)
def test_mistakes_are_one_sentence(palimpsest, tiny_folder, facts_file, text_file, tmp_path, options, message) -> None:
    code, _, err = palimpsest(
        "sweep", tiny_folder, facts_file, "--text", text_file, "--out", tmp_path / "run", *QUICK, *options
    )
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
