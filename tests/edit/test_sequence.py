"""Sequences: each edit sees those before it, keeps their keys, and goes on from a file as if nothing had happened."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from oracles.small import EIFFEL, FACTS, documents, model_of
from palimpsest.edit import Edit, SecondMoment, collect_moments
from palimpsest.edit import sequence as sequence_file
from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.memory import Memory
from palimpsest.edit.payload import LowRank
from palimpsest.edit.sequence import EditSequence
from palimpsest.errors import EditError, WeightError
from palimpsest.facts import Fact
from palimpsest.model import Model

SETTINGS: dict[str, Any] = {"layers": (0, 1), "contexts": ((5, 1),), "steps": 4}
METHODS: dict[str, dict[str, Any]] = {
    "memit": {"moment_weight": 20.0},
    "alphaedit": {"energy": 0.2, "ridge": 1.0},
}
TOWERS = tuple(replace(EIFFEL, subject=f"Tower {i}", id=f"tower{i}") for i in range(4))


def moments_of(model: Model) -> dict[int, SecondMoment]:
    return collect_moments(model, (0, 1), documents(), tokens=1500)


def sequence_of(model: Model, method: str, **settings: Any) -> EditSequence:
    return EditSequence(model, method, moments=moments_of(model), **{**SETTINGS, **METHODS.get(method, {}), **settings})


def change(edit: Edit, i: int) -> torch.Tensor:
    payload = edit.payloads[i]
    assert isinstance(payload, LowRank)
    return payload.u.double() @ payload.v.double()


@pytest.mark.parametrize("method", METHODS)
def test_a_sequence_is_the_edit_in_batches(method: str) -> None:
    model = model_of("llama", dtype=torch.float64)
    before = model.fingerprint()
    sequence = sequence_of(model, method)
    parts = [sequence.extend([fact]) for fact in FACTS]
    assert sequence.steps == [1, 1, 1]
    assert model.fingerprint() == before
    assert sequence.edit is not None
    assert [fact.id for fact in sequence.edit.facts] == [fact.id for fact in FACTS]
    together = sequence_of(model, method).editor
    whole = together.edit(FACTS)  # type: ignore[call-arg]
    batched = sequence_of(model, method, batch=1).editor.edit(FACTS)
    for i in range(2):
        torch.testing.assert_close(change(sequence.edit, i), change(batched, i), rtol=1e-5, atol=1e-7)
        summed = sum(change(part, i) for part in parts)
        torch.testing.assert_close(change(sequence.edit, i), summed, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(change(whole, i), change(batched, i), rtol=1e-3)
    with sequence.edit.applied(model), pytest.raises(WeightError):
        parts[0].apply(model)  # a part belongs to the model as it was then


@pytest.mark.parametrize("method", METHODS)
def test_the_memory_keeps_earlier_keys_where_they_were_put(method: str) -> None:
    """With the memory the second edit moves the first one's keys less than without."""
    model = model_of("llama", dtype=torch.float64)
    moved = {}
    for remembers in (True, False):
        sequence = sequence_of(model, method, memory=remembers)
        sequence.extend(TOWERS[:1])
        kept = sequence.memory.gram(1) if remembers else moved["gram"]
        assert kept is not None
        assert (sequence.memory.count(1) == 1) == remembers
        moved["gram"] = kept
        part = sequence.extend(TOWERS[1:2])
        w = change(part, 1)
        moved[str(remembers)] = torch.trace(w @ kept @ w.T)
    assert float(moved["True"]) < 0.9 * float(moved["False"])


def test_the_memory_of_a_sequence_is_its_own() -> None:
    model = model_of("llama", dtype=torch.float64)
    alone = sequence_of(model, "alphaedit")
    alone.extend(TOWERS[1:2])
    other = sequence_of(model, "alphaedit")
    other.extend(TOWERS[:1])
    fresh = sequence_of(model, "alphaedit")
    fresh.extend(TOWERS[1:2])
    assert alone.edit is not None
    assert fresh.edit is not None
    for i in range(2):
        assert torch.equal(change(alone.edit, i), change(fresh.edit, i))
    edited = fresh.editor.edit(TOWERS[2:3])  # an edit beside the sequence does not add to it
    assert edited.facts == TOWERS[2:3]
    assert fresh.memory.count(0) == 1


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_it_goes_on_the_same(method: str, tmp_path: Path) -> None:
    model = model_of("llama", dtype=torch.float64)
    sequence = sequence_of(model, method)
    with pytest.raises(EditError, match="nothing to save"):
        sequence.save(tmp_path)
    sequence.extend(TOWERS[:2])
    sequence.save(tmp_path)
    sequence.extend(TOWERS[2:])
    settings = {**SETTINGS, **METHODS[method], "moments": moments_of(model)}
    loaded = EditSequence.load(model, tmp_path, **settings)
    assert loaded.steps == [2]
    loaded.extend(TOWERS[2:])
    assert loaded.edit is not None
    assert sequence.edit is not None
    for i in range(2):
        assert torch.equal(change(loaded.edit, i), change(sequence.edit, i))
    with pytest.raises(WeightError):
        EditSequence.load(model_of("llama", dtype=torch.float64, seed=3), tmp_path, **settings)
    with pytest.raises(EditError, match="another"):
        EditSequence.load(model, tmp_path, **{**settings, "steps": 5})
    (tmp_path / "sequence.json").unlink()
    with pytest.raises(EditError, match="no whole sequence"):
        EditSequence.load(model, tmp_path, **settings)


