"""Plain text for second moments from the `datasets` library (an extra: pip install "palimpsest[datasets]").

    NAME[:CONFIG][:SPLIT][:COLUMN]      wikimedia/wikipedia:20231101.en, or a folder; the split is train, the column text

Rows are read as a stream, in their order, and only as many as the budget of tokens needs.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from palimpsest.edit.moments.provenance import DOCUMENT_TOKENS
from palimpsest.errors import InputError

CHARACTERS_PER_TOKEN = (
    8  # more than any tokenizer's mean on plain text, so that the text does not end before the budget
)
USED_PER_DOCUMENT = 3 * DOCUMENT_TOKENS  # characters of a document that surely are read; the rest may be cut off


@dataclass(frozen=True)
class DatasetText:
    """Which text of which dataset."""

    name: str
    config: str | None = None
    split: str = "train"
    column: str = "text"

    @classmethod
    def parse(cls, named: str) -> "DatasetText":
        """From NAME[:CONFIG][:SPLIT][:COLUMN]; an empty part is its default."""
        name, *rest = named.split(":")
        if not name or len(rest) > 3:
            raise InputError(f"A dataset is named NAME[:CONFIG][:SPLIT][:COLUMN], got {named!r}.")
        config, split, column = [*rest, "", "", ""][:3]
        return cls(name, config or None, split or "train", column or "text")


def dataset_text(named: str, tokens: int) -> str:
    """Text enough for `tokens` tokens from a dataset, documents separated by blank lines.

    Raises:
        InputError: `datasets` is not installed, the dataset cannot be had, or it has no such column.
    """
    wanted = DatasetText.parse(named)
    documents: list[str] = []
    missing = CHARACTERS_PER_TOKEN * tokens
    for row in _rows(wanted):
        if not isinstance(row.get(wanted.column), str):
            raise InputError(
                f"The dataset {wanted.name} has no text in the column {wanted.column!r}; it has {', '.join(row)}: "
                f"name one as NAME:CONFIG:SPLIT:COLUMN."
            )
        documents.append(row[wanted.column])
        missing -= sum(min(len(part), USED_PER_DOCUMENT) for part in row[wanted.column].split("\n\n"))
        if missing <= 0:
            break
    return "\n\n".join(documents)


def _rows(wanted: DatasetText) -> Iterable[dict[str, Any]]:
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise InputError(
            'Reading a dataset needs the library datasets, which is not installed: pip install "palimpsest[datasets]".'
        ) from None
    folder = Path(wanted.name)
    try:
        if (folder / "dataset_dict.json").is_file():
            yield from datasets.load_from_disk(wanted.name)[wanted.split]
        elif (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file():
            yield from datasets.load_from_disk(wanted.name)
        else:
            yield from datasets.load_dataset(wanted.name, wanted.config, split=wanted.split, streaming=True)
    except Exception as error:  # whatever its readers, its network and its files raise
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"The dataset {wanted.name} cannot be read ({reason}); check its name, config and split."
        ) from None
