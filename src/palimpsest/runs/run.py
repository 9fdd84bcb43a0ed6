"""A run: a plan worked off item by item, that can be killed at any moment and taken up again.

    with Run("out/", Plan(items=[fact.id for fact in facts], settings={"method": "rome", "seed": 0})) as run:
        records = run.map(lambda item: {"score": measure(by_id[item])}, progress=show)
        run.finish({"score": cluster_bootstrap([record["score"] for record in records], ...)})

Its folder holds

    plan.json        items and settings, written first
    samples.jsonl    one line a finished item, each on the disk before the next item starts
    timings.jsonl    how long each item took
    results.json     written last, whole or not at all
    run.lock         says who is at work; means nothing once they have ended

The same plan and function give the same bytes in samples.jsonl and results.json, whether or not the work was
interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from palimpsest.errors import InputError, OutputError, PalimpsestError, RecordError, SettingError
from palimpsest.runs.atomic import atomic_write, check_writable, remove_leftovers
from palimpsest.runs.journal import Journal
from palimpsest.runs.json_text import to_document
from palimpsest.runs.lock import Lock
from palimpsest.runs.plan import PLAN_FILE, ItemId, Plan, listed
from palimpsest.runs.progress import Progress
from palimpsest.runs.shard import Shard
from palimpsest.runs.timings import Timings

Record: TypeAlias = dict[str, Any]

SAMPLES_FILE = "samples.jsonl"
RESULTS_FILE = "results.json"


class Run:
    """A plan at work in a folder, open from when it is made until `close` (use it in a `with` block).

    Args:
        folder: where everything is written; made if need be.
        plan: what to work on. A folder with the same plan is taken up where it stopped.
        shard: this process's share, as "2/5" or a `Shard`; None for the whole. Shards of one run may share a folder.

    Raises:
        OutputError: the folder cannot be written, or another process is at work on the same run (or shard).
        SettingError: the folder holds a run with another plan (it says which setting differs), or the shard is
            malformed.
        RecordError: a file in the folder is damaged.
    """

    def __init__(self, folder: Path | str, plan: Plan, shard: Shard | str | None = None) -> None:
        self.folder = Path(folder)
        self.plan = plan
        self.shard = None if shard is None else Shard.parse(shard)
        self._planned = list(plan.items) if self.shard is None else self.shard.select(plan.items)
        self._mine = set(self._planned)
        suffix = "" if self.shard is None else self.shard.suffix
        check_writable(self.folder)
        self._lock = Lock(self.folder / f"run{suffix}.lock")
        try:
            store_plan(self.folder, plan)
            if self.shard is None:
                for name in (SAMPLES_FILE, RESULTS_FILE):
                    remove_leftovers(self.folder, name)
            self._journal = Journal(self.folder / f"samples{suffix}.jsonl")
            try:
                self._refuse_strangers()
                self._timings = Timings(self.folder / f"timings{suffix}.jsonl")
            except BaseException:
                self._journal.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    @property
    def done(self) -> int:
        """How many items are finished, those that failed included."""
        return len(self._journal.lines)

    @property
    def total(self) -> int:
        """How many items there are to finish, of this shard where there is one."""
        return len(self._planned)

    @property
    def remaining(self) -> list[ItemId]:
        """The items not finished yet, in plan order."""
        return [item for item in self._planned if item not in self._journal.lines]

    @property
    def records(self) -> list[Record]:
        """The records of the finished items, in plan order, as they stand in the file.

        They are read back from JSON even when just made (tuples are lists, NaN is None), so that what is computed from
        them does not depend on whether the run was interrupted.
        """
        lines = self._journal.lines
        return [json.loads(lines[item]) for item in self._planned if item in lines]

    def items(self) -> Iterator[ItemId]:
        """Each item not finished yet, in plan order; finish it with `record` or `fail` before taking the next.

        Raises:
            InputError: the item given out last was neither recorded nor failed.
        """
        for item in self.remaining:
            if item in self._journal.lines:
                continue  # finished ahead of its turn, as in a batch
            yield item
            if item not in self._journal.lines:
                raise InputError(f"Item {item!r} was not finished; call run.record or run.fail before the next item.")

    def record(self, item: ItemId, result: Mapping[str, Any], seconds: float | None = None) -> None:
        """Marks an item as finished; its line is on the disk when this returns.

        Args:
            item: its id.
            result: its record without the id, as far as JSON can hold it (arrays become lists).
            seconds: how long it took, for timings.jsonl.

        Raises:
            InputError: the item is not in the plan (or shard), or is finished, or JSON cannot hold its result, or the
                result has the key "error" (kept for failed items) or an "id" that is not the item's.
            OutputError: the line cannot be written; the run can be taken up again.
        """
        if not isinstance(result, Mapping):
            raise InputError(f"The result of item {item!r} must be a dictionary, got {result!r:.80}; return one.")
        if result.get("id", item) != item:
            raise InputError(
                f"The result of item {item!r} must not have another id, got {result['id']!r}; leave id out."
            )
        if "error" in result:
            raise InputError(
                f"The result of item {item!r} must not have the key 'error'; raise a PalimpsestError instead."
            )
        self._append({"id": item, **result}, seconds)

    def fail(self, item: ItemId, error: PalimpsestError, seconds: float | None = None) -> None:
        """Marks an item as finished without a result: its line is {"id": ..., "error": "..."}.

        Args:
            item: its id.
            error: why; only its message is kept.
            seconds: how long it took, for timings.jsonl.

        Raises:
            InputError: the item is not in the plan (or shard), or is finished.
            OutputError: the line cannot be written; the run can be taken up again.
        """
        self._append({"id": item, "error": str(error)}, seconds)

    def map(self, function: Callable[[ItemId], Mapping[str, Any]], progress: Progress | None = None) -> list[Record]:
        """Applies `function` to every item not finished yet, and returns the records of all finished items.

        Where the function raises a `PalimpsestError`, the item is recorded as failed and the work goes on. An
        `OutputError` (the disk is full) or a `SettingError` is no fault of the item and ends the work like any other
        exception; the run can be taken up again.

        Args:
            function: item id -> its record without the id; must give the same record for the same item.
            progress: called with (done, total, label) before the first item and after each.

        Returns:
            `records`: one dictionary an item with "id" and the function's keys, or "id" and "error".

        Raises:
            InputError: the function returned something that is not a record (see `record`).
            OutputError: a line cannot be written.
        """
        if progress is not None:
            progress(self.done, self.total, "")
        for item in self.items():
            start = time.perf_counter()
            try:
                result = function(item)
            except (OutputError, SettingError):  # not the item's fault
                raise
            except PalimpsestError as error:
                self.fail(item, error, time.perf_counter() - start)
            else:
                self.record(item, result, time.perf_counter() - start)
            if progress is not None:
                progress(self.done, self.total, str(item))
        return self.records

    def finish(self, results: Mapping[str, Any]) -> None:
        """Puts samples.jsonl in plan order, then writes results.json, each whole or not at all.

        Args:
            results: what the run found, as far as JSON can hold it; objects with `to_json` are converted. Leave times
                and dates out, or a run taken up again will not give the same bytes.

        Raises:
            SettingError: this is a shard, which has no results of its own (see `merge`).
            InputError: items are unfinished, or JSON cannot hold the results.
            OutputError: a file cannot be written.
        """
        if self.shard is not None:
            raise SettingError(
                f"Shard {self.shard} has no results of its own; when every shard is finished, merge them and finish "
                f"the whole run."
            )
        if self.remaining:
            raise InputError(
                f"{self.folder} has {len(self.remaining)} of {self.total} items unfinished ({listed(self.remaining)}); "
                f"finish them before the results, with the same command."
            )
        document = to_document(results, "results")
        if list(self._journal.lines) != self._planned:
            ordered = b"".join(self._journal.lines[item] for item in self._planned)
            atomic_write(self._journal.path, ordered)
            self._journal.close()
            self._journal = Journal(self._journal.path)
        atomic_write(self.folder / RESULTS_FILE, document)

    def close(self) -> None:
        """Closes the files and gives the lock back; doing so twice does no harm."""
        self._journal.close()
        self._timings.close()
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, record: Record, seconds: float | None) -> None:
        item = record["id"]
        if item not in self._mine:
            where = "the plan" if self.shard is None else f"shard {self.shard} of the plan"
            raise InputError(f"Item {item!r} is not in {where}; record only what run.items() gives.")
        if item in self._journal.lines:
            raise InputError(f"Item {item!r} is finished already; record only what run.items() gives.")
        self._journal.append(record)
        if seconds is not None:
            self._timings.append(item, seconds)

    def _refuse_strangers(self) -> None:
        strangers = [item for item in self._journal.lines if item not in self._mine]
        if strangers:
            raise RecordError(
                f"{self._journal.path} holds items that are not in the plan ({listed(strangers)}); it was changed by "
                f"something else, so restore it or choose another --out."
            )


def store_plan(folder: Path, plan: Plan) -> None:
    """Writes plan.json, or checks that the one there is the same.

    Raises:
        OutputError: it cannot be written.
        SettingError: another plan is there; the message says which setting differs.
        RecordError: what is there is no plan.
    """
    if (folder / PLAN_FILE).exists():
        Plan.read(folder).require_same(plan, folder)
    else:
        atomic_write(folder / PLAN_FILE, plan.to_bytes())
