"""Uploads by HTTP PUT, with retries."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from edge.errors import FileRefusedError, UploadError
from edge.uploads.upload import Upload, Uploader, backoff_s, http_put, upload_pending
from tests.fakes_engine import FakeCounts


class Outbox:
    """Files that wait, in memory, and how their uploads ended."""

    def __init__(self, *names):
        self.waiting = {name: name.encode() for name in names}
        self.results: list[str] = []

    def pending(self):
        for name in list(self.waiting):
            done = lambda name=name: self.waiting.pop(name)  # noqa: E731
            yield Upload(name, name, lambda name=name: self.waiting[name], done, done)

    def count(self, result):
        self.results.append(result)


class FakeServer:
    """Accepts uploads, except those it has an answer for."""

    def __init__(self, **answers):
        self.taken: dict[str, bytes] = {}
        self.answers = answers

    def __call__(self, name: str, body: bytes) -> None:
        if name in self.answers:
            raise self.answers.pop(name)
        self.taken[name] = body


def test_files_are_uploaded_once():
    outbox, server = Outbox("a", "b"), FakeServer()
    assert upload_pending(outbox.pending, server, outbox.count)
    assert (server.taken, outbox.waiting, outbox.results) == ({"a": b"a", "b": b"b"}, {}, ["taken", "taken"])


def test_failure_stops_and_keeps_the_rest_for_later():
    outbox, server = Outbox("a", "b"), FakeServer(a=UploadError("no server"))
    assert not upload_pending(outbox.pending, server, outbox.count)
    assert (server.taken, outbox.results) == ({}, ["failed"])
    assert upload_pending(outbox.pending, server, outbox.count)
    assert list(server.taken) == ["a", "b"]


def test_refused_file_does_not_hold_up_the_others():
    outbox, server = Outbox("a", "b"), FakeServer(a=FileRefusedError("too large"))
    assert not upload_pending(outbox.pending, server, outbox.count)
    assert (list(server.taken), outbox.waiting, outbox.results) == (["b"], {}, ["refused", "taken"])


def test_thread_uploads_at_start_and_when_woken():
    arrived, outbox = threading.Semaphore(0), Outbox("a")
    with Uploader("up", outbox.pending, lambda *_: arrived.release(), outbox.count, FakeCounts()) as uploader:
        assert arrived.acquire(timeout=60)
        outbox.waiting["b"] = b""
        uploader.wake()
        assert arrived.acquire(timeout=60)


def test_thread_survives_an_unexpected_error(caplog):
    arrived, calls, counts, outbox = threading.Event(), [], FakeCounts(), Outbox("a")

    def put(name, body):
        calls.append(name)
        if len(calls) == 1:
            raise RuntimeError("unexpected")
        arrived.set()

    uploader = Uploader("up", outbox.pending, put, outbox.count, counts)
    uploader._thread._wait = lambda _: False
    with uploader:
        assert arrived.wait(60)
    assert counts.total["thread_restarts thread=up"] == 1
    assert "thread up: RuntimeError at test_upload.py:" in caplog.text


def test_backoff_doubles_to_ten_minutes_with_jitter():
    assert [backoff_s(n, lambda: 1.0) for n in (1, 2, 3, 9, 10_000)] == [10, 20, 40, 600, 600]
    assert backoff_s(1, lambda: 0.0) == 5


@contextmanager
def http_server(status: int):
    requests: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, self.headers["Authorization"], body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def test_put_keeps_token_and_query():
    with http_server(201) as (url, requests):
        http_put(f"{url}/inbox/", "t0ken")("a.zip", b"body")
        http_put(f"{url}/inbox?sig=1", None)("b.zip", b"")
    assert requests == [("/inbox/a.zip", "Bearer t0ken", b"body"), ("/inbox/b.zip?sig=1", None, b"")]


@pytest.mark.parametrize(("status", "kind"), [(507, UploadError), (401, UploadError), (413, FileRefusedError)])
def test_server_that_answers_otherwise_is_an_error(status, kind):
    with http_server(status) as (url, _), pytest.raises(UploadError, match=f"HTTP status {status}") as caught:
        http_put(f"{url}/?secret", None)("a.zip", b"x")
    assert (type(caught.value), "secret" in str(caught.value)) == (kind, False)


def test_upload_errors_do_not_contain_the_url():
    for bad in ("http://127.0.0.1:9/?secret", "http://secret host/", "http://secret:port/"):
        with pytest.raises(UploadError) as caught:
            http_put(bad, None)("a.zip", b"x")
        assert "secret" not in str(caught.value)
