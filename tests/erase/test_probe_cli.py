"""`palimpsest probe`: the table, the files, and mistakes in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from palimpsest.cli.main import COMMANDS, group
from palimpsest.errors import PalimpsestError, SettingError
from palimpsest.facts import read_facts, write_facts
from palimpsest.world import made_world


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Facts of the world, and a pool of them."""
    folder = tmp_path_factory.mktemp("facts")
    records = made_world().records(["capital", "currency"])
    write_facts(folder / "facts.jsonl", records[::6])
    write_facts(folder / "pool.jsonl", records)
    return folder / "facts.jsonl", folder / "pool.jsonl"


def run(*arguments: object) -> Any:
    return CliRunner().invoke(group, ["probe", *map(str, arguments)], catch_exceptions=False)


def test_unedited_facts_of_the_world_show(files: tuple[Path, Path], tmp_path: Path) -> None:
    facts, pool = files
    result = run("world", facts, "--pool", pool, "--readouts", "logit lens", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "before, same answer" in result.output
    assert "Erasure certificates: edited 0." in result.output
    assert "shows at" in result.output
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["auc"]["same answer"]["all"]["before"]["value"] > 0.9
    assert record["settings"]["readouts"] == ["logit lens"]
    again = run(
        "world",
        facts,
        "--pool",
        pool,
        "--readouts",
        "logit lens",
        "--controls",
        6,
        "--json",
        "--out",
        tmp_path / "again",
    )
    assert json.loads(again.stdout)["n"]["same answer"] == 6 * record["n"]["edited"]


def test_probes_attacks_and_wordings_of_ones_own(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Every readout has a name; one that can read nothing is named, and an alias is set beside the controls' only name."""
    facts, pool = files
    subject = read_facts(str(facts)).facts[0].subject
    wordings = tmp_path / "wordings.json"
    wordings.write_text(json.dumps({"aliases": {subject: [f"old {subject}"]}}))
    result = run(
        *("world", facts, "--pool", pool, "--readouts", "wording,probe,attack", "--wordings", wordings, "--limit", 3),
        *("--out", tmp_path / "out"),
    )
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["settings"]["readouts"] == ["wording", "probe", "attack"]
    assert "wording: alias 1" in record["columns"]
    assert record["column_auc"]["before"][record["columns"].index("wording: alias 1")] > 0.5
    assert list(record["unread"]) == ["probe"]  # two relations of a dozen countries
    assert "probe: None of the facts and controls could be read by it" in result.stderr
    assert record["auc"]["same answer"]["probe"]["before"] is None


def test_mistakes(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert "probe" in COMMANDS
    with pytest.raises(SettingError, match="no readout 'logit lenses'"):
        run("world", files[0], "--readouts", "logit lenses", "--out", tmp_path / "a")
    with pytest.raises(SettingError, match="There is no gate 'none'"):
        run("world", files[0], "--gate", "none", "--readouts", "logit lens", "--out", tmp_path / "b")
    with pytest.raises(PalimpsestError, match="nowhere"):
        run("world", files[0], "--edit", tmp_path / "nowhere.safetensors", "--out", tmp_path / "c")
    for content, message in [
        ("{", "are no JSON"),
        ('{"alias": {}}', 'must hold "aliases" or "reversed"'),
        ('{"aliases": {"a": "b"}}', "aliases of 'a' in .* must be a list of names, got 'b'"),
        (
            '{"aliases": {"Farnanja": ["b"]}}',
            "name 'Farnanja', which is the subject of no fact. Did you mean 'Farnania'",
        ),
        (
            '{"reversed": {"captal": "{answer} is"}}',
            "name 'captal', which is the relation of no fact. Did you mean 'capital'",
        ),
        ('{"reversed": {"capital": 3}}', "reversed wording of 'capital' in .* must be a text, got 3"),
    ]:
        (tmp_path / "w.json").write_text(content)
        with pytest.raises(PalimpsestError, match=message):
            run("world", files[0], "--wordings", tmp_path / "w.json", "--out", tmp_path / "e")
    (tmp_path / "w.json").write_text('{"aliases": {"Farnania": ["b"]}}')
    with pytest.raises(SettingError, match="read by wording, which is not among head"):
        run("world", files[0], "--readouts", "head", "--wordings", tmp_path / "w.json", "--out", tmp_path / "e")
    with pytest.raises(PalimpsestError, match="missing.txt"):
        run("world", files[0], "--text", tmp_path / "missing.txt", "--out", tmp_path / "d")
