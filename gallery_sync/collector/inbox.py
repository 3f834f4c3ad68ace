"""Stores what devices upload: pictures of unknown objects and packed corrections, one folder a device.

    <inbox>/<device>/<name>.zip|jpg

Rules this module keeps:
1. An upload is complete or not there, and it is on the disk before the device gets the answer.
2. Names are plain, so that no upload leaves its folder; an upload replaces one of the same name.
3. A device has a limited number of files and the inbox a limited size, so that no device fills the disk. The inbox
   refuses and counts further uploads until somebody takes files out.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

from edge.durable import make_folder, write_durably
from edge.errors import SyncError
from gallery_sync.collector.messages import is_device_id

LARGEST_BYTES = 20_000_000  # of an upload
MOST_FILES = 2000  # of a device
MOST_BYTES = 20 << 30  # of all
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}\.(?:zip|jpg)")
_STARTS = {".zip": (b"PK\x03\x04", b"PK\x05\x06"), ".jpg": (b"\xff\xd8\xff",)}


class RefusedUploadError(SyncError):
    """An upload that is not stored; `reason` is a code for the counters."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason  # name, not_that, full


class Inbox:
    """A folder of uploads."""

    def __init__(self, folder: Path, *, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES) -> None:
        """Use a folder, and make it if it does not exist.

        Raises:
            SyncError: it cannot be made.
        """
        self._folder, self._most_files, self._most_bytes = folder, most_files, most_bytes
        self._lock = threading.Lock()
        try:
            make_folder(folder)
            self._bytes = _size(folder)
        except OSError as error:
            raise SyncError(f"{folder}: cannot use it as the inbox: {error.strerror}") from error

    def check(self, device: str, name: str) -> None:
        """Check the names of an upload.

        Raises:
            RefusedUploadError: one is not plain.
        """
        if not is_device_id(device) or _NAME.fullmatch(name) is None:
            raise RefusedUploadError("name", "upload to /inbox/<device>/<name> with a plain name, .zip or .jpg")

    def put(self, device: str, name: str, data: bytes) -> bool:
        """Store an upload; return whether its name is new.

        Raises:
            RefusedUploadError: it is not stored.
            SyncError: the disk failed.
        """
        self.check(device, name)
        if not data.startswith(_STARTS[name[-4:]]):
            raise RefusedUploadError("not_that", f"{name} does not begin as such a file does; send a ZIP or JPEG file")
        folder = self._folder / device
        with self._lock:
            try:
                make_folder(folder)
                is_new = not (folder / name).is_file()
                self._refuse_if_full(folder, len(data), is_new=is_new)
                write_durably(folder / name, data, 0o640)
            except OSError as error:
                raise SyncError(f"the inbox cannot store it: {error.strerror}; check the disk") from error
            self._bytes += len(data)
        return is_new

    def _refuse_if_full(self, folder: Path, size: int, *, is_new: bool) -> None:
        if is_new and sum(1 for _ in folder.iterdir()) >= self._most_files:
            raise RefusedUploadError("full", f"device {folder.name} has {self._most_files} files in the inbox already")
        if self._bytes + size > self._most_bytes:
            self._bytes = _size(self._folder)  # somebody may have taken files out
            if self._bytes + size > self._most_bytes:
                raise RefusedUploadError("full", "the inbox is full; take files out of it")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file())
