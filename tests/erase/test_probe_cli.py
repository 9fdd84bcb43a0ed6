"""`palimpsest probe`: the table, the files, and mistakes in one sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from palimpsest.cli.main import COMMANDS, group
from palimpsest.errors import PalimpsestError, SettingError
from palimpsest.facts import write_facts
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


def test_mistakes(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert "probe" in COMMANDS
    with pytest.raises(SettingError, match="no readout 'logit lenses'"):
        run("world", files[0], "--readouts", "logit lenses", "--out", tmp_path / "a")
    with pytest.raises(SettingError, match="There is no gate 'none'"):
        run("world", files[0], "--gate", "none", "--readouts", "logit lens", "--out", tmp_path / "b")
    with pytest.raises(PalimpsestError, match="nowhere"):
        run("world", files[0], "--edit", tmp_path / "nowhere.safetensors", "--out", tmp_path / "c")
    with pytest.raises(PalimpsestError, match="missing.txt"):
        run("world", files[0], "--text", tmp_path / "missing.txt", "--out", tmp_path / "d")
