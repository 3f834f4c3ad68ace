"""The HTTP API of the kiosk, as specified in openapi.json."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest
import uvicorn

from edge.config.schema import KioskConfig
from edge.errors import ConfigError
from edge.http_server.listener import MAX_OPEN
from edge.kiosk import http as kiosk_http
from edge.kiosk import lookup_queue
from edge.kiosk.http import MAX_BODY_BYTES
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.server import KioskServer
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.thumbnails import ItemThumbnails
from edge.types import Attribute
from tests.edge.kiosk.kiosk_samples import jpeg
from tests.edge.kiosk.test_kiosk import OATS, SIDES, FakeDevice, show
from tests.waiting import until

CONTRACT = json.loads((Path(__file__).parents[3] / "docs/openapi.json").read_text())
TOKEN = "open sesame"
NOISE = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))[1].tobytes()


class Desk:
    """A kiosk with its server, and a client."""

    def __init__(self, folder, token=None, tls=None):
        self.store = TaughtStore(folder, 5)
        self.device = FakeDevice(self.store)
        self.counters = self.device.counters
        self.kiosk = Kiosk(self.device, self.store, "counter", 3, 8)
        self.woken = 0
        config = KioskConfig(camera="counter", port=0, token=token, tls=tls)
        thumbnails = ItemThumbnails(folder, self.store)
        self.server = KioskServer(config, self.kiosk, thumbnails, self.counters, self)

    def wake(self):
        self.woken += 1

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response, data

    def json(self, method, path, body=None, **headers):
        """Status and JSON of a response, validated against the contract."""
        response, data = self.ask(method, path, body, **headers)
        answer = json.loads(data)
        jsonschema.validate(answer, schema_of(method, path, response.status))
        return response.status, answer


def schema_of(method, path, status):
    path = re.sub(r"^/v1/taught/.+", "/v1/taught/{item}", path.partition("?")[0])
    specified = CONTRACT["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in specified:
        specified = CONTRACT["components"]["responses"][specified["$ref"].rpartition("/")[2]]
    return {**specified["content"]["application/json"]["schema"], "components": CONTRACT["components"]}


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    with desk.server:
        yield desk


@pytest.fixture
def locked(tmp_path):
    desk = Desk(tmp_path, TOKEN)
    with desk.server:
        yield desk


def teach_red(desk):
    show(desk.kiosk, SIDES[0])
    desk.json("POST", "/v1/teaching")
    show(desk.kiosk, SIDES[0])
    return desk.json("POST", "/v1/taught", json.dumps({"label": "Red thing"}))


def test_picture_is_looked_up(desk):
    status, answer = desk.json("POST", "/v1/lookup", jpeg(200, 20, 20), Content_Type="image/jpeg")
    assert status == 200
    assert (answer["match"], answer["reason"]) == (None, "unknown_item")
    assert answer["top"] == [{"item": "c1", "label": "Oat flakes", "score": 0.2}]
    assert {"decode", "classify", "embed", "search", "total"} <= answer["latency_ms"].keys()
    assert (answer["bundle"], answer["gallery"]) == ("bundle-1", "gallery-1")
    assert desk.counters.total("lookups", result="unknown_item") == 1
    assert "attributes" not in answer


def test_attributes_of_near_items_are_in_the_answer(desk):
    desk.device.models = replace(desk.device.models, attributes={"c1": {"colour": "red"}})
    answer = desk.json("POST", "/v1/lookup", jpeg(200, 20, 20), Content_Type="image/jpeg")[1]
    assert (answer["match"], answer["attributes"]) == (
        None,
        [{"name": "colour", "value": "red", "confidence": 1.0}],
    )
    show(desk.kiosk, SIDES[0], replace(OATS, attributes=(Attribute("colour", "red", 0.98765),)))
    assert desk.json("GET", "/v1/state")[1]["answer"]["attributes"] == [
        {"name": "colour", "value": "red", "confidence": 0.9877}
    ]


@pytest.mark.parametrize(
    ("body", "status", "reason", "message"),
    [
        (b"", 400, "empty", "the picture is empty; send"),
        (b"<html>", 415, "not_a_picture", "send a JPEG, PNG or WebP"),
        (
            b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500),
            415,
            "not_a_picture",
            "HEIC cannot be read here; send a JPEG",
        ),
        (NOISE[: len(NOISE) // 2] + NOISE[-2:], 400, "truncated", "give the whole file"),
        (NOISE[: len(NOISE) // 2], 400, "truncated", "give the whole file"),
        (NOISE[:300] + bytes(200) + NOISE[-2:], 400, "truncated", "the jpeg ends after 502 bytes"),
        (
            b"\xff\xd8\xff\xc0\x00\x08\x08\x40\x00\x40\x00\x03\xff\xda\x00\x02\xff\xd9",
            413,
            "too_large",
            "send at most 25000000",
        ),
    ],
)
def test_unusable_picture_is_one_counted_error(desk, body, status, reason, message):
    found, answer = desk.json("POST", "/v1/lookup", body)
    assert (found, answer["reason"]) == (status, reason)
    assert message in answer["error"]
    assert desk.counters.total("lookups", result=reason) == 1


def test_engine_failure_is_status_500_and_recoverable(desk, caplog):
    engine = desk.device.models.stages.embedders["carton"]._engine
    engine.broken = True
    status, answer = desk.json("POST", "/v1/lookup", NOISE)
    assert (status, answer["reason"]) == (500, "failed")
    assert "scripted engine" in caplog.text
    engine.broken = False
    assert desk.json("POST", "/v1/lookup", NOISE)[0] == 200


def test_too_long_body_is_rejected_by_header_and_by_size(desk):
    assert desk.json("POST", "/v1/lookup", b"x", Content_Length=str(MAX_BODY_BYTES + 1))[0] == 413
    endless = (bytes(1_000_000) for _ in range(30))
    connection = http.client.HTTPConnection("127.0.0.1", desk.server.port, timeout=60)
    try:
        connection.request("POST", "/v1/lookup", endless, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server closed the connection while the client was sending
    finally:
        connection.close()
    assert desk.counters.total("lookups", result="too_large") == 2


def make_form(*names, picture=NOISE):
    """A form as curl sends it; a field without a file name is not a file."""
    named = {name: f'form-data; name="{name}"' + (f'; filename="{name}"' if "." in name else "") for name in names}
    parts = [b"--edge\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (named[n].encode(), picture) for n in names]
    return b"".join(parts) + b"--edge--\r\n"


FORM = {"Content_Type": "multipart/form-data; boundary=edge"}


def test_picture_in_a_form_is_looked_up(desk):
    status, answer = desk.json("POST", "/v1/lookup", make_form("x.jpg"), **FORM)
    assert (status, answer["reason"]) == (200, "unknown_item")


@pytest.mark.parametrize(
    ("body", "status", "reason", "message"),
    [
        (make_form("note"), 400, "empty", "it holds 0 files; send one"),
        (make_form("x.jpg", "y.jpg"), 400, "broken", "it holds 2 files; send one"),
        (make_form("x.jpg")[:-8], 400, "truncated", "without the last boundary"),
        (make_form("x.jpg", picture=b"<html>"), 415, "not_a_picture", "send a JPEG, PNG or WebP"),
        (make_form("x.jpg", picture=NOISE + bytes(MAX_BODY_BYTES)), 413, "too_large", "send at most 20000000"),
        (NOISE, 400, "broken", "does not begin with the boundary"),
    ],
)
def test_unusable_form_is_one_counted_error(desk, body, status, reason, message):
    found, answer = desk.json("POST", "/v1/lookup", body, **FORM)
    assert (found, answer["reason"]) == (status, reason)
    assert message in answer["error"]
    assert desk.counters.total("lookups", result=reason) == 1


def test_too_long_form_is_rejected_by_header(desk):
    assert desk.json("POST", "/v1/lookup", b"x", Content_Length=str(MAX_BODY_BYTES + 100_000), **FORM)[0] == 413


def test_unsupported_content_type_is_rejected(desk):
    status, answer = desk.json("POST", "/v1/lookup", NOISE, Content_Type="text/html")
    assert (status, answer["reason"]) == (415, "not_a_picture")


def test_page_and_assets_need_no_other_host(desk):
    response, page = desk.ask("GET", "/")
    assert response.status == 200
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    parts = re.findall(rb'(?:src|href)="([^"#]+)"', page)
    assert len(parts) >= 3
    for part in parts:
        assert desk.ask("GET", part.decode())[0].status == 200
    assert b"://" not in page
    assert desk.ask("GET", "/static/../kiosk.py")[0].status == 404


def test_contract_is_served_and_names_every_path(desk):
    data = desk.ask("GET", "/openapi.json")[1]
    assert json.loads(data) == CONTRACT
    routes = {route.path.replace(":int", "") for route in desk.server._app().routes}
    assert {path for path in routes if path.startswith("/v1/")} == set(CONTRACT["paths"])


def test_state_follows_frames_and_actions(desk):
    show(desk.kiosk, SIDES[0], OATS)
    status, state = desk.json("GET", "/v1/state")
    assert (status, state["phase"], state["answer"]["match"]["label"]) == (200, "answer", "Oat flakes")
    assert desk.json("POST", "/v1/dismiss")[1]["phase"] == "waiting"
    assert desk.json("POST", "/v1/ask")[1]["phase"] == "hold_still"
    assert desk.json("GET", f"/v1/state?after={state['version']}")[1]["phase"] == "hold_still"


def test_item_is_taught_listed_shown_looked_up_and_deleted(desk):
    status, answer = teach_red(desk)
    assert (status, answer["label"], answer["recognised"]) == (201, "Red thing", 1)
    assert desk.woken == 1
    assert desk.json("GET", "/v1/taught")[1]["taught"][0]["item"] == answer["item"]
    assert desk.ask("GET", f"/v1/picture?item={answer['item']}")[1][:2] == b"\xff\xd8"
    found = desk.json("POST", "/v1/lookup", desk.store.picture(desk.store.items()[0], 0))[1]
    assert found["match"]["item"] == answer["item"]
    assert desk.ask("DELETE", f"/v1/taught/{answer['item']}")[0].status == 204
    assert desk.json("DELETE", f"/v1/taught/{answer['item']}")[0] == 404
    assert desk.json("GET", f"/v1/picture?item={answer['item']}")[0] == 404


def test_enrolment_pictures_are_served(desk):
    show(desk.kiosk, SIDES[0])
    assert desk.json("POST", "/v1/teaching")[1]["phase"] == "teaching"
    show(desk.kiosk, SIDES[0])
    assert desk.ask("GET", "/v1/teaching/looks/0")[0].headers["Content-Type"] == "image/jpeg"
    assert desk.ask("GET", "/v1/teaching/looks/1")[0].status == 404
    assert desk.json("DELETE", "/v1/teaching")[1]["phase"] == "waiting"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"label": 3}', b'{"label": ""}', b'{"label": "x"}', b"x" * 9_000])
def test_teaching_without_a_name_or_pictures_is_rejected(desk, body):
    status, answer = desk.json("POST", "/v1/taught", body)
    assert (status, answer["reason"]) == (422, "not_taught")
    assert desk.counters.total("kiosk_refused", reason="not_taught") == 1


def test_too_long_name_of_an_item_is_refused(desk):
    assert desk.json("POST", "/v1/taught", b"x" * 20_000)[0] == 413
    assert desk.counters.total("kiosk_refused", reason="too_large") == 1


def test_live_picture_is_a_numbered_jpeg(desk):
    desk.kiosk.live_picture()
    show(desk.kiosk, SIDES[0])
    response, data = desk.ask("GET", "/v1/live?after=0")
    assert (response.status, response.headers["X-Number"], data[:2]) == (200, "1", b"\xff\xd8")


def test_every_path_needs_the_token(locked):
    for path in ("/", "/static/kiosk.js", "/v1/state", "/v1/live", "/openapi.json"):
        response, _ = locked.ask("GET", path)
        assert (path, response.status) == (path, 401)
    assert locked.json("POST", "/v1/lookup", NOISE, Authorization="Bearer wrong")[0] == 401
    assert locked.ask("GET", "/?token=wrong")[0].status == 401
    assert locked.counters.total("kiosk_refused", reason="no_token") == 7


def test_token_in_the_url_is_exchanged_for_a_cookie(locked):
    response, _ = locked.ask("GET", "/?token=open%20sesame")
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert locked.ask("GET", "/", Cookie=cookie.partition(";")[0])[0].status == 200
    assert locked.json("POST", "/v1/lookup", NOISE, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_foreign_origin_and_host_are_refused(desk):
    assert desk.json("POST", "/v1/lookup", NOISE, Origin="http://evil.example")[0] == 403
    assert desk.json("POST", "/v1/lookup", NOISE, Host="evil.example")[0] == 421
    for path in ("/", "/v1/state", "/v1/taught", "/static/kiosk.js", "/openapi.json", "/none"):
        assert desk.ask("GET", path, Host="evil.example")[0].status == 421
    assert desk.counters.total("kiosk_refused", reason="wrong_host") == 7
    assert desk.counters.total("kiosk_refused", reason="wrong_origin") == 1


def test_host_is_checked_before_the_token(locked):
    assert locked.ask("GET", "/?token=open%20sesame", Host="evil.example")[0].status == 421


def test_nagle_delay_is_disabled(desk):
    """asyncio disables it for sockets that name their protocol. Each answer took 40 ms longer with it."""
    assert desk.server._server.listener.proto == socket.IPPROTO_TCP


class Client:
    """Bytes sent to a server, and what comes back."""

    def __init__(self, port, sent=b""):
        self.socket = socket.create_connection(("127.0.0.1", port), 5)
        self.socket.sendall(sent)

    def answer(self):
        """All that comes until the server closes the connection."""
        return b"".join(iter(lambda: self.socket.recv(65536), b""))

    def status(self):
        """The first line of the answer."""
        return self.socket.recv(65536).partition(b"\r\n")[0]


@pytest.fixture
def connect():
    """A function that makes clients, which are closed in the end."""
    with contextlib.ExitStack() as stack:

        def connect(desk, sent):
            client = Client(desk.server.port, sent)
            stack.callback(client.socket.close)
            return client

        yield connect


def head(method, path, length):
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode()


def test_silent_connections_keep_nobody_out(locked, connect):
    silent = [connect(locked, b"GET / HT") for _ in range(2 * MAX_OPEN)]
    assert locked.ask("GET", "/v1/state", Authorization=f"Bearer {TOKEN}")[0].status == 200
    assert locked.counters.total("connections_closed", server="kiosk", reason="evicted") > MAX_OPEN / 2
    assert [client.answer() for client in silent[:10]] == [b""] * 10


def test_bodies_that_never_come_do_not_block_lookups(desk, connect, monkeypatch):
    monkeypatch.setattr(kiosk_http, "_GRACE_S", 600.0)  # a lookup that waited for them would not be answered in time
    monkeypatch.setattr(kiosk_http, "_BODY_TIMEOUT_S", 600.0)
    for _ in range(MAX_OPEN - 2):
        connect(desk, head("POST", "/v1/lookup", 1000) + b"x")
    assert desk.json("POST", "/v1/lookup", NOISE)[0] == 200


@pytest.mark.parametrize("path", ["/v1/lookup", "/v1/taught"])
def test_slow_body_is_refused(desk, connect, path, monkeypatch):
    monkeypatch.setattr(kiosk_http, "_GRACE_S", 0.05)
    client = connect(desk, head("POST", path, 1000) + b"x" * 10)
    status, _, body = client.answer().partition(b"\r\n\r\n")
    assert b" 408 " in status
    assert json.loads(body)["reason"] == "slow"


@pytest.mark.parametrize(("path", "counter"), [("/v1/lookup", "lookups"), ("/v1/taught", "kiosk_refused")])
def test_client_that_leaves_is_one_count(desk, connect, path, counter, caplog):
    name = {"lookups": {"result": "left"}, "kiosk_refused": {"reason": "left"}}[counter]
    client = connect(desk, head("POST", path, 1000) + b"x")
    client.socket.close()
    until(lambda: desk.counters.total(counter, **name), "the client counted")
    assert desk.counters.total(counter, **name) == 1
    until(lambda: desk.server._server.listener.open_connections() == 0, "the connection closed")
    assert caplog.records == []


def test_body_that_nobody_needs_may_stop(desk, connect, caplog):
    client = connect(desk, head("POST", "/v1/ask", 1000) + b"x")
    assert client.status() == b"HTTP/1.1 200 OK"
    client.socket.close()
    until(lambda: desk.server._server.listener.open_connections() == 0, "the connection closed")
    assert caplog.records == []


def test_garbage_is_a_400_without_a_log(desk, connect, caplog):
    assert b" 400 " in connect(desk, b"\0\xff garbage\r\n\r\n").answer()
    assert caplog.records == []


@pytest.fixture
def held(desk, monkeypatch):
    """Look-ups that start, and go on once the event is set."""
    go = threading.Event()
    recognise = desk.server._recognise

    def slow(*arguments):
        assert go.wait(60)
        return recognise(*arguments)

    monkeypatch.setattr(desk.server, "_recognise", slow)
    yield go
    go.set()


def test_lookups_of_many_clients_wait_and_none_is_refused(desk, connect, held):
    waiting = [connect(desk, head("POST", "/v1/lookup", len(NOISE)) + NOISE) for _ in range(16)]
    until(lambda: desk.counters.total("lookups_waited") >= 14, "they wait")
    for path in ("/", "/v1/state", "/static/kiosk.js"):  # nothing else waits for them
        assert desk.ask("GET", path)[0].status == 200
    held.set()
    assert [client.status() for client in waiting] == [b"HTTP/1.1 200 OK"] * 16


@pytest.mark.usefixtures("held")
def test_full_queue_says_when_to_try_again(desk, connect, monkeypatch):
    monkeypatch.setattr(lookup_queue, "MAX_WAITING", 1)
    for _ in range(3):
        connect(desk, head("POST", "/v1/lookup", len(NOISE)) + NOISE)
    until(lambda: desk.server._queue.waiting == 1, "one waits")
    response, body = desk.ask("POST", "/v1/lookup", NOISE)
    assert (response.status, response.headers["Retry-After"], json.loads(body)["reason"]) == (503, "1", "busy")
    assert desk.counters.total("lookups", result="busy") == 1


@pytest.mark.usefixtures("held")
def test_client_that_leaves_the_queue_is_counted(desk, connect):
    clients = [connect(desk, head("POST", "/v1/lookup", len(NOISE)) + NOISE) for _ in range(3)]
    until(lambda: desk.server._queue.waiting == 1, "one waits")
    for client in clients:
        client.socket.close()
    until(lambda: desk.counters.total("lookups", result="left") == 1, "it left")
    assert desk.server._queue.waiting == 0


def test_bad_pictures_do_not_stop_the_queue(desk, connect):
    large = b"\xff\xd8\xff\xc0\x00\x08\x08\x20\x00\x20\x00\x03\xff\xda\x00\x02\xff\xd9"  # 67 megapixels
    bodies = {b"garbage" * 1000: b"415", large: b"413", NOISE[:300] + bytes(200) + NOISE[-2:]: b"400", NOISE: b"200"}
    sent = [(connect(desk, head("POST", "/v1/lookup", len(body)) + body), bodies[body]) for body in [*bodies] * 4]
    assert all(b" %b " % status in client.status() for client, status in sent)
    assert desk.counters.total("lookups") == 16


def test_server_thread_that_dies_is_restarted(tmp_path, monkeypatch, caplog):
    real, calls = uvicorn.Server.run, []

    def run(self, sockets):
        calls.append(self)
        if len(calls) == 1:
            raise ValueError("unexpected")
        real(self, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setattr("edge.supervised_thread._MIN_BACKOFF_S", 0.0)
    desk = Desk(tmp_path)
    with desk.server:
        assert desk.json("GET", "/v1/state")[0] == 200
    assert desk.counters.total("thread_restarts", thread="kiosk-http") == 1
    assert "thread kiosk-http: ValueError at test_server.py:" in caplog.text


def test_port_in_use_is_a_config_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = KioskConfig(camera="c", port=other.getsockname()[1])
        desk = Desk.__new__(Desk)
        with pytest.raises(ConfigError, match="kiosk: cannot listen on"):
            KioskServer(config, Kiosk(FakeDevice(TaughtStore(tmp_path, 1)), None, "c", 1, 8), None, desk)


def test_negative_item_is_never_named(desk):
    show(desk.kiosk, SIDES[2])
    desk.json("POST", "/v1/teaching")
    show(desk.kiosk, SIDES[2])
    status, answer = desk.json("POST", "/v1/taught", json.dumps({"label": "Price tag", "negative": True}))
    assert (status, answer["negative"], answer["recognised"], answer["concerns"]) == (201, True, 1, [])
    found = desk.json("POST", "/v1/lookup", desk.store.picture(desk.store.items()[0], 0))[1]
    assert (found["match"], found["reason"]) == (None, "unknown_item")
    assert teach_red(desk)[1]["concerns"] == [{"kind": "few_looks", "other": None}]
