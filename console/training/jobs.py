"""Jobs: child processes that train, evaluate, pack and publish. They outlive the console.

A job runs in its folder, so that relative paths of its command lie there. Its log and the state of its process are in
`settings.runs/<id>`. `supervisor` starts and ends the processes.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from console.access.audit import record
from console.settings import Settings
from console.storage.database import Database
from console.training.bundle_numbers import largest_sequence
from console.training.job import Job, job_of, row_of, update_row
from console.training.log_file import read_tail
from console.training.processes import LOG
from console.training.progress import estimate
from console.training.supervisor import GRACE_S, Act, Supervisor
from edge.errors import ConsoleError

__all__ = ["Job", "Jobs"]
_NEW = "new-"  # folders of jobs that are being prepared
_FORGOTTEN_S = 3600.0  # after which such a folder is deleted


class Jobs:
    """The jobs of a console. Any thread may use them."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        environment: Mapping[str, str] | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._settings, self._database, self._clock = settings, database, clock
        environment = os.environ if environment is None else environment
        self._supervisor = Supervisor(settings, database, clock, environment, grace_s)
        self._sequence, self._numbering = 0, threading.Lock()  # the last number that a bundle was promised

    # For handlers ----------------------------------------------------------------------------------------------------

    def start(
        self,
        kind: str,
        name: str,
        argv: Sequence[str],
        by: str,
        *,
        about: Mapping[str, Any] | None = None,
        heavy: bool = True,
        prepare: Callable[[Path], None] | None = None,
    ) -> Job:
        """Queue a job; it starts when its turn comes.

        Args:
            kind: such as learn.
            name: for people.
            argv: the command; its first part is a program. Relative paths are relative to the job's folder.
            by: name of the user.
            about: JSON that the job keeps; `sequence`: number of the bundle that it makes, see `next_sequence`.
            heavy: wait for other heavy jobs.
            prepare: writes what the command reads into the job's own folder, before the job exists. The folder is
                moved afterwards.

        Raises:
            ConsoleError: the folder cannot be written; or that of `prepare`.
        """
        runs = self._settings.runs
        new = runs / f"{_NEW}{secrets.token_hex(8)}"
        try:
            new.mkdir(parents=True)
            if prepare is not None:
                prepare(new)
            with self._database.write() as connection:
                now_s = self._clock()
                job_id = _free_id(connection, runs)
                home = self.home(job_id)
                about_json = json.dumps(dict(about or {}))
                values = (job_id, kind, name, json.dumps(list(argv)), str(home), heavy, by, about_json, now_s)
                connection.execute(
                    "INSERT INTO jobs(id, kind, name, argv, folder, heavy, state, by, about, created_at)"
                    " VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)", values,
                )  # fmt: skip
                record(connection, now_s, by, "job.start", f"job {job_id}", kind=kind, name=name, argv=list(argv))
                new.rename(home)
        except OSError as error:
            raise ConsoleError("storage", f"{runs}: cannot be written: {error.strerror}") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        self._supervisor.wake()
        return self.find(job_id)

    def find(self, job_id: int) -> Job:
        """Return a job.

        Raises:
            ConsoleError: there is none.
        """
        with self._database.read() as rows:
            row = row_of(rows, job_id)
        return self._with_progress(job_of(row))

    def listed(self, limit: int = 50, before: int | None = None) -> list[Job]:
        """Return the newest jobs, newest first; `before`: older than that id."""
        with self._database.read() as rows:
            found = rows.execute(
                "SELECT * FROM jobs WHERE id < ? ORDER BY id DESC LIMIT ?", (before or 2**53, limit)
            ).fetchall()
        return [self._with_progress(job_of(row)) for row in found]

    def stop(self, job_id: int, by: str = "") -> None:
        """End a job: SIGINT first, after a time SIGTERM, then SIGKILL. It can be resumed.

        Raises:
            ConsoleError: there is none, or it has ended.
        """
        with self._database.write() as connection:
            job = job_of(row_of(connection, job_id))
            if job.is_over:
                raise ConsoleError("conflict", f"job {job_id} has ended: it is {job.state}")
            now_s = self._clock()
            if job.state == "queued":
                update_row(connection, job_id, state="stopped", ended_at=now_s, says="stopped before it began")
            else:
                connection.execute("UPDATE jobs SET stop_at = coalesce(stop_at, ?) WHERE id = ?", (now_s, job_id))
            record(connection, now_s, by, "job.stop", f"job {job_id}")
        self._supervisor.wake()

    def resume(self, job_id: int, by: str = "") -> Job:
        """Queue a job that was stopped, failed or was interrupted, with the same command.

        Raises:
            ConsoleError: there is none, or it runs, waits, or is done.
        """
        with self._database.write() as connection:
            job = job_of(row_of(connection, job_id))
            if not job.is_over or job.state == "done":
                raise ConsoleError("conflict", f"job {job_id} cannot be resumed: it is {job.state}")
            update_row(connection, job_id, state="queued", ended_at=None, stop_at=None, exit_code=None, says="")
            record(connection, self._clock(), by, "job.resume", f"job {job_id}")
        self._supervisor.wake()
        return self.find(job_id)

    def delete(self, job_id: int, by: str = "") -> None:
        """Delete a job that has ended, with its folder.

        Raises:
            ConsoleError: there is none, or it has not ended.
        """
        with self._database.write() as connection:
            job = job_of(row_of(connection, job_id))
            if not job.is_over:
                raise ConsoleError("conflict", f"job {job_id} is {job.state}; stop it first")
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
            record(connection, self._clock(), by, "job.delete", f"job {job_id}", kind=job.kind, name=job.name)
        shutil.rmtree(self.home(job_id), ignore_errors=True)

    def home(self, job_id: int) -> Path:
        """Return the folder of a job, with its log; its command runs in it."""
        return self._settings.runs / str(job_id)

    def next_sequence(self) -> int:
        """Return a number for a bundle: above every one that is known or that a job was given, and never twice."""
        with self._numbering:
            with self._database.read() as rows:
                given = rows.execute("SELECT max(json_extract(about, '$.sequence')) FROM jobs").fetchone()[0]
            self._sequence = max(self._sequence, largest_sequence(self._settings), given or 0) + 1
            return self._sequence

    @property
    def keys(self) -> Path:
        """The folder of keys that jobs which sign get; without keys, an empty one where drafts are left."""
        return self._supervisor.keys

    def log_tail(self, job_id: int, most_bytes: int = 20_000) -> str:
        """Return the end of what a job printed; of a line that was written over, its last form."""
        return read_tail(self.home(job_id) / LOG, most_bytes)

    def wait(self, job_id: int, timeout_s: float) -> Job:
        """Wait until a job has ended and what follows it is done, or the time is over."""
        self._supervisor.wait(job_id, timeout_s)
        return self.find(job_id)

    # For whoever builds the console ----------------------------------------------------------------------------------

    def when_done(self, kind: str, act: Act) -> None:
        """Call `act` after a job of this kind ended well, in a thread; its error becomes what the job says.

        Call this before `run`. After a restart it may be called a second time for a job.
        """
        self._supervisor.when_done(kind, act)

    def run(self) -> None:
        """Start to look after the jobs, also those of an earlier console. Calling it again does nothing."""
        for left in self._settings.runs.glob(f"{_NEW}*"):
            if left.stat().st_mtime < time.time() - _FORGOTTEN_S:
                shutil.rmtree(left, ignore_errors=True)
        self._supervisor.run()

    def close(self) -> None:
        """Stop looking after jobs. They go on; a later console finds them."""
        self._supervisor.close()

    def _with_progress(self, job: Job) -> Job:
        if job.state != "running":
            return replace(job, progress=1.0) if job.state == "done" else job
        done, left_s, says = estimate(job, self.home(job.id), self._clock())
        return replace(job, progress=done, left_s=left_s, says=says)


def _free_id(connection: sqlite3.Connection, runs: Path) -> int:
    """Return an id that no job had, and that no folder has: of a console that was killed, or an older database."""
    last = connection.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'jobs'").fetchone()[0] or 0
    folders = (int(one.name) for one in runs.iterdir() if re.fullmatch("[0-9]{1,15}", one.name))
    return 1 + max([last, *folders])
