"""Streams of events: they end with the browser and with the server, and are few."""

from __future__ import annotations

import http.client
import threading
import time
from urllib.parse import urlsplit

import pytest

from console.web.routing import Event, Events, Values, api
from console.web.streams import MOST_OF_A_SESSION, event_text
from tests.console.web.web_samples import console
from tests.console_samples import TOKEN
from tests.waiting import until


class Source:
    """Events that a test sends, and how many streams of them are open."""

    def __init__(self):
        self.open, self.more = 0, threading.Condition()
        self.texts = []

    def say(self, text):
        with self.more:
            self.texts.append(text)
            self.more.notify_all()

    def events(self):
        self.open += 1
        sent = 0
        try:
            while True:
                with self.more:
                    is_new = len(self.texts) > sent or self.more.wait(0.05)
                if not is_new or len(self.texts) == sent:
                    yield None
                    continue
                sent += 1
                yield Event("said", self.texts[sent - 1])
        finally:
            self.open -= 1


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def client(tmp_path, source):
    def broken():
        yield Event("said", "1")
        raise ZeroDivisionError("a bug")

    routes = (
        api("GET", "/events", "viewer", lambda _: Events(source.events()), "", media="text/event-stream"),
        api("GET", "/broken", "viewer", lambda _: Events(broken()), "", media="text/event-stream"),
        api("GET", "/two", "viewer", lambda _: Events(iter([Event("said", "1\n2"), None])), ""),
        api("GET", "/quick", "viewer", lambda _: Values({}), ""),
    )
    with console(tmp_path, routes) as running:
        yield running


class Listening:
    """A browser that reads a stream."""

    def __init__(self, client, method="GET"):
        where = urlsplit(client.url)
        self.connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        self.connection.request(method, "/api/v1/events", headers={"Authorization": f"Bearer {TOKEN}"})
        self.answer = self.connection.getresponse()

    def line(self):
        """Return the next line that says something."""
        while (line := self.answer.readline()) in (b"\n", b": alive\n"):
            pass
        return line

    def leave(self):
        self.answer.close()
        self.connection.close()


def test_events_arrive_as_they_happen(client, source):
    browser = Listening(client)
    assert browser.answer.headers["content-type"].startswith("text/event-stream")
    for text in ("one", "two"):
        source.say(text)
        assert browser.line() == b"event: said\n"
        assert browser.line() == f"data: {text}\n".encode()
    browser.leave()


def test_browser_that_leaves_closes_the_iterator(client, source):
    browser = Listening(client)
    until(lambda: source.open == 1, "the streams stay")
    browser.leave()
    until(lambda: source.open == 0, "the streams stay")


def test_stream_that_ends_ends_the_answer(client):
    reply = client.get("/api/v1/two")
    assert reply.text == "event: said\ndata: 1\ndata: 2\n\n: alive\n\n"


def test_failing_stream_is_logged_and_ends(client, caplog):
    assert client.get("/api/v1/broken").text == "event: said\ndata: 1\n\n"
    until(lambda: len(caplog.records) == 1, "nothing is logged")


def test_session_has_few_streams_and_others_are_answered(client, source):
    browsers = [Listening(client) for _ in range(MOST_OF_A_SESSION)]
    reply = client.get("/api/v1/events")
    assert (reply.status, reply.json["reason"]) == (429, "limited")
    assert client.get("/api/v1/quick").status == 200
    browsers.pop().leave()
    until(lambda: source.open == MOST_OF_A_SESSION - 1, "the streams stay")
    again = Listening(client)
    assert again.answer.status == 200
    for one in (*browsers, again):
        one.leave()


def test_head_of_a_stream_ends_at_once(client, source):
    browser = Listening(client, "HEAD")
    assert browser.answer.read() == b""
    until(lambda: source.open == 0, "the streams stay")
    browser.leave()


def test_server_stops_without_waiting_for_streams(tmp_path, source):
    route = api("GET", "/events", "viewer", lambda _: Events(source.events()), "")
    with console(tmp_path, (route,)) as client:
        browser = Listening(client)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 30  # on a busy machine; the stream never ends
    until(lambda: source.open == 0, "the streams stay")
    browser.leave()


def test_text_cannot_forge_an_event():
    assert (
        event_text(Event("a", "x\n\nevent: b\r\ndata: y"))
        == "event: a\ndata: x\ndata: \ndata: event: b\ndata: data: y\n\n"
    )
    assert event_text(Event("a", "")) == "event: a\ndata: \n\n"
