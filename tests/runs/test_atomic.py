"""Atomic writes: whole or not at all, and one sentence when the disk says no."""

import errno
import os
import stat
from pathlib import Path

import pytest

from palimpsest.errors import OutputError, PalimpsestError
from palimpsest.runs import atomic_path, atomic_write, check_writable


def test_text_and_bytes_arrive_unchanged(tmp_path):
    atomic_write(tmp_path / "a.txt", "ä\r\n\u2028b\n")
    assert (tmp_path / "a.txt").read_bytes() == "ä\r\n\u2028b\n".encode()
    atomic_write(str(tmp_path / "a.txt"), b"\x00\xff")
    assert (tmp_path / "a.txt").read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    atomic_write(tmp_path / "a.json", "{}")
    (tmp_path / "plain").write_text("{}")
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_library_that_writes_a_private_file_does_not_make_the_result_private(tmp_path):
    (tmp_path / "plain").write_text("x")
    with atomic_path(tmp_path / "a.bin") as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o600))
    assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
def test_full_disk_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, name):
    path = tmp_path / "results.json"
    atomic_write(path, "old")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        with pytest.raises(
            OutputError, match="results.json cannot be written: No space left.*free some space"
        ) as caught:
            atomic_write(path, "new")
    assert str(caught.value).count(". ") == 0
    assert isinstance(caught.value, PalimpsestError)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_an_error_in_the_block_leaves_nothing(tmp_path):
    def interrupted():
        with atomic_path(tmp_path / "edit.safetensors") as temporary:
            assert temporary.suffix == ".safetensors"
            assert temporary.parent == tmp_path
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_the_name_is_empty_until_the_block_ends(tmp_path):
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes(b"whole")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"whole"


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    atomic_write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_what_is_no_plain_file_is_left_alone(tmp_path):
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(OutputError, match="no plain file"):
            atomic_write(place, "x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.parametrize("below", ["file/results.json", "missing/results.json"])
def test_places_that_cannot_hold_a_file(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        atomic_write(tmp_path / below, "x")


def test_check_writable_makes_the_folder_and_leaves_it_empty(tmp_path):
    assert check_writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert os.listdir(tmp_path / "a" / "b") == []


def test_check_writable_says_what_is_wrong(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"cannot be written: .*a file stands where a folder is needed"):
            check_writable(place)
    with pytest.raises(OutputError, match="/proc/palimpsest cannot be written"):
        check_writable("/proc/palimpsest")

    def read_only(*arguments):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "write_bytes", read_only)
    with pytest.raises(OutputError, match="Read-only file system; choose an --out on a disk that can be written"):
        check_writable(tmp_path)
