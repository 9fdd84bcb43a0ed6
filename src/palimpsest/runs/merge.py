"""Shards put together: the same samples.jsonl, byte for byte, as if one process had done all the work."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from palimpsest.errors import InputError, RecordError
from palimpsest.runs.atomic import atomic_write, check_writable
from palimpsest.runs.journal import read_lines
from palimpsest.runs.lock import Lock
from palimpsest.runs.plan import ItemId, Plan, listed
from palimpsest.runs.run import SAMPLES_FILE, Record, store_plan


def merge(folder: Path | str, sources: Sequence[Path | str] = ()) -> list[Record]:
    """Writes samples.jsonl from finished shards; afterwards `Run(folder, plan)` has nothing left to do but `finish`.

    Args:
        folder: where samples.jsonl goes; its own shards are taken in too.
        sources: further folders with shards of the same plan, for machines that share no disk.

    Returns:
        The records of all items, in plan order.

    Raises:
        InputError: items are missing; it says which, and which shards to run.
        SettingError: two folders hold different plans.
        RecordError: a folder holds no run, a file is damaged, or one item has two different records.
        OutputError: samples.jsonl cannot be written, or a process is at work on the whole run.
    """
    target = Path(folder)
    folders = [target, *(Path(source) for source in sources)]
    with_plan = [place for place in folders if place != target or (target / "plan.json").exists()] or [target]
    plan = Plan.read(with_plan[0])
    for place in with_plan[1:]:
        plan.require_same(Plan.read(place), place)
    lines: dict[ItemId, bytes] = {}
    origin: dict[ItemId, Path] = {}
    counts: set[int] = set()
    wanted = set(plan.items)
    for place in folders:
        for path in _sample_files(place):
            if named := re.fullmatch(r"samples-[0-9]+-of-([0-9]+)\.jsonl", path.name):
                counts.add(int(named[1]))
            for item, line in read_lines(path):
                if item not in wanted:
                    raise RecordError(f"{path} holds the item {item!r}, which is not in the plan; it is another run's.")
                if lines.setdefault(item, line) != line:
                    raise RecordError(
                        f"Item {item!r} has one record in {origin[item]} and another in {path}; a run must give the "
                        f"same record wherever it is made, so remove the wrong file."
                    )
                origin.setdefault(item, path)
    missing = [item for item in plan.items if item not in lines]
    if missing:
        raise InputError(
            f"{target} cannot be merged: {len(missing)} of {len(plan.items)} items are missing ({listed(missing)}); "
            f"{_what_to_run(plan, missing, counts)}."
        )
    check_writable(target)
    lock = Lock(target / "run.lock")
    try:
        store_plan(target, plan)
        merged = b"".join(lines[item] for item in plan.items)
        atomic_write(target / SAMPLES_FILE, merged)
    finally:
        lock.release()
    return [json.loads(lines[item]) for item in plan.items]


def _sample_files(folder: Path) -> list[Path]:
    """Every shard's file of a folder, and the whole run's if it was begun."""
    return sorted([*folder.glob("samples-*-of-*.jsonl"), *folder.glob(SAMPLES_FILE)])


def _what_to_run(plan: Plan, missing: list[ItemId], counts: set[int]) -> str:
    if len(counts) != 1:
        return "run the shards that hold them"
    count = counts.pop()
    absent = set(missing)
    shards = sorted({position % count + 1 for position, item in enumerate(plan.items) if item in absent})
    return (
        "run "
        + " and ".join(f"--shard {index}/{count}" for index in shards[:5])
        + (f" and {len(shards) - 5} more" if len(shards) > 5 else "")
    )
