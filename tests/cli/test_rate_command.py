"""`palimpsest rate make` and `palimpsest rate score`."""

import json
from pathlib import Path


def run_of(folder: Path, editor: str) -> Path:
    folder.mkdir()
    lines = [
        {
            "id": f"f{i}",
            "relation": "place",
            "subject": f"tower {i}",
            "written": {"statement": f"Tower {i} is in Rome.", "texts": {f"Tower {i}": f" {editor} {i}"}},
        }
        for i in range(6)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_study_is_made_and_scored(palimpsest, tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "rome-run", "one"), run_of(tmp_path / "memit-run", "two")
    study = tmp_path / "study"
    code, out, err = palimpsest("rate", "make", a, b, "--out", study)
    assert code == 0, err
    assert out.startswith("6 pairs: give ")
    page = (study / "page.html").read_text("utf-8")
    assert "rome-run" not in page
    assert "memit-run" not in page
    key = json.loads((study / "key.json").read_bytes())
    choices = {
        pair["id"]: {"consistent": "left" if "one" in pair["left"] else "right", "fluent": "tie"}
        for pair in key["pairs"]
    }
    chosen = tmp_path / "ann.json"
    chosen.write_text(json.dumps({"format": 1, "study": key["study"], "rater": "ann", "choices": choices}))
    code, out, err = palimpsest("rate", "score", study, chosen, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["names"] == [str(a), str(b)]
    assert (found["preferences"][0]["first"], found["preferences"][0]["second"]) == (6, 0)
    assert found["preferences"][0]["p"] == 2 / 2**6
    assert found["preferences"][1]["ties"] == 6
    code, out, _ = palimpsest("rate", "score", study, chosen)
    assert code == 0
    assert "odds A : B" in out
    assert "6 facts, 1 raters" in out


def test_the_seed_of_sides_is_nobody_s_guess_unless_given(palimpsest, tmp_path: Path) -> None:
    a, b = run_of(tmp_path / "a", "one"), run_of(tmp_path / "b", "two")
    keys = []
    for name, options in (("x", []), ("y", []), ("u", ["--seed", "1"]), ("v", ["--seed", "1"])):
        assert palimpsest("rate", "make", a, b, "--out", tmp_path / name, *options)[0] == 0
        keys.append(json.loads((tmp_path / name / "key.json").read_bytes())["pairs"])
    assert keys[0] != keys[1]
    assert keys[2] == keys[3]


def test_mistakes_are_one_sentence(palimpsest, tmp_path: Path) -> None:
    a = run_of(tmp_path / "a", "one")
    for arguments, said in (
        (("make", a, a, "--out", tmp_path / "out"), "Two editors need two names"),
        (("make", a, tmp_path / "none", "--out", tmp_path / "out"), "holds no records"),
        (("score", tmp_path, a / "samples.jsonl"), "key.json cannot be read: No such file or directory"),
    ):
        code, _, err = palimpsest("rate", *arguments)
        assert code == 2
        assert said in err
        assert len(err.strip().splitlines()) == 1
