"""The kiosk over HTTP, as openapi.json promises it."""

from __future__ import annotations

import http.client
import json
import re
import socket
from pathlib import Path

import cv2
import jsonschema
import numpy as np
import pytest

from edge.config.schema import KioskConfig
from edge.errors import ConfigError
from edge.kiosk.http import MAX_BODY_BYTES
from edge.kiosk.kiosk import Kiosk
from edge.kiosk.server import KioskServer
from edge.kiosk.taught_items import TaughtItems
from edge.kiosk.taught_store import TaughtStore
from edge.kiosk.thumbnails import ItemThumbnails
from tests.edge.kiosk.kiosk_samples import jpeg
from tests.edge.kiosk.test_kiosk import OATS, SIDES, FakeDevice, show

CONTRACT = json.loads((Path(__file__).parents[3] / "docs/openapi.json").read_text())
TOKEN = "open sesame"
NOISE = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))[1].tobytes()


class Desk:
    """A kiosk that is served, and a client of it."""

    def __init__(self, folder, token=None, tls=None):
        self.store = TaughtStore(folder, 5)
        self.device = FakeDevice(self.store)
        self.counters = self.device.counters
        self.kiosk = Kiosk(self.device, self.store, "counter", 3, 8)
        self.woken = 0
        config = KioskConfig(camera="counter", port=0, token=token, tls=tls)
        pictures = ItemThumbnails(folder, self.store)
        overlay = TaughtItems(self.store, lambda *_: False, self.counters)
        self.server = KioskServer(config, self.kiosk, overlay, pictures, self.counters, self)

    def wake(self):
        self.woken += 1

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response, data

    def json(self, method, path, body=None, **headers):
        """Status and JSON, which must be what the contract says of that answer."""
        response, data = self.ask(method, path, body, **headers)
        answer = json.loads(data)
        jsonschema.validate(answer, schema_of(method, path, response.status))
        return response.status, answer


def schema_of(method, path, status):
    path = re.sub(r"^/v1/taught/.+", "/v1/taught/{item}", path.partition("?")[0])
    promised = CONTRACT["paths"][path][method.lower()]["responses"][str(status)]
    if "$ref" in promised:
        promised = CONTRACT["components"]["responses"][promised["$ref"].rpartition("/")[2]]
    return {**promised["content"]["application/json"]["schema"], "components": CONTRACT["components"]}


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


def test_a_picture_is_looked_up(desk):
    status, answer = desk.json("POST", "/v1/lookup", jpeg(200, 20, 20), Content_Type="image/jpeg")
    assert status == 200
    assert (answer["match"], answer["reason"]) == (None, "unknown_item")
    assert answer["top"] == [{"item": "c1", "label": "Oat flakes", "score": 0.2}]
    assert {"decode", "classify", "embed", "search", "total"} <= answer["latency_ms"].keys()
    assert (answer["bundle"], answer["gallery"]) == ("bundle-1", "gallery-1")
    assert desk.counters.total("lookups", result="unknown_item") == 1


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "empty"),
        (b"<html>", 415, "not_a_picture"),
        (NOISE[: len(NOISE) // 2], 400, "truncated"),
        (NOISE[:300] + bytes(200) + NOISE[-2:], 400, "truncated"),
        (b"\xff\xd8\xff\xc0\x00\x08\x08\x40\x00\x40\x00\x03\xff\xda\x00\x02\xff\xd9", 413, "too_large"),
    ],
)
def test_what_cannot_be_looked_up_is_one_clear_error_and_counted(desk, body, status, reason):
    found, answer = desk.json("POST", "/v1/lookup", body)
    assert (found, answer["reason"]) == (status, reason)
    assert "expected" in answer["error"]
    assert desk.counters.total("lookups", result=reason) == 1


def test_an_engine_that_fails_is_an_error_of_ours_and_the_next_picture_is_looked_up(desk, caplog):
    engine = desk.device.models.stages.embedders["carton"]._engine
    engine.broken = True
    status, answer = desk.json("POST", "/v1/lookup", NOISE)
    assert (status, answer["reason"]) == (500, "failed")
    assert "scripted engine" in caplog.text
    engine.broken = False
    assert desk.json("POST", "/v1/lookup", NOISE)[0] == 200


