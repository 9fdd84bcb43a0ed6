"""Text for second moments from datasets: named, read in order, only as much as is needed; without the library one sentence."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from palimpsest.edit.moments import dataset_text
from palimpsest.edit.moments.text import DatasetText
from palimpsest.errors import InputError

ROWS = [{"text": f"Document {i}.\n\nIts second paragraph.", "title": f"Title {i}", "number": i} for i in range(50)]
installed = pytest.mark.skipif(
    find_spec("datasets") is None, reason='pip install "palimpsest[datasets]" to run the tests that read a dataset'
)


@pytest.mark.parametrize(
    ("named", "parts"),
    [
        ("wikitext", ("wikitext", None, "train", "text")),
        ("wikimedia/wikipedia:20231101.en", ("wikimedia/wikipedia", "20231101.en", "train", "text")),
        ("a/b:c:validation:content", ("a/b", "c", "validation", "content")),
        ("folder::test", ("folder", None, "test", "text")),
        ("folder:::content", ("folder", None, "train", "content")),
    ],
)
def test_a_dataset_is_named_in_one_word(named: str, parts: tuple[str | None, ...]) -> None:
    found = DatasetText.parse(named)
    assert (found.name, found.config, found.split, found.column) == parts


@pytest.mark.parametrize("named", ["", ":config", "a:b:c:d:e"])
def test_names_that_are_none(named: str) -> None:
    with pytest.raises(InputError, match="NAME"):
        dataset_text(named, 10)


def test_without_the_library_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)  # what an import that fails leaves
    with pytest.raises(InputError, match=r'pip install "palimpsest\[datasets\]"') as refused:
        dataset_text("anything", 10)
    assert "\n" not in str(refused.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset as a folder of JSON lines, and a cache of its own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return data


@installed
def test_rows_come_in_order_and_only_as_many_as_needed(folder: Path) -> None:
    whole = dataset_text(str(folder), 10_000)
    assert whole == "\n\n".join(str(row["text"]) for row in ROWS)
    some = dataset_text(str(folder), 20)
    assert whole.startswith(some)
    assert 8 * 20 <= len(some) < 8 * 20 + 80
    assert dataset_text(f"{folder}:::title", 10_000).split("\n\n")[:2] == ["Title 0", "Title 1"]


@installed
def test_datasets_saved_to_disk_are_read(folder: Path, tmp_path: Path) -> None:
    import datasets

    table = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    table.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"test": table}).save_to_disk(str(tmp_path / "several"))
    expected = "\n\n".join(str(row["text"]) for row in ROWS)
    assert dataset_text(str(tmp_path / "one"), 10_000) == expected
    assert dataset_text(f"{tmp_path / 'several'}::test", 10_000) == expected


@installed
@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        (":::body", "no text in the column 'body'; it has text, title, number"),
        (":::number", "no text in the column 'number'"),
        ("::test", "cannot be read"),
    ],
)
def test_what_a_dataset_does_not_have(rest: str, sentence: str, folder: Path) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        dataset_text(f"{folder}{rest}", 10)
    assert "\n" not in str(refused.value)


@installed
def test_a_dataset_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        dataset_text(str(tmp_path / "nothing"), 10)
