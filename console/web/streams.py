"""Streams of events to browsers (server-sent events).

Rules this module keeps:
1. Each stream has a thread of its own, so that many of them keep no other request waiting.
2. When the browser leaves or the server stops, the answer ends at once, and the iterator is closed as soon as it
   returns. A browser that reads slowly is waited for.
3. A session has few streams; the server has a bounded number of threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

from starlette.responses import Response

from console.web.routing import Event
from edge.errors import ConsoleError

log = logging.getLogger(__name__)

MOST_OF_A_SESSION = 8
_MOST_THREADS = 100
_AHEAD = 16  # events that wait for a slow browser


class Streams:
    """The open streams of a server. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()  # by session
        self._responses: set[EventStream] = set()
        self._threads = 0

    def open(self, session: str, events: Iterator[Event | None]) -> EventStream:
        """Return the response that streams events.

        Raises:
            ConsoleError: the session has too many streams, or all of them together are.
        """
        with self._lock:
            refusal = None
            if self._open[session] >= MOST_OF_A_SESSION:
                refusal = ConsoleError("limited", f"{MOST_OF_A_SESSION} pages of yours are open; close some")
            elif self._threads >= _MOST_THREADS:
                refusal = ConsoleError("busy", "too many pages are open; try again in a minute")
            if refusal is None:
                self._open[session] += 1
                self._threads += 1
                stream = EventStream(self, session, events)
                self._responses.add(stream)
                return stream
        close_iterator(events)
        raise refusal

    def end_all(self) -> None:
        """End all streams: the server stops."""
        with self._lock:
            responses = list(self._responses)
        for one in responses:
            one.end()

    def open_streams(self) -> int:
        """Return how many browsers listen."""
        with self._lock:
            return sum(self._open.values())

    def forget(self, stream: EventStream) -> None:
        """Count a stream no longer: its browser left."""
        with self._lock:
            if stream in self._responses:
                self._responses.discard(stream)
                self._open[stream.session] -= 1
                self._open += Counter()  # without zeros

    def forget_thread(self) -> None:
        """Count a thread no longer."""
        with self._lock:
            self._threads -= 1


class EventStream(Response):
    """Streams events until the iterator ends, the browser leaves, or the server stops."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, session: str, events: Iterator[Event | None]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.session, self._streams, self._events = session, streams, events
        self._credit, self._ended = threading.Semaphore(_AHEAD), threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        self._loop = asyncio.get_running_loop()
        try:
            threading.Thread(target=self._pump, name="console-events", daemon=True).start()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] != "HEAD":
                await self._send_events(receive, send)
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._ended.set()
            self._credit.release()
            self._streams.forget(self)

    def end(self) -> None:
        """End the answer, from any thread."""
        self._ended.set()
        self._emit(None)

    async def _send_events(self, receive: Any, send: Any) -> None:
        left = asyncio.ensure_future(_left(receive))
        getting = asyncio.ensure_future(self._queue.get())
        try:
            while True:
                await asyncio.wait({getting, left}, return_when=asyncio.FIRST_COMPLETED)
                if left.done() or (text := getting.result()) is None:
                    return
                await send({"type": "http.response.body", "body": text, "more_body": True})
                self._credit.release()
                getting = asyncio.ensure_future(self._queue.get())
        finally:
            left.cancel()
            getting.cancel()

    def _pump(self) -> None:
        try:
            for event in self._events:
                if self._ended.is_set():
                    break
                self._emit(event_text(event).encode())
                self._credit.acquire()
                if self._ended.is_set():
                    break
        except Exception:  # the answer has begun: nothing can be told
            log.exception("a stream of events failed")
        finally:
            close_iterator(self._events)
            self._emit(None)
            self._streams.forget_thread()

    def _emit(self, text: bytes | None) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the server has stopped
                self._loop.call_soon_threadsafe(self._queue.put_nowait, text)


def close_iterator(events: Iterator[Event | None]) -> None:
    """Close an iterator that has something to close, such as a generator."""
    close = getattr(events, "close", None)
    if close is not None:
        try:
            close()
        except Exception:
            log.exception("a stream of events failed as it was closed")


def event_text(event: Event | None) -> str:
    """Return an event as it is sent."""
    if event is None:
        return ": alive\n\n"
    lines = "".join(f"data: {line}\n" for line in event.data.splitlines() or [""])
    return f"event: {event.name}\n{lines}\n"


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
