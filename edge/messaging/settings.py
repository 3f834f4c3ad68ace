"""What a publisher and its MQTT connection exchange: settings, limits of the broker, messages; and the back-off."""

from __future__ import annotations

import random
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge.config.schema import MqttConfig

CLASHES = 3  # connections in a row, taken away by another client with the same id, that make a pattern


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
    acknowledge_timeout_s: float = 30.0  # with messages in flight and no answer to any of them, the connection ends
    max_incoming_bytes: int = 256 * 1024  # of one packet from the broker

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


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The broker's answer to one message of QoS 1."""

    message_id: int  # as returned by publish
    refusal: str | None = None  # why the broker refused it (MQTT 5); None: accepted
    code: int | None = None  # its reason code, if refused


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """One message from the broker."""

    topic: str
    payload: bytes
    retained: bool  # stored by the broker before this client subscribed
    received_ns: int  # monotonic clock
    reply_to: str | None = None  # MQTT 5: the topic on which the sender wants the reply
    correlation: bytes | None = None  # MQTT 5: to be repeated in the reply


@dataclass(frozen=True, slots=True)
class Will:
    """The last will: published by the broker when the client vanishes."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What an MQTT 5 broker states in its CONNACK; the defaults are those of a broker that states nothing."""

    max_packet_bytes: int | None = None  # of a whole PUBLISH packet; None: not stated
    max_qos: int = 1
    retain: bool = True  # whether it keeps retained messages

    def max_payload_bytes(self, topic: str, correlation: bytes | None = None) -> int | None:
        """Return how long a payload on a topic may be; None: not stated (MQTT 5 §3.3)."""
        if self.max_packet_bytes is None:
            return None
        properties = 1 if correlation is None else 2 + 3 + len(correlation)
        fixed = 2 + len(topic.encode("utf-8", "replace")) + 2 + properties  # topic and packet id have two bytes more
        for length_bytes in range(1, 5):
            remaining = self.max_packet_bytes - 1 - length_bytes
            if remaining < 128**length_bytes:
                return remaining - fixed
        return None  # no packet is larger


def backoff_s(settings: MqttSettings, failures: int, rng: random.Random, clashes: int = 0) -> float:
    """Return the wait before the next connection: doubling, bounded, and jittered so that devices spread out.

    Args:
        settings: the first wait and the longest.
        failures: in a row.
        rng: the jitter.
        clashes: connections in a row that another client with the same id took away; from CLASHES on, the two clients
            only disturb each other, so this one waits up to ten times longer.
    """
    longest = min(settings.backoff_first_s * 2.0 ** min(failures - 1, 30), settings.backoff_max_s)
    if clashes >= CLASHES:
        longest = settings.backoff_max_s * min(2.0 ** (clashes - CLASHES), 10.0)
    return longest * rng.uniform(0.5, 1.0)
