"""Uploads of devices: bounded, complete, in their own folder."""

from __future__ import annotations

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
