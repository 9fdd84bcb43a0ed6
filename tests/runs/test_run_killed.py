"""kill -9 at any moment, then the same command again: the same bytes as a run nobody touched."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WORK = """
import sys, time
from palimpsest.runs import Plan, Run

def work(item):
    time.sleep(0.002)
    return {"score": item * item / 7, "text": "x" * (item * 37 % 3000)}

with Run(sys.argv[1], Plan(range(60), {"seed": 0}), shard=sys.argv[2] or None) as run:
    records = run.map(work)
    if not sys.argv[2]:
        run.finish({"total": sum(record["score"] for record in records), "n": len(records)})
"""


def start(folder: Path, shard: str = "") -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORK, str(folder), shard])


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("plan.json", "samples.jsonl", "results.json")}


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_and_resumed_is_byte_identical(tmp_path, seed):
    assert start(tmp_path / "whole").wait() == 0
    chance = random.Random(seed)
    folder = tmp_path / "broken"
    killed = 0
    for _ in range(6):
        process = start(folder)
        deadline = time.monotonic() + 20
        begun = folder.exists() and (folder / "samples.jsonl").exists() and (folder / "samples.jsonl").stat().st_size
        while process.poll() is None and time.monotonic() < deadline:
            samples = folder / "samples.jsonl"
            if samples.exists() and samples.stat().st_size > (begun or 0):
                break
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 3
    assert start(folder).wait() == 0
    assert content(folder) == content(tmp_path / "whole")
    assert sorted(os.listdir(folder)) == sorted(os.listdir(tmp_path / "whole"))


def test_killed_before_the_first_item(tmp_path):
    chance = random.Random(5)
    folder = tmp_path / "broken"
    for _ in range(4):
        process = start(folder)
        time.sleep(chance.uniform(0.0, 0.25))
        process.kill()
        process.wait()
    assert start(folder).wait() == 0
    assert start(tmp_path / "whole").wait() == 0
    assert content(folder) == content(tmp_path / "whole")


def test_two_shards_at_once_in_one_folder(tmp_path):
    processes = [start(tmp_path / "shards", shard) for shard in ("1/2", "2/2")]
    assert [process.wait() for process in processes] == [0, 0]
    from palimpsest.runs import merge

    merge(tmp_path / "shards")
    assert start(tmp_path / "shards").wait() == 0
    assert start(tmp_path / "whole").wait() == 0
    assert content(tmp_path / "shards") == content(tmp_path / "whole")
