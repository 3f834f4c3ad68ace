"""Objects on their way to the device: resumed, capped, retried a few times, and whole before they have their name.

Rules this module keeps:
1. An object bears its name only after its SHA-256 was checked; until then it is `<sha256>.part`, which is kept and
   continued by the next try, also after a restart.
2. Never more bytes than promised are read, never more tries than allowed are made.
3. A part that ends whole but wrong is dropped. If none of it came from an earlier try, the server's object is wrong
   and no other try is made.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.durable import fsync_file, fsync_folder, file_mismatch
from edge.errors import SyncError
from gallery_sync.repository import ObjectRef, object_path
from gallery_sync.transport import Body, InterruptedTransferError

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 30.0


class Transport(Protocol):
    """Where the bytes come from."""

    base: str

    def get(self, path: str, offset: int) -> AbstractContextManager[Body]:
        """Get a file from an offset; see HttpTransport."""
        ...


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently."""

    attempts: int
    sleep: Callable[[float], None]  # seconds
    chance: Callable[[], float]  # 0..1, spreads a fleet's tries

    def wait(self, attempt: int) -> None:
        """Wait after a failed attempt, counted from 0: twice as long each time."""
        self.sleep(min(_LONGEST_WAIT_S, 2.0**attempt) * (0.5 + self.chance()))


class Fetcher:
    """Fetches objects into a folder."""

    def __init__(self, transport: Transport, folder: Path, retry: Retry) -> None:
        self._transport = transport
        self._folder = folder
        self._retry = retry
        self.downloaded_bytes = 0

    def small(self, path: str, limit_bytes: int) -> bytes:
        """Get a small file whose hash is not known.

        Raises:
            SyncError: not there, too large, or the tries are used up.
        """
        return self._retried(path, lambda: self._read(path, limit_bytes))

    def object(self, ref: ObjectRef, name: str) -> Path:
        """Get an object, verified, from the folder or the server.

        Args:
            ref: what to get.
            name: for messages.

        Raises:
            SyncError: not there, wrong, the disk refused, or the tries are used up.
        """
        final = self._folder / ref.sha256
        if final.is_file() and file_mismatch(final, ref.size, ref.sha256) is None:
            return final
        part = self._folder / f"{ref.sha256}.part"
        try:
            self._retried(name, lambda: self._complete(ref, part, name))
            fsync_file(part)
            part.replace(final)
            fsync_folder(self._folder)
        except OSError as error:  # the transport maps its own: this is the disk
            raise SyncError(f"{name}: cannot store {ref.size} bytes: {error.strerror or error}") from error
        return final

    def _retried(self, name: str, act: Callable[[], bytes]) -> bytes:
        for attempt in range(self._retry.attempts):
            try:
                return act()
            except InterruptedTransferError as error:
                if attempt + 1 == self._retry.attempts:
                    raise SyncError(f"{name}: gave up after {self._retry.attempts} attempts: {error}") from error
                log.warning("%s: attempt %s of %s: %s", name, attempt + 1, self._retry.attempts, error)
                self._retry.wait(attempt)
        raise SyncError(f"{name}: found {self._retry.attempts} attempts allowed, expected at least 1")

    def _read(self, path: str, limit_bytes: int) -> bytes:
        data = bytearray()
        with self._transport.get(path, 0) as body:
            for chunk in body.chunks:
                data += chunk
                if len(data) > limit_bytes:
                    raise SyncError(f"{self._transport.base}/{path}: found more than {limit_bytes} bytes")
        self.downloaded_bytes += len(data)
        return bytes(data)

    def _complete(self, ref: ObjectRef, part: Path, name: str) -> bytes:
        had = part.stat().st_size if part.is_file() else 0
        if had < ref.size or ref.size == 0:
            self._append(ref, part, had, name)
        wrong = file_mismatch(part, ref.size, ref.sha256)
        if wrong is None:
            return b""
        part.unlink()
        if had:
            raise InterruptedTransferError(f"continued a part that was not of this object: {wrong}")
        raise SyncError(f"{name}: {wrong.removeprefix(f'{part}: ')}")

    def _append(self, ref: ObjectRef, part: Path, had: int, name: str) -> None:
        with (
            self._transport.get(object_path(ref.sha256), had) as body,
            part.open("ab" if body.offset else "wb") as file,
        ):
            total = body.offset
            for chunk in body.chunks:
                total += len(chunk)
                if total > ref.size:
                    break
                file.write(chunk)
                self.downloaded_bytes += len(chunk)
        if total > ref.size:
            part.unlink()
            raise SyncError(f"{name}: found more than {ref.size} bytes, expected exactly that many")
        if total < ref.size:
            raise InterruptedTransferError(f"found {total} bytes, expected {ref.size}")
