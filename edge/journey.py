"""How long events take from the picture to the broker's acknowledgement, waiting for a broker that is away included."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from edge.health import StageTimer

STAGE = "capture_to_publish"
_MOST = 4096  # events under way; of an outage, the latest


class Journeys:
    """Events on their way; begun on the frame loop, ended on the publisher's thread."""

    def __init__(self, timer: StageTimer, clock_ns: Callable[[], int]) -> None:
        self._timer, self._clock_ns = timer, clock_ns
        self._lock = threading.Lock()
        self._captured_ns: OrderedDict[str, int] = OrderedDict()  # by event

    def begin(self, event_id: str, captured_ns: int) -> None:
        """Expect an event of a picture that was captured then."""
        with self._lock:
            self._captured_ns[event_id] = captured_ns
            if len(self._captured_ns) > _MOST:
                self._captured_ns.popitem(last=False)

    def end(self, event_ids: Iterable[str]) -> None:
        """Measure events that the broker has acknowledged."""
        now_ns = self._clock_ns()
        with self._lock:
            began = [self._captured_ns.pop(event_id, None) for event_id in event_ids]
        for captured_ns in began:
            if captured_ns is not None:
                self._timer.add({STAGE: (now_ns - captured_ns) / 1e6})
