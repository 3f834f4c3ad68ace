"""Uploads of devices: bounded, complete, in their own folder."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from edge.errors import SyncError
from gallery_sync.collector.inbox import Inbox, RefusedUploadError

JPEG = b"\xff\xd8\xff"


def test_inbox_is_bounded_by_files_and_bytes(tmp_path):
    inbox = Inbox(tmp_path / "inbox", most_files=2, most_bytes=10)
    assert inbox.put("cam-1", "a.jpg", JPEG)
    assert inbox.put("cam-1", "b.jpg", JPEG)
    with pytest.raises(RefusedUploadError, match="has 2 files in the inbox already"):
        inbox.put("cam-1", "c.jpg", JPEG)
    assert not inbox.put("cam-1", "b.jpg", JPEG)
    with pytest.raises(RefusedUploadError, match="the inbox is full"):
        inbox.put("cam-2", "a.jpg", JPEG + b"12345")
    (tmp_path / "inbox/cam-1/a.jpg").unlink()
    assert inbox.put("cam-2", "a.jpg", JPEG + b"1234")
    assert Inbox(tmp_path / "inbox")._bytes == 10


def test_upload_that_would_fill_the_disk_is_refused(tmp_path):
    """The database of the server is often on the same disk, and a fleet whose reports are lost is blind."""
    free = shutil.disk_usage(tmp_path).free
    assert Inbox(tmp_path, free_bytes=free // 2).put("cam-1", "a.jpg", JPEG)
    with pytest.raises(RefusedUploadError, match=r"the disk would have .* bytes free") as caught:
        Inbox(tmp_path, free_bytes=2 * free).put("cam-1", "b.jpg", JPEG)
    assert caught.value.reason == "full"
    assert [path.name for path in (tmp_path / "cam-1").iterdir()] == ["a.jpg"]


def test_upload_replaces_no_other_one(tmp_path):
    """A device sends the same again if its answer was lost, and a taught item under its name after each correction."""
    inbox, sent = Inbox(tmp_path), [JPEG + one for one in (b"", b"1", b"2", b"1", b"")]
    assert [inbox.put("cam-1", "a.jpg", one) for one in sent] == [True, True, True, False, False]
    stored = sorted((tmp_path / "cam-1").iterdir())
    assert {path.read_bytes() for path in stored} == set(sent)
    assert len(stored) == 3
    assert all(path.suffix == ".jpg" and path.name.startswith("a") for path in stored)


def test_upload_never_takes_the_place_of_what_has_its_mark(tmp_path):
    """Also if another device guessed the name that it would get."""
    inbox, second = Inbox(tmp_path), JPEG + b"2"
    mark = hashlib.sha256(second).hexdigest()
    names = ("a.jpg", f"a-{mark[:12]}.jpg", f"a-{mark}.jpg")
    for name in names:
        assert inbox.put("cam-1", name, JPEG)
    with pytest.raises(SyncError, match="other files have its name"):
        inbox.put("cam-1", "a.jpg", second)
    assert {path.read_bytes() for path in (tmp_path / "cam-1").iterdir()} == {JPEG}


@pytest.mark.parametrize(
    ("device", "name"),
    [("..", "a.jpg"), ("", "a.jpg"), ("cam/1", "a.jpg"), ("cam-1", "../a.jpg"), ("cam-1", "a.jpg\n"), ("cam-1", "a")],
)
def test_names_that_are_not_plain_are_refused(tmp_path, device, name):
    with pytest.raises(RefusedUploadError) as caught:
        Inbox(tmp_path).put(device, name, JPEG)
    assert caught.value.reason == "name"
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fails_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SyncError, match="cannot use it as the inbox"):
        Inbox(tmp_path / "file/inbox")
    inbox = Inbox(tmp_path)
    (tmp_path / "cam-1").write_text("")
    with pytest.raises(SyncError, match="check the disk"):
        inbox.put("cam-1", "a.jpg", JPEG)
