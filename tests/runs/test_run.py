"""A run in one process: files, resuming, failing items, refusals, locks."""

import errno
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from palimpsest.errors import FactError, InputError, OutputError, RecordError, SettingError
from palimpsest.runs import Plan, Run, load_results, load_samples

ITEMS = [f"fact-{index}" for index in range(8)]
PLAN = Plan(ITEMS, {"method": "rome", "layers": (5, 6), "seed": 0})


def square(item):
    number = int(item.split("-")[1])
    return {"score": number**2 / 7, "curve": np.arange(number % 3), "missing": math.nan}


def finished(folder, plan=PLAN, function=square):
    with Run(folder, plan) as run:
        records = run.map(function)
        run.finish({"total": sum(record.get("score", 0) for record in records), "n": len(records)})
    return folder


def test_files_of_a_finished_run(tmp_path):
    finished(tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == [
        "plan.json",
        "results.json",
        "run.lock",
        "samples.jsonl",
        "timings.jsonl",
    ]
    assert Plan.read(tmp_path / "out") == PLAN
    lines = (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ITEMS
    assert lines[2] == '{"id": "fact-2", "score": 0.5714285714285714, "curve": [0, 1], "missing": null}'
    assert load_results(tmp_path / "out") == {"total": pytest.approx(20), "n": 8}
    assert load_samples(tmp_path / "out")[3]["id"] == "fact-3"
    timings = [json.loads(line) for line in (tmp_path / "out" / "timings.jsonl").read_text().splitlines()]
    assert [timing["id"] for timing in timings] == ITEMS
    assert all(timing["seconds"] >= 0 for timing in timings)


def test_resuming_skips_what_is_finished_and_gives_the_same_bytes(tmp_path):
    finished(tmp_path / "whole")
    worked = []

    def stops(item):
        if item == "fact-5" and len(worked) < 6:
            worked.append(item)
            raise RuntimeError("power cut")
        worked.append(item)
        return square(item)

    with pytest.raises(RuntimeError, match="power cut"):
        finished(tmp_path / "broken", function=stops)
    assert not (tmp_path / "broken" / "results.json").exists()
    assert len(load_samples(tmp_path / "broken")) == 5
    finished(tmp_path / "broken", function=stops)
    assert worked == [*ITEMS[:6], *ITEMS[5:]]
    for name in ("plan.json", "samples.jsonl", "results.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_finished_run_can_be_opened_and_finished_again(tmp_path):
    finished(tmp_path)
    before = (tmp_path / "results.json").read_bytes()

    def never(item):
        raise AssertionError(item)

    finished(tmp_path, function=never)
    assert (tmp_path / "results.json").read_bytes() == before


@pytest.mark.parametrize("tail", [b'{"id": "fact-4", "sco', b'{"id": "fact-4", "score": 1}', b"\0\0\0", b"{\xff\n"])
def test_a_half_written_last_line_is_cut_off(tmp_path, tail):
    finished(tmp_path / "whole")
    finished(tmp_path / "broken")
    samples = tmp_path / "broken" / "samples.jsonl"
    lines = samples.read_bytes().splitlines(keepends=True)
    samples.write_bytes(b"".join(lines[:4]) + tail)
    assert len(load_samples(tmp_path / "broken")) == 4
    timings = tmp_path / "broken" / "timings.jsonl"
    timings.write_bytes(timings.read_bytes()[:-3])
    with Run(tmp_path / "broken", PLAN) as run:
        assert run.remaining == ITEMS[4:]
        assert samples.read_bytes() == b"".join(lines[:4])
        assert timings.read_bytes().count(b"\n") == 7
    finished(tmp_path / "broken")
    assert samples.read_bytes() == (tmp_path / "whole" / "samples.jsonl").read_bytes()


def test_damage_before_the_last_line_is_refused(tmp_path):
    finished(tmp_path)
    samples = tmp_path / "samples.jsonl"
    whole = samples.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damaged, message in [
        (lines[0] + b"nonsense\n" + lines[1], "Line 2 of .*samples.jsonl must be a JSON object with an id"),
        (lines[0] + lines[0] + lines[1], "holds the item 'fact-0' twice"),
        (whole + b'{"id": "stranger"}\n', r"not in the plan \('stranger'\)"),
    ]:
        samples.write_bytes(damaged)
        with pytest.raises(RecordError, match=message):
            Run(tmp_path, PLAN)
        assert samples.read_bytes() == damaged
    samples.write_bytes(whole)
    Run(tmp_path, PLAN).close()


def test_records_are_the_same_fresh_and_read_back(tmp_path):
    with Run(tmp_path, PLAN) as run:
        fresh = run.map(square)
        assert (run.done, run.total, run.remaining) == (8, 8, [])
    with Run(tmp_path, PLAN) as run:
        assert run.map(square) == fresh
    assert fresh[0] == {"id": "fact-0", "score": 0.0, "curve": [], "missing": None}


def test_a_failing_item_is_recorded_and_the_work_goes_on(tmp_path):
    def picky(item):
        if item == "fact-3":
            raise FactError("The subject is empty, so fill it in.")
        return square(item)

    with Run(tmp_path, PLAN) as run:
        records = run.map(picky)
        assert records[3] == {"id": "fact-3", "error": "The subject is empty, so fill it in."}
        assert len(records) == 8
    with Run(tmp_path, PLAN) as run:
        assert run.remaining == []


def test_a_full_disk_is_no_fault_of_the_item(tmp_path):
    def no_room(item):
        raise OutputError("edit.safetensors cannot be written")

    with Run(tmp_path, PLAN) as run:
        with pytest.raises(OutputError):
            run.map(no_room)
        assert run.done == 0


def test_a_line_that_cannot_be_written_leaves_whole_lines(tmp_path, monkeypatch):
    write, calls = os.write, []

    def short_then_full(handle, data):
        calls.append(len(data))
        if len(calls) == 5:  # item 2, after two lines and two times: half of it fits
            return write(handle, bytes(data)[:9])
        if len(calls) == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    with Run(tmp_path, PLAN) as run, monkeypatch.context() as patch:
        patch.setattr(os, "write", short_then_full)
        with pytest.raises(OutputError, match="samples.jsonl cannot be written: No space left"):
            run.map(square)
    assert (tmp_path / "samples.jsonl").read_bytes().count(b"\n") == 2
    assert (tmp_path / "samples.jsonl").read_bytes().endswith(b"\n")
    finished(tmp_path)
    assert len(load_samples(tmp_path)) == 8


def test_results_are_whole_or_not_there(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Run(tmp_path, PLAN) as run:
        run.map(square)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            with pytest.raises(OutputError, match="results.json cannot be written"):
                run.finish({"n": 8})
        assert not (tmp_path / "results.json").exists()
        assert not [name for name in os.listdir(tmp_path) if ".tmp." in name]
        run.finish({"n": 8})
    assert load_results(tmp_path) == {"n": 8}


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".0123.tmp.results.json").write_text("{half")
    finished(tmp_path)
    assert not [name for name in os.listdir(tmp_path) if ".tmp." in name]


def test_batches_and_any_order_end_in_plan_order(tmp_path):
    with Run(tmp_path / "batch", PLAN) as run:
        for start in run.items():
            batch = run.remaining[run.remaining.index(start) :][:3]
            for item in reversed(batch):
                run.record(item, square(item), seconds=0.5)
        run.finish({"n": run.done})
        assert run.records[0]["id"] == "fact-0"
    finished(tmp_path / "single")
    samples = [(tmp_path / name / "samples.jsonl").read_bytes() for name in ("batch", "single")]
    assert samples[0] == samples[1]


def test_progress_counts_earlier_sittings(tmp_path):
    with Run(tmp_path, PLAN) as run:
        for item in ITEMS[:3]:
            run.record(item, square(item))
    calls = []
    with Run(tmp_path, PLAN) as run:
        run.map(square, progress=lambda done, total, label: calls.append((done, total, label)))
    assert calls[:2] == [(3, 8, ""), (4, 8, "fact-3")]
    assert calls[-1] == (8, 8, "fact-7")


def test_ids_may_be_whole_numbers(tmp_path):
    plan = Plan([1, "1", np.int64(7).item()])
    with Run(tmp_path, plan) as run:
        run.map(lambda item: {"kind": type(item).__name__})
        run.finish({})
    assert [record["kind"] for record in load_samples(tmp_path)] == ["int", "str", "int"]


def test_an_empty_plan_finishes(tmp_path):
    with Run(tmp_path, Plan([])) as run:
        assert run.map(square) == []
        run.finish({"n": 0})
    assert (tmp_path / "samples.jsonl").read_bytes() == b""


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(ITEMS, {"method": "memit", "layers": [5, 6], "seed": 0}), 'setting \'method\' is "rome", got "memit";'),
        (Plan(ITEMS, {"method": "rome", "layers": [5]}), r"'layers' is \[5, 6\], got \[5\] \(and 1 more\)"),
        (Plan(ITEMS, {"method": "rome", "layers": [5, 6], "seed": False}), "'seed' is 0, got false"),
        (Plan(ITEMS, {**PLAN.settings, "dose": 1.0}), "'dose' is not set, got 1.0"),
        (Plan(ITEMS[:-1], PLAN.settings), "it has 8 items, got 7, without 'fact-7'"),
        (Plan([*ITEMS, "x"], PLAN.settings), "it has 8 items, got 9, with 'x' in addition"),
        (Plan(ITEMS[::-1], PLAN.settings), "its 8 items stand in another order"),
    ],
)
def test_another_plan_is_refused_in_one_sentence(tmp_path, plan, message):
    finished(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(SettingError, match=message) as caught:
        Run(tmp_path, plan)
    assert "choose another --out" in str(caught.value)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_nested_settings_are_named_by_their_path(tmp_path):
    Run(tmp_path, Plan(["a"], {"rome": {"steps": 20, "lr": 0.5}})).close()
    with pytest.raises(SettingError, match="'rome.steps' is 20, got 25"):
        Run(tmp_path, Plan(["a"], {"rome": {"steps": 25, "lr": 0.5}}))
    Run(tmp_path, Plan(["a"], {"rome": {"lr": 0.5, "steps": 20.0}})).close()


def test_plans_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="'a', 'b' more than once"):
        Plan(["a", "b", "a", "b", "c"])
    for bad in (True, 1.0, None):
        with pytest.raises(InputError, match="text or a whole number"):
            Plan([bad])
    with pytest.raises(InputError, match=r"settings\['f'\]"):
        Plan(["a"], {"f": object()})


