"""`palimpsest forensics`: a table, JSON, an undo, and one sentence for every mistake."""

import json
import sys
from unittest import mock

import pytest
import torch

import palimpsest as pal
from palimpsest.cli.main import main
from palimpsest.world import made_world


def run(capsys, *arguments) -> tuple[int, str, str]:
    line = ["palimpsest", "forensics", *map(str, arguments)]
    with mock.patch.object(sys, "argv", line), pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.fixture(scope="module")
def edited_folder(tmp_path_factory):
    model, fact = pal.load("world", check=False), made_world().records(["capital"])[0]
    pal.edit(model, [fact], method="rome", layers=3, token="subject_last").apply(model)
    folder = tmp_path_factory.mktemp("edited")
    model.net.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder, fact


def test_a_folder_alone_and_beside_its_base(edited_folder, tmp_path, capsys) -> None:
    folder, fact = edited_folder
    code, printed, err = run(capsys, folder, "--out", tmp_path / "alone")
    assert code == 0, err
    assert "Layers that look edited: 3" in printed
    names = list(made_world().names)
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"subjects": names, "objects": names}))
    code, printed, err = run(
        capsys, folder, "--base", "world", "--candidates", file, "--out", tmp_path / "both", "--json"
    )
    assert code == 0, err
    data = json.loads(printed)
    assert data == json.loads((tmp_path / "both" / "results.json").read_text())
    assert data["difference"]["rank_one"]
    assert data["difference"]["layers"] == [3]
    assert data["decoded"]["subject"][0]["candidate"] == fact.subject
    model, base = pal.load(str(folder), check=False), pal.load("world", check=False)
    path = data["difference"]["weights"][0]["path"]
    with pal.Edit.load(data["undo"]).applied(model):
        assert torch.allclose(model.parameter(path), base.parameter(path), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "are no JSON"), ("[]", 'must hold "subjects"'), ('{"subjects": ["a"]}', 'must hold "objects"')],
)
def test_mistakes_in_the_candidates(content: str, message: str, tmp_path, capsys) -> None:
    file = tmp_path / "names.json"
    file.write_text(content)
    code, _, err = run(capsys, "world", "--base", "world", "--candidates", file, "--out", tmp_path / "o")
    assert code == 2
    assert message in err


def test_what_cannot_be_decoded_costs_nothing_else(tmp_path, capsys) -> None:
    """A model beside itself: no key to decode, and yet the scan and the difference are written."""
    file = tmp_path / "names.json"
    file.write_text('{"subjects": ["Belvi Tarvok", "Dresvador"], "objects": ["a", "b"]}')
    code, printed, err = run(capsys, "world", "--base", "world", "--candidates", file, "--out", tmp_path / "o")
    assert code == 0, err
    assert "0 of" in printed
    assert "No down-projection of world differs from world" in printed
    data = json.loads((tmp_path / "o" / "results.json").read_text("utf-8"))
    assert data["decoded"] is None
    assert data["difference"]["weights"] == []
    assert data["scan"]["flagged"] == []
    file.write_text('{"subjects": ["Belvi Tarvok", " "], "objects": ["a", "b"]}')
    code, _, err = run(capsys, "world", "--base", "nowhere", "--candidates", file, "--out", tmp_path / "p")
    assert code == 2
    assert "Candidate 2 of the subjects is blank" in err  # before a model is looked for


def test_without_the_base_the_subjects_are_lined_up(edited_folder, tmp_path, capsys) -> None:
    folder, fact = edited_folder
    file = tmp_path / "names.json"
    file.write_text(json.dumps({"subjects": list(made_world().names)}))
    code, printed, err = run(capsys, folder, "--candidates", file, "--out", tmp_path / "out")
    assert code == 0, err
    assert f"It looks edited about {fact.subject}, in layers 3;" in printed
    found = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["line_up"]
    assert (found["subject"], found["layers"]) == (fact.subject, [3])
    code, printed, err = run(capsys, "world", "--candidates", file, "--out", tmp_path / "base")
    assert code == 0, err
    assert "stands out: it does not look edited" in printed


def test_a_line_up_of_a_few_is_refused(tmp_path, capsys) -> None:
    file = tmp_path / "names.json"
    file.write_text('{"subjects": ["Belvi Tarvok", "Dresvador"]}')
    code, _, err = run(capsys, "world", "--candidates", file, "--out", tmp_path / "o")
    assert code == 2
    assert "needs at least 20, got 2" in err