def test_a_body_that_is_too_long_is_refused_by_what_it_claims_and_by_what_it_is(desk):
    assert desk.json("POST", "/v1/lookup", b"x", Content_Length=str(MAX_BODY_BYTES + 1))[0] == 413
    endless = (bytes(1_000_000) for _ in range(30))
    connection = http.client.HTTPConnection("127.0.0.1", desk.server.port, timeout=5)
    try:
        connection.request("POST", "/v1/lookup", endless, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server hung up while it was still being sent to
    finally:
        connection.close()
    assert desk.counters.total("lookups", result="too_large") == 2


def a_form(*names, picture=NOISE):
    """As curl sends it; a field without a file name is no file."""
    named = {name: f'form-data; name="{name}"' + (f'; filename="{name}"' if "." in name else "") for name in names}
    parts = [b"--edge\r\nContent-Disposition: %b\r\n\r\n%b\r\n" % (named[n].encode(), picture) for n in names]
    return b"".join(parts) + b"--edge--\r\n"


FORM = {"Content_Type": "multipart/form-data; boundary=edge"}


def test_a_picture_in_a_form_is_looked_up(desk):
    status, answer = desk.json("POST", "/v1/lookup", a_form("x.jpg"), **FORM)
    assert (status, answer["reason"]) == (200, "unknown_item")


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (a_form("note"), 400, "empty"),
        (a_form("x.jpg", "y.jpg"), 400, "broken"),
        (a_form("x.jpg")[:-8], 400, "truncated"),
        (a_form("x.jpg", picture=b"<html>"), 415, "not_a_picture"),
        (a_form("x.jpg", picture=NOISE + bytes(MAX_BODY_BYTES)), 413, "too_large"),
        (NOISE, 400, "broken"),
    ],
)
def test_what_a_form_may_not_be_is_one_clear_error_and_counted(desk, body, status, reason):
    found, answer = desk.json("POST", "/v1/lookup", body, **FORM)
    assert (found, answer["reason"]) == (status, reason)
    assert "expected" in answer["error"]
    assert desk.counters.total("lookups", result=reason) == 1


def test_a_form_that_is_too_long_is_refused_by_what_it_claims(desk):
    assert desk.json("POST", "/v1/lookup", b"x", Content_Length=str(MAX_BODY_BYTES + 100_000), **FORM)[0] == 413


def test_another_content_type_is_refused(desk):
    status, answer = desk.json("POST", "/v1/lookup", NOISE, Content_Type="text/html")
    assert (status, answer["reason"]) == (415, "not_a_picture")


def test_the_page_and_its_parts_are_served_and_need_nobody_else(desk):
    response, page = desk.ask("GET", "/")
    assert response.status == 200
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    parts = re.findall(rb'(?:src|href)="([^"#]+)"', page)
    assert len(parts) >= 3
    for part in parts:
        assert desk.ask("GET", part.decode())[0].status == 200
    assert b"://" not in page
    assert desk.ask("GET", "/static/../kiosk.py")[0].status == 404


def test_the_contract_is_served_and_names_every_path(desk):
    data = desk.ask("GET", "/openapi.json")[1]
    assert json.loads(data) == CONTRACT
    routes = {route.path.replace(":int", "") for route in desk.server._app().routes}
    assert {path for path in routes if path.startswith("/v1/")} == set(CONTRACT["paths"])


def test_the_state_follows_what_is_seen_and_touched(desk):
    show(desk.kiosk, SIDES[0], OATS)
    status, state = desk.json("GET", "/v1/state")
    assert (status, state["phase"], state["answer"]["match"]["label"]) == (200, "answer", "Oat flakes")
    assert desk.json("POST", "/v1/dismiss")[1]["phase"] == "waiting"
    assert desk.json("POST", "/v1/ask")[1]["phase"] == "hold_still"
    assert desk.json("GET", f"/v1/state?after={state['version']}")[1]["phase"] == "hold_still"


def test_a_thing_is_taught_listed_shown_looked_up_and_forgotten(desk):
    status, lesson = teach_red(desk)
    assert (status, lesson["label"], lesson["recognised"]) == (201, "Red thing", 1)
    assert desk.woken == 1
    assert desk.json("GET", "/v1/taught")[1]["taught"][0]["item"] == lesson["item"]
    assert desk.ask("GET", f"/v1/picture?item={lesson['item']}")[1][:2] == b"\xff\xd8"
    found = desk.json("POST", "/v1/lookup", desk.store.look(desk.store.items()[0], 0))[1]
    assert found["match"]["item"] == lesson["item"]
    assert desk.ask("DELETE", f"/v1/taught/{lesson['item']}")[0].status == 204
    assert desk.json("DELETE", f"/v1/taught/{lesson['item']}")[0] == 404
    assert desk.json("GET", f"/v1/picture?item={lesson['item']}")[0] == 404


