"""How long each item took, in a file of its own, because times differ between two runs whose records are the same."""

from __future__ import annotations

import os
from pathlib import Path

from palimpsest.runs.atomic import cannot_write
from palimpsest.runs.json_text import to_line
from palimpsest.runs.plan import ItemId


class Timings:
    """A file of lines {"id": ..., "seconds": ...} open for appending.

    Lines are not forced to the disk one by one: a crash may lose the last ones, and nothing depends on them. What a
    crash left of half a line is cut off when the file is opened again.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            data = path.read_bytes()
            if not data.endswith(b"\n"):
                os.ftruncate(self._handle, data.rfind(b"\n") + 1)
        except OSError as error:
            self.close()
            raise cannot_write(path, error) from error

    def append(self, item: ItemId, seconds: float) -> None:
        """Adds one item.

        Args:
            item: its id.
            seconds: how long it took.

        Raises:
            OutputError: the line cannot be written.
        """
        assert self._handle is not None, "the file of timings is closed"
        try:
            os.write(self._handle, to_line({"id": item, "seconds": round(seconds, 6)}))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def close(self) -> None:
        """Closes the file; doing so twice does no harm."""
        handle = getattr(self, "_handle", None)
        if handle is not None:
            os.close(handle)
            self._handle = None
