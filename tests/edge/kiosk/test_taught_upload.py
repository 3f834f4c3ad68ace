"""Upload of taught items."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from edge.errors import TaughtItemsError
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.taught_upload import Uploader, backoff_s, http_put, upload_pending
from tests.fakes_engine import FakeCounts

AT = "2026-01-01T00:00:00Z"


@pytest.fixture
def store(tmp_path):
    return TaughtStore(tmp_path, 10)


class FakeTrainer:
    """Accepts uploads, except for the next `refuses` ones."""

    def __init__(self):
        self.taken: dict[str, bytes] = {}
        self.refuses = 0

    def __call__(self, name: str, body: bytes) -> None:
        if self.refuses:
            self.refuses -= 1
            raise TaughtItemsError(f"upload of {name}: refused")
        self.taken[name] = body


def test_pending_items_are_uploaded_once(store):
    items = [store.save(name, None, [b"x"], AT) for name in ("a", "b")]
    trainer, counts = FakeTrainer(), FakeCounts()
    assert upload_pending(store, trainer, counts)
    assert trainer.taken == {f"{item.item_id}.zip": store.zip_item(item) for item in items}
    trainer.taken.clear()
    assert upload_pending(store, trainer, counts)
    assert trainer.taken == {}
    assert counts.total == {"taught_uploads result=taken": 2}


def test_refused_upload_is_retried(store):
    store.save("a", None, [b"x"], AT)
    trainer, counts = FakeTrainer(), FakeCounts()
    trainer.refuses = 1
    assert not upload_pending(store, trainer, counts)
    assert upload_pending(store, trainer, counts)
    assert len(trainer.taken) == 1
    assert counts.total["taught_uploads result=failed"] == 1


def test_item_may_be_deleted_during_its_upload(store):
    item = store.save("a", None, [b"x"], AT)
    assert not upload_pending(store, lambda *_: store.forget(item.item_id), FakeCounts())
    assert upload_pending(store, FakeTrainer(), FakeCounts())


def test_thread_uploads_at_start_and_when_woken(store):
    arrived = threading.Semaphore(0)
    store.save("a", None, [b"x"], AT)
    with Uploader(store, lambda *_: arrived.release(), FakeCounts()) as uploader:
        assert arrived.acquire(timeout=5)
        store.save("b", None, [b"x"], AT)
        uploader.wake()
        assert arrived.acquire(timeout=5)


def test_thread_survives_an_unexpected_error(store, caplog):
    arrived, calls, counts = threading.Event(), [], FakeCounts()

    def put(name, body):
        calls.append(name)
        if len(calls) == 1:
            raise RuntimeError("unexpected")
        arrived.set()

    store.save("a", None, [b"x"], AT)
    uploader = Uploader(store, put, counts)
    uploader._thread._wait = lambda _: False
    with uploader:
        assert arrived.wait(5)
    assert counts.total["thread_restarts thread=taught-upload"] == 1
    assert "thread taught-upload: RuntimeError at test_taught_upload.py:" in caplog.text


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
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()
        thread.join()


def test_put_keeps_token_and_query():
    with http_server(201) as (url, requests):
        http_put(f"{url}/inbox/", "t0ken")("a.zip", b"body")
        http_put(f"{url}/inbox?sig=1", None)("b.zip", b"")
    assert requests == [("/inbox/a.zip", "Bearer t0ken", b"body"), ("/inbox/b.zip?sig=1", None, b"")]


def test_upload_errors_do_not_contain_the_url():
    with http_server(507) as (url, _), pytest.raises(TaughtItemsError, match="answered with HTTP status 507"):
        http_put(f"{url}/?secret", None)("a.zip", b"x")
    for bad in (f"{url}/?secret", "http://secret host/", "http://secret:port/"):
        with pytest.raises(TaughtItemsError) as caught:
            http_put(bad, None)("a.zip", b"x")
        assert "secret" not in str(caught.value)
