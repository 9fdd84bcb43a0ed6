"""kill -9 in the middle of a pass, then the same call again: the same bits as a pass nobody touched."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from oracles.small import LAYER, documents, model_of
from palimpsest.edit import SecondMoment, cached_moments, collect_moments, moments
from palimpsest.edit.moments import collect, load_moments, save_moments
from palimpsest.edit.moments.partial_sums import PartialSums
from palimpsest.errors import OutputError

MODEL = model_of("gpt2")
TOKENS = 900
LAYERS = [0, 2]


class Killed(BaseException):
    """Stands for a kill inside this process."""


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "BATCH_TOKENS", 100)


def killed_after(batches: int, resume: Path, **settings: Any) -> int:
    """Run until so many batches are done and die; how many were read."""
    read: list[int] = []

    def die(done: int, total: int, label: str) -> None:
        read.append(done)
        if len(read) == batches:
            raise Killed

    with pytest.raises(Killed):
        collect_moments(MODEL, LAYERS, documents(), tokens=TOKENS, progress=die, resume=resume, **settings)
    return len(read)


def assert_same(found: dict[int, SecondMoment], whole: dict[int, SecondMoment]) -> None:
    for layer in LAYERS:
        assert torch.equal(found[layer].matrix, whole[layer].matrix)
        assert (found[layer].count, found[layer].provenance) == (whole[layer].count, whole[layer].provenance)


def test_a_pass_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    whole = collect_moments(MODEL, LAYERS, documents(), tokens=TOKENS)
    resume = tmp_path / "below" / "sums"
    killed_after(3, resume, save_every=1)
    assert [path.name for path in resume.parent.iterdir()] == ["sums"]
    killed_after(2, resume, save_every=1)
    left: list[int] = []
    found = collect_moments(
        MODEL, LAYERS, documents(), tokens=TOKENS, resume=resume, progress=lambda done, total, label: left.append(done)
    )
    assert_same(found, whole)
    assert left[-1] == TOKENS
    assert left[0] > 3 * 80  # it did not begin again
    assert not list(resume.parent.iterdir())


def test_nothing_is_saved_before_it_is_due(tmp_path: Path) -> None:
    killed_after(3, tmp_path / "sums")
    assert not (tmp_path / "sums").exists()
    killed_after(3, tmp_path / "sums", save_every=10_000)
    assert not (tmp_path / "sums").exists()


def test_a_slow_pass_is_saved_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "SECONDS_BETWEEN_SAVES", 0.0)
    killed_after(3, tmp_path / "sums")
    assert (tmp_path / "sums").exists()


@pytest.mark.parametrize("other", ["tokens", "text", "model", "layers", "batches", "damaged"])
def test_sums_of_another_pass_count_for_nothing(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resume = tmp_path / "sums"
    killed_after(3, resume, save_every=1)
    model = model_of("gpt2", seed=3) if other == "model" else MODEL
    layers = [0, 1] if other == "layers" else LAYERS
    text = documents() + (" More." if other == "text" else "")
    tokens = TOKENS + (other == "tokens")
    if other == "batches":
        monkeypatch.setattr(collect, "BATCH_TOKENS", 60)
    if other == "damaged":
        resume.write_bytes(resume.read_bytes()[:-1])
    assert not PartialSums.begin({0: 48}, {0: {}}, (100, 8)).continue_from(resume)
    whole = collect_moments(model, layers, text, tokens=tokens)
    found = collect_moments(model, layers, text, tokens=tokens, resume=resume)
    for layer in layers:
        assert torch.equal(found[layer].matrix, whole[layer].matrix)


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    read: list[int] = []
    with pytest.raises(OutputError, match="a-file"):
        collect_moments(
            MODEL, [LAYER], documents(), resume=tmp_path / "a-file" / "sums", progress=lambda *now: read.append(now[0])
        )
    assert not read


def test_the_cache_goes_on_as_well(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "SECONDS_BETWEEN_SAVES", 0.0)
    model, read = model_of("gpt2", seed=31), list[int]()

    def die(done: int, total: int, label: str) -> None:
        read.append(done)
        if len(read) == 4:
            raise Killed

    with pytest.raises(Killed):
        cached_moments(model, LAYERS, documents(), tokens=TOKENS, progress=die)
    begun, place = len(read), own_cache / "moments"
    assert len(list(place.glob("*.partial"))) == 1
    found = cached_moments(model, LAYERS, documents(), tokens=TOKENS, progress=lambda done, *_: read.append(done))
    assert read[begun] > read[1]
    assert_same(found, collect_moments(model, LAYERS, documents(), tokens=TOKENS))
    assert not list(place.glob("*.partial"))
    assert moments.cached_moments is cached_moments


WORK = """
import sys, time
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from oracles.small import documents, model_of
from palimpsest.edit.moments import collect, collect_moments, save_moments

collect.BATCH_TOKENS = 100
folder = Path(sys.argv[1])
found = collect_moments(
    model_of("gpt2"), [0, 2], documents(), tokens=900, resume=folder / "sums", save_every=1,
    progress=lambda *now: time.sleep(float(sys.argv[2])),
)
save_moments(found, folder / "m.safetensors")
"""


def start(folder: Path, pause: float) -> subprocess.Popen[bytes]:
    code = WORK.format(tests=str(Path(__file__).parents[1]))
    return subprocess.Popen([sys.executable, "-c", code, str(folder), str(pause)])


@pytest.mark.slow
def test_killed_and_resumed_is_byte_identical(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_moments(collect_moments(MODEL, LAYERS, documents(), tokens=TOKENS), whole)
    folder = tmp_path / "broken"
    for stop_after in (2, 5):  # batches; each is told apart by the bytes of the file with the sums
        process, states = start(folder, 0.1), set()
        deadline = time.monotonic() + 60
        while len(states) < stop_after and process.poll() is None and time.monotonic() < deadline:
            if (folder / "sums").is_file():
                states.add((folder / "sums").read_bytes())
            time.sleep(0.005)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert (folder / "sums").is_file()
        assert not (folder / "m.safetensors").exists()
    assert start(folder, 0).wait() == 0
    assert (folder / "m.safetensors").read_bytes() == whole.read_bytes()
    assert not (folder / "sums").exists()
    assert sorted(load_moments(folder / "m.safetensors")) == LAYERS
