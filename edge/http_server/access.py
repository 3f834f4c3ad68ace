"""Access to the HTTP servers, the kiosk and the health server: host, token, origin, certificate.

Rules this module keeps:
1. Every request must name a host that is the device: an IP address, a name of this machine, or one that is configured.
   Another website cannot reach the device through a name of its own (DNS rebinding). A request without a Host header
   (HTTP/1.0) comes from no browser, and is allowed.
2. With a token, every request must carry it: as `Authorization: Bearer <token>`, as the password of
   `Authorization: Basic` with any user name, or as the cookie that `?token=<token>` sets on the start page. The cookie
   holds a keyed hash, so that no browser stores the token itself.
   Pictures without a token are served on loopback only, which the configuration checks.
3. A request that changes something must come from the server's own page or from no page: another Origin is refused.
4. This module does not need starlette: `edge check` uses it on devices without a kiosk.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from edge.config.schema import TlsConfig
from edge.errors import ConfigError

Refusal = Literal["no_token", "wrong_origin"]


def own_names(listens_on: str, configured: Iterable[str]) -> frozenset[str]:
    """Return the names, in lower case, that a device is reached by: configured ones, and those of this machine."""
    machine = socket.gethostname()
    names = ("localhost", listens_on, machine, f"{machine}.local", *configured)
    return frozenset(name.lower() for name in names if name)


def is_known_host(headers: Mapping[str, str], names: frozenset[str]) -> bool:
    """Return whether a request is meant for this device; headers by lower-case name."""
    if (host := headers.get("host")) is None:
        return True
    name = _host_name(host).lower().removesuffix(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in names
    return True


def wrong_host_message(headers: Mapping[str, str], section: str) -> str:
    """Return what to tell a client that asked for another host; `section` is the server's part of the configuration."""
    asked = headers.get("host", "")[:80]
    return f"{asked!r} is not a name of this device; use its address, or add the name to {section}.host_names"


def cookie_value(token: str) -> str:
    """Return the cookie value that stands for a token."""
    return hmac.new(token.encode(), b"finesight kiosk page", hashlib.sha256).hexdigest()


def token_matches(offered: str, token: str) -> bool:
    """Compare an offered token with the real one in constant time."""
    return hmac.compare_digest(offered.encode(), token.encode())


def refusal_reason(headers: Mapping[str, str], cookie: str, *, changes: bool, token: str | None) -> Refusal | None:
    """Return why a request must be refused; None if it is allowed.

    Args:
        headers: by lower-case name.
        cookie: the value of the server's cookie; empty: none came.
        changes: whether the request's method changes something.
        token: of the server; None: it has none.
    """
    if token is not None:
        offered = _offered_token(headers.get("authorization", ""))
        if not token_matches(offered, token) and not token_matches(cookie, cookie_value(token)):
            return "no_token"
    origin = headers.get("origin")
    if changes and origin is not None and origin.partition("://")[2] != headers.get("host", ""):
        return "wrong_origin"
    return None


def _offered_token(authorization: str) -> str:
    """Return the token in an Authorization header; empty without one."""
    scheme, _, offered = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return offered.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(offered, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeError):
            return ""
    return ""


def _host_name(host: str) -> str:
    """Return a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def tls_files(certificate: Path | None, key: Path | None) -> TlsConfig | None:
    """Return a certificate with its key, which may be in the same file; None without one.

    Raises:
        ConfigError: there is a key alone.
    """
    if certificate is None:
        if key is not None:
            raise ConfigError(f"{key} is the key of no certificate; name the file of the certificate, too")
        return None
    return TlsConfig(certificate=certificate, key=key or certificate)


def verify_tls(tls: TlsConfig) -> None:
    """Check that a server can load the certificate and its key.

    Raises:
        ConfigError: a file is missing or invalid, or the key does not fit or has a pass phrase.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, _no_pass_phrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"cannot load {tls.certificate} with {tls.key}: {error}") from error


def _no_pass_phrase() -> str:
    """Stop OpenSSL from asking for a pass phrase on the terminal."""
    raise OSError("the key has a pass phrase; store it without one")
