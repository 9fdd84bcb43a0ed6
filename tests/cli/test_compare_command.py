"""`palimpsest compare` on two runs of the command line."""

import json
from pathlib import Path


def test_two_runs_compare(palimpsest, tiny_folder: Path, facts_file: Path, tmp_path: Path) -> None:
    for method, settings in (("random", ["--layers", "1"]), ("ft", ["--layers", "1", "--set", "steps=3"])):
        code, _, err = palimpsest(
            "evaluate", tiny_folder, facts_file, "--method", method, *settings, "--out", tmp_path / method
        )
        assert code == 0, err
    code, out, err = palimpsest("compare", tmp_path / "random", tmp_path / "ft", "--out", tmp_path / "both")
    assert code == 0, err
    assert "A - B" in out
    assert f"A is {tmp_path / 'random'}, B is {tmp_path / 'ft'}; 2 records of 1 relations are in both." in out
    assert "method differs: 'random' in A, 'ft' in B." in out
    code, out, _ = palimpsest("compare", tmp_path / "random", tmp_path / "ft", "--json", "--difference", "0.1")
    assert code == 0
    found = json.loads(out)
    assert found["contrasts"]["em"]["difference"]["n"] == 2
    assert found["smallest"] == 0.1
    stored = json.loads((tmp_path / "both" / "comparison.json").read_bytes())
    assert stored["contrasts"]["em"]["a"] == found["contrasts"]["em"]["a"]


def test_mistakes_are_one_sentence(palimpsest, tmp_path: Path) -> None:
    code, out, err = palimpsest("compare", tmp_path / "none", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("palimpsest: ")
    assert "holds no run: plan.json is not there" in err
    assert len(err.strip().splitlines()) == 1
