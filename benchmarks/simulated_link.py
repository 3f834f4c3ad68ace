"""The connection of a simulated device to its broker: MQTT 3.1.1, as much as a device needs, thousands in a process."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _PING, _DISCONNECT = 1, 2, 3, 4, 8, 12, 14


def _text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def _packet(kind: int, flags: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = rest >> 7, rest & 127
        length.append(digit | (128 if rest else 0))
        if not rest:
            return bytes([kind << 4 | flags]) + bytes(length) + body


class Link(asyncio.Protocol):
    """One connection to the broker."""

    def __init__(self, hello: bytes, topics: list[str], on_message: Callable[[str, bytes], None]) -> None:
        self._hello, self._topics, self._on_message = hello, topics, on_message
        self._buffer = b""
        self._number = 0
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        self._transport = transport  # type: ignore[assignment]
        self._write(self._hello)

    def data_received(self, data: bytes) -> None:
        """Handle the packets that are complete."""
        self._buffer += data
        while (packet := self._next()) is not None:
            self._take(*packet)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was
        """Wake whoever waits."""
        for future in (self.ready, self.lost):
            if not future.done():
                future.set_result(None)

    @property
    def is_open(self) -> bool:
        """Whether messages reach the broker."""
        return self.ready.done() and not self.lost.done()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a retained message at QoS 1; nobody waits for the answer."""
        self._write(_packet(_PUBLISH, 0b0011, _text(topic) + struct.pack(">H", self._next_number()) + payload))

    def ping(self) -> None:
        """Keep the connection alive."""
        self._write(_packet(_PING, 0, b""))

    def close(self, *, farewell: bool) -> None:
        """End the connection; without a farewell, the broker publishes the will."""
        if self._transport is not None:
            if farewell:
                self._write(_packet(_DISCONNECT, 0, b""))
                self._transport.close()
            else:
                self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _next_number(self) -> int:
        self._number = self._number % 65_535 + 1
        return self._number

    def _next(self) -> tuple[int, int, bytes] | None:
        length, shift, at = 0, 0, 1
        while True:
            if len(self._buffer) <= at:
                return None
            digit = self._buffer[at]
            length, shift, at = length | (digit & 127) << shift, shift + 7, at + 1
            if digit < 128:
                break
        if len(self._buffer) < at + length:
            return None
        first, body = self._buffer[0], self._buffer[at : at + length]
        self._buffer = self._buffer[at + length :]
        return first >> 4, first & 15, body

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _CONNACK:
            if body[1]:
                raise SystemExit(f"the broker refused a device: {body[1]}")
            topics = b"".join(_text(topic) + b"\1" for topic in self._topics)
            self._write(_packet(_SUBSCRIBE, 2, struct.pack(">H", self._next_number()) + topics))
            self.ready.set_result(None)
        elif kind == _PUBLISH:
            end = 2 + struct.unpack(">H", body[:2])[0]
            topic, qos = body[2:end].decode(), flags >> 1 & 3
            if qos:
                self._write(_packet(_PUBACK, 0, body[end : end + 2]))
            self._on_message(topic, body[end + 2 if qos else end :])


def hello(client_id: str, username: str, password: str, will_topic: str, keepalive_s: int) -> bytes:
    """Return CONNECT, with a retained will."""
    flags = 0b1110_1110  # username, password, will: retained at QoS 1, clean session
    body = _text("MQTT") + bytes([4, flags]) + struct.pack(">H", keepalive_s)
    return _packet(_CONNECT, 0, body + b"".join(map(_text, (client_id, will_topic, b"offline", username, password))))
