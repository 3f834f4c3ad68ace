"""The server over HTTP, with routes of the test's own: uploads, caches, compression, methods, and failures."""

from __future__ import annotations

import gzip
import logging
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel

from console.web.routing import Bytes, Download, Html, Redirect, Values, api, page
from tests.console.web.web_samples import console, raw
from tests.console_samples import TOKEN
from tests.waiting import until

seen = []  # what handlers were given


class Note(BaseModel):
    note: str = ""


class Numbers(BaseModel):
    n: list[int] = []


def upload(call):
    seen[:] = [(one.name, one.path.parent.parent, one.path.read_bytes()) for one in call.files]
    return Values({"note": call.body.note, "sizes": [one.size for one in call.files]})


def fail(_):
    raise ZeroDivisionError("a bug")


def wrong_template(_):
    return Html("parts/task.html")  # needs `task`


ROUTES = (
    page("/long", "viewer", lambda _: Html("error.html", {"status_code": 200, "text": "x" * 5000})),
    page("/bug", "viewer", fail),
    page("/template", "viewer", wrong_template),
    page("/elsewhere", "viewer", lambda _: Redirect("/long")),
    api("POST", "/upload", "labeller", upload, "", body=Note, upload_bytes=1_000_000),
    api("POST", "/bug", "viewer", fail, ""),
    api("GET", "/numbers", "viewer", lambda call: Values({"n": call.query.n}), "", query=Numbers),
    api("GET", "/picture", "viewer", lambda _: Bytes(b"\xff\xd8" * 900, "image/jpeg", 60), ""),
    api("GET", "/svg", "viewer", lambda _: Bytes(b"<svg/>", "image/svg+xml"), ""),
    api("GET", "/file", "viewer", lambda _: Download('a"\r\nX: y/ü.csv', "text/csv", b"1"), ""),
    api("GET", "/gone", "viewer", lambda _: Download("x", "text/csv", Path("/nowhere/at/all")), ""),
    api("GET", "/things/{id:int}", "viewer", lambda call: Values({"id": call.path["id"]}), ""),
    api("PUT", "/things/{id:int}", "viewer", lambda call: Values({"put": call.path["id"]}), ""),
    api("DELETE", "/things", "viewer", lambda call: Values({"note": call.body.note}), "", body=Note),
    api("GET", "/names/{name}", "viewer", lambda call: Values({"name": call.path["name"]}), ""),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with console(tmp_path_factory.mktemp("console"), ROUTES) as running:
        yield running


@pytest.fixture
def incoming(client):
    return client.services.settings.incoming


def test_upload_lies_in_the_data_folder_while_it_is_handled(client, incoming):
    reply = client.upload("/api/v1/upload", {"a.jpg": b"abc", "b.jpg": b""}, note="ü")
    assert (reply.json["note"], reply.json["sizes"]) == ("ü", [3, 0])
    assert seen == [("a.jpg", incoming, b"abc"), ("b.jpg", incoming, b"")]
    assert list(incoming.iterdir()) == []


def test_upload_is_bounded_by_its_length(client):
    assert client.upload("/api/v1/upload", {"a": b"x" * 1_000_001}).status == 413


def test_chunked_upload_is_bounded_too(client, incoming):
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    body = b'--limit\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    head = (
        f"POST /api/v1/upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: multipart/form-data; boundary=limit\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    reply = raw(client, head.encode() + f"{len(body):x}\r\n".encode() + body + b"\r\n" + chunk * 20 + b"0\r\n\r\n")
    assert (reply.status, list(incoming.iterdir())) == (413, [])


def test_client_that_leaves_in_the_middle_leaves_nothing(client, incoming, caplog):
    before = client.services.gate.counters.total("http_left")
    where = urlsplit(client.url)
    with socket.create_connection((where.hostname, where.port)) as connection:
        head = (
            f"POST /api/v1/upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Content-Type: multipart/form-data; boundary=limit\r\nContent-Length: 900000\r\n\r\n"
        )
        connection.sendall(
            head.encode() + b'--limit\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nx'
        )
        until(lambda: list(incoming.iterdir()), "the upload did not begin")
    until(lambda: client.services.gate.counters.total("http_left") == before + 1, "nobody left")
    assert list(incoming.iterdir()) == []
    assert caplog.records == []


@pytest.mark.parametrize(("method", "path"), [("GET", "/bug"), ("POST", "/api/v1/bug"), ("GET", "/template")])
def test_bug_is_counted_and_logged_once(client, caplog, method, path):
    before = client.services.gate.counters.total("http_failures")
    reply = client.send(method, path)
    assert reply.status == 500
    assert "the console failed; its log says why" in reply.text
    assert "Error" not in reply.text
    assert client.services.gate.counters.total("http_failures") == before + 1
    assert [one.levelno for one in caplog.records] == [logging.ERROR]
    assert "Traceback" in caplog.text


def test_bug_in_the_page_of_errors_is_answered_too(client, monkeypatch, caplog):
    monkeypatch.setattr("console.web.server.render", fail)
    reply = client.get("/bug")
    assert (reply.status, reply.text) == (500, "the console failed; its log says why")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert len(caplog.records) == 1


@pytest.mark.parametrize("path", ["/api/v1/gone", "/api/v1/svg"])
def test_answer_that_cannot_be_sent_is_a_bug(client, caplog, path):
    assert client.get(path).status == 500
    assert len(caplog.records) == 1


def test_pages_and_json_are_compressed_and_pictures_are_not(client):
    reply = client.get("/long", Accept_Encoding="gzip").headers
    assert "content-encoding" not in reply
    reply = client.get("/long", **{"Accept-Encoding": "gzip"})
    assert reply.headers["content-encoding"] == "gzip"
    assert b"xxxxx" in gzip.decompress(reply.body)
    assert int(reply.headers["content-length"]) == len(reply.body) < 2000
    assert "content-encoding" not in client.get("/api/v1/picture", **{"Accept-Encoding": "gzip"}).headers


def test_picture_is_kept_by_the_browser_and_asked_for_by_its_tag(client):
    first = client.get("/api/v1/picture")
    assert first.headers["cache-control"] == "private, max-age=60"
    again = client.get("/api/v1/picture", **{"If-None-Match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


def test_static_files_are_revalidated_and_compressed(client):
    first = client.get("/static/console.js", **{"Accept-Encoding": "gzip"})
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["content-encoding"] == "gzip"
    assert first.headers["content-type"].startswith("text/javascript")
    assert first.headers["x-content-type-options"] == "nosniff"
    assert client.get("/static/console.js", **{"If-None-Match": first.headers["etag"]}).status == 304


@pytest.mark.parametrize(
    "path", ["/static/../server.py", "/static/%2e%2e/%2e%2e/settings.py", "/static//etc/passwd", "/static/%00"]
)
def test_static_files_stay_in_their_folder(client, path):
    assert raw(client, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).status == 404


def test_name_of_a_download_cannot_add_a_header(client):
    reply = client.get("/api/v1/file")
    assert reply.headers["content-disposition"] == "attachment; filename*=utf-8''a%22%0D%0AX%3A%20y%2F%C3%BC.csv"
    assert "x" not in reply.headers


def test_head_answers_without_a_body(client):
    for path in ("/long", "/api/v1/picture", "/static/console.css"):
        reply = client.ask("HEAD", path, None, {})
        assert (reply.status, reply.body) == (200, b"")
        assert int(reply.headers["content-length"]) > 0


def test_methods_of_one_address_are_told_apart(client):
    assert client.get("/api/v1/things/3").json["id"] == 3
    assert client.send("PUT", "/api/v1/things/3").json["put"] == 3
    reply = client.send("PATCH", "/api/v1/things/3")
    assert (reply.status, reply.json["reason"]) == (405, "method")
    assert {one.strip() for one in reply.headers["allow"].split(",")} == {"GET", "HEAD", "PUT"}
    assert client.send("TRACE", "/api/v1/things/3").status == 405


def test_fields_of_a_deletion_may_be_in_the_address(client):
    assert client.send("DELETE", "/api/v1/things?note=x").json["note"] == "x"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/things/99999999999999999999999", 404),
        ("/api/v1/things/x", 404),
        ("/api/v1/names/%00", 404),
        ("/api/v1/names/%ff%ed%a0%80", 200),
        ("/api/v1/names/" + "x" * 20_000, 200),
        ("/api/v1/numbers?n=1&n=2", 200),
        ("/api/v1/numbers?n=9007199254740993", 422),
        ("/api/v1/numbers?n=" + "9" * 5000, 422),
        ("/api/v1/picture?x=1", 422),
        ("/%c0%af", 404),
        ("//evil.example/long", 404),
    ],
)
def test_hostile_addresses(client, path, status):
    assert client.get(path).status == status


def test_unknown_page_is_a_page_for_people(client):
    reply = client.get("/nowhere", Accept="text/html")
    assert reply.status == 404
    assert "Not here" in reply.text
    assert client.get("/api/v1/nowhere", Accept="text/html").json["reason"] == "not_found"


def test_other_host_is_refused(client):
    reply = client.get("/long", Host="evil.example")
    assert reply.status == 421
    assert "--host-name" in reply.text


@pytest.mark.parametrize(
    "request_text",
    [
        "GET / HTTP/1.1\r\n\r\n",
        "POST /api/v1/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "POST /api/v1/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "\x00\x01\x02\r\n\r\n",
    ],
)
def test_requests_that_are_no_http_get_400(client, request_text):
    assert raw(client, request_text.encode()).status == 400
