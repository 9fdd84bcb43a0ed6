"""Files that are either whole or not there, and errors of the disk as one sentence.

    atomic_write(folder / "results.json", text)

The content goes to a temporary file in the same folder, is forced to the disk (fsync), and takes its name in one step
(`os.replace`). Whoever opens the name finds the old content or the new, never half of either, whenever power fails.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from palimpsest.errors import OutputError

_ADVICE = {
    errno.ENOSPC: "free some space there or choose another --out",
    errno.EDQUOT: "free some of your quota there or choose another --out",
    errno.EACCES: "choose an --out where you may write",
    errno.EPERM: "choose an --out where you may write",
    errno.EROFS: "choose an --out on a disk that can be written",
    errno.ENOTDIR: "a file stands where a folder is needed, so choose another --out",
    errno.EEXIST: "a file stands where a folder is needed, so choose another --out",
    errno.EISDIR: "a folder stands where a file is needed, so move it or choose another --out",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def cannot_write(path: Path | str, error: OSError) -> OutputError:
    """The `OutputError` that says which path could not be written, why, and what to do; raise it `from error`."""
    reason = error.strerror or str(error) or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "check the folder and its disk, or choose another --out")
    return OutputError(f"{path} cannot be written: {reason}; {advice}.")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, for libraries that write files themselves; it becomes `path` when the block ends.

    The temporary name ends like `path` does, so that libraries that look at a file's suffix choose the same format. The
    permissions are those of any new file. A symbolic link is followed: its target is replaced.

    Raises:
        OutputError: the folder or file cannot be written, or `path` is a folder or a device. Then, and when the block
            raises anything, the temporary file is gone and what stood at `path` before is untouched.
    """
    final = Path(os.path.realpath(path))
    temporary = final.with_name(f".{uuid.uuid4().hex}.tmp.{final.name}")
    try:
        try:
            plain_file = not final.exists() or stat.S_ISREG(final.stat().st_mode)
            if plain_file:
                os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
                mode = stat.S_IMODE(temporary.stat().st_mode)
        except OSError as error:
            raise cannot_write(path, error) from error
        if not plain_file:
            raise OutputError(f"{path} cannot be written: it is there and no plain file; choose another name.")
        yield temporary
        try:
            temporary.chmod(mode)  # some libraries write a private file in the place of the one they were given
            _force_to_disk(temporary)
            os.replace(temporary, final)
        except OSError as error:
            raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _force_folder_to_disk(final.parent)


def atomic_write(path: Path | str, content: str | bytes) -> None:
    """Writes `content` to `path`, whole or not at all; text as UTF-8, as it stands, without changing line ends.

    A lone surrogate in text (half a character, as a byte-level token may leave) is written as its escape, such as
    \\ud800, which JSON reads back.

    Raises:
        OutputError: the folder or file cannot be written; what stood at `path` before is untouched.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with atomic_path(path) as temporary:
        try:
            temporary.write_bytes(data)
        except OSError as error:
            raise cannot_write(path, error) from error


def check_writable(folder: Path | str) -> Path:
    """Makes `folder` if need be and writes a small file there, so that hours of work do not end in an error.

    Returns:
        The folder.

    Raises:
        OutputError: the folder cannot be made, or nothing can be written in it.
    """
    path = Path(folder)
    probe = path / f".{uuid.uuid4().hex}.tmp.probe"
    try:
        path.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"palimpsest\n")
            _force_to_disk(probe)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def remove_leftovers(folder: Path, name: str) -> None:
    """Removes temporary files that a killed process left while writing `name`; nobody else may be writing it now."""
    for leftover in folder.glob(f".*.tmp.{name}"):
        with suppress(OSError):
            leftover.unlink()


def _force_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _force_folder_to_disk(folder: Path) -> None:
    """Makes the new name itself survive a power cut, on systems that can open folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
