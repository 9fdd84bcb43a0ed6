"""`palimpsest train`: learns, says what it found, goes on where it stopped, and names mistakes in one sentence."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from palimpsest.facts import Fact, Probe, write_facts

Call = Callable[..., tuple[int, str, str]]
SMALL = (
    "--layers",
    "1,2",
    "--set",
    "batch=4",
    "--set",
    "validation=0.25",
    "--set",
    "validate_every=4",
    "--set",
    "rank=4",
)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """24 facts that can be learned from and one that cannot."""
    path = tmp_path / "records.jsonl"
    facts = [
        Fact(
            f"House {i}",
            "The {} is in",
            "north",
            "south",
            id=f"f{i}",
            paraphrases=(f"You find House {i} in",),
            neighbours=(Probe(f"Tower {i} is in", "north"),),
        )
        for i in range(24)
    ]
    write_facts(path, [*facts, Fact("House", "The {} is in", "north", "south", id="bare")])
    return path


def test_an_editor_is_learned_and_used(palimpsest: Call, tiny_folder: Path, records: Path, tmp_path: Path) -> None:
    out = tmp_path / "editor"
    call = ("train", "mend", tiny_folder, records, "--out", out, *SMALL, "--set", "steps=8")
    code, said, _ = palimpsest(*call)
    assert code == 0
    assert "Learned from 18 records and validated on 6 of other subjects, 1 left out with no paraphrase." in said
    assert [line.split()[0] for line in said.splitlines()[1:5]] == ["unedited", "0", "4", "8"]
    code, said, _ = palimpsest(*call, "--json")
    assert code == 0
    report = json.loads(said)
    assert report["file"] == str(out / "editor.safetensors")
    assert report["best"]["score"] == min(entry["score"] for entry in report["history"])
    edit = tmp_path / "edit"
    use = ("edit", tiny_folder, records, "--limit", 1, "--method", "mend", "--set", f"editor={out}", "--out", edit)
    code, _, err = palimpsest(*use)
    assert (code, err) == (0, "")
    code, said, _ = palimpsest("show", edit)
    assert code == 0
    assert "mend" in said


def test_mistakes(palimpsest: Call, tiny_folder: Path, facts_file: Path, records: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, _, err = palimpsest("train", "mend", tiny_folder, facts_file, "--out", out)
    assert code == 2
    assert "needs 25 usable records" in err
    assert "got 2 records of 2 subjects" in err
    code, _, err = palimpsest("train", "mnd", tiny_folder, records, "--out", out)
    assert code == 2
    assert "'mnd' is not one of" in err
    code, _, err = palimpsest("train", "ke", tiny_folder, records, "--out", out, "--set", "hiden=4")
    assert code == 2
    assert "Did you mean 'hidden'" in err
    code, _, err = palimpsest("train", "ke", tiny_folder, records)
    assert code == 2
    assert "--out" in err
    code, _, err = palimpsest("edit", tiny_folder, records, "--method", "ke", "--out", out)
    assert code == 2
    assert "palimpsest train ke MODEL FACTS" in err


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on(palimpsest: Call, tiny_folder: Path, records: Path, tmp_path: Path) -> None:
    call = ["train", "mend", tiny_folder, records, *SMALL, "--set", "steps=60", "--every", 2, "--out"]
    code, _, err = palimpsest(*call, tmp_path / "whole")
    assert code == 0, err
    point = tmp_path / "killed" / "training.safetensors"
    run = subprocess.Popen([sys.executable, "-m", "palimpsest.cli.main", *map(str, call), str(tmp_path / "killed")])
    for _ in range(2400):
        if point.exists() or run.poll() is not None:
            break
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    assert run.wait(timeout=60) == -signal.SIGKILL
    assert point.exists()
    code, _, err = palimpsest(*call, tmp_path / "killed")
    assert code == 0, err
    whole, resumed = (tmp_path / name / "editor.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == resumed.read_bytes()
