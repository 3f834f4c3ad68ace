"""Writes that survive."""

import errno
import os
from pathlib import Path

import pytest

from edge.durable import fsync_tree, write_durably


class FullDisk:
    """Stands in for `os.fsync` and refuses from the n-th call on."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, descriptor):
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= 1


def kind_of(descriptor):
    return "folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"


def test_a_write_replaces_the_whole_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "pointer"
    write_durably(path, b"a long first content")
    write_durably(path, b"short")
    assert path.read_bytes() == b"short"
    assert [entry.name for entry in tmp_path.iterdir()] == ["pointer"]


def test_the_old_file_stays_when_the_disk_refuses(tmp_path, monkeypatch):
    path = tmp_path / "pointer"
    write_durably(path, b"old")
    monkeypatch.setattr(os, "fsync", FullDisk(at=0))
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


def test_a_partial_file_of_a_crash_does_not_stop_the_next_write(tmp_path):
    path = tmp_path / "pointer"
    path.with_name("pointer.partial").write_bytes(b"half of something much longer")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"


def test_content_is_on_the_disk_before_the_rename_and_the_rename_after(tmp_path, monkeypatch):
    path, order = tmp_path / "pointer", []
    monkeypatch.setattr(os, "fsync", lambda fd: order.append((kind_of(fd), path.exists())))
    write_durably(path, b"new")
    assert order == [("file", False), ("folder", True)]


def test_a_whole_tree_is_flushed(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"1")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(Path(f"/proc/self/fd/{fd}").readlink()))
    fsync_tree(tmp_path)
    assert flushed == [tmp_path / "a" / "b" / "c", tmp_path / "a" / "b", tmp_path / "a", tmp_path]


def test_a_secret_is_readable_by_nobody_else_even_after_a_crash(tmp_path):
    path = tmp_path / "secret"
    path.with_name("secret.partial").touch(mode=0o644)  # left over
    write_durably(path, b"x", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600
