"""The edit file: everything comes back, and whatever is not such a file is refused with one sentence."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_editors import GOOD, hook, low_rank

from oracles.small import EIFFEL, FACTS, model_of, with_probes
from palimpsest.edit import Edit
from palimpsest.errors import EditError, OutputError
from palimpsest.model import Model, pad

MODEL = model_of("llama")


def said(model: Model, edit: Edit, dose: float) -> torch.Tensor:
    """Logits of the edited model."""
    with edit.applied(model, dose):
        return model.last_logits(pad([model.encode(fact.text).ids for fact in FACTS]))


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_was_saved_comes_back(family: str, make: Callable[..., Edit], tmp_path: Path) -> None:
    model = model_of(family)
    fact = with_probes(EIFFEL, ["Where is the tower? In “Paris” – "], [("The Louvre is in", "Paris")])
    edit, path = make(model, [fact]), tmp_path / "edit.safetensors"
    edit.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["edit.safetensors"]
    loaded = Edit.load(str(path))
    assert loaded.facts == (fact,)
    for name in ("method", "settings", "weights", "notes", "versions", "layouts"):
        assert getattr(loaded, name) == getattr(edit, name), name
    assert [type(payload) for payload in loaded.payloads] == [type(payload) for payload in edit.payloads]
    for dose in (1.0, 0.5):
        assert torch.equal(said(model, loaded, dose), said(model, edit, dose))
    loaded.save(path)
    again = Edit.load(path)
    assert torch.equal(said(model, again, 1.0), said(model, edit, 1.0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["edit.safetensors"]


def test_the_file_describes_itself(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "edit.safetensors"
    low_rank(MODEL, FACTS).save(path)
    with safe_open(str(path), framework="pt") as file:
        card = json.loads(file.metadata()["palimpsest"])
        assert sorted(file.keys()) == ["0.u", "0.v"]
    assert card["format"] == "palimpsest-edit/1"
    assert card["payloads"] == [{"kind": "low rank", "path": "model.layers.1.mlp.down_proj.weight"}]
    assert [fact["id"] for fact in card["facts"]] == [fact.id for fact in FACTS]


def test_an_edit_of_nothing_can_be_saved(tmp_path: Path) -> None:
    Edit.made_for(MODEL, "none", ()).save(tmp_path / "edit.safetensors")
    assert Edit.load(tmp_path / "edit.safetensors").payloads == ()


def test_a_half_precision_model_keeps_float32_factors(tmp_path: Path) -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    edit, path = GOOD["rome"](model, [EIFFEL]), tmp_path / "edit.safetensors"
    edit.save(path)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float32}
    assert torch.equal(said(model, Edit.load(path), 1.0), said(model, edit, 1.0))


def test_an_edit_is_never_larger_than_the_dense_change(tmp_path: Path) -> None:
    for rank in (1, 19, 20, 40):
        low_rank(MODEL, [EIFFEL], rank=rank).save(tmp_path / "edit.safetensors")
        numbers = sum(tensor.numel() for tensor in load_file(tmp_path / "edit.safetensors").values())
        assert numbers == min(rank * (32 + 48), 32 * 48)


def test_a_file_of_the_first_version_says_nothing_of_layouts(saved: Path) -> None:
    low_rank(MODEL, [EIFFEL]).save(saved)
    rewritten(saved, layouts={})
    assert torch.equal(said(MODEL, Edit.load(saved), 1.0), said(MODEL, low_rank(MODEL, [EIFFEL]), 1.0))


def test_the_newest_edit_of_a_folder_is_read(tmp_path: Path) -> None:
    for i in (2, 10):
        (tmp_path / "palimpsest" / str(i)).mkdir(parents=True)
        low_rank(MODEL, [EIFFEL], rank=i).save(tmp_path / "palimpsest" / str(i) / "edit.safetensors")
    assert Edit.load(tmp_path).payloads[0].rank == 10  # type: ignore[union-attr]


def refuse(path: Path, sentence: str) -> None:
    """Loading `path` is refused in one line."""
    with pytest.raises(EditError, match=sentence) as refused:
        Edit.load(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A good edit file."""
    path = tmp_path / "edit.safetensors"
    hook(MODEL, [EIFFEL]).save(path)
    return path


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    refuse(tmp_path / "edit.safetensors", "There is no edit file")
    refuse(tmp_path, "There is no edit file")


@pytest.mark.parametrize("content", [b"", b"not an edit at all, but some text", bytes(100)])
def test_a_file_of_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "edit.safetensors"
    path.write_bytes(content)
    refuse(path, "damaged")


@pytest.mark.parametrize("keep", [4, 100, -1])
def test_a_file_cut_short(saved: Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    refuse(saved, "damaged")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"palimpsest": "{}"},
        {"palimpsest": "[]"},
        {"palimpsest": '"text"'},
        {"palimpsest": '{"format": "palimpsest-edit/2"}'},
        {"format": "pt"},
    ],
)
def test_a_safetensors_file_that_is_no_edit(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata=metadata)
    refuse(path, "not an edit file")


def rewritten(path: Path, **changes: object) -> None:
    """The file with other entries in its card."""
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        card = json.loads(file.metadata()["palimpsest"])
    save_file(load_file(path), path, metadata={"palimpsest": json.dumps(card | changes)})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"payloads": [{"kind": "wave"}]}, "kind 'wave'"),
        ({"payloads": [{"kind": "low rank", "path": "x"}]}, "damaged"),
        ({"payloads": [{"kind": "hook", "site": ["nowhere", 1]}]}, "damaged"),
        ({"payloads": [{}]}, "damaged"),
        ({"payloads": 3}, "damaged"),
        ({"facts": [{"subject": "x"}]}, "damaged"),
        ({"facts": [{"subject": "x", "prompt": "no hole"}]}, "damaged"),
    ],
)
def test_a_card_that_is_wrong(saved: Path, changes: dict[str, object], sentence: str) -> None:
    rewritten(saved, **changes)
    refuse(saved, sentence)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        low_rank(MODEL, [EIFFEL]).save(blocked / "edit.safetensors")
    with pytest.raises(OutputError, match="cannot be written"):
        low_rank(MODEL, [EIFFEL]).save(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_save_keeps_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    old = saved.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="No space left"):
        low_rank(MODEL, [EIFFEL]).save(saved)
    assert saved.read_bytes() == old
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


def test_a_loaded_edit_is_refused_by_other_weights(saved: Path) -> None:
    from palimpsest.errors import WeightError

    low_rank(MODEL, [EIFFEL]).save(saved)
    with pytest.raises(WeightError, match="down_proj"):
        Edit.load(saved).apply(model_of("llama", seed=3))


def test_a_note_that_is_not_finite_is_kept(saved: Path) -> None:
    edit = replace(low_rank(MODEL, [EIFFEL]), notes={"loss": float("inf")})
    edit.save(saved)
    assert Edit.load(saved).notes == {"loss": float("inf")}
