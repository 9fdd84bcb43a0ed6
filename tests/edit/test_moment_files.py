"""Files of second moments: ours, of both formats, and the Bau lab's; whole or refused, and never executed."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oracles.small import LAYER, documents, model_of
from palimpsest.edit import SecondMoment, collect_moments, moments
from palimpsest.edit.moments import kept, load_moment, load_moments, read_bau_lab, save_moment, save_moments
from palimpsest.edit.moments.kept import moments_in_file, put_in_file
from palimpsest.errors import EditError, InputError, OutputError, SettingError, WeightError

MODEL = model_of("gpt2")


@pytest.fixture(scope="module")
def measured() -> dict[int, SecondMoment]:
    return collect_moments(MODEL, [2, 0, 1], documents(), tokens=500)


def same(found: SecondMoment, other: SecondMoment) -> bool:
    return (
        torch.equal(found.matrix, other.matrix)
        and found.matrix.dtype == other.matrix.dtype == torch.float64
        and (found.count, found.provenance) == (other.count, other.provenance)
    )


def test_several_layers_in_one_file(measured: dict[int, SecondMoment], tmp_path: Path) -> None:
    path = tmp_path / "below" / "m.safetensors"
    save_moments(measured, path)
    loaded = load_moments(str(path))
    assert sorted(loaded) == [0, 1, 2]
    for layer, moment in loaded.items():
        assert same(moment, measured[layer])
        moment.check_made_for(MODEL, layer)
    assert path.stat().st_size < 3 * 48 * 48 * 8  # one triangle each
    assert [entry.name for entry in path.parent.iterdir()] == ["m.safetensors"]


def test_provenance_is_all_there(measured: dict[int, SecondMoment], tmp_path: Path) -> None:
    save_moment(measured[LAYER], tmp_path / "m.safetensors")
    provenance = load_moment(tmp_path / "m.safetensors").provenance
    assert sorted(provenance) == ["document_tokens", "dtype", "layer", "module", "text", "tokens", "weights"]
    assert provenance["module"] == "transformer.h.1.mlp.c_proj"
    assert provenance["dtype"] == "torch.float32"
    assert provenance["tokens"] == "500"
    assert len(provenance["text"]) == len(provenance["weights"]) == 64


def test_one_moment_is_not_asked_of_a_file_of_several(measured: dict[int, SecondMoment], tmp_path: Path) -> None:
    save_moments(measured, tmp_path / "m.safetensors")
    with pytest.raises(EditError, match=r"holds layers \[0, 1, 2\]"):
        load_moment(tmp_path / "m.safetensors")


def test_the_first_format_is_still_read(measured: dict[int, SecondMoment], tmp_path: Path) -> None:
    moment, path = measured[LAYER], tmp_path / "old.safetensors"
    card = {**moment.provenance, "count": str(moment.count), "format": "palimpsest-moment/1"}
    save_file({"matrix": moment.matrix}, path, card)
    assert same(load_moment(path), moment)
    assert list(load_moments(path)) == [LAYER]


@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_a_file_that_was_cut_is_damaged(measured: dict[int, SecondMoment], tmp_path: Path, keep: int) -> None:
    path = tmp_path / "m.safetensors"
    save_moments(measured, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(EditError, match="damaged.*delete it"):
        load_moments(path)


def of_layers(layers: Any) -> dict[str, str]:
    return {"palimpsest": json.dumps({"format": "palimpsest-moments/2", "layers": layers})}


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        ({}, "its format is None"),
        ({"palimpsest": "[1]"}, "its format is None"),
        ({"palimpsest": json.dumps({"format": "palimpsest-edit/1"})}, "palimpsest-edit/1"),
        ({"palimpsest": json.dumps({"format": "palimpsest-moments/2"})}, "damaged"),
        ({"palimpsest": "{1"}, "damaged"),
        (of_layers({"1": {"width": 4}}), "damaged"),
        (of_layers({"1": 4}), "damaged"),
        (of_layers([1]), "damaged"),
        (of_layers({"5": {"width": 3, "count": 1, "provenance": {}}}), "damaged"),
        (of_layers({"1": {"width": 5, "count": 1, "provenance": {}}}), "damaged"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_a_sentence(card: dict[str, str], sentence: str, tmp_path: Path) -> None:
    save_file({"1": torch.zeros(10, dtype=torch.float64)}, tmp_path / "m.safetensors", card)
    with pytest.raises(EditError, match=sentence) as refused:
        load_moments(tmp_path / "m.safetensors")
    assert "\n" not in str(refused.value)


def test_no_file_and_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(EditError, match="no file of second moments"):
        load_moments(tmp_path / "m.safetensors")
    with pytest.raises(EditError, match="no second moments to save"):
        save_moments({}, tmp_path / "m.safetensors")
    (tmp_path / "a-file").write_text("")
    with pytest.raises(OutputError, match="a-file"):
        save_moments({0: SecondMoment.identity(3)}, tmp_path / "a-file" / "m.safetensors")


def test_a_file_grows_layer_by_layer_and_measures_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: dict[int, SecondMoment]
) -> None:
    asked: list[list[int]] = []

    def counted(model: Any, layers: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(list(layers))
        return collect_moments(model, layers, *args, **kwargs)

    monkeypatch.setattr(kept, "collect_moments", counted)
    path = tmp_path / "m.safetensors"
    moments_in_file(MODEL, [0], documents(), path, tokens=500, source="words.txt")
    found = moments_in_file(MODEL, [1, 0], documents(), path, tokens=500)
    moments_in_file(MODEL, [0, 1], documents(), path, tokens=500)
    assert asked == [[0], [1]]
    assert list(found) == [1, 0]
    assert torch.equal(found[1].matrix, measured[1].matrix)
    assert found[0].provenance == measured[0].provenance | {"source": "words.txt"}
    before = path.read_bytes()
    with pytest.raises(
        SettingError, match=r"holds the second moment of layer 1 already, with other tokens; .*\(--replace\)"
    ):
        moments_in_file(MODEL, [1, 2], documents(), path, tokens=600)
    with pytest.raises(SettingError, match="layer 0 already, with other text and tokens"):
        moments_in_file(MODEL, [0], documents() + " More.", path, tokens=600)
    assert path.read_bytes() == before
    assert asked == [[0], [1]]
    moments_in_file(MODEL, [1], documents(), path, tokens=600, replace=True)
    moments_in_file(MODEL, [1], documents() + " More.", path, tokens=600, replace=True)
    assert asked == [[0], [1], [1], [1]]
    assert sorted(load_moments(path)) == [0, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.safetensors"]
    before = path.read_bytes()
    with pytest.raises(WeightError, match=r"m\.safetensors cannot take .*another model"):
        moments_in_file(model_of("gpt2", seed=5), [0], documents(), path, tokens=500)
    assert path.read_bytes() == before


# What rome/util/runningstats.py of the Bau lab writes: numpy.savez of strings, an integer and a sum.


def bau_lab_file(path: Path, keys: np.ndarray, **other: Any) -> Path:
    arrays = {
        "constructor": "util.runningstats.CombinedStat()",
        "mom2.constructor": "util.runningstats.SecondMoment()",
        "mom2.count": len(keys),
        "mom2.mom2": (keys.T @ keys).astype(np.float32),
        "sample_size": 100000,
    }
    np.savez(path, **{name: value for name, value in (arrays | other).items() if value is not None})
    return path


@pytest.fixture
def keys() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, 48))


def test_the_bau_labs_sum_is_divided_by_its_count(keys: np.ndarray, tmp_path: Path) -> None:
    path = bau_lab_file(tmp_path / "1_float32_mom2_100000.npz", keys)
    moment = read_bau_lab(path, 1, module="transformer.h.1.mlp.c_proj")
    np.testing.assert_allclose(moment.matrix.numpy(), keys.T @ keys / 300, atol=1e-5)
    assert moment.matrix.dtype == torch.float64
    assert torch.equal(moment.matrix, moment.matrix.T)
    assert moment.count == 300
    assert moment.provenance == {
        "documents": "100000", "layer": "1", "module": "transformer.h.1.mlp.c_proj", "source": path.name,
    }  # fmt: skip
    moment.check_made_for(MODEL, 1)
    put_in_file(MODEL, {1: moment}, tmp_path / "m.safetensors")
    put_in_file(MODEL, {1: moment}, tmp_path / "m.safetensors")  # the same again
    assert same(load_moments(tmp_path / "m.safetensors")[1], moment)
    other = read_bau_lab(bau_lab_file(tmp_path / "other.npz", 2 * keys), 1, module="transformer.h.1.mlp.c_proj")
    for refused, named in ((other, "source"), (dataclasses.replace(other, provenance=moment.provenance), "numbers")):
        with pytest.raises(SettingError, match=f"layer 1 already, with other {named};"):
            put_in_file(MODEL, {1: refused}, tmp_path / "m.safetensors")
    put_in_file(MODEL, {1: other}, tmp_path / "m.safetensors", replace=True)
    assert same(load_moments(tmp_path / "m.safetensors")[1], other)


def test_a_bau_lab_file_of_another_width_is_refused(tmp_path: Path) -> None:
    path = bau_lab_file(tmp_path / "s.npz", np.ones((90, 47)))
    with pytest.raises(WeightError, match="47 wide"):
        put_in_file(MODEL, {1: read_bau_lab(path, 1)}, tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


class Bomb:
    """Pickled code that leaves a trace when it runs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["PALIMPSEST_TEST_BOMB"],))


