"""The pictures of unknown objects that wait for the server: a bounded folder of zip files.

Rules this module keeps:
1. A file appears complete or not at all, also after a power cut.
2. The files and their bytes are bounded. The oldest are deleted for a new one, and counted.
3. How many were kept in the last day is on disk, so that a device that restarts all the time keeps within its limits.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from edge.durable import fsync_folder, make_folder, oldest_first, write_durably
from edge.errors import UploadError
from edge.strict_json import parse_json
from edge.telemetry.health_report import WaitingUnknowns
from edge.types import Counts
from edge.unknowns.limits import is_over, recent
from edge.uploads.upload import Upload

log = logging.getLogger(__name__)

MOST_FILES = 2000
_KEPT_AT = "kept_at.json"
_MOST_KEPT_BYTES = 4 << 20
_PATTERN = "unknown-*.zip"


class Spool:
    """The folder; usable from any thread."""

    def __init__(self, folder: Path, max_bytes: int, counts: Counts) -> None:
        """Look at what an earlier run left. `keep` reports a folder that cannot be used."""
        self._folder, self._max_bytes, self._counts = folder, max_bytes, counts
        self._lock = threading.Lock()
        self._problem: str | None = None
        with contextlib.suppress(OSError):  # a disk that cannot be written; nothing new can wait there
            for leftover in folder.glob("*.partial"):
                leftover.unlink(missing_ok=True)
        self._sizes = {path.name: size for path, size in oldest_first(folder, _PATTERN) if path.is_file()}
        self._kept_at = _read_times(folder / _KEPT_AT)

    def is_full_for(self, now: float, per_hour: int, per_day: int) -> bool:
        """Return whether another picture would be more than the limits allow; `now` is Unix seconds."""
        return is_over(self._kept_at, now, per_hour, per_day)

    def keep(self, name: str, data: bytes, now: float) -> None:
        """Write a file, and delete the oldest where there is no room.

        Args:
            name: of the file, `unknown-<id>.zip`.
            data: its content.
            now: Unix seconds, for the limits.

        Raises:
            UploadError: the disk failed, or the file alone is larger than all may be.
        """
        if len(data) > self._max_bytes:
            raise UploadError(f"{self._folder / name}: found {len(data)} bytes, expected at most {self._max_bytes}")
        with self._lock:
            try:
                make_folder(self._folder)
                self._make_room(len(data))
                self._kept_at = [*recent(self._kept_at, now), now]
                write_durably(self._folder / _KEPT_AT, json.dumps(self._kept_at).encode(), 0o600)
                write_durably(self._folder / name, data, 0o600)
                self._sizes[name] = len(data)
            except OSError as error:
                self._problem = f"{self._folder}: disk error: {error.strerror or error}"
                raise UploadError(self._problem) from error
            self._problem = None

    def pending(self) -> Iterator[Upload]:
        """Yield the files that wait, the oldest first. One that the server refuses is deleted."""
        with self._lock:
            names = list(self._sizes)
        for name in names:
            done = partial(self._delete, name)
            yield Upload(name, name.removesuffix(".zip"), partial(self._read, name), done, done)

    def waiting(self) -> WaitingUnknowns:
        """Return how much waits, and why nothing can be kept."""
        with self._lock:
            return WaitingUnknowns(len(self._sizes), sum(self._sizes.values()), self._problem)

    def _make_room(self, size: int) -> None:
        while self._sizes and (len(self._sizes) >= MOST_FILES or sum(self._sizes.values()) + size > self._max_bytes):
            oldest = next(iter(self._sizes))
            (self._folder / oldest).unlink(missing_ok=True)
            del self._sizes[oldest]
            self._counts.add("unknowns_lost")

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError as error:
            with self._lock:
                self._sizes.pop(name, None)
            raise UploadError(f"{name}: was deleted meanwhile") from error
        except OSError as error:
            raise UploadError(f"{self._folder / name}: cannot be read: {error.strerror}") from error

    def _delete(self, name: str) -> None:
        with self._lock:
            try:
                (self._folder / name).unlink(missing_ok=True)
                fsync_folder(self._folder)
            except OSError as error:
                raise UploadError(f"{self._folder / name}: disk error: {error.strerror}") from error
            self._sizes.pop(name, None)


def _read_times(path: Path) -> list[float]:
    """Read the times of the pictures that were kept; none if the file is missing or damaged."""
    try:
        with path.open("rb") as file:
            found = parse_json(file.read(_MOST_KEPT_BYTES + 1), _MOST_KEPT_BYTES)
    except (OSError, ValueError):
        return []
    return [float(at) for at in found if type(at) in (int, float)] if isinstance(found, list) else []
