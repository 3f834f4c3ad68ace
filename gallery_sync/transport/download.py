"""Downloads objects to a device: resumable, limited in size and time, with retries, and verified.

Rules this module keeps:
1. An object gets its name only after its SHA-256 is verified. Until then it is `<sha256>.part`, which the next attempt
   resumes, also after a restart.
2. A download never reads more bytes than the object has, and never makes more attempts than allowed.
3. A part is given up only for the bytes of an answer that can be the whole object, not for a login page.
4. A complete part with a wrong hash is deleted. If no byte of it came from an earlier attempt, the server's object is
   wrong, and there is no further attempt.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.durable import file_mismatch, replace_file
from edge.errors import SyncError
from gallery_sync.formats.fields import ObjectRef, object_path
from gallery_sync.fresh_files import open_part, part_size, remove
from gallery_sync.transport.repository_files import Body
from gallery_sync.transport.time_limits import Deadline, InterruptedTransferError

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 30.0


class ReleaseError(SyncError):
    """A release is wrong in itself: another attempt gives the same."""


class StorageError(SyncError):
    """The disk failed while a download was stored."""


class Transport(Protocol):
    """Source of repository files."""

    base: str
    deadline: Deadline

    def get(self, path: str, offset: int) -> AbstractContextManager[Body]:
        """Get a file from an offset, as HttpTransport does."""
        ...


@dataclass(frozen=True, slots=True)
class Retry:
    """Number of attempts and the wait between them."""

    attempts: int
    sleep: Callable[[float], None]  # seconds
    jitter: Callable[[], float]  # 0..1, so that devices do not all retry at once

    def wait(self, attempt: int) -> None:
        """Wait after a failed attempt, counted from 0: twice as long each time, at most 30 s before jitter."""
        self.sleep(min(_LONGEST_WAIT_S, 2.0**attempt) * (0.5 + self.jitter()))


class Fetcher:
    """Fetches objects into a folder."""

    def __init__(self, transport: Transport, folder: Path, retry: Retry) -> None:
        self._transport = transport
        self._folder = folder
        self._retry = retry
        self.downloaded_bytes = 0

    def get_small(self, path: str, limit_bytes: int) -> bytes:
        """Get a small file whose hash is not known.

        Raises:
            SyncError: the file is missing or too large, or every attempt failed.
        """
        return self._with_retries(path, lambda: self._read(path, limit_bytes))

    def get_document(self, ref: ObjectRef, name: str) -> bytes:
        """Get a verified small object. It is not stored.

        Raises:
            ReleaseError: the server's object is wrong.
            SyncError: the object is missing, or every attempt failed.
        """
        data = self._with_retries(name, lambda: self._read(object_path(ref.sha256), ref.size))
        if (found := hashlib.sha256(data).hexdigest()) != ref.sha256:
            raise ReleaseError(f"{name}: found SHA-256 {found}, expected {ref.sha256}")
        return data

    def get_object(self, ref: ObjectRef, name: str) -> Path:
        """Get a verified object from the folder or the server.

        Args:
            ref: the object.
            name: its name in messages.

        Raises:
            ReleaseError: the server's object is wrong.
            StorageError: the disk failed.
            SyncError: the object is missing, or every attempt failed.
        """
        final = self._folder / ref.sha256
        part = self._folder / f"{ref.sha256}.part"
        try:
            if file_mismatch(final, ref.size, ref.sha256) is None:
                return final
            remove(final)
            self._with_retries(name, lambda: self._download(ref, part, name))
            replace_file(part, final)
        except OSError as error:  # the transport maps its own errors; this one is of the disk
            raise StorageError(f"{name}: cannot store {ref.size} bytes: {error.strerror or error}") from error
        return final

    def _with_retries(self, name: str, attempt_once: Callable[[], bytes]) -> bytes:
        failure = ""
        for attempt in range(self._retry.attempts):
            try:
                self._transport.deadline.remaining_s()
            except SyncError as error:
                raise SyncError(f"{name}: {error}{failure}") from error
            try:
                return attempt_once()
            except InterruptedTransferError as error:
                failure = f"; the last attempt: {error}"
                if attempt + 1 == self._retry.attempts:
                    raise SyncError(f"{name}: gave up after {self._retry.attempts} attempts: {error}") from error
                log.warning("%s: attempt %s of %s: %s", name, attempt + 1, self._retry.attempts, error)
                self._retry.wait(attempt)
        raise SyncError(f"{name}: {self._retry.attempts} attempts are allowed; allow at least 1")

    def _read(self, path: str, limit_bytes: int) -> bytes:
        data = bytearray()
        with self._transport.get(path, 0) as body:
            for chunk in body.chunks:
                self._transport.deadline.remaining_s()
                data += chunk
                if len(data) > limit_bytes:
                    where = f"{self._transport.base}/{path}"
                    raise SyncError(f"{where}: larger than the limit of {limit_bytes} bytes; check the URL")
        self.downloaded_bytes += len(data)
        if body.length not in (None, len(data)):
            raise InterruptedTransferError(f"found {len(data)} bytes, expected {body.length}")
        return bytes(data)

    def _download(self, ref: ObjectRef, part: Path, name: str) -> bytes:
        had = part_size(part, ref.size)
        if had < ref.size or ref.size == 0:
            self._append(ref, part, had, name)
        wrong = file_mismatch(part, ref.size, ref.sha256)
        if wrong is None:
            return b""
        part.unlink()
        if had:
            raise InterruptedTransferError(f"the partial download was of another object and is deleted: {wrong}")
        raise ReleaseError(f"{name}: {wrong.removeprefix(f'{part}: ')}")

    def _append(self, ref: ObjectRef, part: Path, had: int, name: str) -> None:
        with self._transport.get(object_path(ref.sha256), had) as body:
            if had and not body.offset and body.length not in (None, ref.size):
                raise InterruptedTransferError(f"found an answer of {body.length} bytes, expected {ref.size}")
            total = body.offset
            with open_part(part, body.offset) as file:
                for chunk in body.chunks:
                    self._transport.deadline.remaining_s()
                    total += len(chunk)
                    if total > ref.size:
                        break
                    file.write(chunk)
                    self.downloaded_bytes += len(chunk)
        if total > ref.size:
            part.unlink()
            raise ReleaseError(f"{name}: the server sent more than the expected {ref.size} bytes")
        if total < ref.size:
            raise InterruptedTransferError(f"found {total} bytes, expected {ref.size}")
