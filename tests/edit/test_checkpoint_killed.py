"""kill -9 in the middle of a save: what was to be written is absent or whole, and the same call then works."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from small_editors import low_rank

from families import build, byte_tokenizer
from oracles.small import EIFFEL
from palimpsest.edit import Dense, Edit
from palimpsest.edit.checkpoint import undo_checkpoint
from palimpsest.model import load

pytestmark = pytest.mark.slow

SAVE_EDITS = """
import sys
from pathlib import Path
from palimpsest.edit import Edit

edit = Edit.load(sys.argv[1])
for i in range(1000):
    edit.save(Path(sys.argv[2]) / f"edit-{i}.safetensors")
"""

SAVE_CHECKPOINTS = """
import sys
from pathlib import Path
from palimpsest.edit import Edit
from palimpsest.model import load

edit, model = Edit.load(sys.argv[1]), load(sys.argv[3], check=False)
for i in range(1000):
    edit.apply_to_checkpoint(model, Path(sys.argv[2]) / f"out-{i}")
    edit.to_lora(Path(sys.argv[2]) / f"lora-{i}")
"""

UNDO_AND_DIE = """
import os, signal, sys
from palimpsest.edit import folder
from palimpsest.edit.checkpoint import undo_checkpoint

renames, real = [], os.rename

def rename(*paths):
    if len(renames) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    renames.append(paths)
    real(*paths)

folder.os.rename = rename
undo_checkpoint(sys.argv[1])
"""


def killed_after(code: str, target: Path, count: int, delay: float, *args: object) -> None:
    """Run `code` until `count` names are in `target`, a little longer, and kill it."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, args)])
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if sum(not name.startswith(".") for name in os.listdir(target)) >= count:
            break
        time.sleep(0.002)
    time.sleep(delay)
    assert process.poll() is None, "it ended by itself"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_an_edit_file_is_absent_or_whole(tmp_path: Path) -> None:
    large = Edit("large", (Dense("w", torch.randn(3000, 1000, generator=torch.Generator().manual_seed(0))),))
    large.save(tmp_path / "large.safetensors")
    target = tmp_path / "target"
    target.mkdir()
    killed_after(SAVE_EDITS, target, 2, random.Random(0).uniform(0, 0.05), tmp_path / "large.safetensors", target)
    whole = (tmp_path / "large.safetensors").read_bytes()
    saved = [path for path in target.iterdir() if not path.name.startswith(".")]
    assert len(saved) >= 2
    assert all(path.read_bytes() == whole for path in saved)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny checkpoint."""
    folder = tmp_path / "base"
    build("llama").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_a_checkpoint_and_an_adapter_are_absent_or_whole(base: Path, tmp_path: Path) -> None:
    model = load(base, check=False)
    edit, target = low_rank(model, [EIFFEL]), tmp_path / "target"
    target.mkdir()
    edit.save(tmp_path / "edit.safetensors")
    with edit.applied(model):
        edited = model.fingerprint()
    delay = random.Random(1).uniform(0, 0.1)
    killed_after(SAVE_CHECKPOINTS, target, 2, delay, tmp_path / "edit.safetensors", target, base)
    saved = [path for path in target.iterdir() if not path.name.startswith(".")]
    assert len(saved) >= 2
    lora = edit.to_lora(tmp_path / "lora").folder
    for path in saved:
        if path.name.startswith("out"):
            assert load(path, check=False).fingerprint() == edited
            assert undo_checkpoint(path).fingerprint == model.fingerprint()
        else:
            assert {entry.name: entry.read_bytes() for entry in path.iterdir()} == {
                entry.name: entry.read_bytes() for entry in lora.iterdir()
            }


@pytest.mark.parametrize("renames", [0, 1])
def test_an_undo_in_place_that_was_killed_is_done_again(renames: int, base: Path, tmp_path: Path) -> None:
    before = load(base, check=False).fingerprint()
    low_rank(load(base, check=False), [EIFFEL]).apply_to_checkpoint(base, tmp_path / "out")
    done = subprocess.run([sys.executable, "-c", UNDO_AND_DIE, str(tmp_path / "out"), str(renames)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "out").exists() == (renames == 0)
    hidden = [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    os.utime(next(path for path in hidden if ".tmp." in path.name), (0, 0))  # an hour has gone by
    assert undo_checkpoint(tmp_path / "out").fingerprint == before
    assert load(tmp_path / "out", check=False).fingerprint() == before
    assert {path.name for path in tmp_path.iterdir()} == {"base", "out"}
