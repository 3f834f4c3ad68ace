"""What was taught on its way to the trainer."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from edge.errors import TaughtItemsError
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.taught_upload import Uploader, put_to, upload_pending, wait_s
from tests.fakes_engine import FakeCounts

AT = "2026-01-01T00:00:00Z"


@pytest.fixture
def store(tmp_path):
    return TaughtStore(tmp_path, 10)


class FakeTrainer:
    """Takes uploads, but for those it is told to refuse."""

    def __init__(self):
        self.taken: dict[str, bytes] = {}
        self.refuses = 0

    def __call__(self, name: str, body: bytes) -> None:
        if self.refuses:
            self.refuses -= 1
            raise TaughtItemsError(f"upload of {name}: refused")
        self.taken[name] = body


def test_everything_that_waits_arrives_once(store):
    items = [store.keep(name, None, [b"x"], AT) for name in ("a", "b")]
    trainer, counts = FakeTrainer(), FakeCounts()
    assert upload_pending(store, trainer, counts)
    assert trainer.taken == {f"{item.item_id}.zip": store.package(item) for item in items}
    trainer.taken.clear()
    assert upload_pending(store, trainer, counts)
    assert trainer.taken == {}
    assert counts.total == {"taught_uploads result=taken": 2}


def test_what_is_refused_waits_and_arrives_later(store):
    store.keep("a", None, [b"x"], AT)
    trainer, counts = FakeTrainer(), FakeCounts()
    trainer.refuses = 1
    assert not upload_pending(store, trainer, counts)
    assert upload_pending(store, trainer, counts)
    assert len(trainer.taken) == 1
    assert counts.total["taught_uploads result=failed"] == 1


def test_a_thing_that_is_forgotten_while_it_travels_is_no_crash(store):
    item = store.keep("a", None, [b"x"], AT)
    assert not upload_pending(store, lambda *_: store.forget(item.item_id), FakeCounts())
    assert upload_pending(store, FakeTrainer(), FakeCounts())


def test_the_thread_uploads_at_its_start_and_when_it_is_woken(store):
    arrived = threading.Semaphore(0)
    store.keep("a", None, [b"x"], AT)
    with Uploader(store, lambda *_: arrived.release(), FakeCounts()) as uploader:
        assert arrived.acquire(timeout=5)
        store.keep("b", None, [b"x"], AT)
        uploader.wake()
        assert arrived.acquire(timeout=5)


def test_the_wait_doubles_to_ten_minutes_and_half_of_it_is_chance():
    assert [wait_s(n, lambda: 1.0) for n in (1, 2, 3, 9, 10_000)] == [10, 20, 40, 600, 600]
    assert wait_s(1, lambda: 0.0) == 5


@contextmanager
def http_server(status: int):
    seen: list[tuple[str, str | None, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers["Authorization"], body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()
        thread.join()


def test_a_file_is_put_below_the_url_with_the_token_and_a_signature_stays():
    with http_server(201) as (url, seen):
        put_to(f"{url}/inbox/", "t0ken")("a.zip", b"body")
        put_to(f"{url}/inbox?sig=1", None)("b.zip", b"")
    assert seen == [("/inbox/a.zip", "Bearer t0ken", b"body"), ("/inbox/b.zip?sig=1", None, b"")]


def test_a_refusal_and_an_absent_server_are_our_errors_without_the_url():
    with http_server(507) as (url, _), pytest.raises(TaughtItemsError, match="found HTTP status 507, expected 2xx"):
        put_to(f"{url}/?secret", None)("a.zip", b"x")
    for bad in (f"{url}/?secret", "http://secret host/", "http://secret:port/"):
        with pytest.raises(TaughtItemsError) as caught:
            put_to(bad, None)("a.zip", b"x")
        assert "secret" not in str(caught.value)
