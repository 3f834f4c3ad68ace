"""Downloads objects to a device: resumable, limited in size and time, with retries, and verified.

Rules this module keeps:
1. An object gets its name only after its SHA-256 is verified. Until then it is `<sha256>.part` in the same folder. The
   next attempt resumes it, also after a restart.
2. A download never reads more bytes than the object has, and never makes more attempts than allowed. An object that the
   server does not give is left alone for a while, see gallery_sync.transport.retry_ledger.
3. A part is given up only for the bytes of an answer that can be the whole object, not for a login page.
4. A part is flushed every 4 MiB and when an attempt ends, so everything before the last 4 MiB survives a power cut.
   A complete part with a wrong hash that began before this attempt is cut back to what was flushed, once; then it is
   deleted. If no byte came from an earlier attempt, the server's object is wrong, and there is no further attempt.
5. If a server does not continue a file where it should, the next attempt requests the whole file.
6. A full disk ends a download before its first byte where that can be known; what was downloaded stays.
7. The byte budget of the transport stops an object in the middle, unless it is urgent. Every byte is counted.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from edge.durable import file_mismatch, replace_file
from edge.errors import SyncError
from gallery_sync.formats.fields import ObjectRef, object_path
from gallery_sync.fresh_files import open_part, part_size, remove
from gallery_sync.transport.errors import InterruptedTransferError, ReleaseError, StorageError, TransferError
from gallery_sync.transport.repository_files import Body
from gallery_sync.transport.time_limits import Deadline

if TYPE_CHECKING:
    from gallery_sync.transport.byte_budget import ByteBudget
    from gallery_sync.transport.retry_ledger import RetryLedger

__all__ = ["Fetcher", "ReleaseError", "Retry", "StorageError", "Transport", "free_space"]

log = logging.getLogger(__name__)

_LONGEST_WAIT_S = 30.0  # between two attempts; a server that asks for more is left to the retry ledger
_FLUSHED_BYTES = 4 << 20
_UNFLUSHED_BYTES = 1 << 20  # more than the pieces that are written between two flushes beyond every 4 MiB
_NOT_CONTINUED = (206, 416)  # HTTP: of another range, or of none


class Transport(Protocol):
    """Source of repository files."""

    base: str
    deadline: Deadline

    @property
    def budget(self) -> ByteBudget | None:
        """Counts the bytes of all bodies; None: they are not counted."""
        ...

    def get(self, path: str, offset: int) -> AbstractContextManager[Body]:
        """Get a file from an offset, as HttpTransport does."""
        ...


@dataclass(frozen=True, slots=True)
class Retry:
    """Number of attempts and the wait between them."""

    attempts: int
    sleep: Callable[[float], None]  # seconds
    jitter: Callable[[], float]  # 0..1, so that devices do not all retry at once

    def wait(self, attempt: int, at_least_s: float = 0.0) -> None:
        """Wait after a failed attempt, counted from 0: twice as long each time, at most 30 s before jitter.

        Args:
            attempt: that failed.
            at_least_s: seconds that the server asked for.
        """
        self.sleep(max(at_least_s, min(_LONGEST_WAIT_S, 2.0**attempt) * (0.5 + self.jitter())))


@dataclass(slots=True)
class TransferCounts:
    """What a fetcher did."""

    downloaded_bytes: int = 0  # of bodies, also those that were thrown away
    wasted_bytes: int = 0  # thrown away: a wrong object, a server that started again, a document that was cut off
    resumed_bytes: int = 0  # that were there from an earlier attempt and were not downloaded again
    retries: int = 0


def free_space(folder: Path) -> tuple[int, int | None]:
    """Return the free bytes and files of a file system; None: it does not limit the number of files."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None