def test_a_damaged_plan_is_refused(tmp_path):
    for text, message in [("{half", "is not JSON"), ("[]", "got 'list'"), ('{"format": 9, "items": []}', "got 9")]:
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(RecordError, match=message):
            Run(tmp_path, PLAN)
    (tmp_path / "plan.json").write_text('{"format": 1, "items": ["a", "a"]}')
    with pytest.raises(RecordError, match="is damaged"):
        Run(tmp_path, PLAN)
    with pytest.raises(RecordError, match="holds no run"):
        Plan.read(tmp_path / "nowhere")


def test_results_need_every_item(tmp_path):
    with Run(tmp_path, PLAN) as run:
        run.record("fact-1", {})
        with pytest.raises(InputError, match=r"7 of 8 items unfinished \('fact-0', 'fact-2', 'fact-3' and 4 more\)"):
            run.finish({})


def test_records_that_make_no_sense_are_refused(tmp_path):
    with Run(tmp_path, PLAN) as run:
        for item, result, message in [
            ("stranger", {}, "is not in the plan"),
            ("fact-0", [1], "must be a dictionary"),
            ("fact-0", {"id": "fact-1"}, "another id"),
            ("fact-0", {"error": "x"}, "must not have the key 'error'"),
            ("fact-0", {"f": object()}, r"the record\['f'\]"),
        ]:
            with pytest.raises(InputError, match=message):
                run.record(item, result)
        assert run.done == 0
        run.record("fact-0", {"id": "fact-0"})
        with pytest.raises(InputError, match="finished already"):
            run.record("fact-0", {})
        items = run.items()
        next(items)
        with pytest.raises(InputError, match="'fact-1' was not finished"):
            next(items)


