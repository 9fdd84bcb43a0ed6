"""A file of JSON lines that only grows, one line a finished item, and that a crash can at most leave with half a line.

Each line is forced to the disk before the next item starts. When the file is opened again, a last line without its line
end (the process was killed while writing it) is cut off, and its item is worked on anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from palimpsest.errors import RecordError
from palimpsest.runs.atomic import cannot_write
from palimpsest.runs.json_text import to_line
from palimpsest.runs.plan import ItemId


def read_lines(path: Path) -> Iterator[tuple[ItemId, bytes]]:
    """Item id and line (with its line end) of each whole line of a file; nothing where there is no file.

    A last line without a line end is skipped. So is a last line that is not JSON: after a power cut, some file systems
    keep a file's length and lose its end.

    Raises:
        RecordError: the file cannot be read, or a line before the last is not a JSON object with an id.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror or error}; check the folder.") from error
    lines = data.split(b"\n")[:-1]
    for number, line in enumerate(lines, start=1):
        item = _id_of(line)
        if item is None:
            if number == len(lines):
                return
            raise RecordError(
                f"Line {number} of {path} must be a JSON object with an id, got {line[:60]!r}; the file was changed by "
                f"something else, so restore it or choose another --out."
            )
        yield item, line + b"\n"


class Journal:
    """A file of JSON lines open for appending.

    Args:
        path: the file, made if need be.

    Attributes:
        lines: item id -> line, of all finished items, in the order of the file.

    Raises:
        OutputError: the file cannot be written.
        RecordError: the file is damaged before its last line, or an item stands in it twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[ItemId, bytes] = {}
        for item, line in read_lines(path):
            if item in self.lines:
                raise RecordError(
                    f"{path} holds the item {item!r} twice; the file was changed by something else, so restore it or "
                    f"choose another --out."
                )
            self.lines[item] = line
        self._size = sum(len(line) for line in self.lines.values())
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                if os.fstat(self._handle).st_size != self._size:
                    os.ftruncate(self._handle, self._size)
                    os.fsync(self._handle)
            except OSError:
                self.close()
                raise
        except OSError as error:
            raise cannot_write(path, error) from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one record, on the disk when this returns; where that fails the file is as it was before.

        Raises:
            OutputError: the line cannot be written.
            InputError: JSON cannot hold the record.
        """
        assert self._handle is not None, "the journal is closed"
        line = to_line(record)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._handle, rest) :]
            os.fsync(self._handle)
        except BaseException as error:
            with suppress(OSError):
                os.ftruncate(self._handle, self._size)
            if isinstance(error, OSError):
                raise cannot_write(self.path, error) from error
            raise
        self._size += len(line)
        self.lines[record["id"]] = line

    def close(self) -> None:
        """Closes the file; doing so twice does no harm."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _id_of(line: bytes) -> ItemId | None:
    """The id in a line, or None where the line is not a JSON object with one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    item = record.get("id") if isinstance(record, dict) else None
    return item if isinstance(item, str | int) and not isinstance(item, bool) else None