class Fetcher:
    """Fetches objects into a folder."""

    def __init__(
        self,
        transport: Transport,
        folder: Path,
        retry: Retry,
        *,
        ledger: RetryLedger | None = None,
        space: Callable[[Path], tuple[int, int | None]] = free_space,
    ) -> None:
        """Use a transport.

        Args:
            transport: the repository.
            folder: of the objects.
            retry: the attempts within one call.
            ledger: when an object may be requested again after it failed; None: always.
            space: returns the free bytes and files of the file system of a folder.
        """
        self._transport = transport
        self._folder = folder
        self._retry = retry
        self._ledger = ledger
        self._space = space
        self._from_start: set[str] = set()  # objects that the server did not continue where it should
        self._cut: set[str] = set()  # objects whose part was cut back to what was flushed
        self.counts = TransferCounts()

    @property
    def downloaded_bytes(self) -> int:
        """Bytes of all bodies."""
        return self.counts.downloaded_bytes

    def get_small(self, path: str, limit_bytes: int) -> bytes:
        """Get a small file whose hash is not known.

        Raises:
            TransferError: the server does not have it, or every attempt failed.
            SyncError: the file is too large, or the time is over.
        """
        return self._with_retries(path, lambda: self._read(path, limit_bytes))

    def get_document(self, ref: ObjectRef, name: str) -> bytes:
        """Get a verified small object. It is not stored, and no byte budget refuses it.

        Raises:
            ReleaseError: the server's object is wrong.
            BackOffError: it failed too often to be requested now.
            TransferError: the server does not have it, or every attempt failed.
            SyncError: the time is over.
        """
        with self._counting_failures(ref, name):
            data = self._with_retries(name, lambda: self._read(object_path(ref.sha256), ref.size))
            if (found := hashlib.sha256(data).hexdigest()) != ref.sha256:
                self.counts.wasted_bytes += len(data)
                raise ReleaseError(f"{name}: found SHA-256 {found}, expected {ref.sha256}")
        return data

    def get_object(self, ref: ObjectRef, name: str, *, urgent: bool = False) -> Path:
        """Get a verified object from the folder or the server.

        Args:
            ref: the object.
            name: its name in messages.
            urgent: no byte budget refuses it.

        Raises:
            ReleaseError: the server's object is wrong.
            StorageError: the disk failed or is full.
            BudgetError: the bytes of the day are spent; what was downloaded stays.
            BackOffError: the object failed too often to be requested now.
            TransferError: the server does not have it, or every attempt failed.
            SyncError: the time is over.
        """
        final = self._folder / ref.sha256
        part = self._folder / f"{ref.sha256}.part"
        try:
            if file_mismatch(final, ref.size, ref.sha256) is None:
                return final
            remove(final)
            with self._counting_failures(ref, name):
                self._with_retries(name, lambda: self._download(ref, part, name, urgent=urgent))
            replace_file(part, final)
        except OSError as error:  # the transport maps its own errors; this one is of the disk
            raise StorageError(f"{name}: cannot store {ref.size} bytes: {error.strerror or error}") from error
        return final

    def reject(self, ref: ObjectRef, reason: str) -> None:
        """Remove an object that arrived whole and is of no use; it is requested again once a day.

        Args:
            ref: the object, such as a delivery that does not make its file.
            reason: for people.
        """
        self.counts.wasted_bytes += ref.size
        with contextlib.suppress(OSError):
            remove(self._folder / ref.sha256)
        if self._ledger is not None:
            self._ledger.reject(ref.sha256, reason)

    @contextlib.contextmanager
    def _counting_failures(self, ref: ObjectRef, name: str) -> Iterator[None]:
        if self._ledger is None:
            yield
            return
        self._ledger.require(ref.sha256, name)
        try:
            yield
        except (ReleaseError, TransferError) as error:
            self._ledger.failed(ref.sha256, error)
            raise
        self._ledger.succeeded(ref.sha256)

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
                asked_s = error.retry_after_s or 0.0
                if attempt + 1 == self._retry.attempts or asked_s > _LONGEST_WAIT_S:
                    message = f"{name}: gave up after {attempt + 1} attempt{'s' if attempt else ''}: {error}"
                    raise TransferError(message, error.status, error.retry_after_s) from error
                log.warning("%s: attempt %s of %s: %s", name, attempt + 1, self._retry.attempts, error)
                self.counts.retries += 1
                self._retry.wait(attempt, asked_s)
        raise SyncError(f"{name}: {self._retry.attempts} attempts are allowed; allow at least 1")

    def _read(self, path: str, limit_bytes: int) -> bytes:
        data = bytearray()
        whole = False
        try:
            with self._transport.get(path, 0) as body:
                for chunk in body.chunks:
                    self.counts.downloaded_bytes += len(chunk)
                    self._transport.deadline.remaining_s()
                    data += chunk
                    if len(data) > limit_bytes:
                        where = f"{self._transport.base}/{path}"
                        raise SyncError(f"{where}: larger than the limit of {limit_bytes} bytes; check the URL")
            if body.length not in (None, len(data)):
                raise InterruptedTransferError(f"found {len(data)} bytes, expected {body.length}")
            whole = True
        finally:
            self.counts.wasted_bytes += 0 if whole else len(data)
        return bytes(data)

    def _download(self, ref: ObjectRef, part: Path, name: str, *, urgent: bool) -> bytes:
        had = part_size(part, ref.size)
        if had < ref.size or ref.size == 0:
            self._require_space(ref.size - had, name)
            self._append(ref, part, had, name, urgent=urgent)
        wrong = file_mismatch(part, ref.size, ref.sha256)
        if wrong is None:
            return b""
        kept = _flushed(had) if ref.sha256 not in self._cut else 0
        self.counts.wasted_bytes += ref.size - kept
        if not had:
            part.unlink()
            raise ReleaseError(f"{name}: {wrong.removeprefix(f'{part}: ')}")
        if kept:
            self._cut.add(ref.sha256)
            os.truncate(part, kept)
            raise InterruptedTransferError(f"the partial download is damaged and is cut back to {kept} bytes: {wrong}")
        part.unlink()
        raise InterruptedTransferError(f"the partial download was of another object and is deleted: {wrong}")

    def _require_space(self, needed: int, name: str) -> None:
        free, files = self._space(self._folder)
        if free < needed or files == 0:
            what = (
                f"needs {needed} bytes, and {free} are free" if free < needed else "needs a file, and no inode is free"
            )
            raise StorageError(f"{name}: {what} in {self._folder}; free some space; what was downloaded stays")

    def _append(self, ref: ObjectRef, part: Path, had: int, name: str, *, urgent: bool) -> None:
        budget = None if urgent else self._transport.budget
        if budget is not None:
            budget.require(name)
        asked = 0 if ref.sha256 in self._from_start else had
        try:
            with self._transport.get(object_path(ref.sha256), asked) as body:
                self._require_same(ref, body, had)
                total = self._write(ref, part, body, lambda: budget.require(name) if budget else None)
        except TransferError as error:
            if error.status in _NOT_CONTINUED and asked:
                self._from_start.add(ref.sha256)
                raise InterruptedTransferError(str(error), error.status) from error
            raise
        if total > ref.size:
            part.unlink()
            self.counts.wasted_bytes += ref.size
            raise ReleaseError(f"{name}: the server sent more than the expected {ref.size} bytes")
        if total < ref.size:
            raise InterruptedTransferError(f"found {total} bytes, expected {ref.size}")

    def _require_same(self, ref: ObjectRef, body: Body, had: int) -> None:
        """Check that an answer can be of the object, before the part is touched."""
        if body.offset and body.total not in (None, ref.size):
            self._from_start.add(ref.sha256)
            raise InterruptedTransferError(f"found a file of {body.total} bytes, expected {ref.size}")
        if had and not body.offset and body.length not in (None, ref.size):
            raise InterruptedTransferError(f"found an answer of {body.length} bytes, expected {ref.size}")
        if had and not body.offset:
            self.counts.wasted_bytes += had
        self.counts.resumed_bytes += body.offset

    def _write(self, ref: ObjectRef, part: Path, body: Body, check_budget: Callable[[], None]) -> int:
        """Write a body to a part; return how many bytes the part would have with all that arrived."""
        total = body.offset
        with open_part(part, body.offset) as file:
            try:
                for chunk in body.chunks:
                    self.counts.downloaded_bytes += len(chunk)
                    self._transport.deadline.remaining_s()
                    before, total = total, total + len(chunk)
                    if total > ref.size:
                        break
                    file.write(chunk)
                    if before // _FLUSHED_BYTES != total // _FLUSHED_BYTES:
                        _flush(file)
                    if total < ref.size:
                        check_budget()
            finally:
                if body.offset < total < ref.size:  # a complete one is flushed when it gets its name
                    _flush(file)
        return total


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flushed(had: int) -> int:
    """Return how many bytes of a part were flushed for sure before its last ones were written."""
    return max(0, had - _UNFLUSHED_BYTES) // _FLUSHED_BYTES * _FLUSHED_BYTES
