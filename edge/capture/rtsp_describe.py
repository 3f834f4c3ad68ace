"""Ask an RTSP server to DESCRIBE a stream, with credentials if it wants them: FFmpeg does not say why it fails."""

from __future__ import annotations

import base64
import hashlib
import re
import socket

from edge.config.camera_url import Source

_PAIR = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,]+))')


def describe(source: Source, timeout_s: float) -> str:
    """Return the first line of the server's answer to DESCRIBE.

    Args:
        source: an RTSP camera, without TLS.
        timeout_s: for connecting and for each answer.

    Raises:
        OSError: no connection, or no answer in time.
    """
    with socket.create_connection(source.address, timeout=timeout_s) as connection:
        answer = _request(connection, source, 1, None)
        challenge = choose_challenge(answer)
        if challenge and source.user is not None:
            answer = _request(connection, source, 2, authorization(source, "DESCRIBE", challenge))
    return answer.partition("\r\n")[0]


def authorization(source: Source, method: str, challenge: str) -> str:
    """Return the Authorization header for a challenge: Basic (RFC 7617), or Digest without qop (RFC 2069) with MD5."""
    user, password = source.user or "", source.password or ""
    if not challenge.lower().startswith("digest"):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    parameters = {key.lower(): quoted or bare for key, quoted, bare in _PAIR.findall(challenge)}
    realm, nonce = parameters.get("realm", ""), parameters.get("nonce", "")
    ha1, ha2 = _md5(f"{user}:{realm}:{password}"), _md5(f"{method}:{source.location}")
    fields = {
        "username": user,
        "realm": realm,
        "nonce": nonce,
        "uri": source.location,
        "response": _md5(f"{ha1}:{nonce}:{ha2}"),
    }
    return "Digest " + ", ".join(f'{key}="{value}"' for key, value in fields.items())


def choose_challenge(answer: str) -> str | None:
    """Return the challenge of a 401 to answer: Digest with MD5 if there is one, else Basic."""
    challenges = [
        line.partition(":")[2].strip() for line in answer.split("\r\n") if line.lower().startswith("www-authenticate:")
    ]
    digests = [one for one in challenges if one.lower().startswith("digest") and "sha-" not in one.lower()]
    return next(iter(digests + [one for one in challenges if one.lower().startswith("basic")]), None)


def _request(connection: socket.socket, source: Source, number: int, credentials: str | None) -> str:
    lines = [f"DESCRIBE {source.location} RTSP/1.0", f"CSeq: {number}", "Accept: application/sdp"]
    lines += [f"Authorization: {credentials}"] if credentials else []
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < 65536:
        data = connection.recv(4096)
        if not data:
            break
        answer += data
    return answer.decode("ascii", "replace")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()  # the only algorithm of RFC 2069
