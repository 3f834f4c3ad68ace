"""Durable writes."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from edge.durable import fsync_tree, make_folder, oldest_first, set_aside, write_durably
from tests.power_cut import PowerCut, PowerCutError


class FullDisk:
    """Replaces `os.fsync` and fails from the n-th call on."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, descriptor):
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.left -= 1


def kind_of(descriptor):
    return "folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file"


def test_write_replaces_the_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "pointer"
    write_durably(path, b"a long first content")
    write_durably(path, b"short")
    assert path.read_bytes() == b"short"
    assert [entry.name for entry in tmp_path.iterdir()] == ["pointer"]


def test_old_file_stays_when_the_write_fails(tmp_path, monkeypatch):
    path = tmp_path / "pointer"
    write_durably(path, b"old")
    monkeypatch.setattr(os, "fsync", FullDisk(at=0))
    with pytest.raises(OSError, match="No space left"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"


def test_partial_file_of_a_crash_does_not_stop_the_next_write(tmp_path):
    path = tmp_path / "pointer"
    path.with_name("pointer.partial").write_bytes(b"half of something much longer")
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"


def test_content_is_flushed_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    path, order = tmp_path / "pointer", []
    monkeypatch.setattr(os, "fsync", lambda fd: order.append((kind_of(fd), path.exists())))
    write_durably(path, b"new")
    assert order == [("file", False), ("folder", True)]


def test_fsync_tree_flushes_every_file_and_folder(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"1")
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(Path(f"/proc/self/fd/{fd}").readlink()))
    fsync_tree(tmp_path)
    assert flushed == [tmp_path / "a" / "b" / "c", tmp_path / "a" / "b", tmp_path / "a", tmp_path]


def test_secret_file_is_private_even_after_a_crash(tmp_path):
    path = tmp_path / "secret"
    path.with_name("secret.partial").touch(mode=0o644)  # a leftover
    write_durably(path, b"x", mode=0o600)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.with_name("elsewhere"))])
def test_what_is_no_file_is_set_aside(tmp_path, put):
    path = tmp_path / "lock"
    put(path)
    assert set_aside(path)
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("lock.damaged-")


def test_files_and_nothing_stay(tmp_path):
    assert not set_aside(tmp_path / "lock")
    (tmp_path / "lock").write_bytes(b"x")
    assert not set_aside(tmp_path / "lock")
    assert (tmp_path / "lock").read_bytes() == b"x"


def test_new_folders_survive_a_power_cut(tmp_path):
    with PowerCut(10_000) as whole:
        make_folder(tmp_path / "counted/b/c")
    with PowerCut(whole.calls + 1, "dropped") as power, suppress(PowerCutError):
        make_folder(tmp_path / "a/b/c")
        (tmp_path / "later").mkdir()
    assert power.happened
    assert (tmp_path / "a/b/c").is_dir()
    make_folder(tmp_path / "a/b/c")


def test_files_are_listed_by_age_and_a_link_to_nothing_is_skipped(tmp_path):
    for name, age in (("a.plan", 2), ("b.plan", 3), ("c.plan", 1), ("d.note", 9)):
        (tmp_path / name).write_bytes(b"x" * age)
        os.utime(tmp_path / name, (100 - age, 100 - age))
    (tmp_path / "e.plan").symlink_to(tmp_path / "nowhere")
    assert oldest_first(tmp_path, "*.plan") == [
        (tmp_path / f"{name}.plan", size) for name, size in (("b", 3), ("a", 2), ("c", 1))
    ]
    assert oldest_first(tmp_path / "none", "*") == []
