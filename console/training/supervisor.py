"""Looks after the processes of jobs: starts them when their turn comes, ends them, and says how they ended.

Rules this module keeps:
1. A job is `running` in the database before its process starts. A console that starts again finds the process by its
   number and start time; if it has ended meanwhile, exit.json says how. A job whose console was killed before the
   process started goes back into the queue.
2. One heavy job runs at a time, in the order of their ids. Light ones start at once.
3. What follows a job that ended well (`when_done`) is called at least once, also after a restart.
"""

from __future__ import annotations

import logging
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from console.settings import Settings
from console.storage.database import Database
from console.training.disk import folder_bytes
from console.training.job import Job, State, job_of, row_of, update_row
from console.training.log_file import last_line, read_tail
from console.training.processes import (
    EXIT,
    LOG,
    PROCESS,
    Process,
    child_environment,
    is_alive,
    is_of_this_boot,
    read_exit,
    read_process,
    send_signal,
    spawn,
)
from edge.errors import ConsoleError, FinesightError
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)

Act: TypeAlias = Callable[[Job], None]
_SIGNING = "publish"  # kind of the jobs that get the folder of keys
GRACE_S = 20.0  # between SIGINT, SIGTERM and SIGKILL
_TICK_S, _IDLE_S = 0.1, 5.0
_START_S = 15.0  # that a process may take to write process.json
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
_INTERRUPTED = {
    True: "its process was killed, perhaps because memory ran out; resume goes on where it was",
    False: "the machine was restarted; resume goes on where it was",
}