def test_one_run_at_a_time(tmp_path):
    with Run(tmp_path, PLAN) as run:
        with pytest.raises(OutputError, match=f"process {os.getpid()} is at work on the same run"):
            Run(tmp_path, PLAN)
        code = (
            "import sys; from palimpsest.runs import Plan, Run\n"
            "try: Run(sys.argv[1], Plan(['a']))\n"
            "except Exception as error: sys.stdout.write(f'{type(error).__name__}: {error}')"
        )
        told = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
        assert told.stdout.startswith(f"OutputError: {tmp_path} cannot be written: process {os.getpid()} is at work")
        run.close()
        run.close()
        Run(tmp_path, PLAN).close()


def test_a_refused_run_gives_its_lock_back(tmp_path):
    finished(tmp_path)
    with pytest.raises(SettingError):
        Run(tmp_path, Plan(["x"]))
    Run(tmp_path, PLAN).close()


def test_folders_that_cannot_be_written_are_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "out", "/proc/palimpsest"):
        with pytest.raises(OutputError, match="cannot be written"):
            Run(place, PLAN)


def test_loading_what_is_not_there_or_no_json(tmp_path):
    with pytest.raises(RecordError, match="holds no finished run"):
        load_results(tmp_path)
    with pytest.raises(RecordError, match="holds no records"):
        load_samples(tmp_path)
    for text, message in [("{", "is not JSON"), ("[]", "must hold a JSON object")]:
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(RecordError, match=message):
            load_results(tmp_path)
