"""The listening socket of an HTTP server, which closes connections that are held and not used.

Rules this module keeps:
1. A connection waits until a whole request head has arrived; it is busy until the answer is given; then it waits again.
2. A connection may wait for WAIT_S, however many bytes trickle in. After an answer, it may wait for KEEP_ALIVE_S.
3. At MAX_OPEN connections, a new one takes the place of the one that has waited longest: of the client address that
   holds most, if that is more than FAIR_SHARE. If all are busy, the new one is closed.
4. What this module closes is counted, and a full server is logged once a minute.

Both servers use it: asyncio and socketserver take connections from a listening socket with `accept`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

from edge.types import Counts

log = logging.getLogger(__name__)

MAX_OPEN = 64
FAIR_SHARE = 8  # connections of a browser
WAIT_S = 10.0  # for the head of a request, and for the TLS handshake before it
KEEP_ALIVE_S = 30.0  # for the next request; the answer may still be on its way to a slow client
_DEFER_S = 3
_QUEUED = 256  # by the kernel, until they are accepted
_LOG_INTERVAL_S = 60.0


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    address: str
    deadline_s: float
    waits_since_s: float | None  # None: busy


class HttpListener(socket.socket):
    """A listening TCP socket that knows its connections; `close_overdue` must be called every second or so."""

    def __init__(
        self,
        host: str,
        port: int,
        server: str,
        counts: Counts,
        *,
        busy_s: float = inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Listen.

        Args:
            host: address or name to listen on.
            port: 0: any free one.
            server: its name, for the log and as a label of the counts.
            counts: counts `connections_closed`.
            busy_s: the longest time to answer one request.
            clock: monotonic seconds.

        Raises:
            OSError: the address cannot be listened on.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # asyncio disables Nagle's delay of 40 ms only if the protocol is named
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._server, self._counts, self._busy_s, self._clock = server, counts, busy_s, clock
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], _Connection] = {}  # by the client's address and port
        self._logged_s = -inf
        try:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # the kernel keeps a connection back until its first bytes arrive, so that a whole request is read at once
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _DEFER_S)
            self.bind((host, port))
            self.listen()  # connections wait until somebody accepts them
        except OSError:
            self.close()
            raise
        self.port: int = self.getsockname()[1]

    def listen(self, _: int = 0) -> None:
        """Queue many connections in the kernel, however few the server takes at once."""
        super().listen(_QUEUED)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and make room for it.

        Raises:
            ConnectionAbortedError: all connections are busy; the new one is closed.
            OSError: no connection can be accepted.
        """
        connection, address = super().accept()
        with self._lock:
            if not self._has_room():
                connection.close()
                raise ConnectionAbortedError(f"{self._server}: {MAX_OPEN} connections are busy")
            now_s = self._clock()
            self._open[address[:2]] = _Connection(connection, address[0], now_s + WAIT_S, now_s)
        return connection, address

    @contextlib.contextmanager
    def answering(self, client: tuple[str, int]) -> Iterator[None]:
        """Mark the connection of a client, its address and port, as busy."""
        self._mark(client, self._busy_s, is_busy=True)
        try:
            yield
        finally:
            self._mark(client, KEEP_ALIVE_S, is_busy=False)

    def close_overdue(self) -> None:
        """Close the connections that have waited, or were busy, for too long."""
        now_s = self._clock()
        with self._lock:
            for client, connection in list(self._open.items()):
                if connection.socket.fileno() < 0:
                    del self._open[client]
                elif now_s >= connection.deadline_s:
                    self._cut(client, "slow")

    def open_connections(self) -> int:
        """Return how many connections are open."""
        with self._lock:
            self._forget_closed()
            return len(self._open)

    def count_left(self) -> None:
        """Count a client that left before it was answered."""
        self._counts.add("connections_closed", server=self._server, reason="left")

    def _mark(self, client: tuple[str, int], allowed_s: float, *, is_busy: bool) -> None:
        with self._lock:
            if (connection := self._open.get(client)) is not None:
                now_s = self._clock()
                connection.deadline_s = now_s + allowed_s
                connection.waits_since_s = None if is_busy else now_s

    def _has_room(self) -> bool:
        if len(self._open) < MAX_OPEN:
            return True
        self._forget_closed()
        if len(self._open) < MAX_OPEN:
            return True
        if self._clock() - self._logged_s >= _LOG_INTERVAL_S:
            self._logged_s = self._clock()
            log.warning("%s: %d connections are open; those that send no request are closed", self._server, MAX_OPEN)
        held = Counter(one.address for one in self._open.values() if one.waits_since_s is not None)
        if not held:
            self._counts.add("connections_closed", server=self._server, reason="full")
            return False
        waiting = [
            (-max(held[one.address], FAIR_SHARE), one.waits_since_s, client)
            for client, one in self._open.items()
            if one.waits_since_s is not None
        ]
        self._cut(min(waiting)[2], "evicted")
        return True

    def _forget_closed(self) -> None:
        self._open = {client: one for client, one in self._open.items() if one.socket.fileno() >= 0}

    def _cut(self, client: tuple[str, int], reason: str) -> None:
        """End a connection under its server, which then closes it."""
        connection = self._open.pop(client)
        with contextlib.suppress(OSError):  # the client was faster
            connection.socket.shutdown(socket.SHUT_RDWR)
        self._counts.add("connections_closed", server=self._server, reason=reason)
        log.debug("%s: closed a connection of %s: %s", self._server, connection.address, reason)
