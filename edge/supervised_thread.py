"""A thread whose unexpected exceptions are logged, counted and answered with a restart.

Rules this module keeps:
1. A target that returns has done its work: its thread ends.
2. A target that raises is called again after a back-off that doubles from 1 to 60 s. One run of 60 s resets it.
3. The first exception of a type and place is logged with its traceback; later ones like it are only counted.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from edge.types import Counts

log = logging.getLogger(__name__)

_MIN_BACKOFF_S, _MAX_BACKOFF_S = 1.0, 60.0


class SupervisedThread:
    """A daemon thread that survives its own bugs: `thread.start()`, and in the end `thread.stop()`."""

    def __init__(
        self,
        name: str,
        target: Callable[[], object],
        counter: Counts,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        """Prepare; `start` starts the thread.

        Args:
            name: of the thread, also the label of its count.
            target: called in the thread; returns when its owner wants it to end.
            counter: counts `thread_restarts`, by thread.
            clock: monotonic seconds.
            wait: waits for some seconds; returns True at once if the thread must stop.
        """
        self.name = name
        self._target, self._counter, self._clock = target, counter, clock
        self._stop = threading.Event()
        self._wait = wait or self._stop.wait
        self._seen: set[tuple[str, str]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> bool:
        """Stop restarting, and wait for the thread; return whether it ended in time.

        The target must have been told to return before. A thread that never started counts as ended.
        """
        self._stop.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def is_alive(self) -> bool:
        """Return whether the thread runs, or waits to call its target again."""
        return self._thread.is_alive()

    def _run(self) -> None:
        backoff_s = _MIN_BACKOFF_S
        while True:
            started_s = self._clock()
            try:
                self._target()
            except (Exception, SystemExit) as error:  # a library that calls sys.exit would end the thread in silence
                if self._stop.is_set():
                    log.debug("thread %s: failed while it stopped", self.name, exc_info=True)
                    return
                if self._clock() - started_s >= _MAX_BACKOFF_S:
                    backoff_s = _MIN_BACKOFF_S
                self._report(error, backoff_s)
            else:
                return
            if self._wait(backoff_s):
                return
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)

    def _report(self, error: BaseException, backoff_s: float) -> None:
        place = _place(error)
        self._counter.add("thread_restarts", thread=self.name)
        is_new = (type(error).__name__, place) not in self._seen
        self._seen.add((type(error).__name__, place))
        log.log(
            logging.ERROR if is_new else logging.DEBUG,
            "thread %s: %s at %s: %s; restarting in %.0f s",
            self.name,
            type(error).__name__,
            place,
            error,
            backoff_s,
            exc_info=error if is_new else None,
        )


def _place(error: BaseException) -> str:
    """Return file and line that raised an exception."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
