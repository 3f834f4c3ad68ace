"""The certificate that a kiosk shows."""

from __future__ import annotations

import ssl

from edge.config import TlsConfig
from edge.errors import ConfigError


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
