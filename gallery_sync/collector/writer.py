"""The thread that writes the database: reports in batches, and jobs of other threads.

Rules this module keeps:
1. Messages that the disk does not take wait and are tried again; newer ones replace them.
2. A damaged database is replaced by an empty one while the server runs, and `on_reset` lets the broker send again what
   it keeps.
3. What is wrong with a message is counted by its reason; the log names a device at most once in ten minutes.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TypeVar

from edge.errors import SyncError
from edge.types import Counts
from gallery_sync.collector import records
from gallery_sync.collector.database import Database, is_damage
from gallery_sync.collector.inflow import Inflow
from gallery_sync.collector.messages import Arrived, WrongMessageError, read_answer, read_available, read_report
from gallery_sync.formats.reports import Reported

log = logging.getLogger(__name__)

BATCH = 500  # messages of one transaction
MOST_DEVICES = 250_000
_GATHER_S = 0.05  # after the first message, so that one transaction holds many
_RETRY_S = 1.0
_LAST_STEPS = 100
_JOB_S = 15.0
_TIDY_S, _TIDIED_AT_ONCE = 600.0, 1000
_LOG_INTERVAL_S, _MOST_LOGGED = 600.0, 10_000
_MOST_EARLY = 10_000  # devices whose availability came earlier than their first report
_Result = TypeVar("_Result")
_Job = Callable[[sqlite3.Connection], _Result]


class Writer:
    """Writes what arrives; `run` is the target of its thread."""

    def __init__(
        self,
        database: Database,
        inflow: Inflow,
        counters: Counts,
        *,
        keep_s: float,
        on_reset: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare.

        Args:
            database: to write.
            inflow: where messages wait.
            counters: counts what was stored and what was wrong.
            keep_s: how long a device is known that does not report.
            on_reset: called after the database had to begin empty.
            now: Unix seconds.
            sleep: waits between tries of a disk that fails.
        """
        self._database, self._inflow, self._counters = database, inflow, counters
        self.on_reset = on_reset
        self.on_online: Callable[[str], None] = lambda _: None  # called with a device that connected, or is new
        self._keep_s, self._now, self._sleep = keep_s, now, sleep
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._stored: dict[str, int] = {}  # hash of the last message of a device that was stored
        self._early: dict[str, bool] = {}
        self._logged: dict[str, float] = {}
        self._failure_logged_at: float | None = None  # None: the disk works
        self._tidy_at = 0.0
        self.devices = self._count()  # that are known

    def run(self) -> None:
        """Write until `stop`, and then what waits."""
        while not self._stop.is_set():
            self.step(1.0)
        for _ in range(_LAST_STEPS):
            if not self.step(0.0):
                return

    def stop(self) -> None:
        """Make `run` return."""
        self._stop.set()
        self._inflow.wake()

    def step(self, wait_s: float) -> int:
        """Wait for messages or jobs, and write them; return how many messages were taken."""
        batch = self._inflow.take(BATCH, wait_s)
        if batch and len(batch) < BATCH and wait_s:
            self._sleep(_GATHER_S)
            batch += self._inflow.take(BATCH - len(batch), 0.0)
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            job()
        if batch:
            self._write(batch)
        if self._now() >= self._tidy_at:
            self._tidy()
        return len(batch)

    def call(self, job: _Job[_Result], wait_s: float = _JOB_S) -> _Result:
        """Run a job in the writer's thread, in a transaction of its own, and return its result; from any thread.

        Raises:
            SyncError: the database cannot be written now.
        """
        future: Future[_Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                with self._database.writing() as db:
                    result = job(db)
            except Exception as error:  # noqa: BLE001  it is raised in the caller's thread
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(run)
        self._inflow.wake()
        try:
            return future.result(wait_s)
        except (FutureTimeoutError, TimeoutError) as error:
            future.cancel()
            raise SyncError("the database is busy; try again in a moment") from error
        except sqlite3.Error as error:
            raise SyncError(f"{self._database.path}: cannot write the database: {error}; check the disk") from error

    def _write(self, batch: list[Arrived]) -> None:
        tasks = [task for message in batch if (task := self._task(message)) is not None]
        try:
            with self._database.writing() as db:
                outcomes = [task(db) for _, task in tasks]
        except sqlite3.Error as error:
            self._failed(error, [message for message, _ in tasks])
            return
        if tasks and self._failure_logged_at is not None:
            self._failure_logged_at = None
            log.warning("%s: can be written again", self._database.path)
        for (message, _), (name, labels) in zip(tasks, outcomes, strict=True):
            self._counters.add(name, **labels)
            if message.kind == "reported" and labels["result"] != "too_many_devices":
                self._stored[message.device] = hash(message.payload)
            if labels["result"] in ("online", "new"):
                self.on_online(message.device)
        self.devices += sum(1 for _, labels in outcomes if labels.get("result") == "new")

    def _task(self, message: Arrived) -> tuple[Arrived, _Job[tuple[str, dict[str, str]]]] | None:
        """Return what a message means for the database; None: nothing."""
        try:
            if message.kind == "reported":
                if self._stored.get(message.device) == hash(message.payload):
                    self._counters.add("reports", result="repeated")
                    return None
                report = read_report(message)
                return message, lambda db: self._put_report(db, message, report)
            if message.kind == "available":
                available = read_available(message)
                return message, lambda db: self._put_available(db, message.device, available=available)
            answer = read_answer(message)
        except WrongMessageError as error:
            self.refuse(message.device, message.kind, error)
            return None
        return message, lambda db: (
            "answers",
            {"result": "stored" if records.put_answer(db, answer, message.at) else "refused"},
        )

    def refuse(self, device: str, kind: str, error: WrongMessageError) -> None:
        """Count a wrong message, and log it if the device was not in the log lately."""
        self._counters.add("wrong_messages", kind=kind, reason=error.reason)
        now = self._now()
        if abs(now - self._logged.get(device, -_LOG_INTERVAL_S)) < _LOG_INTERVAL_S:
            return
        if len(self._logged) >= _MOST_LOGGED:
            self._logged.clear()
        self._logged[device] = now
        log.warning("ignored a message: %s", error)

    def _put_report(self, db: sqlite3.Connection, message: Arrived, report: Reported) -> tuple[str, dict[str, str]]:
        available = self._early.get(message.device)
        taken = records.put_report(db, report, message, available=available, has_room=self.devices < MOST_DEVICES)
        self._early.pop(message.device, None)
        return "reports", {"result": taken}

    def _put_available(self, db: sqlite3.Connection, device: str, *, available: bool) -> tuple[str, dict[str, str]]:
        if not records.put_available(db, device, available=available):
            while len(self._early) >= _MOST_EARLY:
                del self._early[next(iter(self._early))]
            self._early[device] = available
        return "availabilities", {"result": "online" if available else "offline"}

    def _failed(self, error: sqlite3.Error, messages: list[Arrived]) -> None:
        self._counters.add("store_failures", reason="damaged" if is_damage(error) else "disk")
        self._inflow.put_back(messages)
        if is_damage(error):
            self._database.start_over()
            self._stored.clear()
            self.devices = 0
            self.on_reset()
            return
        now, logged_at = self._now(), self._failure_logged_at
        if logged_at is None or abs(now - logged_at) >= _LOG_INTERVAL_S:  # the log may be on the same disk
            self._failure_logged_at = now
            log.error("%s: cannot write: %s; trying again each second", self._database.path, error)
        self._sleep(_RETRY_S)

    def _tidy(self) -> None:
        """Forget what is old."""
        now = self._now()
        self._tidy_at = now + _TIDY_S
        try:
            with self._database.writing() as db:
                gone = records.forget_old(db, now - self._keep_s, _TIDIED_AT_ONCE)
        except sqlite3.Error as error:
            self._failed(error, [])
            return
        if gone:
            self._counters.add("devices_forgotten", len(gone))
            self.devices = self._count()
            for device in gone:
                self._stored.pop(device, None)
            self._tidy_at = now if len(gone) == _TIDIED_AT_ONCE else self._tidy_at

    def _count(self) -> int:
        try:
            return int(self._database.writer.execute("SELECT count(*) FROM device").fetchone()[0])
        except sqlite3.Error:
            return 0
