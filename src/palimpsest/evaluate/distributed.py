"""One evaluation by several processes: each takes its share by its rank, and the first puts the shares together.

    accelerate launch --num_processes 4 -m palimpsest.cli.main evaluate smollm2 facts.json --method rome --out run/
    torchrun --nproc-per-node 4 -m palimpsest.cli.main evaluate smollm2 facts.json --method rome --out run/

Such launchers tell every process its place in the environment (RANK, WORLD_SIZE). Records do not depend on one another, so the
processes need no process group and send each other nothing: rank r of n works off shard (r + 1)/n into the common folder, and
rank 0, when its own is done, waits for the files of the others and merges them. What it reads is what a single process would have
written. A rank that dies leaves a shard unfinished and its lock free; rank 0 then names it and stops, and the same command goes on.

In a function that runs a plan:

    mine = shard_of_environment()
    with Run(out, plan, mine) as run: ...
    if is_first(): await_shards(out, plan, mine.count)        # and then merge and finish
"""

import os
import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch

from palimpsest.errors import OutputError, SettingError
from palimpsest.runs import Plan, Shard
from palimpsest.runs.journal import read_lines
from palimpsest.runs.lock import Lock

GRACE = 60.0  # seconds in which a process may load its model before its shard's lock is there


def shard_of_environment(environment: Mapping[str, str] | None = None) -> Shard | None:
    """The share of this process, or None where it was not launched beside others.

    Args:
        environment: where RANK and WORLD_SIZE stand; the process's own when None.

    Raises:
        SettingError: only one of the two is there, or they are no rank below a size.
    """
    told = os.environ if environment is None else environment
    rank, size = told.get("RANK"), told.get("WORLD_SIZE")
    if rank is None and size is None:
        return None
    try:
        index, count = int(rank or ""), int(size or "")
        if not 0 <= index < count:
            raise ValueError
    except ValueError:
        raise SettingError(
            f"The environment names a process by RANK from 0 to WORLD_SIZE - 1, got RANK={rank!r} and WORLD_SIZE={size!r}; "
            f"start with accelerate launch or torchrun, or unset both."
        ) from None
    return Shard(index + 1, count) if count > 1 else None


def device_of_environment(environment: Mapping[str, str] | None = None) -> str | None:
    """The accelerator that belongs to this process: by LOCAL_RANK, its place among those on its machine.

    Args:
        environment: where LOCAL_RANK stands; the process's own when None.

    Returns:
        "cuda:k", or None where the process was not launched beside others or the machine has no accelerators.
    """
    told = os.environ if environment is None else environment
    count = torch.cuda.device_count()
    return f"cuda:{int(told['LOCAL_RANK']) % count}" if "LOCAL_RANK" in told and count else None


def is_first(environment: Mapping[str, str] | None = None) -> bool:
    """Whether this process speaks for all: the only one, or rank 0.

    Raises:
        SettingError: as `shard_of_environment`.
    """
    own = shard_of_environment(environment)
    return own is None or own.index == 1


def await_shards(
    folder: str | PathLike[str],
    plan: Plan,
    count: int,
    *,
    grace: float = GRACE,
    pause: float = 0.2,
) -> None:
    """Return once every one of `count` shards of `plan` is finished in `folder`.

    A shard without a new record for `grace` seconds is looked at: where nobody holds its lock, its process died or was never
    started. (Its lock is tried no more often than that, for whoever tries a lock holds it for a moment.)

    Args:
        folder: where the shards write.
        plan: of the whole run.
        count: of shards.
        grace: seconds without a new record, after which a process that holds no lock counts as dead.
        pause: seconds between two looks.

    Raises:
        OutputError: a process is dead; names its rank and what it left undone.
    """
    place = Path(folder)
    seen: dict[Shard, tuple[int, float]] = {}
    missing = [Shard(index, count) for index in range(1, count + 1)]
    while missing := [shard for shard in missing if _left(place, plan, shard)]:
        now = time.monotonic()
        for shard in missing:
            left = _left(place, plan, shard)
            before, since = seen.setdefault(shard, (left, now))
            if left != before or (now - since > grace and _is_held(place / f"run{shard.suffix}.lock")):
                seen[shard] = left, now
            elif left and now - since > grace:
                raise OutputError(
                    f"The process of rank {shard.index - 1} ended with {left} of {len(shard.select(plan.items))} records of shard "
                    f"{shard} unfinished in {place}; give the same command again to finish them."
                )
        time.sleep(pause)


def _left(folder: Path, plan: Plan, shard: Shard) -> int:
    """How many items of a shard are not finished."""
    done = {item for item, _ in read_lines(folder / f"samples{shard.suffix}.jsonl")}
    return sum(item not in done for item in shard.select(plan.items))


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock; a lock that was never made is not held."""
    if not path.exists():
        return False
    try:
        Lock(path).release()
    except OutputError:
        return True
    return False
