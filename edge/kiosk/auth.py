"""Who may talk to a kiosk, decided from the request alone.

Rules this module keeps:
1. With a token, every request carries it: `Authorization: Bearer <token>`, or the cookie that `/?token=<token>` sets.
   The cookie holds a keyed hash, so that the token itself is in no browser's store.
2. Without a token the kiosk listens on loopback only, and answers only to names of this machine: a web page elsewhere
   cannot point a name of its own at it (DNS rebinding).
3. What changes something must come from the kiosk's own page or from no page at all: another site's Origin is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import Mapping
from typing import Literal

from edge.config.schema import TlsConfig, is_loopback
from edge.errors import ConfigError

COOKIE = "finesight_kiosk"
Refusal = Literal["no_token", "wrong_host", "wrong_origin"]


def cookie_value(token: str) -> str:
    """What the browser keeps instead of the token."""
    return hmac.new(token.encode(), b"finesight kiosk page", hashlib.sha256).hexdigest()


def token_matches(offered: str, token: str) -> bool:
    """Whether somebody knows the token."""
    return hmac.compare_digest(offered.encode(), token.encode())


def refusal_reason(
    headers: Mapping[str, str], cookies: Mapping[str, str], *, changes: bool, token: str | None
) -> Refusal | None:
    """Why a request is refused, None when it is not.

    Args:
        headers: by lower-case name.
        cookies: by name.
        changes: whether the method changes something.
        token: of the kiosk; None on loopback.
    """
    host = headers.get("host", "")
    if token is not None:
        scheme, _, offered = headers.get("authorization", "").partition(" ")
        bearer = scheme.lower() == "bearer" and token_matches(offered.strip(), token)
        if not bearer and not token_matches(cookies.get(COOKIE, ""), cookie_value(token)):
            return "no_token"
    elif not is_loopback(_name_of(host)):
        return "wrong_host"
    origin = headers.get("origin")
    if changes and origin is not None and origin.partition("://")[2] != host:
        return "wrong_origin"
    return None


def _name_of(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def verify_tls(tls: TlsConfig) -> None:
    """Find out whether a server can show the certificate.

    Raises:
        ConfigError: a file is missing, or not what it should be.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, _no_pass_phrase)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(f"kiosk.tls: cannot load {tls.certificate} with {tls.key}: {error}") from error


def _no_pass_phrase() -> str:
    """Stop OpenSSL from asking the terminal, where nobody sits."""
    raise OSError("found an encrypted key, expected one without a pass phrase")
