"""HTTP as hostile, broken and captive networks speak it: redirects, limits of time and size, certificates, proxies."""

from __future__ import annotations

import hashlib
import os
import ssl
import time
from pathlib import Path

import pytest

from edge.errors import SyncError
from gallery_sync.formats.fields import ObjectRef, object_path
from gallery_sync.transport.errors import InterruptedTransferError, TransferError
from gallery_sync.transport.http_connection import Access
from gallery_sync.transport.repository_files import FolderTransport, HttpTransport
from gallery_sync.transport.time_limits import RateMeter, TimeLimits
from tests.integration.certificates import Authority
from tests.sync_server import answer, raw, redirect, serving, silent

OK = b"HTTP/1.1 200 OK\r\n"


def read(url: str, path: str = "release.json", offset: int = 0, timeout_s: float = 5.0, **options: object) -> bytes:
    with HttpTransport(url, timeout_s, **options).get(path, offset) as body:
        return b"".join(body.chunks)


def release_bytes(server) -> bytes:
    return (server.folder / "release.json").read_bytes()


def elsewhere(server) -> str:
    """The same server under another host name."""
    return server.url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_on_the_same_host_is_followed(server, status):
    server.faults["release.json"] = [redirect("/moved/release.json", status)]
    server.faults["moved/release.json"] = [answer(lambda _: release_bytes(server))]
    assert read(server.url) == release_bytes(server)


def test_more_than_five_redirects_are_refused(server):
    server.faults["release.json"] = [redirect("{path}")]
    with pytest.raises(SyncError, match="redirects more than 5 times"):
        read(server.url)
    assert len(server.requests) == 6


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "file:///etc/passwd", "gopher://x/"])
def test_redirect_to_another_scheme_is_refused(server, location):
    server.faults["release.json"] = [redirect(location)]
    with pytest.raises(SyncError, match="redirects from http to"):
        read(server.url)


def test_redirect_without_a_location_ends(server):
    server.faults["release.json"] = [redirect("")]
    with pytest.raises(SyncError, match="redirects more than 5 times"):
        read(server.url)


def test_redirect_to_another_host_needs_permission_and_gets_no_password(server):
    server.faults["release.json"] = [redirect(f"{elsewhere(server)}/copy.json")]
    server.faults["copy.json"] = [answer(lambda _: release_bytes(server))]
    base = server.url.replace("http://", "http://shop:s3cret@")
    with pytest.raises(
        InterruptedTransferError, match=r"redirects to host 'localhost'.*--allow-host localhost"
    ) as caught:
        read(base)
    assert "s3cret" not in str(caught.value)
    server.headers.clear()
    assert read(base, access=Access(frozenset({"localhost"}))) == release_bytes(server)
    assert ["Authorization" in headers for headers in server.headers] == [True, False]


def test_password_of_the_url_is_sent_and_never_printed(server, caplog):
    url = server.url.replace("http://", "http://shop:s3cret@") + "/?sig=t0psecret"
    assert read(url) == release_bytes(server)
    assert server.headers[0]["Authorization"] == "Basic c2hvcDpzM2NyZXQ="
    server.faults["release.json"] = [answer(bytes, 401)]
    with pytest.raises(TransferError, match="check user and password in the URL") as caught:
        read(url)
    shown = str(caught.value) + caplog.text
    assert caught.value.status == 401
    assert "s3cret" not in shown
    assert "t0psecret" not in shown


def stalled(head: bytes):
    """Write these bytes, and nothing more."""

    def act(handler, data: bytes) -> bool:
        handler.wfile.write(head)
        return silent(handler, data)

    return act


