"""The durable queue of messages that wait for the broker.

Rules:
1. `put` never waits for the disk. A thread commits the messages of the last few milliseconds in one synced transaction.
2. A message acknowledged before its commit is never written, which spares the flash.
3. A disk error is counted and retried; until the disk works, messages wait in memory and are sent from there.
4. Memory and disk are bounded. The oldest message of the lowest priority is dropped first. Every dropped message is
   counted, and only those.
5. A damaged file is moved aside, logged and counted, and what can be read of it is kept; the device starts anyway. So
   it does without a writable disk.
6. Only one process at a time: the file is locked while it is open.
7. A message that the broker cannot take is set aside: it is kept in the file, and not sent again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, islice
from pathlib import Path

from edge.errors import OutboxError
from edge.messaging.outbox_file import (
    DamagedFileError,
    LockedFileError,
    OutboxFile,
    OutboxMessage,
    SetAside,
    Totals,
)
from edge.messaging.outbox_memory import OutboxMemory
from edge.messaging.outbox_salvage import check_place, move_aside, read_damaged
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)

_IDLE_S = 60.0  # how often ages are checked when nothing is put
_RETRY_S = 1.0  # between two attempts on a failing disk
_SALVAGED_AT_ONCE = 256  # messages in one transaction
_MOST_NAMED = 20  # messages set aside that the health report names


class Outbox:
    """Messages in the order they were put, kept until acknowledged, across restarts and power cuts."""

    def __init__(
        self,
        path: Path,
        counters: Counters,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        max_age_s: float = 7 * 24 * 3600.0,
        max_memory_bytes: int = 8 * 1024 * 1024,
        commit_interval_s: float = 0.005,
        now: Callable[[], float] = time.time,
        age_clock: Callable[[], float] | None = None,
    ) -> None:
        """Open the file, or create it.

        Args:
            path: the SQLite file; its folder is created.
            counters: counts drops and failures.
            max_bytes: of all messages on disk.
            max_age_s: older messages are dropped.
            max_memory_bytes: of the messages that wait for the disk; messages being written are extra.
            commit_interval_s: how long the writer collects messages for one commit.
            now: the wall clock that stamps messages.
            age_clock: the clock that measures their ages (edge/telemetry/age_clock.py); None: the wall clock.

        Raises:
            OutboxError: another process holds the file.
        """
        self._path, self._counters, self._now = path, counters, now
        self._age_clock = age_clock or now
        self._max_bytes, self._max_age_s = max_bytes, max_age_s
        self._commit_interval_s = commit_interval_s
        self._error: str | None = None  # why the disk cannot be used
        self._moved_aside: str | None = None  # the damaged file, for people
        self.openings = 0  # how often a file was opened whose messages were not known before
        self._file: OutboxFile | None = None
        self._named: deque[SetAside] = deque(maxlen=_MOST_NAMED)
        self._stored = Totals(0, 0, 0)
        self._open_at_start()

        self._lock = threading.Lock()  # guards the fields below; never held during disk access
        self._sequence = self._stored.last_sequence
        self._writing_up_to = self._sequence  # the writer has taken all up to this sequence
        self._in_memory = OutboxMemory(max_memory_bytes)
        self._finished: dict[str, SetAside | None] = {}  # ids to be deleted from the disk, or set aside there
        self._listener: Callable[[], None] = lambda: None

        self._wake = threading.Event()
        self._closing = threading.Event()
        self._rounds = 0  # completed by the writer
        self._round_done = threading.Condition()
        self._writer = threading.Thread(target=self._write_until_closed, name="outbox", daemon=True)
        self._writer.start()

    def __enter__(self) -> Outbox:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def put(self, topic: str, payload: bytes, priority: int, event_id: str) -> None:
        """Keep a message until it is acknowledged; returns at once. A duplicate id is ignored."""
        with self._lock:
            if self._in_memory.find(event_id) is not None:
                self._counters.add("outbox_duplicates")
                return
            self._sequence += 1
            dropped = self._in_memory.put(
                OutboxMessage(self._sequence, event_id, topic, payload, priority, self._now())
            )
        self._count_dropped("memory", dropped)
        self._wake.set()
        self._listener()

    def pending(self, limit: int, after: int = 0, priority: int | None = None) -> list[OutboxMessage]:
        """Return the oldest unacknowledged messages.

        Args:
            limit: the most to return.
            after: only messages with a higher sequence.
            priority: only messages of this priority; None: of any.
        """
        with self._lock:  # memory first: a message that moves to disk meanwhile is read twice, never missed
            in_memory = [m for m in self._in_memory if m.sequence > after and priority in {None, m.priority}]
            gone = set(self._finished)
            file = self._file if after < self._writing_up_to and self._stored.messages else None
        stored = self._read(file, limit + len(gone), after, priority) if file else []
        waiting = {message.event_id: message for message in chain(in_memory, stored) if message.event_id not in gone}
        return sorted(waiting.values(), key=lambda message: message.sequence)[:limit]

    def acknowledge(self, event_ids: Iterable[str]) -> None:
        """Delete messages that the broker has acknowledged; returns at once."""
        with self._lock:
            for event_id in event_ids:
                message = self._in_memory.find(event_id)
                if message is None or message.sequence <= self._writing_up_to:
                    self._finished[event_id] = None
                self._in_memory.discard(event_id)
        self._wake.set()

    def set_aside(self, message: OutboxMessage, reason: str) -> None:
        """Keep a message that the broker cannot take out of the queue, for people; returns at once."""
        aside = SetAside(message.event_id, message.topic, len(message.payload), reason[:200], self._now())
        with self._lock:
            self._finished[message.event_id] = aside  # written with it, if it is still in memory
            self._named.append(aside)
        self._wake.set()

    def newest_set_aside(self) -> list[SetAside]:
        """Return the latest messages that were set aside, the oldest first; from any thread."""
        with self._lock:
            return list(self._named)

    @property
    def problem(self) -> str | None:
        """Why events are not safe on disk, or which file was damaged, for people; None: all is well."""
        error, moved = self._error, self._moved_aside
        return f"{error}; events wait in memory, and are lost when the process ends" if error else moved

    def set_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every put, on the putting thread; it must return at once."""
        self._listener = listener

    @property
    def last_sequence(self) -> int:
        """The sequence of the latest message; 0 before the first."""
        with self._lock:
            return self._sequence

    def depth(self) -> tuple[int, int]:
        """Return the number of waiting messages and their approximate bytes."""
        with self._lock:
            messages = self._stored.messages + len(self._in_memory) - len(self._finished)
            return max(messages, 0), self._stored.size + self._in_memory.size

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until the writer has tried to store everything put or acknowledged so far.

        Returns:
            Whether everything is on disk.
        """
        with self._round_done:
            enough = self._rounds + 2  # the current round may have started earlier
            self._wake.set()
            self._round_done.wait_for(lambda: self._rounds >= enough or self._is_on_disk(), timeout_s)
        return self._is_on_disk()

    def close(self) -> None:
        """Commit what is left and close the file."""
        self._closing.set()
        self._wake.set()
        self._writer.join()
        self._count_dropped("closed", self._in_memory)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _is_on_disk(self) -> bool:
        with self._lock:
            return not (self._in_memory or self._finished)

    def _count_dropped(self, reason: str, messages: Iterable[OutboxMessage]) -> None:
        for message in messages:
            self._counters.add("outbox_dropped", reason=reason, priority=str(message.priority))

    def _read(self, file: OutboxFile, limit: int, after: int, priority: int | None) -> list[OutboxMessage]:
        try:
            return file.read(limit, after, priority)
        except OutboxError as error:  # the writer will get the same error, and handle it
            self._counters.add("outbox_disk_errors", during="read")
            log.warning("%s", error)
            return []

    def _open_at_start(self) -> None:
        try:
            try:
                self._open()
            except DamagedFileError as error:
                self._replace_damaged_file(error)
        except LockedFileError:
            raise
        except OutboxError as error:
            self._note_failure(error)  # the writer tries again

    def _open(self) -> None:
        check_place(self._path)
        self._file = OutboxFile(self._path)
        self._stored = self._file.totals()
        self._named.extend(self._file.set_aside())

    def _renumber(self) -> None:
        """Put the messages in memory behind those of a file that could not be read before."""
        with self._lock:
            if offset := self._stored.last_sequence if self._in_memory else 0:
                self._in_memory.renumber(offset)
            self._sequence = max(self._sequence + offset, self._stored.last_sequence)
            self._writing_up_to = self._stored.last_sequence
            self.openings += 1

    def _write_until_closed(self) -> None:
        """Run the writer thread: collect messages, commit them, repeat."""
        closing = False
        while not closing:
            self._wake.wait(_IDLE_S)
            self._closing.wait(_RETRY_S if self._error else self._commit_interval_s)
            closing = self._closing.is_set()
            self._wake.clear()
            try:
                try:
                    self._write()
                except DamagedFileError as error:
                    self._note_failure(error)
                    self._replace_damaged_file(error)
            except OutboxError as error:
                self._note_failure(error)
            except Exception as error:
                log.exception("outbox %s: unexpected error in the writer; retrying", self._path)
                self._counters.add("outbox_disk_errors", during="write")
                self._error = f"outbox {self._path}: unexpected error {error!r}"
            if self._error:
                self._wake.set()
            with self._round_done:
                self._rounds += 1
                self._round_done.notify_all()

    def _write(self) -> None:
        """Write new messages and delete acknowledged ones, in one transaction."""
        if self._file is None:
            self._open()
            self._renumber()
        file = self._file
        if file is None:
            return
        with self._lock:
            messages, finished = self._in_memory.start_writing(), dict(self._finished)
            self._writing_up_to = self._sequence
        oldest = self._age_clock() - self._max_age_s
        try:
            applied = file.apply(messages, finished, oldest=oldest, max_bytes=self._max_bytes)
        except BaseException:
            with self._lock:
                dropped = self._in_memory.fail_writing()
            self._count_dropped("memory", dropped)
            raise
        with self._lock:
            self._in_memory.finish_writing()
            for event_id in finished:
                del self._finished[event_id]
            self._stored = applied.totals
        # counted only after the commit: a failed transaction is retried
        if messages:
            self._counters.add("outbox_stored", applied.fresh)
        if applied.fresh < len(messages):
            self._counters.add("outbox_duplicates", len(messages) - applied.fresh)
        for reason, priority in applied.dropped:
            self._counters.add("outbox_dropped", reason=reason, priority=str(priority))
        if self._error:
            self._error = None
            log.info("outbox %s: the disk works again", self._path)

    def _note_failure(self, error: OutboxError) -> None:
        self._counters.add("outbox_disk_errors", during="write")
        if self._error is None:
            log.warning("%s; messages wait in memory", error)
        self._error = str(error)

    def _replace_damaged_file(self, damage: DamagedFileError) -> None:
        """Move a damaged file aside, begin a new one, and copy what can be read.

        Raises:
            OutboxError: the disk fails, too.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        aside = move_aside(self._path)
        self._counters.add("outbox_damaged")
        self._open()
        file, kept = self._file, 0
        if file is not None:
            found = read_damaged(aside)
            while rows := list(islice(found, _SALVAGED_AT_ONCE)):
                applied = file.apply(rows, {}, oldest=self._age_clock() - self._max_age_s, max_bytes=self._max_bytes)
                self._stored, kept = applied.totals, kept + applied.fresh
        self._counters.add("outbox_salvaged", kept)
        self._moved_aside = f"{damage}; moved to {aside.name}, {kept} messages were kept"
        log.error("%s", self._moved_aside)
