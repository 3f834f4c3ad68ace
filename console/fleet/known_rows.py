"""The rows of all devices, read in a thread: what waves and gates are counted from. Nobody waits for it.

Rules this module keeps:
1. A page gets what was read last, at once, and how old it is. Reading begins when somebody looks and it is old.
2. One thread reads at a time. A large fleet is read less often: at most a third of the time is spent reading.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from console.fleet.reader import FleetReader
from edge.errors import ConsoleError
from gallery_sync.fleet_client.client import Rows

log = logging.getLogger(__name__)

MOST_DEVICES = 20_000
_FRESH_S, _TIMES_AS_LONG = 1.8, 3.0
_LATER_S = 0.3  # so that it does not slow down the page that shows what is known


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of all devices."""

    rows: Rows | None = None  # None: nothing yet
    age_s: float = 0.0
    problem: str = ""  # why the newest try to read them failed


class KnownRows:
    """Keeps the rows of all devices."""

    def __init__(
        self,
        reader: FleetReader,
        then: Callable[[Rows], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            reader: of the fleet's server.
            then: called in the thread that reads, with what it read, before anybody sees it.
            clock: monotonic seconds.
        """
        self._reader, self._then, self._clock = reader, then, clock
        self._changed = threading.Condition()
        self._rows: Rows | None = None
        self._read_at, self._took_s, self._problem = 0.0, 0.0, ""
        self._has_tried, self._is_reading = False, False

    def get(self, wait_s: float = 0.0) -> Known:
        """Return what is known, and see to it that it stays new.

        Args:
            wait_s: longest wait where nothing is known yet.
        """
        if not self._reader.is_given:
            return Known(problem="no fleet server is given, so nothing is known of devices; see --fleet")
        with self._changed:
            age_s = self._clock() - self._read_at
            if not self._is_reading and (not self._has_tried or age_s > max(_FRESH_S, _TIMES_AS_LONG * self._took_s)):
                self._is_reading = True
                reading = threading.Timer(0.0 if wait_s else _LATER_S, self._read)
                reading.name, reading.daemon = "fleet-rows", True
                reading.start()
            if wait_s and not self._has_tried:
                self._changed.wait_for(lambda: self._has_tried, wait_s)
            return Known(self._rows, max(self._clock() - self._read_at, 0.0), self._problem)

    def _read(self) -> None:
        started, rows, problem = self._clock(), None, ""
        try:
            rows = self._reader.all_rows(MOST_DEVICES)
            self._then(rows)
        except ConsoleError as error:
            problem = str(error)
        except Exception:
            log.exception("the devices of the fleet cannot be read")
            problem = "the console failed to read the devices; its log says why"
        with self._changed:
            self._rows, self._problem = rows if rows is not None else self._rows, problem
            self._read_at, self._took_s = self._clock(), self._clock() - started
            self._has_tried, self._is_reading = True, False
            self._changed.notify_all()
