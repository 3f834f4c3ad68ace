"""Tasks: work in a thread, one at a time for each key, with a progress that pages show.

Rules this module keeps:
1. A task is forgotten with the process. What it does must be safe to begin again: it skips what is done.
2. A task that fails keeps its error until the next one of its key; it stops nothing else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from edge.errors import FinesightError

log = logging.getLogger(__name__)

_MOST_ENDED = 50  # that are remembered
_STOP_S = 10.0


class StoppedError(Exception):
    """Raised inside a task that somebody stopped."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is known of one task."""

    key: str  # such as propose/3
    name: str  # for people, such as "Naming 1,200 crops"
    state: Literal["running", "done", "failed", "stopped"] = "running"
    done: int = 0
    total: int = 0  # 0: not known yet
    says: str = ""  # the result, or the error


Progress = Callable[[int, int], None]  # done and total; raises StoppedError when the task is to end
Work = Callable[[Progress], str]  # returns the result in one sentence


class Tasks:
    """The tasks of a console."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks: dict[str, Task] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._stopping: set[str] = set()

    def start(self, key: str, name: str, work: Work) -> Task:
        """Start a task; one of the same key that runs already goes on instead."""
        with self._lock:
            known = self._tasks.pop(key, None)
            if known is not None and known.state == "running":
                self._tasks[key] = known
                return known
            task = self._tasks[key] = Task(key, name)
            self._stopping.discard(key)
            for old in [one for one in self._tasks.values() if one.state != "running"][:-_MOST_ENDED]:
                del self._tasks[old.key]
            thread = self._threads[key] = threading.Thread(target=self._run, args=(key, work), name=key, daemon=True)
            thread.start()
        return task

    def find(self, key: str) -> Task | None:
        """Return the newest task of a key."""
        with self._lock:
            return self._tasks.get(key)

    def listed(self) -> list[Task]:
        """Return the tasks that run, and the last ones that ended; newest last."""
        with self._lock:
            return list(self._tasks.values())

    def stop(self, key: str) -> None:
        """Ask a task to end; it does so at its next progress."""
        with self._lock:
            self._stopping.add(key)

    def wait(self, key: str, timeout_s: float) -> Task | None:
        """Wait until a task has ended, or the time is over."""
        with self._lock:
            thread = self._threads.get(key)
        if thread is not None:
            thread.join(timeout_s)
        return self.find(key)

    def close(self) -> None:
        """Ask all tasks to end, and wait for them a short time."""
        with self._lock:
            self._stopping |= self._tasks.keys()
            threads = list(self._threads.values())
        for thread in threads:
            thread.join(_STOP_S)

    def _run(self, key: str, work: Work) -> None:
        def progress(done: int, total: int) -> None:
            with self._lock:
                if key in self._stopping:
                    raise StoppedError
                self._tasks[key] = replace(self._tasks[key], done=done, total=total)

        try:
            says = work(progress)
        except StoppedError:
            self._end(key, "stopped", "stopped; start it again to go on")
        except FinesightError as error:
            self._end(key, "failed", str(error))
        except Exception:
            log.exception("task %s failed", key)
            self._end(key, "failed", "the console failed; its log says why")
        else:
            self._end(key, "done", says)

    def _end(self, key: str, state: Literal["done", "failed", "stopped"], says: str) -> None:
        with self._lock:
            self._tasks[key] = replace(self._tasks[key], state=state, says=says)
            self._threads.pop(key, None)
