"""Settings of the MQTT connection: address, credentials, TLS and reconnect back-off."""

from __future__ import annotations

import random
import secrets
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.config.schema import MqttConfig
from edge.errors import PublishError


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How to reach one broker."""

    client_id: str  # unique at the broker: a second client with this id disconnects the first
    host: str = "localhost"
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    version: Literal["3.1.1", "5"] = "3.1.1"
    keepalive_s: int = 30
    tls: bool = False
    tls_ca: Path | None = None  # None: the authorities of the system
    tls_cert: Path | None = None  # with tls_key: mutual TLS
    tls_key: Path | None = None
    window: int = 64  # messages in flight: sent, not yet acknowledged
    connect_timeout_s: float = 5.0
    backoff_first_s: float = 0.5
    backoff_max_s: float = 30.0

    @property
    def address(self) -> str:
        """Host and port, for log messages."""
        return f"{self.host}:{self.port}"


def mqtt_settings(mqtt: MqttConfig, site: str, device: str) -> MqttSettings:
    """Return the settings of a configuration; the client id is random unless configured."""
    return MqttSettings(
        client_id=mqtt.client_id or f"finesight-{site}-{device}-{secrets.token_hex(4)}",
        host=mqtt.host,
        port=mqtt.port,
        username=mqtt.username,
        password=mqtt.password,
        version=mqtt.version,
        keepalive_s=mqtt.keepalive_s,
        tls=mqtt.tls,
        tls_ca=mqtt.tls_ca,
        tls_cert=mqtt.tls_cert,
        tls_key=mqtt.tls_key,
    )


def backoff_s(settings: MqttSettings, failures: int, rng: random.Random) -> float:
    """Return the wait after this many failures in a row: doubling, bounded, and jittered so that devices spread out."""
    longest = min(settings.backoff_first_s * 2.0 ** min(failures - 1, 30), settings.backoff_max_s)
    return longest * rng.uniform(0.5, 1.0)


class _TlsSocket(ssl.SSLSocket):
    """A TLS socket that closes itself when the handshake fails; paho leaves it open."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise


def tls_context(settings: MqttSettings) -> ssl.SSLContext:
    """Return the TLS context of a broker.

    Raises:
        PublishError: a certificate or key file is missing or invalid.
    """
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        context.sslsocket_class = _TlsSocket
        if settings.tls_cert is not None:
            context.load_cert_chain(settings.tls_cert, settings.tls_key, _no_pass_phrase)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(str(path) for path in (settings.tls_ca, settings.tls_cert, settings.tls_key) if path)
        raise PublishError(f"TLS files {files}: cannot load: {error}") from error
    return context


def _no_pass_phrase() -> str:
    """Stop OpenSSL from prompting on the terminal of an unattended device."""
    raise OSError("the key is encrypted; give one without a pass phrase")
