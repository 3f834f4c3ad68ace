"""What is known of devices: from the fleet's server, page by page, or from a file."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from edge.errors import SyncError
from gallery_sync.rollouts.fleet import UnreachableError, dump_rows, open_fleet
from tests.gallery_sync.rollouts.samples import a_plan, a_row

ROWS = [a_row(f"cam-{i:02}", "confirmed") for i in range(25)]


class Answers(BaseHTTPRequestHandler):
    """Answers as the fleet's server does, ten rows a page."""

    def do_GET(self):
        """Answer one page."""
        server, parts = self.server, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        server.asked.append((parts.path, query, self.headers.get("Authorization")))
        status, body = server.answer(query)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


def pages(query):
    first = int(query.get("after", 0))
    devices = json.loads(dump_rows(ROWS[first : first + 10]))["devices"]
    return 200, json.dumps({"devices": devices, "next": str(first + 10) if first + 10 < len(ROWS) else None}).encode()


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as found:
        found.asked, found.answer = [], pages
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found.url = f"http://127.0.0.1:{found.server_port}/fleet"
        yield found
        found.shutdown()
        thread.join()


def test_all_pages_are_read_with_the_token(server):
    found = open_fleet(server.url, "secret").rows("demo")
    assert [row.device for row in found.rows] == [row.device for row in ROWS]
    assert [(path, query.get("after"), token) for path, query, token in server.asked] == [
        ("/fleet/v1/devices", None, "Bearer secret"),
        ("/fleet/v1/devices", "10", "Bearer secret"),
        ("/fleet/v1/devices", "20", "Bearer secret"),
    ]
    assert server.asked[0][1]["line"] == "demo"


@pytest.mark.parametrize("key", ["about", "within"])
def test_rows_for_a_rollout_are_whole_at_an_earlier_server(server, key):
    """It refuses a key that it does not know; a rollout goes on while the server is not updated yet."""
    plan = a_plan()
    release = plan.release
    server.answer = lambda query: (400, b'{"error": "unknown key"}') if key in query else pages(query)
    found = open_fleet(server.url, None).rows("demo", release, plan.open_buckets())
    assert [row.device for row in found.rows] == [row.device for row in ROWS]
    about = f"{release.sequence},{release.bundle_id},{release.gallery_sequence}"
    within = ",".join(map(str, plan.open_buckets()))
    assert [(query.get("about"), query.get("within")) for _, query, _ in server.asked] == [(about, within)] + [
        (None, None)
    ] * 3


def test_unreadable_rows_are_counted_and_stop_no_other(server):
    devices = [{"device": "../x"}, None, json.loads(dump_rows(ROWS[:1]))["devices"][0], 7]
    server.answer = lambda _: (200, json.dumps({"devices": devices, "next": None}).encode())
    found = open_fleet(server.url, None).rows("demo")
    assert ([row.device for row in found.rows], found.unreadable) == (["cam-00"], 3)


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (401, b"", "check the token"),
        (500, b"", "answered with status 500"),
        (302, b"", "answered with status 302"),
        (200, b"<html>", "not JSON"),
        (200, b"[]", "not a JSON object"),
        (200, b"[" * 100_000, "not JSON"),
        (200, b'{"devices": {}}', "no list of devices"),
        (200, b'{"devices": [], "next": "same"}', "does not go on"),
    ],
)
def test_wrong_answers_are_errors(server, status, body, told):
    server.answer = lambda _: (status, body)
    with pytest.raises(UnreachableError, match=told) as error:
        open_fleet(server.url, "secret").rows("demo")
    assert "secret" not in str(error.value)


def test_server_that_is_down_is_an_error(server):
    url = server.url
    server.server_close()
    with pytest.raises(UnreachableError, match="cannot reach the fleet server"):
        open_fleet(url, None).rows("demo")


def test_file_holds_what_the_server_answers(tmp_path):
    path = tmp_path / "devices.json"
    path.write_bytes(dump_rows([*ROWS, a_row("far", line="other")]))
    assert len(open_fleet(str(path), None).rows("demo").rows) == 25
    assert len(open_fleet(f"file://{path}", None).rows("other").rows) == 1
    path.write_text("?")
    with pytest.raises(UnreachableError, match="not JSON"):
        open_fleet(str(path), None).rows("demo")
    with pytest.raises(UnreachableError, match="cannot read"):
        open_fleet(str(tmp_path / "none"), None).rows("demo")


def test_wrong_address_is_refused():
    with pytest.raises(SyncError, match="not a valid URL"):
        open_fleet("http://:1:2/", None)
