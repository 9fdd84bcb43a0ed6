"""Shares by rank: the environment, waiting for files, a dead rank, and two processes that give one process's bytes."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from palimpsest.errors import OutputError, SettingError
from palimpsest.evaluate.distributed import await_shards, device_of_environment, is_first, shard_of_environment
from palimpsest.runs import Plan, Run, Shard, merge
from palimpsest.world import made_world

PLAN = Plan(range(7), {"seed": 0})


def work(item: object) -> dict[str, int]:
    return {"score": int(str(item)) ** 2}


def test_the_environment_tells_the_share() -> None:
    assert shard_of_environment({"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}) == Shard(1, 4)
    assert shard_of_environment({"RANK": "3", "WORLD_SIZE": "4"}) == Shard(4, 4)
    assert shard_of_environment({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert shard_of_environment({}) is None
    assert [is_first({"RANK": rank, "WORLD_SIZE": "2"}) for rank in "01"] == [True, False]
    assert is_first({})


@pytest.mark.parametrize(
    "environment",
    [{"RANK": "0"}, {"WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "one", "WORLD_SIZE": "2"}],
)
def test_half_an_environment_is_a_mistake(environment: dict[str, str]) -> None:
    with pytest.raises(SettingError, match="start with accelerate launch or torchrun, or unset both"):
        shard_of_environment(environment)


def test_each_process_of_a_machine_has_an_accelerator_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert device_of_environment({"LOCAL_RANK": "3"}) == "cuda:3"
    assert device_of_environment({"LOCAL_RANK": "5"}) == "cuda:1"
    assert device_of_environment({}) is None
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert device_of_environment({"LOCAL_RANK": "3"}) is None


def test_the_first_waits_for_the_others(tmp_path: Path) -> None:
    with Run(tmp_path, PLAN, "1/2") as run:
        run.map(work)
    waited: list[float] = []

    def first() -> None:
        started = time.monotonic()
        await_shards(tmp_path, PLAN, 2, grace=5.0, pause=0.01)
        waited.append(time.monotonic() - started)

    thread = threading.Thread(target=first)
    thread.start()
    with Run(tmp_path, PLAN, "2/2") as run:
        for item in run.items():
            time.sleep(0.1)
            run.record(item, work(item))
    thread.join(timeout=10)
    assert len(waited) == 1
    assert waited[0] > 0.2
    assert [record["score"] for record in merge(tmp_path)] == [i * i for i in range(7)]


def test_a_dead_rank_is_named_and_the_same_work_goes_on(tmp_path: Path) -> None:
    for shard in ("1/3", "3/3"):
        with Run(tmp_path, PLAN, shard) as run:
            run.map(work)
    with Run(tmp_path, PLAN, "2/3") as run:
        item = next(run.items())
        run.record(item, work(item))
    with pytest.raises(OutputError, match="process of rank 1 ended with 1 of 2 records of shard 2/3 unfinished"):
        await_shards(tmp_path, PLAN, 3, grace=0.2, pause=0.02)
    with Run(tmp_path, PLAN, "2/3") as run:
        run.map(work)
    await_shards(tmp_path, PLAN, 3, grace=0.2, pause=0.02)


def test_a_rank_that_never_came_is_named(tmp_path: Path) -> None:
    with Run(tmp_path, PLAN, "1/2") as run:
        run.map(work)
    with pytest.raises(OutputError, match="process of rank 1 ended with 3 of 3 records"):
        await_shards(tmp_path, PLAN, 2, grace=0.1, pause=0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_a_slow_rank_is_waited_for(tmp_path: Path) -> None:
    with Run(tmp_path, PLAN, "1/2") as run:
        run.map(work)
    with Run(tmp_path, PLAN, "2/2") as run:
        thread = threading.Thread(target=await_shards, args=(tmp_path, PLAN, 2), kwargs={"grace": 0.1, "pause": 0.02})
        thread.start()
        time.sleep(0.6)  # six times the grace without a record, but the lock is held
        assert thread.is_alive()
        run.map(work)
    thread.join(timeout=10)
    assert not thread.is_alive()


@pytest.mark.parametrize("launcher", ["environment", pytest.param("accelerate", marks=pytest.mark.slow)])
def test_two_processes_give_the_bytes_of_one(tmp_path: Path, launcher: str) -> None:
    """The command as a launcher starts it, on the made world; and once by itself."""
    facts = tmp_path / "facts.jsonl"
    facts.write_text(
        "".join(json.dumps(fact.to_json()) + "\n" for fact in made_world().records(["founder"], probes=2)[:3])
    )
    run = ["-m", "palimpsest.cli.main", "evaluate", "world", str(facts), "--method", "ft", "--set", "steps=2", "--out"]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    alone |= {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *run, str(tmp_path / "one")], env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = _launched(launcher, [*run, str(tmp_path / "two")], alone)
    for name in ("samples.jsonl", "results.json", "plan.json"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert said.count("n = 3 of 3 cases.") == 1  # the first prints the table, of all facts; the other nothing
    assert "ES" in said


def _launched(launcher: str, run: list[str], environment: dict[str, str]) -> str:
    """What two processes print that were started by hand with their ranks, or by `accelerate launch`."""
    if launcher == "accelerate":
        pytest.importorskip("accelerate")
        plain = ["--cpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        started = [[sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", *plain, *run]]
        environments = [environment]
    else:
        started = [[sys.executable, *run]] * 2
        environments = [environment | {"RANK": str(rank), "WORLD_SIZE": "2"} for rank in (0, 1)]
    processes = [
        subprocess.Popen(command, env=one, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command, one in zip(started, environments, strict=True)
    ]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return "".join(printed for printed, _ in said)