def test_a_method_without_a_memory_makes_sequences_too() -> None:
    model = model_of("gpt2", dtype=torch.float64)
    sequence = EditSequence(
        model, "rome", layers=1, contexts=((5, 1),), steps=3, memory=False, moments=moments_of(model)
    )
    for fact in FACTS:
        sequence.extend([fact])
    assert sequence.edit is not None
    assert sequence.memory.layers == ()
    assert sequence.edit.payloads[0].rank == 3  # type: ignore[union-attr]


def test_a_fact_may_be_changed_again_later() -> None:
    model = model_of("llama")
    sequence = sequence_of(model, "memit")
    sequence.extend([EIFFEL])
    sequence.extend([replace(EIFFEL, target_new="Berlin")])
    assert sequence.edit is not None
    assert [fact.target_new for fact in sequence.edit.facts] == ["Rome", "Berlin"]


def test_a_failed_step_leaves_the_sequence_as_it_was() -> None:
    model = model_of("llama")
    sequence = sequence_of(model, "memit")
    sequence.extend([EIFFEL])
    count, edit, before = sequence.memory.count(0), sequence.edit, model.fingerprint()
    with pytest.raises(EditError, match="contradict"):
        sequence.extend([TOWERS[0], replace(TOWERS[0], target_new="Berlin", id="again")])
    assert (sequence.memory.count(0), sequence.edit, sequence.steps) == (count, edit, [1])
    assert model.fingerprint() == before


def test_a_step_that_fails_halfway_leaves_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    sequence = sequence_of(model, "memit", batch=1)
    sequence.extend([EIFFEL])
    search = ClosedForm._find

    def fails_on_the_second(editor: ClosedForm, facts: Any, *others: Any) -> Any:
        if facts[0].id == "tower2":
            raise EditError("deliberate")
        return search(editor, facts, *others)

    monkeypatch.setattr(ClosedForm, "_find", fails_on_the_second)
    with pytest.raises(EditError, match="deliberate"):
        sequence.extend(TOWERS[1:3])
    assert (sequence.memory.count(0), sequence.steps) == (1, [1])


def test_a_save_that_is_cut_off_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    sequence = sequence_of(model, "memit")
    settings = {**SETTINGS, **METHODS["memit"], "moments": moments_of(model)}
    sequence.extend(TOWERS[:1])
    sequence.save(tmp_path)
    sequence.extend(TOWERS[1:2])

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sequence_file, "atomic_write", killed)
    with pytest.raises(KeyboardInterrupt):
        sequence.save(tmp_path)
    loaded = EditSequence.load(model, tmp_path, **settings)
    assert (loaded.steps, loaded.memory.count(0)) == ([1], 1)
    monkeypatch.undo()
    sequence.save(tmp_path)
    assert EditSequence.load(model, tmp_path, **settings).steps == [1, 1]
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("method", ["random", "ft", "rome"])
def test_every_method_makes_sequences(method: str) -> None:
    model = model_of("llama")
    settings: dict[str, Any] = {"steps": 2, "layers": 1}
    if method != "ft":
        settings |= {"contexts": ((5, 1),), "text": documents()}
    sequence = EditSequence(model, method, **settings)
    sequence.extend(TOWERS[:1])
    sequence.extend(TOWERS[1:2])
    assert sequence.edit is not None
    assert len(sequence.edit.facts) == 2
    with sequence.edit.applied(model):
        pass


def test_a_memory_is_bounded_and_exact(tmp_path: Path) -> None:
    keys = torch.randn(30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    memory = Memory()
    assert memory.gram(3) is None
    for i in range(0, 30, 5):
        memory.add(3, keys[i : i + 5])
    assert memory._factors[3].shape == (8, 8)
    torch.testing.assert_close(memory.gram(3), keys.T @ keys)
    assert memory.count(3) == 30
    memory.save(tmp_path / "m.safetensors")
    loaded = Memory.load(tmp_path / "m.safetensors")
    torch.testing.assert_close(loaded.gram(3), memory.gram(3), rtol=1e-14, atol=0)  # the product of another layout
    assert (loaded.count(3), loaded.layers) == (30, (3,))
    (tmp_path / "m.safetensors").write_bytes(b"no")
    with pytest.raises(EditError, match="damaged"):
        Memory.load(tmp_path / "m.safetensors")


def test_facts_of_a_sequence_need_answers() -> None:
    model = model_of("llama")
    with pytest.raises(ValueError, match="no target_new"):
        sequence_of(model, "memit").extend([Fact("Japan", "The capital of {} is", "Tokyo")])
