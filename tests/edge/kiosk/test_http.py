"""Bodies of requests: bounded in size, time and memory."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request

from edge.errors import PictureError
from edge.kiosk import http
from edge.kiosk.http import Uploads


class Sender:
    """A client that sends its body piece by piece."""

    def __init__(self, *pieces, length=None):
        self.pieces = asyncio.Queue()
        for piece in pieces:
            self.send(piece)
        headers = [] if length is None else [(b"content-length", str(length).encode())]
        self.request = Request({"type": "http", "headers": headers}, self.pieces.get)

    def send(self, piece, *, more=True):
        self.pieces.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def end(self):
        self.send(b"", more=False)

    def leave(self):
        self.pieces.put_nowait({"type": "http.disconnect"})


def whole(*pieces, length=None):
    sender = Sender(*pieces, length=length)
    sender.end()
    return sender


async def reason_of(reading):
    with pytest.raises(PictureError) as refused:
        await reading
    return refused.value.reason


def test_body_is_returned_whole():
    async def read():
        return await Uploads().read(whole(b"ab", b"", b"cd").request, 4)

    assert asyncio.run(read()) == b"abcd"


@pytest.mark.parametrize("sender", [{"pieces": [b"abcde"]}, {"pieces": [b"ab", b"cde"]}, {"pieces": [], "length": 5}])
def test_too_long_body_is_refused(sender):
    async def read():
        return await reason_of(Uploads().read(whole(*sender["pieces"], length=sender.get("length")).request, 4))

    assert asyncio.run(read()) == "too_large"


def test_client_that_leaves_is_said():
    async def read():
        sender = Sender(b"ab")
        sender.leave()
        return await reason_of(Uploads().read(sender.request, 4))

    assert asyncio.run(read()) == "left"


def test_slow_body_is_refused_and_a_fast_one_gets_more_time(monkeypatch):
    monkeypatch.setattr(http, "_GRACE_S", 0.02)
    monkeypatch.setattr(http, "_MIN_BYTES_PER_S", 1)
    monkeypatch.setattr(http, "_BODY_TIMEOUT_S", 20.0)

    async def read():
        uploads, fast = Uploads(), Sender(bytes(100))  # worth 100 s
        reading = asyncio.create_task(uploads.read(fast.request, 1000))
        slow = await reason_of(uploads.read(Sender(b"").request, 1000))
        fast.end()
        return slow, len(await reading)

    assert asyncio.run(read()) == ("slow", 100)


def test_oldest_unfinished_body_gives_way():
    """Clients that stall with much memory keep nobody out."""

    async def read():
        uploads = Uploads(max_received_bytes=250)
        stalled = [Sender(bytes(100)), Sender(bytes(100))]
        readings = [asyncio.create_task(uploads.read(one.request, 100)) for one in stalled]
        for _ in range(20):  # until both have read what has come
            await asyncio.sleep(0)
        body = await uploads.read(whole(bytes(90)).request, 100)
        for one in stalled:
            one.send(b"")
            one.end()
        return len(body), await reason_of(readings[0]), len(await readings[1]), uploads._open

    assert asyncio.run(read()) == (90, "slow", 100, [])


def test_bodies_that_end_take_no_memory_of_others():
    async def read():
        uploads = Uploads(max_received_bytes=150)
        return [len(await uploads.read(whole(bytes(100)).request, 100)) for _ in range(5)]

    assert asyncio.run(read()) == [100] * 5
