"""Counts the bytes at the sockets of a server, both directions, headers included."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Wire:
    """Bytes at the sockets of a server."""

    def __init__(self) -> None:
        self.received = self.sent = 0
        self.paths: list[str] = []  # of the requests
        self.last_byte_at = 0.0  # Unix seconds
        self.lock = threading.Lock()

    def snapshot(self) -> tuple[int, int, int]:
        """Return requests, and bytes to and from the server."""
        with self.lock:
            return len(self.paths), self.received, self.sent


@contextmanager
def counting(server: Any) -> Iterator[Wire]:
    """Count the bytes of a server's connections, and note when it sent an object's last one."""
    wire = Wire()

    class Counted(socket.socket):
        is_object = False

        def recv_into(self, *arguments: Any, **more: Any) -> int:
            count = super().recv_into(*arguments, **more)
            with wire.lock:
                wire.received += count
                text = bytes(arguments[0][:count])
                if text.startswith(b"GET "):
                    wire.paths.append(text.split(b" ", 2)[1].decode())
                    self.is_object = wire.paths[-1].startswith("/objects/")
            return count

        def send(self, data: Any, *more: Any) -> int:
            count = super().send(data, *more)
            self._note(count)
            return count

        def sendall(self, data: Any, *more: Any) -> None:
            super().sendall(data, *more)
            self._note(len(data))

        def _note(self, count: int) -> None:
            with wire.lock:
                wire.sent += count
                if self.is_object:
                    wire.last_byte_at = time.time()

    accept = server.get_request

    def get_request() -> tuple[socket.socket, Any]:
        found, address = accept()
        return Counted(found.family, found.type, found.proto, fileno=found.detach()), address

    server.get_request = get_request
    try:
        yield wire
    finally:
        server.get_request = accept
