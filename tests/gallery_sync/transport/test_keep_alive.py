"""One connection for many requests: used again where that is safe, replaced unseen where the server closed it."""

from __future__ import annotations

import gc
import ssl
import warnings
from collections.abc import Iterator

import pytest

from edge.errors import SyncError
from gallery_sync.transport import http_connection
from gallery_sync.transport.errors import InterruptedTransferError
from gallery_sync.transport.http_connection import Access
from gallery_sync.transport.repository_files import HttpTransport
from tests.integration.certificates import Authority
from tests.sync_server import Server, answer, healthy, raw, redirect, serving

NAMES = [f"object-{number}" for number in range(20)]


@pytest.fixture
def keeping(server) -> Iterator[Server]:
    """The same folder on a server that keeps connections open, with 20 objects."""
    for name in NAMES:
        (server.folder / name).write_bytes(name.encode() * 100)
    with serving(server.folder, keep_alive=True) as running:
        yield running


def read(transport: HttpTransport, name: str) -> bytes:
    with transport.get(name, 0) as body:
        return b"".join(body.chunks)


def read_all(transport: HttpTransport) -> None:
    for name in NAMES:
        assert read(transport, name) == name.encode() * 100


def test_twenty_objects_need_one_connection(keeping):
    read_all(HttpTransport(keeping.url))
    assert (len(keeping.requests), keeping.connections) == (20, 1)


def test_twenty_objects_over_tls_need_one_handshake(server, keeping, tmp_path):
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("server"))
    with serving(server.folder, context, keep_alive=True) as secure:
        read_all(HttpTransport(secure.url, access=Access(ca_file=authority.certificate)))
        assert (len(secure.requests), secure.connections) == (20, 1)


def test_server_that_closes_each_time_is_read_as_before(server, keeping):
    read_all(HttpTransport(server.url))
    assert server.connections == 20


def test_connection_that_the_server_closed_is_replaced_unseen(keeping):
    transport = HttpTransport(keeping.url)
    closing = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")  # closes, and does not say so
    keeping.faults[NAMES[0]] = [closing, healthy]
    assert read(transport, NAMES[0]) == b"ok"
    read_all(transport)
    assert keeping.connections == 2


def test_connection_that_closes_with_the_request_is_replaced_once(keeping):
    transport = HttpTransport(keeping.url)
    keeping.faults[NAMES[1]] = [raw(), healthy]  # reads the request and closes
    read(transport, NAMES[0])
    assert read(transport, NAMES[1]) == NAMES[1].encode() * 100
    assert keeping.connections == 2
    keeping.faults[NAMES[2]] = [raw()]
    with pytest.raises(InterruptedTransferError, match="no response"):
        read(transport, NAMES[2])
    assert keeping.connections == 3


def test_connection_that_was_idle_for_long_is_not_used_again(keeping, monkeypatch):
    transport = HttpTransport(keeping.url)
    read(transport, NAMES[0])
    monkeypatch.setattr(http_connection, "_LONGEST_IDLE_S", -1.0)
    read(transport, NAMES[1])
    assert keeping.connections == 2


@pytest.mark.parametrize("fault", [answer(bytes, 404), answer(bytes, 503)])
def test_connection_of_a_failed_request_is_not_used_again(keeping, fault):
    transport = HttpTransport(keeping.url)
    keeping.faults[NAMES[0]] = [fault]
    with pytest.raises(SyncError):
        read(transport, NAMES[0])
    assert read(transport, NAMES[1]) == NAMES[1].encode() * 100
    assert keeping.connections == 2


def test_connection_of_a_body_that_was_cut_off_is_not_used_again(keeping):
    transport = HttpTransport(keeping.url)
    keeping.faults[NAMES[0]] = [raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\ncut")]
    assert read(transport, NAMES[0]) == b"cut"  # its length is the caller's to check
    assert read(transport, NAMES[1]) == NAMES[1].encode() * 100
    assert keeping.connections == 2


def test_chunked_body_leaves_its_connection_open(keeping):
    transport = HttpTransport(keeping.url)

    def act(handler, _data: bytes) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        return True

    keeping.faults[NAMES[0]] = [act]
    assert [read(transport, NAMES[0]), read(transport, NAMES[0])] == [b"abc", b"abc"]
    assert keeping.connections == 1


def test_connection_of_a_body_that_was_not_read_is_not_used_again(keeping):
    transport = HttpTransport(keeping.url)
    with transport.get(NAMES[0], 0) as body:
        next(body.chunks)
    (keeping.folder / "large").write_bytes(bytes(1 << 20))
    with transport.get("large", 0) as body:
        next(body.chunks)
    assert read(transport, NAMES[1]) == NAMES[1].encode() * 100
    assert keeping.connections == 2


def test_bytes_that_nobody_asked_for_close_the_connection(keeping):
    transport = HttpTransport(keeping.url)
    extra = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def act(handler, _data: bytes) -> bool:
        handler.wfile.write(extra + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        return True

    keeping.faults[NAMES[0]] = [act]
    assert read(transport, NAMES[0]) == b"ok"
    assert read(transport, NAMES[1]) == NAMES[1].encode() * 100


def test_redirect_to_another_host_has_its_own_connection(keeping):
    other = keeping.url.replace("127.0.0.1", "localhost")
    keeping.faults[NAMES[0]] = [redirect(f"{other}/{NAMES[1]}")]
    transport = HttpTransport(keeping.url, access=Access(frozenset({"localhost"})))
    assert read(transport, NAMES[0]) == NAMES[1].encode() * 100
    assert keeping.connections == 2


def test_connection_closes_with_its_transport(keeping):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transport = HttpTransport(keeping.url)
        read(transport, NAMES[0])
        del transport
        gc.collect()


def test_certificate_authorities_are_read_again_when_their_file_changed(server, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    ours, other = Authority(tmp_path / "one"), Authority(tmp_path / "two", "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ours.sign("server"))
    trusted = tmp_path / "trusted.pem"
    with serving(server.folder, context) as secure:
        trusted.write_bytes(other.certificate.read_bytes())
        access = Access(ca_file=trusted)
        with pytest.raises(InterruptedTransferError, match="certificate is not valid"):
            read(HttpTransport(secure.url, access=access), "release.json")
        trusted.write_bytes(other.certificate.read_bytes() + ours.certificate.read_bytes())
        before = http_connection._context.cache_info().misses
        for _ in range(3):
            read(HttpTransport(secure.url, access=access), "release.json")
        assert http_connection._context.cache_info().misses == before + 1