SLOW = {
    "slow headers": (raw(OK, endless=b"X", every_s=0.02), "timed out"),
    "endless headers": (raw(OK, endless=b"X-Pad: 1\r\n"), "no response: got more than 100 headers"),
    "a header without end": (raw(OK, endless=b"x" * 65536), "no response: got more than 65536 bytes"),
    "interim answers without end": (
        raw(endless=b"HTTP/1.1 100 Continue\r\n\r\n" * 9999),
        "headers, chunk sizes or trailers|timed out",
    ),
    "silence": (silent, "no response: timed out"),
    "silence in the body": (stalled(OK + b"Content-Length: 9\r\n\r\n{"), "interrupted: timed out"),
    "trailers without end": (
        raw(OK, b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", endless=b"X-Pad: 1\r\n"),
        "headers, chunk sizes or trailers",
    ),
    "chunks of a byte without end": (
        raw(OK, b"Transfer-Encoding: chunked\r\n\r\n", endless=b"1;" + b"x" * 5000 + b"\r\n{\r\n"),
        "headers, chunk sizes or trailers",
    ),
    "chunk size that is no number": (raw(OK, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "interrupted"),
    "not HTTP": (raw(b"SSH-2.0-OpenSSH\r\n\r\n"), "no response: SSH-2.0"),
    "nothing": (raw(), "no response: "),
}


@pytest.mark.parametrize("name", SLOW)
def test_n8_answer_without_end_is_given_up(server, name):
    fault, message = SLOW[name]
    server.faults["release.json"] = [fault]
    started = time.monotonic()
    with pytest.raises(InterruptedTransferError, match=message) as caught:
        read(server.url, timeout_s=0.2)
    assert time.monotonic() - started < 30  # on a busy machine; the server never ends
    assert str(caught.value).isprintable()


def test_n8_rate_is_that_of_the_time_spent_waiting():
    meter = RateMeter(TimeLimits(min_bytes_per_s=100, window_s=10))
    for _ in range(30):
        meter.add(101, 1.0)
    for _ in range(9):
        meter.add(1, 1.0)
    with pytest.raises(InterruptedTransferError, match="found 1 bytes per second, expected at least 100"):
        meter.add(1, 1.0)


def test_negative_content_length_is_ignored(server):
    """By http.client; so the end of the connection is that of the file."""
    server.faults["release.json"] = [answer(lambda data: data, claim=-5)]
    assert read(server.url) == release_bytes(server)


@pytest.mark.parametrize("length", [10, 100_000, 10**30])
def test_wrong_content_length_is_no_document(server, fetch, length):
    server.faults["release.json"] = [answer(lambda data: data, claim=length)]
    ref = ObjectRef(sha256=hashlib.sha256(release_bytes(server)).hexdigest(), size=len(release_bytes(server)))
    server.faults[object_path(ref.sha256)] = server.faults["release.json"]
    with pytest.raises(SyncError, match=r"gave up after 4 attempts: .*(found|no response)|found SHA-256"):
        fetch(timeout_s=0.5).get_document(ref, "document")


def test_partial_answer_that_was_not_asked_for_is_refused(server):
    server.faults["release.json"] = [answer(lambda data: data, 206, Content_Range="bytes 5-9/10")]
    with pytest.raises(SyncError, match="found content range 'bytes 5-9/10', expected one from byte 0"):
        read(server.url)


@pytest.mark.parametrize("status", [100, 300, 304, 305, 451, 599, 999])
def test_any_other_status_is_one_error(server, status):
    server.faults["release.json"] = [raw(f"HTTP/1.1 {status} \x1b[2J\r\n\r\n".encode())]
    with pytest.raises(SyncError) as caught:
        read(server.url, timeout_s=1)
    assert str(caught.value).isprintable()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ours").mkdir()
    return Authority(tmp_path / "ours")


@pytest.fixture
def secure(tmp_path, server, authority):
    """The same repository over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("server"))
    with serving(server.folder, context) as running:
        yield running


def test_n7_certificate_is_verified(secure, server, authority):
    with pytest.raises(
        InterruptedTransferError, match=r"certificate is not valid: .*; check the clock.*--ca-file FILE"
    ):
        read(secure.url)
    trusted = Access(ca_file=authority.certificate)
    assert read(secure.url, access=trusted) == release_bytes(server)
    with pytest.raises(InterruptedTransferError, match="certificate is not valid: Hostname mismatch"):
        read(elsewhere(secure), access=trusted)
    with pytest.raises(SyncError, match=r"missing\.pem: cannot read certificates"):
        read(secure.url, access=Access(ca_file=Path("missing.pem")))


def test_redirect_from_https_to_http_is_refused(secure, server, authority):
    secure.faults["release.json"] = [redirect(server.url + "{path}")]
    with pytest.raises(SyncError, match="redirects from https to 'http'; expected https or better"):
        read(secure.url, access=Access(ca_file=authority.certificate))
    assert server.requests == []


def test_redirect_from_http_to_https_is_followed(secure, server, authority):
    server.faults["release.json"] = [redirect(secure.url + "{path}")]
    assert read(server.url, access=Access(ca_file=authority.certificate)) == release_bytes(server)


def test_proxy_is_used_only_if_it_is_set(server, secure, authority, tmp_path):
    with serving(server.folder) as proxy:
        through = proxy.url.replace("http://", "http://user:pw@")
        assert read("http://repository.invalid", access=Access(proxies={"http": through})) == release_bytes(server)
        assert proxy.headers[-1]["Host"] == "repository.invalid"
        assert proxy.headers[-1]["Proxy-Authorization"] == "Basic dXNlcjpwdw=="
        proxies = {"https": through}
        assert read(secure.url, access=Access(ca_file=authority.certificate, proxies=proxies)) == release_bytes(server)
        assert proxy.requests[-1][0] == secure.url.removeprefix("https://")
        count = len(proxy.requests)
        assert read(server.url) == release_bytes(server)
        assert read(server.url, access=Access(proxies={"http": through, "no": "127.0.0.1"})) == release_bytes(server)
        assert len(proxy.requests) == count
        with pytest.raises(SyncError, match="is not a valid URL") as caught:
            read(server.url, access=Access(proxies={"http": "socks5://user:pw@proxy:1080"}))
        assert "pw" not in str(caught.value)


def test_file_of_a_folder_that_is_none_is_refused(tmp_path):
    (tmp_path / "release.json").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("release.json", "is not a file|cannot read"),
        ("pipe", "is not a file"),
        ("no", "cannot read"),
    ):
        with pytest.raises(SyncError, match=message), FolderTransport(tmp_path).get(name, 0):
            pass
