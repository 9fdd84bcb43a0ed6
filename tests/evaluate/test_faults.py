"""What can go wrong while evaluating: killed, no space, no permission, bad records. One sentence each; nothing else is harmed."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from oracles.small import EIFFEL, FACTS, JAPAN, model_of, with_probes
from palimpsest.errors import InputError, OutputError, RecordError
from palimpsest.evaluate import evaluate
from palimpsest.facts import Fact, read_facts
from palimpsest.model import Model
from palimpsest.world import made_world

# Loads the shipped model of the made world once; then, for each "FOLDER LIMIT MODE" it reads, a process of its own evaluates into
# the folder, with files no longer than LIMIT bytes (0: any). It tells the process's id, and how it ended.
WORK = """
import os, resource, sys
import palimpsest as pal
from palimpsest.errors import OutputError
model = pal.load("world", check=False)
facts = list(pal.read_facts(sys.argv[1]))
for line in sys.stdin:
    folder, limit, mode = line.split()
    child = os.fork()
    if not child:
        if int(limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
        try:
            pal.evaluate(model, facts, method="ft", steps=2, mode=mode, out=folder)
        except OutputError as error:
            sys.stderr.write(f"{error}\\n")
            sys.stderr.flush()
            os._exit(3)
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()  # until then the process, even when it has ended, keeps its id to itself
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
ASKED = [with_probes(fact, [f"They say {fact.subject}"], [("The Thames is in", "London")]) for fact in FACTS]


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of("gpt2")


class Evaluations:
    """Evaluations on the made world, each in a process that can be killed."""

    def __init__(self, folder: Path, count: int) -> None:
        facts = folder / "facts.jsonl"
        facts.write_text(
            "".join(json.dumps(fact.to_json()) + "\n" for fact in made_world().records(["founder"], probes=2)[:count])
        )
        command = [sys.executable, "-c", WORK, str(facts)]
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def start(self, folder: Path, limit: int = 0, mode: str = "each") -> int:
        """The id of a new process."""
        return self._asked(f"{folder} {limit} {mode}")

    def end(self) -> int:
        """Its exit code, once it ended; minus the signal that killed it."""
        return self._asked("end")

    def close(self) -> str:
        """End the server; what was said on standard error."""
        return self.server.communicate()[1]

    def _asked(self, request: str) -> int:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(f"{request}\n")
        self.server.stdin.flush()
        line = self.server.stdout.readline()
        assert line, self.server.communicate()[1]
        return int(line)


def content(folder: Path) -> dict[str, bytes]:
    """Everything that must be the same, which is every file but the timings and the lock."""
    told = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return {name: data for name, data in told.items() if not name.startswith("timings") and name != "run.lock"}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("mode", ["each", "batch", "sequence"])
def test_killed_ten_times_and_resumed_is_byte_identical(tmp_path: Path, mode: str) -> None:
    work = Evaluations(tmp_path, 40)
    work.start(tmp_path / "whole", mode=mode)
    assert work.end() == 0
    chance = random.Random(0)
    samples = tmp_path / "broken" / "samples.jsonl"
    ends = []
    for _ in range(10):
        begun = samples.stat().st_size if samples.exists() else 0
        process = work.start(tmp_path / "broken", mode=mode)
        deadline = time.monotonic() + 60
        while not (samples.exists() and samples.stat().st_size > begun) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        ends.append(work.end())
    assert ends.count(-signal.SIGKILL) >= 5
    work.start(tmp_path / "broken", mode=mode)
    assert work.end() == 0
    assert work.close() == ""
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_process_that_may_write_no_more_says_so_and_goes_on_later(tmp_path: Path) -> None:
    work = Evaluations(tmp_path, 6)
    work.start(tmp_path / "whole")
    assert work.end() == 0
    size = (tmp_path / "whole" / "samples.jsonl").stat().st_size
    work.start(tmp_path / "full", size - 10)
    assert work.end() == 3
    assert (tmp_path / "full" / "samples.jsonl").read_bytes().count(b"\n") == 5
    assert (tmp_path / "full" / "samples.jsonl").read_bytes().endswith(b"}\n")  # no half of a line
    work.start(tmp_path / "full")
    assert work.end() == 0
    said = work.close()
    assert "samples.jsonl cannot be written: File too large" in said
    assert len(said.strip().splitlines()) == 1
    assert content(tmp_path / "full") == content(tmp_path / "whole")


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(model, ASKED, out=tmp_path / "whole")
    write, lines = os.write, []

    def full(handle: int, data: Any) -> int:
        if b'"pre"' in bytes(data):
            lines.append(1)
            if len(lines) == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"samples.jsonl cannot be written: No space left on device; free some space"):
        evaluate(model, ASKED, out=tmp_path / "full")
    monkeypatch.setattr(os, "write", write)
    assert len((tmp_path / "full" / "samples.jsonl").read_bytes().splitlines()) == 1
    evaluate(model, ASKED, out=tmp_path / "full")
    assert content(tmp_path / "full") == content(tmp_path / "whole")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named_before_any_work(tmp_path: Path, model: Model) -> None:
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied; choose an --out where you may write"):
        evaluate(model, ASKED, out=folder)


