"""A lock on a run, so that two processes do not write the same records.

The operating system drops the lock when its holder ends, however it ends (also after kill -9); the file stays behind
and means nothing by itself. Windows has no such lock, and none is taken there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from palimpsest.errors import OutputError
from palimpsest.runs.atomic import cannot_write

if sys.platform != "win32":
    import fcntl


class Lock:
    """Held from when it is made until `release`.

    Args:
        path: the lock's file, made if need be.

    Raises:
        OutputError: another process (it says which, if known) or another object in this one holds it, or the file
            cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._take(handle)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def _take(self, handle: int) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 20, 0).decode("ascii", "replace").strip()
            who = f"process {holder}" if holder else "another process"
            raise OutputError(
                f"{self.path.parent} cannot be written: {who} is at work on the same run; wait for it to end, "
                f"stop it, or choose another --out."
            ) from error
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def release(self) -> None:
        """Gives the lock back; doing so twice does no harm."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
