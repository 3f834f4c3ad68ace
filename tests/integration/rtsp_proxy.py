"""A bad network to a camera: a TCP proxy before an RTSP server that damages the stream on demand."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable

Harm = Callable[[bytes, bytes, random.Random], bytes]  # head and packet of RTP over TCP -> what is sent instead

_SENDER_REPORT = 200


def cut_short(head: bytes, packet: bytes, _chance: random.Random) -> bytes:
    """Half of the packet, with a header of the right length."""
    half = packet[: max(1, len(packet) // 2)]
    return head[:2] + struct.pack(">H", len(half)) + half


def garble(head: bytes, packet: bytes, chance: random.Random) -> bytes:
    """A packet with its RTP header and noise."""
    return head + packet[:12] + chance.randbytes(max(0, len(packet) - 12))


def garble_some(head: bytes, packet: bytes, chance: random.Random) -> bytes:
    """A few wrong bytes in one packet of three."""
    harmed = bytearray(packet)
    if chance.random() < 1 / 3:
        for _ in range(4):
            harmed[chance.randrange(len(packet))] = chance.randrange(256)
    return head + bytes(harmed)


def break_off(head: bytes, packet: bytes, _chance: random.Random) -> bytes:
    """Half of the packet, and a header that promises all of it: everything after it is misplaced."""
    return head + packet[: len(packet) // 2]


def clock_ahead(seconds: int) -> Harm:
    """Sender reports (RFC 3550 6.4.1) of a camera whose clock is ahead; all else is passed on."""

    def harm(head: bytes, packet: bytes, _chance: random.Random) -> bytes:
        if len(packet) >= 28 and packet[1] == _SENDER_REPORT:
            (ntp_s,) = struct.unpack_from(">I", packet, 8)
            packet = packet[:8] + struct.pack(">I", (ntp_s + seconds) % 2**32) + packet[12:]
        return head + packet

    return harm


class RtspProxy:
    """Forwards connections to a server on loopback, and damages what the server sends when a test asks for it."""

    def __init__(self, server_port: int) -> None:
        self.whole_again = threading.Event()
        self._flows = threading.Event()
        self._flows.set()
        self._harm: Harm | None = None
        self._left = 0  # packets to harm
        self._chance = random.Random(7)
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_exception: object) -> None:
        for connection in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def do_harm(self, harm: Harm, packets: int) -> None:
        """Harm the next packets of whatever connections there are; `whole_again` tells when that is over."""
        self.whole_again.clear()
        self._left, self._harm = packets, harm

    def hold_back(self, seconds: float) -> None:
        """Send nothing on for some time, then all that has come meanwhile at once, as a congested network does."""
        self._flows.clear()
        threading.Timer(seconds, self._flows.set).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._open += [client, server]
                threading.Thread(target=self._carry, args=(client, server, self._asked), daemon=True).start()
                threading.Thread(target=self._carry, args=(server, client, self._answered), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, turn: Callable[[bytearray], bytes]) -> None:
        pending = bytearray()
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                pending += data
                self._flows.wait()
                sink.sendall(turn(pending))
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _asked(pending: bytearray) -> bytes:
        data = bytes(pending)
        pending.clear()
        return data

    def _answered(self, pending: bytearray) -> bytes:
        """What may be sent on of what has come: whole packets, and text in between."""
        ready = b""
        while pending:
            if pending[0] != ord("$"):
                text = pending.find(b"$") if b"$" in pending else len(pending)
                ready += bytes(pending[:text])
                del pending[:text]
                continue
            if len(pending) < 4:
                break
            (length,) = struct.unpack_from(">H", pending, 2)
            if len(pending) < 4 + length:
                break
            head, packet = bytes(pending[:4]), bytes(pending[4 : 4 + length])
            del pending[: 4 + length]
            ready += self._passed_on(head, packet)
        return ready

    def _passed_on(self, head: bytes, packet: bytes) -> bytes:
        if self._harm is None:
            return head + packet
        sent = self._harm(head, packet, self._chance)
        self._left -= 1
        if self._left == 0:
            self._harm = None
            self.whole_again.set()
        return sent