def test_looks_are_shown_while_they_are_taken(desk):
    show(desk.kiosk, SIDES[0])
    assert desk.json("POST", "/v1/teaching")[1]["phase"] == "teaching"
    show(desk.kiosk, SIDES[0])
    assert desk.ask("GET", "/v1/teaching/looks/0")[0].headers["Content-Type"] == "image/jpeg"
    assert desk.ask("GET", "/v1/teaching/looks/1")[0].status == 404
    assert desk.json("DELETE", "/v1/teaching")[1]["phase"] == "waiting"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"label": 3}', b'{"label": ""}', b'{"label": "x"}', b"x" * 20_000]
)
def test_a_lesson_without_a_name_or_looks_is_refused(desk, body):
    status, answer = desk.json("POST", "/v1/taught", body)
    assert (status, answer["reason"]) == (422, "not_taught")
    assert desk.counters.total("kiosk_refused", reason="not_taught") == 1


def test_the_live_picture_is_a_jpeg_with_a_number(desk):
    desk.kiosk.live()
    show(desk.kiosk, SIDES[0])
    response, data = desk.ask("GET", "/v1/live?after=0")
    assert (response.status, response.headers["X-Number"], data[:2]) == (200, "1", b"\xff\xd8")


def test_without_the_token_nothing_is_told(locked):
    for path in ("/", "/static/kiosk.js", "/v1/state", "/v1/live", "/openapi.json"):
        response, _ = locked.ask("GET", path)
        assert (path, response.status) == (path, 401)
    assert locked.json("POST", "/v1/lookup", NOISE, Authorization="Bearer wrong")[0] == 401
    assert locked.ask("GET", "/?token=wrong")[0].status == 401
    assert locked.counters.total("kiosk_refused", reason="no_token") == 7


def test_the_token_is_taken_once_for_a_cookie_that_scripts_cannot_read(locked):
    response, _ = locked.ask("GET", "/?token=open%20sesame")
    assert (response.status, response.headers["Location"]) == (303, "/")
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    assert locked.ask("GET", "/", Cookie=cookie.partition(";")[0])[0].status == 200
    assert locked.json("POST", "/v1/lookup", NOISE, Authorization=f"Bearer {TOKEN}")[0] == 200


def test_another_sites_page_is_refused(desk):
    assert desk.json("POST", "/v1/lookup", NOISE, Origin="http://evil.example")[0] == 403
    assert desk.json("POST", "/v1/lookup", NOISE, Host="evil.example")[0] == 403
    assert desk.counters.total("kiosk_refused", reason="wrong_origin") == 1


def test_answers_are_not_held_back_by_nagles_wait(desk):
    """asyncio turns it off for sockets that name their protocol; each answer took 40 ms longer before."""
    assert desk.server._socket.proto == socket.IPPROTO_TCP


def test_only_so_many_pictures_are_held_at_once(desk):
    waiting = [http.client.HTTPConnection("127.0.0.1", desk.server.port, timeout=5) for _ in range(4)]
    for connection in waiting:  # the body never comes
        connection.putrequest("POST", "/v1/lookup")
        connection.putheader("Content-Length", "100")
        connection.endheaders()
    status = 200
    while status != 503:  # the requests before may not have been read yet
        status, answer = desk.json("POST", "/v1/lookup", NOISE)
    assert answer["reason"] == "busy"
    for connection in waiting:
        connection.close()
    while desk.json("POST", "/v1/lookup", NOISE)[0] != 200:
        pass
    assert desk.counters.total("lookups", result="left") == 4


def test_a_port_in_use_is_our_error(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = KioskConfig(camera="c", port=other.getsockname()[1])
        desk = Desk.__new__(Desk)
        with pytest.raises(ConfigError, match="kiosk: cannot listen on"):
            KioskServer(config, Kiosk(FakeDevice(TaughtStore(tmp_path, 1)), None, "c", 1, 8), None, None, desk)


def test_a_thing_taught_as_negative_is_never_named_and_the_person_is_told_what_is_wrong_with_the_looks(desk):
    show(desk.kiosk, SIDES[2])
    desk.json("POST", "/v1/teaching")
    show(desk.kiosk, SIDES[2])
    status, lesson = desk.json("POST", "/v1/taught", json.dumps({"label": "Price tag", "negative": True}))
    assert (status, lesson["negative"], lesson["recognised"], lesson["concerns"]) == (201, True, 1, [])
    found = desk.json("POST", "/v1/lookup", desk.store.look(desk.store.items()[0], 0))[1]
    assert (found["match"], found["reason"]) == (None, "unknown_item")
    assert teach_red(desk)[1]["concerns"] == [{"kind": "few_looks", "other": None}]