class Supervisor:
    """Runs the jobs of a console, in a thread."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        clock: Callable[[], float],
        environment: Mapping[str, str],
        grace_s: float,
    ) -> None:
        self._settings, self._database, self._clock = settings, database, clock
        self._environment, self._grace_s = environment, grace_s
        self._acts: dict[str, list[Act]] = {}
        self._acting: dict[int, threading.Thread] = {}
        self._processes: dict[int, Process] = {}  # of running jobs
        self._signalled: dict[int, int] = {}  # how many signals a stopped job got
        self._changed = threading.Condition()
        self._is_closed = self._is_running = self._is_woken = False
        self._thread = SupervisedThread("jobs", self._watch, Counters())

    def when_done(self, kind: str, act: Act) -> None:
        """See `Jobs.when_done`."""
        self._acts.setdefault(kind, []).append(act)

    @property
    def keys(self) -> Path:
        """See `Jobs.keys`."""
        return self._settings.keys or self._settings.data / "gallery" / "signing"

    def run(self) -> None:
        """Start the thread, once."""
        with self._changed:
            if self._is_running or self._is_closed:
                return
            self._is_running = True
        self._thread.start()

    def wake(self) -> None:
        """Look after the jobs now: one was added, or stopped."""
        self.run()
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread; processes go on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._is_running:
            self._thread.stop(5.0)
        for thread in list(self._acting.values()):
            thread.join(5.0)

    def wait(self, job_id: int, timeout_s: float) -> None:
        """Wait until a job has ended and what follows it is done, or the time is over."""
        end_s = time.monotonic() + timeout_s
        while True:
            with self._database.read() as rows:
                row = row_of(rows, job_id)
            left_s = end_s - time.monotonic()
            if left_s <= 0 or (job_of(row).is_over and (row["state"] != "done" or row["acted"])):
                return
            with self._changed:
                self._changed.wait(min(_TICK_S, left_s))

    def _watch(self) -> None:
        while not self._is_closed:
            with self._changed:
                self._is_woken = False
            is_busy = self._look_after()
            with self._changed:
                self._changed.notify_all()
                if not (self._is_closed or self._is_woken):
                    self._changed.wait(_TICK_S if is_busy else _IDLE_S)

    def _look_after(self) -> bool:
        """Conclude jobs that ended, start the next ones; return whether any runs."""
        with self._database.read() as rows:
            running = rows.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
            done = rows.execute("SELECT * FROM jobs WHERE state = 'done' AND acted = 0").fetchall()
        for row in done:
            self._follow_up(job_of(row))
        left = [row for row in running if not self._has_ended(row)]
        is_heavy = any(row["heavy"] for row in left)
        with self._database.read() as rows:
            queued = rows.execute("SELECT * FROM jobs WHERE state = 'queued' ORDER BY id").fetchall()
        started = 0
        for row in queued:
            if row["heavy"] and is_heavy:
                continue
            is_heavy = is_heavy or bool(row["heavy"])
            self._begin(job_of(row))
            started += 1
        return bool(left or started or done)

    def _begin(self, job: Job) -> None:
        home = self._settings.runs / str(job.id)
        with self._database.write() as connection:
            if row_of(connection, job.id)["state"] != "queued":
                return
            update_row(connection, job.id, state="running", started_at=self._clock(), stop_at=None, says="")
        try:
            home.mkdir(parents=True, exist_ok=True)
            for old in (PROCESS, EXIT):
                (home / old).unlink(missing_ok=True)
            signs = job.kind == _SIGNING
            environment = child_environment(self._environment, signs=signs, keys=self.keys)
            self._processes[job.id] = spawn(home, job.folder, job.argv, environment)
        except (OSError, ConsoleError) as error:
            self._end(job.id, "failed", None, None, str(error))

    def _has_ended(self, row: sqlite3.Row) -> bool:
        """Conclude a job whose process has ended; end one that somebody stopped."""
        job_id, home = int(row["id"]), self._settings.runs / str(row["id"])
        process = self._processes.get(job_id) or read_process(home)
        if process is None:
            if self._clock() - (row["started_at"] or 0.0) < _START_S:
                return False
            self._start_again(job_id)
            return True
        self._processes[job_id] = process
        if is_alive(process):
            if row["stop_at"] is not None:
                self._escalate(process, job_id, self._clock() - row["stop_at"])
            return False
        code, ended_at = (found.code, found.ended_at) if (found := read_exit(home)) else (None, None)
        if code == 0:
            self._end(job_id, "done", code, ended_at, "")
        elif row["stop_at"] is not None:
            self._end(job_id, "stopped", code, ended_at, "stopped; resume goes on where it was")
        elif code is None:
            self._end(job_id, "interrupted", None, None, _INTERRUPTED[is_of_this_boot(process)])
        else:
            says = last_line(read_tail(home / LOG, 4000)) or f"its program ended with status {code}"
            self._end(job_id, "failed", code, ended_at, says)
        return True

    def _start_again(self, job_id: int) -> None:
        """Queue a job whose process an earlier console never started, or end it if somebody stopped it."""
        with self._database.write() as connection:
            if row_of(connection, job_id)["stop_at"] is None:
                update_row(connection, job_id, state="queued", started_at=None)
                return
        self._end(job_id, "stopped", None, None, "stopped before it began")

    def _escalate(self, process: Process, job_id: int, since_s: float) -> None:
        """Send a job that was stopped its next signal, if it is time."""
        due = 3 if self._grace_s <= 0 else min(int(since_s / self._grace_s) + 1, 3)
        sent = self._signalled.get(job_id, 0)
        if sent < due:
            self._signalled[job_id] = sent + 1
            send_signal(process, _SIGNALS[sent])

    def _end(self, job_id: int, state: State, code: int | None, ended_at: float | None, says: str) -> None:
        self._processes.pop(job_id, None)
        self._signalled.pop(job_id, None)
        size = folder_bytes(self._settings.runs / str(job_id))
        values = {"state": state, "exit_code": code, "says": says, "bytes": size, "acted": 0}
        with self._database.write() as connection:
            update_row(connection, job_id, ended_at=self._clock() if ended_at is None else ended_at, **values)
        if state == "done":
            with self._database.read() as rows:
                self._follow_up(job_of(row_of(rows, job_id)))

    def _follow_up(self, job: Job) -> None:
        """Call what follows a job that is done, in a thread of its own."""
        if job.id in self._acting:
            return
        if job.kind not in self._acts:
            with self._database.write() as connection:
                update_row(connection, job.id, acted=1)
            return
        thread = threading.Thread(target=self._act, args=(job,), name=f"job-{job.id}-done", daemon=True)
        self._acting[job.id] = thread
        thread.start()

    def _act(self, job: Job) -> None:
        says = job.says
        try:
            for act in self._acts[job.kind]:
                act(job)
        except FinesightError as error:
            says = str(error)
        except Exception:
            log.exception("what follows job %d failed", job.id)
            says = "it is done, but the console failed afterwards; its log says why"
        with self._database.write() as connection:
            values = {"acted": 1} if says == job.says else {"acted": 1, "says": says}
            update_row(connection, job.id, **values)
        self._acting.pop(job.id, None)
        with self._changed:
            self._changed.notify_all()