def test_pickled_content_is_refused_and_does_not_run(
    keys: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PALIMPSEST_TEST_BOMB", str(tmp_path / "ran"))
    objects = np.array([Bomb()], dtype=object)
    for name in ("mom2.mom2", "mom2.count", "sample_size"):
        path = bau_lab_file(tmp_path / "bomb.npz", keys, **{name: objects})
        with pytest.raises(InputError, match="pickled Python objects, which can run code") as refused:
            read_bau_lab(path, 1)
        assert "\n" not in str(refused.value)
    np.save(tmp_path / "bare.npy", objects, allow_pickle=True)
    with pytest.raises(InputError, match="refused"):
        read_bau_lab(tmp_path / "bare.npy", 1)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"mom2.mom2": None}, r"lack mom2\.mom2"),
        ({"mom2.count": None}, r"lack mom2\.count"),
        ({"mom2.count": 0}, "count 0"),
        ({"mom2.mom2": np.ones((3, 4))}, r"shape \(3, 4\)"),
        ({"mom2.mom2": np.full((3, 3), np.nan)}, "finite square sum"),
        ({"mom2.mom2": "words"}, "refused"),
    ],
)
def test_statistics_that_are_none(other: dict[str, Any], sentence: str, keys: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        read_bau_lab(bau_lab_file(tmp_path / "s.npz", keys, **other), 1)


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"PK\x03\x04 cut"])
def test_files_that_are_no_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"s\.npz"):
        read_bau_lab(tmp_path / "s.npz", 1)
    with pytest.raises(InputError, match="cannot be read"):
        read_bau_lab(tmp_path / "none.npz", 1)


def test_everything_is_exported() -> None:
    for name in moments.__all__:
        assert getattr(moments, name) is not None
