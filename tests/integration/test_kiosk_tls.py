"""A kiosk with TLS, tested with real handshakes."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess

import pytest

from edge.config.schema import TlsConfig
from edge.errors import ConfigError
from edge.http_server.access import verify_tls
from edge.http_server.listener import MAX_OPEN
from tests.edge.kiosk.test_server import NOISE, TOKEN, Desk
from tests.integration.certificates import Authority


@pytest.fixture
def ours(tmp_path):
    return Authority(tmp_path, "ours")


@pytest.fixture
def desk(tmp_path, ours):
    certificate, key = ours.sign("kiosk")
    desk = Desk(tmp_path / "state", TOKEN, TlsConfig(certificate=certificate, key=key))
    with desk.server:
        yield desk


def ask(desk, authority, method, path, body=None):
    """Send a request as a client that trusts one authority."""
    trust = ssl.create_default_context(cafile=authority.certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", desk.server.port, timeout=60, context=trust)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {TOKEN}"})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def test_picture_is_looked_up_over_tls(desk, ours):
    response, data = ask(desk, ours, "POST", "/v1/lookup", NOISE)
    assert response.status == 200
    assert json.loads(data)["reason"] == "unknown_item"


def test_cookie_is_secure(desk, ours):
    response, _ = ask(desk, ours, "GET", f"/?token={TOKEN.replace(' ', '%20')}")
    assert response.status == 303
    assert "Secure" in response.headers["Set-Cookie"]


def test_failed_handshake_does_not_affect_the_next_client(desk, ours, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(desk, Authority(tmp_path, "other"), "GET", "/v1/state")
    assert ask(desk, ours, "GET", "/v1/state")[0].status == 200


def test_handshakes_that_never_end_keep_nobody_out(desk, ours, caplog):
    with contextlib.ExitStack() as stack:
        for _ in range(2 * MAX_OPEN):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", desk.server.port), 5))
            silent.sendall(b"\x16\x03\x01")  # the beginning of a TLS record
        assert ask(desk, ours, "GET", "/v1/state")[0].status == 200
    assert desk.counters.total("connections_closed", server="kiosk", reason="evicted") > MAX_OPEN / 2
    assert not [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info]


def test_plain_http_is_not_answered(desk):
    connection = http.client.HTTPConnection("127.0.0.1", desk.server.port, timeout=60)
    connection.request("GET", "/", headers={"Authorization": f"Bearer {TOKEN}"})
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        connection.getresponse()
    connection.close()


def test_key_of_another_certificate_is_rejected(tmp_path, ours):
    certificate, _ = ours.sign("kiosk")
    _, key = ours.sign("other")
    with pytest.raises(ConfigError, match=r"kiosk: cannot load .*kiosk\.pem with .*other\.key: .*mismatch"):
        Desk(tmp_path / "state", TOKEN, TlsConfig(certificate=certificate, key=key))


def test_key_with_a_pass_phrase_is_rejected_without_a_prompt(tmp_path, ours):
    certificate, key = ours.sign("kiosk")
    locked = tmp_path / "locked.key"
    command = ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:secret", "-out", locked]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ConfigError, match="the key has a pass phrase; store it without one"):
        verify_tls(TlsConfig(certificate=certificate, key=locked))


def test_file_that_is_not_a_certificate_is_rejected(tmp_path, ours):
    _, key = ours.sign("kiosk")
    (tmp_path / "noise.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"cannot load .*noise\.pem"):
        verify_tls(TlsConfig(certificate=tmp_path / "noise.pem", key=key))
