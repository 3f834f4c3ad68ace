"""One connection to an MQTT broker. The paho door."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.errors import PublishError, RefusedError
from edge.messaging.settings import MqttSettings, tls_context

_PROTOCOLS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}
_ALERT = re.compile(r"alert ([a-z ]+)")  # in OpenSSL's words for what the other side of TLS complains of
_SESSION_S = 3600  # an MQTT 5 broker keeps a session that may be resumed this long


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The broker's answer to one message of QoS 1."""

    message: int  # what publish returned
    refusal: str | None = None  # why the broker will not have it (MQTT 5); None: it has it


@dataclass(frozen=True, slots=True)
class Received:
    """One message from the broker."""

    topic: str
    payload: bytes
    retained: bool  # stored by the broker before this client subscribed
    received_ns: int  # monotonic clock
    reply_to: str | None = None  # MQTT 5: where the sender wants its answer
    correlation: bytes | None = None  # MQTT 5: to be repeated in the answer


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for a client that vanishes; retained, QoS 1."""

    topic: str
    payload: bytes


class Connection:
    """A connection from CONNECT to its loss; it never reconnects. Only `wake` may be called from another thread."""

    def __init__(
        self,
        settings: MqttSettings,
        will: Will | None = None,
        on_message: Callable[[Received], None] = lambda _: None,
        *,
        resume: bool = False,
    ) -> None:
        """Connect, and wait for the broker's answer.

        Args:
            settings: the broker.
            will: published by the broker if this process dies.
            on_message: called inside `step` with what arrives.
            resume: continue the session the broker keeps under this client id, with what it queued meanwhile.

        Raises:
            RefusedError: the broker said no.
            PublishError: there is no broker, or no answer in time, or its certificate is not to be trusted.
        """
        self.window = settings.window
        self._where = settings.address
        self._connected = False
        self._refusal: str | None = None
        self._lost: str | None = None
        self._acknowledged: list[Acknowledgement] = []
        self._subscribed: list[str | None] = []  # per topic asked for: why not, None when agreed
        self._on_message = on_message
        self._client = _client(settings, will, resume=resume)
        self._client.on_connect = self._note_answer
        self._client.on_disconnect = self._note_loss
        self._client.on_publish = self._note_acknowledgement
        self._client.on_subscribe = self._note_subscription
        self._client.on_message = self._note_message
        self._client.on_log = self._note_log
        self._client.on_socket_close = self._note_close
        self._ears, self._waker = socket.socketpair()
        self._ears.setblocking(False)
        self._waker.setblocking(False)
        self._selector = selectors.DefaultSelector()
        try:
            self._open(settings, resume=resume)
        except BaseException:
            self._release()
            raise

    def __enter__(self) -> Connection:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1, correlation: bytes | None = None
    ) -> int:
        """Send a message.

        Args:
            topic: where to.
            payload: what.
            retain: the broker keeps it for who subscribes later.
            qos: 0 or 1.
            correlation: of the message that this one answers; MQTT 3.1.1 cannot carry it.

        Returns:
            The number its acknowledgement will carry.

        Raises:
            PublishError: the message cannot be sent: the connection is lost or the topic is bad.
        """
        try:
            sent = self._client.publish(topic, payload, qos=qos, retain=retain, properties=_answering(correlation))
        except ValueError as error:
            raise PublishError(f"topic {topic!r}: {error}") from error
        if sent.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN}:
            raise self._failure(sent.rc)
        return sent.mid

    def subscribe(self, *topics: str, timeout_s: float = 5.0) -> None:
        """Ask for topics, and wait until the broker agrees.

        Raises:
            RefusedError: it refused one of them; the others it may have granted.
            PublishError: it did not answer.
        """
        self._subscribed = []
        self._client.subscribe([(topic, 1) for topic in topics])
        wanted = ", ".join(topics)
        self._step_until(lambda: bool(self._subscribed), timeout_s, f"no answer to the subscription of {wanted}")
        for topic, complaint in zip(topics, self._subscribed, strict=False):
            if complaint is not None:
                raise RefusedError(f"broker {self._where}: refused the subscription of {topic}: {complaint}")

    def step(self, timeout_s: float) -> list[Acknowledgement]:
        """Send and receive, until something happened, `wake` was called or the time is over.

        Raises:
            PublishError: the connection is lost.
        """
        link: Any = self._client.socket()
        if link is None:
            raise self._failure(MQTTErrorCode.MQTT_ERR_NO_CONN)
        self._selector.modify(link, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0))
        buffered = isinstance(link, ssl.SSLSocket) and link.pending() > 0  # decrypted already: select is blind to it
        ready = {key.fileobj: events for key, events in self._selector.select(0 if buffered else timeout_s)}
        if self._ears in ready:
            with contextlib.suppress(BlockingIOError):
                self._ears.recv(4096)
        result = MQTTErrorCode.MQTT_ERR_SUCCESS
        if buffered or ready.get(link, 0) & selectors.EVENT_READ:
            result = self._client.loop_read()
        if not result and ready.get(link, 0) & selectors.EVENT_WRITE:
            result = self._client.loop_write()
        result = result or self._client.loop_misc()
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._failure(result)
        acknowledged, self._acknowledged = self._acknowledged, []
        return acknowledged

    def wake(self) -> None:
        """Let a `step` under way, or the next one, return at once."""
        with contextlib.suppress(OSError):  # full: it wakes anyway; closed: nobody sleeps
            self._waker.send(b"\0")

    def close(self) -> None:
        """Say goodbye, so that the broker keeps the will to itself."""
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        self._release()

    def _open(self, settings: MqttSettings, *, resume: bool) -> None:
        session = _session(settings, resume=resume)
        try:
            self._client.connect(settings.host, settings.port, settings.keepalive_s, **session)
        except (OSError, ValueError) as error:
            self._note_error(str(error))
            raise self._failure(MQTTErrorCode.MQTT_ERR_CONN_LOST, "cannot connect") from error
        link = self._client.socket()
        if link is None:
            raise self._failure(MQTTErrorCode.MQTT_ERR_CONN_LOST, "cannot connect")
        self._selector.register(link, selectors.EVENT_READ)
        self._selector.register(self._ears, selectors.EVENT_READ)
        self._step_until(lambda: self._connected, settings.connect_timeout_s, "no answer to CONNECT")

    def _step_until(self, done: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise PublishError(f"broker {self._where}: {complaint} in {timeout_s:g} s")
            self.step(left_s)

    def _failure(self, result: MQTTErrorCode, what: str = "connection lost") -> PublishError:
        if self._refusal is not None:
            return RefusedError(f"broker {self._where}: {self._refusal}")
        return PublishError(f"broker {self._where}: {what}: {self._lost or paho.error_string(result)}")

    def _release(self) -> None:
        link = self._client.socket()
        if link is not None:
            link.close()
        self._selector.close()
        self._ears.close()
        self._waker.close()

    def _note_error(self, text: str) -> None:
        if alert := _ALERT.search(text):
            self._refusal = f"refused the connection: TLS alert: {alert[1].strip()}"
        self._lost = text

    # called by paho, inside connect and step

    def _note_answer(self, _client: object, _userdata: object, _flags: object, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refusal = f"refused the connection: {reason}"
            return
        self._connected = True
        # MQTT 5 §3.3.4: the broker may allow fewer messages on their way, and hangs up on more
        self.window = min(self.window, getattr(properties, "ReceiveMaximum", self.window))

    def _note_loss(self, _client: object, _userdata: object, _flags: object, reason: Any, _properties: object) -> None:
        self._lost = self._lost or str(reason)

    def _note_log(self, _client: object, _userdata: object, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:  # paho tells nowhere else why a socket broke
            self._note_error(text)

    def _note_close(self, _client: object, _userdata: object, link: Any) -> None:
        try:
            link.recv(1)
        except OSError as error:  # when sending failed first, the alert that says why is still unread
            if _ALERT.search(str(error)):
                self._note_error(str(error))

    def _note_acknowledgement(self, _client: object, _userdata: object, message: int, reason: Any, *_: object) -> None:
        self._acknowledged.append(Acknowledgement(message, str(reason) if reason.is_failure else None))

    def _note_subscription(self, _client: object, _userdata: object, _number: int, reasons: Any, *_: object) -> None:
        self._subscribed = [str(reason) if reason.is_failure else None for reason in reasons]

    def _note_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        properties: Any = message.properties
        reply_to, correlation = getattr(properties, "ResponseTopic", None), getattr(properties, "CorrelationData", None)
        payload = bytes(message.payload)
        self._on_message(Received(message.topic, payload, message.retain, time.monotonic_ns(), reply_to, correlation))


def _client(settings: MqttSettings, will: Will | None, *, resume: bool) -> paho.Client:
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=settings.client_id,
        clean_session=None if settings.version == "5" else not resume,
        protocol=_PROTOCOLS[settings.version],
        reconnect_on_failure=False,
    )
    client.connect_timeout = settings.connect_timeout_s
    client.max_inflight_messages_set(settings.window)
    if settings.username is not None:
        client.username_pw_set(settings.username, settings.password)
    if settings.tls:
        client.tls_set_context(tls_context(settings))
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=True)
    return client


def _answering(correlation: bytes | None) -> Properties | None:
    if correlation is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = correlation
    return properties


def _session(settings: MqttSettings, *, resume: bool) -> dict[str, Any]:
    """What MQTT 5 says at connect time and 3.1.1 said with the client id."""
    if settings.version != "5":
        return {}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if resume:
        properties.SessionExpiryInterval = _SESSION_S
    return {"clean_start": not resume, "properties": properties}
