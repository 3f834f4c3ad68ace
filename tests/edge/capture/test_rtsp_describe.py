"""DESCRIBE requests to RTSP servers, with and without credentials."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.capture.rtsp_describe import authorization, choose_challenge, describe
from edge.config.camera_url import parse_source

REFUSAL = "RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n{challenge}\r\n\r\n"
NOT_FOUND = "RTSP/1.0 404 Not Found\r\nCSeq: 2\r\n\r\n"


class FakeCamera:
    """Listens on loopback, answers the requests of one connection from a script, and keeps the requests."""

    def __init__(self, *answers):
        self.requests = []
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}/live"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_exception):
        self._listener.close()
        self._thread.join(60)

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection:
            for answer in self._answers:
                self.requests.append(connection.recv(4096).decode())
                connection.sendall(answer.encode() if isinstance(answer, str) else answer)


def test_accepted_credentials_reveal_the_real_answer():
    """A 401 would mislead the user when the path is wrong."""
    with FakeCamera(REFUSAL.format(challenge='WWW-Authenticate: Basic realm="cam"'), NOT_FOUND) as camera:
        answer = describe(parse_source(f"rtsp://admin:se%20cret@{camera.url}"), 2.0)
    assert answer == "RTSP/1.0 404 Not Found"
    assert "Authorization" not in camera.requests[0]
    assert "Authorization: Basic YWRtaW46c2UgY3JldA==" in camera.requests[1]


def test_without_credentials_the_answer_is_401():
    with FakeCamera(REFUSAL.format(challenge='WWW-Authenticate: Basic realm="cam"')) as camera:
        assert describe(parse_source(f"rtsp://{camera.url}"), 2.0) == "RTSP/1.0 401 Unauthorized"
        assert len(camera.requests) == 1


def test_digest_is_preferred_to_basic():
    both = 'WWW-Authenticate: Basic realm="cam"\r\nWWW-Authenticate: Digest realm="cam", nonce="b5"'
    with FakeCamera(REFUSAL.format(challenge=both), NOT_FOUND) as camera:
        describe(parse_source(f"rtsp://admin:secret@{camera.url}"), 2.0)
    assert "Authorization: Digest" in camera.requests[1]
    assert "secret" not in camera.requests[1]


def test_digest_response_follows_the_rfc():
    """The example of RFC 2617 3.5, answered without qop."""
    source = parse_source("rtsp://Mufasa:Circle%20Of%20Life@cam/dir/index.html")
    header = authorization(source, "GET", 'Digest realm="testrealm@host.com", nonce=dcd98b7102dd2f0e8b11d0f600bfb0c093')
    # ha1 of the RFC: 939e7578ed9e3c518a452acee763bce9; ha2 = md5(GET:rtsp://cam/dir/index.html)
    assert 'response="0d9b6d25b441b4cb02f32fe841d94dee"' in header


def test_silent_server_is_a_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OSError, match="timed out"):
        describe(parse_source(f"rtsp://127.0.0.1:{silent.getsockname()[1]}/live"), 0.05)


PIECES = [
    "WWW-Authenticate: ",
    "Basic ",
    "Digest ",
    "realm=",
    "nonce=",
    "algorithm=SHA-256",
    '"',
    ",",
    "=",
    " ",
    "\r\n",
    "\r",
    "\n",
]
ANSWERS = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=15).map("".join)
SOURCE = parse_source("rtsp://admin:se%20cret@cam/live")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(ANSWERS)
def test_any_answer_gives_one_authorization_header_or_none(answer):
    challenge = choose_challenge("RTSP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n" + answer)
    header = authorization(SOURCE, "DESCRIBE", challenge)
    assert header.startswith(("Basic ", "Digest "))
    assert "se cret" not in header
    assert choose_challenge(answer) is None or "www-authenticate:" in answer.lower()


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_of_a_server_give_its_first_line(answer):
    with FakeCamera(answer.replace(b"401", b"") + b"\r\n\r\n") as camera:
        line = describe(parse_source(f"rtsp://{camera.url}"), 2.0)
    assert "\r\n" not in line


def test_server_that_hangs_up_gives_an_empty_line():
    with FakeCamera(b"") as camera:
        assert describe(parse_source(f"rtsp://admin:secret@{camera.url}"), 2.0) == ""
