"""kill -9 in the middle of a batch: nothing half-written stays, and the same command goes on to the same edit."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SETTINGS = (
    "--method",
    "memit",
    "--layers",
    "0-1",
    "--set",
    "contexts=[[5,1]]",
    "--set",
    "moment_weight=20",
    "--set",
    "steps=20",
)


@pytest.mark.slow
def test_an_edit_that_was_killed_goes_on_and_is_the_same(tiny_folder: Path, text_file: Path, tmp_path: Path) -> None:
    facts = tmp_path / "many.jsonl"
    rows = [{"subject": f"old tower {i}", "prompt": "The {} is in", "target_new": "the south"} for i in range(150)]
    facts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = {**os.environ, "PALIMPSEST_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def command(out: str) -> list[str]:
        edit = [sys.executable, "-m", "palimpsest.cli.main", "edit", str(tiny_folder), str(facts)]
        return [*edit, *SETTINGS, "--text", str(text_file), "--out", str(tmp_path / out)]

    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    process = subprocess.Popen(command("cut"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = tmp_path / "cut" / ".palimpsest-values"
    while process.poll() is None and len(list(kept.glob("values-*.safetensors"))) < 2:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "edit.safetensors").exists()
    first = {path.name: path.stat().st_mtime_ns for path in kept.glob("values-*.safetensors")}
    assert len(first) >= 2
    again = subprocess.run(command("cut"), check=True, env=environment, capture_output=True, text=True)
    assert "edit.safetensors" in again.stdout
    assert (tmp_path / "cut" / "edit.safetensors").read_bytes() == (
        tmp_path / "whole" / "edit.safetensors"
    ).read_bytes()
    assert not kept.exists()