def test_a_file_where_the_folder_should_be(tmp_path: Path, model: Model) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="a file stands where a folder is needed, so choose another --out"):
        evaluate(model, ASKED, out=tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


class Failing:
    """A tokenizer that cannot read one word."""

    is_fast = True

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __call__(self, text: Any, *arguments: Any, **settings: Any) -> Any:
        for one in [text] if isinstance(text, str) else text:
            if "Unreadable" in one:
                raise InputError(f"The tokenizer cannot read {one!r}.")
        return self._tokenizer(text, *arguments, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize("method", [None, "random"])
def test_a_record_that_the_tokenizer_cannot_read_harms_no_other(model: Model, method: str | None) -> None:
    bad = Fact("Unreadable", "The {} is in", "Paris", "Rome", id="bad", relation="city")
    long = Fact("tower" * 400, "The {} is in", "Paris", "Rome", id="long", relation="city")
    own = model_of("gpt2", tokenizer=Failing(model.tokenizer))
    settings = {} if method is None else {"method": method, "layers": (1,)}
    scores = evaluate(own, [ASKED[0], bad, ASKED[1], long], **settings)
    assert [record["id"] for record in scores.failed] == ["bad", "long"]
    assert "The tokenizer cannot read 'The Unreadable is in" in scores.failed[0]["error"]
    assert "but this model reads at most 256" in scores.failed[1]["error"]
    alone = evaluate(model, ASKED[:2], **settings)
    for there, here in zip(scores.measured, alone.measured, strict=True):
        assert there["pre"]["nll_new"] == pytest.approx(here["pre"]["nll_new"], abs=1e-4)
        if method:
            assert there["post"]["nll_new"] == pytest.approx(here["post"]["nll_new"], abs=1e-4)
    assert own.applied == []


def test_a_record_without_what_the_suite_needs_harms_no_other(model: Model) -> None:
    scores = evaluate(model, [ASKED[0], Fact("Japan", "The capital of {} is", "Tokyo", id="bare"), ASKED[1]])
    assert [record["id"] for record in scores.failed] == ["bare"]
    assert "target_new" in scores.failed[0]["error"]
    assert [record["id"] for record in scores.measured] == [EIFFEL.id, JAPAN.id]


def test_an_empty_file_and_no_facts_are_one_sentence(tmp_path: Path, model: Model) -> None:
    empty = tmp_path / "empty.json"
    empty.write_text("")
    with pytest.raises(RecordError, match=r"^[^\n]+$"):
        read_facts(empty)
    with pytest.raises(InputError, match="There are no facts to evaluate"):
        evaluate(model, [])


def test_facts_of_another_kind_than_the_suite_s(model: Model) -> None:
    bare = [Fact("Japan", "The capital of {} is"), Fact("Chad", "The capital of {} is")]
    with pytest.raises(InputError, match=r"^[^\n]+$") as refused:
        evaluate(model, bare)
    assert "counterfact" in str(refused.value)


def test_a_run_that_was_changed_by_something_else(tmp_path: Path, model: Model) -> None:
    evaluate(model, ASKED, out=tmp_path / "run")
    samples = tmp_path / "run" / "samples.jsonl"
    lines = samples.read_bytes().splitlines(keepends=True)
    samples.write_bytes(lines[0] + b"broken\n" + lines[2])
    with pytest.raises(RecordError, match=r"Line 2 of .* must be a JSON object with an id"):
        evaluate(model, ASKED, out=tmp_path / "run")
