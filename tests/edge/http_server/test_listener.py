"""Which connections an HTTP server closes."""

from __future__ import annotations

import contextlib
import socket

import pytest

from edge.http_server.listener import KEEP_ALIVE_S, MAX_OPEN, WAIT_S, HttpListener
from edge.telemetry.counters import Counters


class Door:
    """A listener with a clock of its own, and clients at addresses of loopback."""

    def __init__(self):
        self.now_s = 0.0
        self.counters = Counters()
        self.listener = HttpListener("127.0.0.1", 0, "kiosk", self.counters, busy_s=60.0, clock=lambda: self.now_s)
        self.open = [self.listener]

    def connect(self, address="127.0.0.1"):
        """A client, and the server's side of its connection."""
        client = socket.create_connection(("127.0.0.1", self.listener.port), 5, (address, 0))
        self.open.append(client)
        client.send(b"G")  # the kernel keeps a connection back until its first byte; one byte is no request
        try:
            served, _ = self.listener.accept()
        except ConnectionAbortedError:
            return client, None
        self.open.append(served)
        self.now_s += 0.001
        return client, served

    def closed(self, reason):
        return self.counters.total("connections_closed", server="kiosk", reason=reason)


def is_cut(client):
    client.settimeout(0.001)
    try:
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:  # there was a byte that nobody had read
        return True


@pytest.fixture
def door():
    door = Door()
    yield door
    for one in door.open:
        one.close()


def test_silent_connection_is_closed_after_a_while(door):
    client, _ = door.connect()
    door.now_s = WAIT_S - 0.01
    door.listener.close_overdue()
    assert not is_cut(client)
    door.now_s = WAIT_S + 0.01
    door.listener.close_overdue()
    assert is_cut(client)
    assert door.closed("slow") == 1


def test_answered_connection_may_wait_for_its_next_request(door):
    client, _ = door.connect()
    with door.listener.answering(client.getsockname()):
        door.now_s = 50.0
        door.listener.close_overdue()
    door.now_s = 50.0 + KEEP_ALIVE_S - 0.1
    door.listener.close_overdue()
    assert not is_cut(client)
    door.now_s += 0.2
    door.listener.close_overdue()
    assert is_cut(client)


def test_answer_that_never_ends_is_cut(door):
    client, _ = door.connect()
    with door.listener.answering(client.getsockname()):
        door.now_s = 61.0
        door.listener.close_overdue()
    assert is_cut(client)


def test_oldest_silent_connection_makes_room(door):
    clients = [door.connect()[0] for _ in range(MAX_OPEN)]
    with door.listener.answering(clients[0].getsockname()):
        newest, served = door.connect()
    assert served is not None
    assert [is_cut(client) for client in clients[:3]] == [False, True, False]
    assert not is_cut(newest)
    assert (door.closed("evicted"), door.listener.open_connections()) == (1, MAX_OPEN)


def test_client_with_most_silent_connections_gives_way(door):
    honest = door.connect("127.0.0.2")[0]
    clients = [door.connect()[0] for _ in range(MAX_OPEN + 20)]
    assert not is_cut(honest)
    assert sum(is_cut(client) for client in clients) == 21


def test_new_connection_is_closed_if_all_are_busy(door, caplog):
    clients = [door.connect()[0] for _ in range(MAX_OPEN)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(door.listener.answering(client.getsockname()))
        for _ in range(2):
            newest, served = door.connect()
            assert served is None
            assert is_cut(newest)
    assert not any(is_cut(client) for client in clients)
    assert door.closed("full") == 2
    assert [record.message for record in caplog.records] == [
        "kiosk: 64 connections are open; those that send no request are closed"
    ]


def test_closed_connections_take_no_room(door):
    for _ in range(3 * MAX_OPEN):
        client, served = door.connect()
        client.close()
        served.close()
    assert door.closed("evicted") == door.closed("full") == 0
    door.listener.close_overdue()
    assert door.listener.open_connections() == 0


def test_ipv6_address_can_be_listened_on():
    with (
        HttpListener("::1", 0, "kiosk", Counters()) as listener,
        socket.create_connection(("::1", listener.port), 5) as client,
    ):
        client.send(b"G")
        served, address = listener.accept()
        served.close()
        assert address[0] == "::1"
