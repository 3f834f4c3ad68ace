"""The command support-bundle: its archive goes to the owner's address alone."""

from __future__ import annotations

import http.server
import tarfile
import threading
from dataclasses import dataclass, field, replace

import pytest
from pydantic import ValidationError

from edge.errors import SyncError
from gallery_sync.formats.reports import Request
from gallery_sync.remote_hands.permission import Commands
from gallery_sync.remote_hands.support import check_size, put_file, support_bundle
from tests.gallery_sync.remote_hands.samples import NOW, context_of

REQUEST = Request(id="c-1", by="ada", at=NOW, arguments={"url": "http://192.0.2.1/elsewhere"})


@dataclass
class Server:
    """Takes uploads, or answers what a test wants."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)  # of the first answers
    got: list[tuple[str, dict, bytes]] = field(default_factory=list)


@pytest.fixture
def server():
    found = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.got.append((self.path, dict(self.headers), body))
            status = found.statuses.pop(0) if found.statuses else 201
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if 300 <= status < 400:
                self.send_header("Location", f"{found.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        found.url = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        running.shutdown()


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "cam-1.tar.gz"
    path.write_bytes(b"packed")
    return path


def test_archive_is_put_with_its_token(server, archive):
    put_file(archive, f"{server.url}/support/?sig=1", "secret-token", None)
    path, headers, body = server.got[0]
    assert (path, body) == ("/support/cam-1.tar.gz?sig=1", b"packed")
    assert headers["Authorization"] == "Bearer secret-token"


def test_upload_is_tried_again_with_growing_waits(server, archive):
    server.statuses, waited = [503, 429, 500], []
    put_file(archive, server.url, None, None, waited.append)
    assert len(server.got) == 4
    assert [2.5 * 2**n <= wait <= 5 * 2**n for n, wait in enumerate(waited)] == [True] * 3


def test_upload_that_never_succeeds_is_given_up(server, archive):
    server.statuses = [503] * 9
    with pytest.raises(SyncError, match="not uploaded after 5 attempts: the server answered HTTP 503"):
        put_file(archive, server.url, None, None, lambda _: None)


@pytest.mark.parametrize("status", [401, 403, 404, 413, 307])
def test_refusal_and_redirect_are_final(server, archive, status):
    server.statuses = [status]
    with pytest.raises(SyncError, match=f"answered HTTP {status}"):
        put_file(archive, server.url, "secret-token", None)
    assert [path for path, _, _ in server.got] == ["/cam-1.tar.gz"]


def test_address_is_the_owners_alone(tmp_path):
    outcome = support_bundle(REQUEST, context_of(tmp_path, Commands(allow=("support-bundle",))))
    assert (outcome.state, outcome.text[:35]) == ("refused", "agent.yaml names no commands.suppor")


def test_missing_token_is_reported(tmp_path):
    commands = Commands(support_url="https://support.example.com", support_token_env="SUPPORT_TOKEN")
    assert "SUPPORT_TOKEN is not set" in support_bundle(REQUEST, context_of(tmp_path, commands)).text


@pytest.mark.parametrize("url", ["http://support.example.com", "ftp://x", "https://", "http://127.0.0.1.example.com/"])
def test_address_without_tls_is_refused(url):
    with pytest.raises(ValidationError, match=r"starts with https://"):
        Commands(support_url=url)


def test_archive_that_is_too_large_stays(archive):
    archive.write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(SyncError, match="expected at most 1 MiB"):
        check_size(archive, 1)


def test_bundle_is_packed_and_uploaded_without_traces(tmp_path, server):
    (tmp_path / "support-left").mkdir()
    (tmp_path / "agent.json").write_text("{}")
    commands = Commands(support_url=server.url, support_token_env="SUPPORT_TOKEN")
    context = replace(context_of(tmp_path, commands), environment={"SUPPORT_TOKEN": "a-long-token"})
    outcome = support_bundle(REQUEST, context)
    assert outcome.state == "done"
    assert "without the device's configuration" in outcome.text
    path, _, body = server.got[0]
    assert path == f"/{outcome.result['name']}"
    (tmp_path / "got.tar.gz").write_bytes(body)
    with tarfile.open(tmp_path / "got.tar.gz") as tar:
        assert "finesight-support/state/agent.json" in tar.getnames()
    assert list(tmp_path.glob("support-*")) == []
