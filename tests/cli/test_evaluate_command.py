"""`palimpsest evaluate`: suites, modes, check points, and files that do not belong to the suite."""

import json
from pathlib import Path

import pytest

from palimpsest.world import Corpus, made_world


def test_suites_modes_and_check_points(palimpsest, tiny_folder, facts_file, text_file, tmp_path) -> None:
    command = (
        "evaluate", tiny_folder, facts_file, "--suite", "counterfact+teacher_forcing", "--method", "memit",
        "--mode", "sequence", "--at", "1,2", "--layers", 1, "--text", text_file, "--set", "steps=2",
    )  # fmt: skip
    code, out, err = palimpsest(*command, "--out", tmp_path / "run")
    assert code == 0, err
    assert "tf_exact" in out
    assert "edits" in out
    assert "n = 2 of 2 cases" in out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["edits"] for row in results["retention"]["es"]] == [1, 2]
    assert results["metrics"]["tf_exact"]["formula"]
    assert results["settings"]["at"] == [1, 2]
    samples = [json.loads(line) for line in (tmp_path / "run" / "samples.jsonl").read_text().splitlines()]
    assert [sorted(sample["at"]) for sample in samples] == [["1", "2"], ["2"]]


def test_a_batch_and_a_cache(palimpsest, tiny_folder, facts_file, text_file, tmp_path) -> None:
    command = ("evaluate", tiny_folder, facts_file, "--method", "memit", "--mode", "batch", "--layers", 1)
    more = ("--text", text_file, "--set", "steps=2", "--cache", tmp_path / "answers", "--json")
    code, out, err = palimpsest(*command, *more)
    assert code == 0, err
    again = palimpsest(*command, *more)[1]
    assert json.loads(out)["pre"] == json.loads(again)["pre"]
    assert list((tmp_path / "answers").glob("answers-*.jsonl"))


def test_a_gate_keeps_the_facts_that_pass(palimpsest, tiny_folder, facts_file) -> None:
    for gate in ("eligible", "all"):
        code, out, _ = palimpsest("evaluate", tiny_folder, facts_file, "--only", gate, "--limit", 1, "--json")
        if code == 0:
            assert json.loads(out)["n"] == 1
            if gate == "eligible":
                assert json.loads(out)["eligible"] == 1


@pytest.fixture
def zsre_file(tmp_path: Path) -> Path:
    """Two records in zsRE's schema, written by hand, without an old answer."""
    rows = [
        {
            "subject": subject,
            "src": f"Where is {subject}?",
            "pred": "",
            "rephrase": f"In which place is {subject}?",
            "alt": "south",
            "answers": [],
            "loc": "nq question: who is the king",
            "loc_ans": "the old king",
            "cond": "",
        }
        for subject in ("the old tower", "the market")
    ]
    path = tmp_path / "zsre.json"
    path.write_text(json.dumps(rows))
    return path


def test_a_file_of_another_kind_is_one_sentence(palimpsest, tiny_folder, zsre_file, facts_file) -> None:
    code, _, err = palimpsest("evaluate", tiny_folder, zsre_file, "--suite", "counterfact_plus")
    assert code != 0
    assert "use --suite zsre" in err
    assert len(err.strip().splitlines()) == 1
    code, _, err = palimpsest("evaluate", tiny_folder, facts_file, "--suite", "mquake")
    assert code != 0
    assert "None of the 2 cases has what the suite mquake asks" in err


def test_a_text_is_read_in_passages(palimpsest, tmp_path) -> None:
    path = tmp_path / "prose.txt"
    path.write_text(Corpus(made_world(), seed=5).text(200))
    code, out, err = palimpsest("evaluate", "world", path, "--suite", "text", "--json", "--limit", "2")
    assert code == 0, err
    found = json.loads(out)
    assert found["n"] == 2
    assert found["pre"]["text_nll"]["value"] > 0
    assert "passage" in palimpsest("evaluate", "world", path)[2]  # without the suite: one sentence


def test_a_file_that_fits_in_part_is_measured_and_told(palimpsest, tiny_folder, zsre_file) -> None:
    rows = json.loads(zsre_file.read_text())
    zsre_file.write_text(json.dumps([{**row, "answers": ["north"]} for row in rows]))
    code, out, err = palimpsest("evaluate", tiny_folder, zsre_file)
    assert code == 0
    assert "PS" in out
    assert "in part; this looks like zsRE: use --suite zsre" in err
    assert "looks like" not in palimpsest("evaluate", tiny_folder, zsre_file, "--suite", "zsre")[2]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--suite", "counterfat"), "Did you mean 'counterfact'"),
        (("--at", "1,x"), "1,10,100"),
        (("--mode", "batch"), "no method"),
        (("--at", "1", "--method", "rome"), "sequence"),
    ],
)
def test_mistakes(palimpsest, tiny_folder, facts_file, text_file, options, sentence) -> None:
    code, _, err = palimpsest("evaluate", tiny_folder, facts_file, *options)
    assert code != 0
    assert sentence in err
