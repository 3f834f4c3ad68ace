"""Stores what devices upload: pictures of unknown objects and packed corrections, one folder a device.

    <inbox>/<device>/<name>.zip|jpg

Rules this module keeps:
1. An upload is complete or not there, and it is on the disk before the device gets the answer.
2. Names are plain, so that no upload leaves its folder. No upload replaces another one: with a name that is there,
   the same content is stored once, and other content beside it, with a part of its hash in the name.
3. A device has a limited number of files and the inbox a limited size, and some of the disk stays free, so that no
   device fills it and the server can write its database. The inbox refuses and counts further uploads until somebody
   takes files out.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import threading
from pathlib import Path

from edge.durable import make_folder, write_durably
from edge.errors import SyncError
from gallery_sync.collector.messages import is_device_id

LARGEST_BYTES = 20_000_000  # of an upload
MOST_FILES = 2000  # of a device
MOST_BYTES = 20 << 30  # of all
FREE_BYTES = 256 << 20  # of the disk, that stay free
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,119}\.(?:zip|jpg)")
_STARTS = {".zip": (b"PK\x03\x04", b"PK\x05\x06"), ".jpg": (b"\xff\xd8\xff",)}


class RefusedUploadError(SyncError):
    """An upload that is not stored; `reason` is a code for the counters."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason  # name, not_that, full


class Inbox:
    """A folder of uploads."""

    def __init__(
        self, folder: Path, *, most_files: int = MOST_FILES, most_bytes: int = MOST_BYTES, free_bytes: int = FREE_BYTES
    ) -> None:
        """Use a folder, and make it if it does not exist.

        Raises:
            SyncError: it cannot be made.
        """
        self._folder, self._most_files, self._most_bytes = folder, most_files, most_bytes
        self._free_bytes = free_bytes
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
        """Store an upload; return whether it is new: False if the same content is there under its name.

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
                place = _free_place(folder / name, data)
                if place is None:
                    return False
                self._refuse_if_full(folder, len(data))
                write_durably(place, data, 0o640)
            except OSError as error:
                raise SyncError(f"the inbox cannot store it: {error.strerror}; check the disk") from error
            self._bytes += len(data)
        return True

    def _refuse_if_full(self, folder: Path, size: int) -> None:
        if sum(1 for _ in folder.iterdir()) >= self._most_files:
            raise RefusedUploadError("full", f"device {folder.name} has {self._most_files} files in the inbox already")
        if self._bytes + size > self._most_bytes:
            self._bytes = _size(self._folder)  # somebody may have taken files out
            if self._bytes + size > self._most_bytes:
                raise RefusedUploadError("full", "the inbox is full; take files out of it")
        if (free := shutil.disk_usage(folder).free - size) < self._free_bytes:
            raise RefusedUploadError("full", f"the disk would have {max(0, free)} bytes free; free some space")


def _free_place(path: Path, data: bytes) -> Path | None:
    """Return where to store an upload, so that it replaces no other one; None: it is there already."""
    sha256 = hashlib.sha256(data).hexdigest()
    for mark in ("", f"-{sha256[:12]}", f"-{sha256}"):
        place = path.with_name(f"{path.stem}{mark}{path.suffix}")
        if not place.exists():
            return place
        if place.is_file() and place.stat().st_size == len(data) and place.read_bytes() == data:
            return None
    raise SyncError("the inbox cannot store it: other files have its name; take them out")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*/*") if path.is_file())
