"""Folders that are whole or not there: written beside their place, forced to the disk, and renamed in one step.

    with whole_folder(out) as scratch:
        ...                                   # write into scratch

A kill leaves at most a hidden folder `.*.tmp.NAME` beside the place, which a later call removes once it is an hour old.

Replacing a folder that is there takes two renames (out of the way, then into place). A kill between them leaves the old
folder, whole, as `.*.old.NAME`; `put_back` gives it its name again, and the same command then starts over.

`carry_over` copies what else lies in an older folder into the new one, so that nobody's notes are lost by a replacement.
"""

import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path

from safetensors import SafetensorError

from palimpsest.errors import OutputError
from palimpsest.runs.atomic import cannot_write


@contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A scratch folder that becomes `path` when the block ends, and is gone when it raises.

    Args:
        path: where the folder will be; an empty folder there is taken.
        replace: take the place of a folder that holds files.

    Raises:
        OutputError: the place cannot be written, or holds files and `replace` is false.
    """
    final = Path(os.path.realpath(path))
    put_back(final)
    scratch = final.with_name(f".{uuid.uuid4().hex}.tmp.{final.name}")
    try:
        try:
            if not replace:
                refuse_full(path)
            final.parent.mkdir(parents=True, exist_ok=True)
            _remove_old_scratch(final)
            scratch.mkdir()
            yield scratch
            _open_to_readers(scratch)
            _force_to_disk(scratch)
            _take_place(scratch, final)
        except OutputError:
            raise
        except OSError as error:
            raise cannot_write(path, error) from error
        except SafetensorError as error:  # a full disk, in its own kind
            raise OutputError(f"{path} cannot be written: {error}; free some space there or choose another.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_full(path: str | Path) -> None:
    """Raise `OutputError` when something stands at `path` that is not an empty folder: to be asked before long work."""
    final = Path(os.path.realpath(path))
    try:
        full = final.exists() and not (final.is_dir() and not any(final.iterdir()))
    except OSError as error:
        raise cannot_write(path, error) from error
    if full:
        raise OutputError(f"{path} is there already and is not empty; choose another --out or remove it.")


def carry_over(
    source: Path, scratch: Path, *, without: Collection[str], below: Collection[str] = (), links: bool = False
) -> None:
    """Copy what lies in `source` and not in `scratch` yet, permissions and all; nothing of it is read or run.

    Args:
        source: a folder, which stays as it is; `scratch` may lie in it.
        scratch: where the copies go.
        without: patterns of names that are left out.
        below: patterns of names that are left out in folders of `source` too, however deep.
        links: copy a symbolic link as one, which leads elsewhere from another place, and not what it leads to.
    """

    def left_out(_: str, names: list[str]) -> set[str]:
        return {name for name in names if name == scratch.name or any(fnmatch(name, pattern) for pattern in below)}

    for entry in sorted(source.iterdir()):
        copy = scratch / entry.name
        unwanted = left_out("", [entry.name]) or any(fnmatch(entry.name, pattern) for pattern in without)
        if unwanted or os.path.lexists(copy):
            continue
        if entry.is_dir() and not (links and entry.is_symlink()):
            shutil.copytree(entry, copy, symlinks=links, ignore=left_out, ignore_dangling_symlinks=True)
        elif links or entry.exists():  # not a link that leads nowhere
            shutil.copy2(entry, copy, follow_symlinks=not links)


def put_back(path: Path) -> None:
    """Give a folder its name again that a kill in the middle of a replacement left as `.*.old.NAME`."""
    final = Path(os.path.realpath(path))
    aside = sorted(final.parent.glob(f".*.old.{final.name}")) if final.parent.is_dir() else []
    if aside and not final.exists():
        os.rename(aside.pop(0), final)
    for leftover in aside:  # the new folder took its place, and the kill came before the old one was removed
        shutil.rmtree(leftover, ignore_errors=True)


def _take_place(scratch: Path, final: Path) -> None:
    aside = None
    if final.exists():
        if any(final.iterdir()):
            aside = final.with_name(f".{uuid.uuid4().hex}.old.{final.name}")
            os.rename(final, aside)
        else:
            final.rmdir()
    os.rename(scratch, final)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):
        _sync(final.parent)


def _remove_old_scratch(final: Path) -> None:
    for scratch in final.parent.glob(f".*.tmp.{final.name}"):
        with suppress(OSError):
            if time.time() - scratch.stat().st_mtime > 3600:
                shutil.rmtree(scratch, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Give weights the permissions of any new file: safetensors makes its own readable to their owner alone."""
    usual = folder.stat().st_mode & 0o666
    for entry in folder.rglob("*.safetensors"):
        if entry.is_file() and not entry.is_symlink():
            entry.chmod(usual)


def _force_to_disk(folder: Path) -> None:
    for entry in [*(entry for entry in folder.rglob("*") if not entry.is_symlink()), folder]:
        with suppress(PermissionError):  # some systems cannot open folders
            _sync(entry)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
