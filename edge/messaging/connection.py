"""One connection to an MQTT broker. The only module that imports paho."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import ssl
import struct
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt import MQTTException
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.errors import MessageError, PublishError, RefusedError
from edge.messaging.settings import Acknowledgement, BrokerLimits, MqttSettings, ReceivedMessage, Will

_PROTOCOLS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}
_ALERT = re.compile(r"alert ([a-z ]+)")  # how OpenSSL reports an alert from the TLS peer
_SESSION_S = 3600  # how long an MQTT 5 broker keeps a session for resuming
# what paho raises for packets that are not MQTT; a test sends it random bytes
_MALFORMED = (MQTTException, ValueError, LookupError, TypeError, AssertionError, struct.error)


class Connection:
    """One connection, which never reconnects. Only `wake` may be called from another thread."""

    def __init__(
        self,
        settings: MqttSettings,
        will: Will | None = None,
        on_message: Callable[[ReceivedMessage], None] = lambda _: None,
        *,
        resume: bool = False,
    ) -> None:
        """Connect and wait for the broker's answer.

        Args:
            settings: the broker.
            will: published by the broker if this process dies.
            on_message: called inside `step` with each received message.
            resume: continue the session that the broker keeps for this client id, with the messages it queued.

        Raises:
            RefusedError: the broker refused the connection.
            PublishError: there is no broker, no answer in time, or its certificate is not trusted.
        """
        self.window = settings.window
        self.limits = BrokerLimits()
        self._max_incoming_bytes = settings.max_incoming_bytes
        self._address = settings.address
        self._connected = False
        self._refusal: str | None = None
        self._code: int | None = None  # why the broker refused or ended the connection
        self._loss_reason: str | None = None
        self._acknowledged: list[Acknowledgement] = []
        self._subscribe_refusals: list[str | None] = []  # per requested topic: the reason; None: granted
        self._on_message = on_message
        self._client = _client(settings, will, resume=resume)
        self._client.on_connect = self._on_connack
        self._client.on_disconnect = self._on_disconnect
        self._client.on_publish = self._on_puback
        self._client.on_subscribe = self._on_suback
        self._client.on_message = self._on_paho_message
        self._client.on_log = self._on_log
        self._client.on_socket_close = self._on_socket_close
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._wake_receiver.setblocking(False)
        self._wake_sender.setblocking(False)
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
        """Send a message, at the lower QoS and without retain where the broker does not offer them.

        Args:
            topic: the topic.
            payload: the message.
            retain: the broker keeps it for later subscribers.
            qos: 0 or 1. At QoS 0 it counts as acknowledged when it is sent.
            correlation: of the message that this one answers; MQTT 3.1.1 cannot carry it.

        Returns:
            The id that its acknowledgement will carry.

        Raises:
            MessageError: the topic or the size is not allowed in MQTT.
            PublishError: the connection is lost.
        """
        qos, retain = min(qos, self.limits.max_qos), retain and self.limits.retain
        try:
            sent = self._client.publish(
                topic, payload, qos=qos, retain=retain, properties=_correlation_properties(correlation)
            )
        except (ValueError, struct.error) as error:  # paho checks topic and size
            raise MessageError(f"topic {topic[:80]!r}: {error}") from error
        if sent.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN}:
            raise self._failure(sent.rc)
        return sent.mid

    def subscribe(self, *topics: str, timeout_s: float = 5.0) -> None:
        """Subscribe to topics and wait for the broker's answer.

        Raises:
            RefusedError: the broker refused one of them; it may have granted the others.
            PublishError: the broker did not answer.
        """
        self._subscribe_refusals = []
        self._client.subscribe([(topic, 1) for topic in topics])
        wanted = ", ".join(topics)
        self._step_until(lambda: bool(self._subscribe_refusals), timeout_s, f"no answer to SUBSCRIBE {wanted}")
        for topic, refusal in zip(topics, self._subscribe_refusals, strict=False):
            if refusal is not None:
                raise RefusedError(f"broker {self._address}: refused the subscription of {topic}: {refusal}")

    def step(self, timeout_s: float) -> list[Acknowledgement]:
        """Send and receive until something happens, `wake` is called or the time is up.

        Raises:
            PublishError: the connection is lost, or the broker sent what is not MQTT.
        """
        sock: Any = self._client.socket()
        if sock is None:
            raise self._failure(MQTTErrorCode.MQTT_ERR_NO_CONN)
        self._selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._client.want_write() else 0))
        # select does not report data that TLS has already decrypted
        buffered = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = {key.fileobj: events for key, events in self._selector.select(0 if buffered else timeout_s)}
        if self._wake_receiver in ready:
            with contextlib.suppress(BlockingIOError):
                self._wake_receiver.recv(4096)
        result = MQTTErrorCode.MQTT_ERR_SUCCESS
        if buffered or ready.get(sock, 0) & selectors.EVENT_READ:
            result = self._read()
        if not result and ready.get(sock, 0) & selectors.EVENT_WRITE:
            result = self._client.loop_write()
        result = result or self._client.loop_misc()
        if result != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self._failure(result)
        acknowledged, self._acknowledged = self._acknowledged, []
        return acknowledged

    def wake(self) -> None:
        """Make the running `step`, or the next one, return at once."""
        with contextlib.suppress(OSError):  # full: a wake-up is pending; closed: no step is running
            self._wake_sender.send(b"\0")

    def close(self) -> None:
        """Disconnect cleanly, so that the broker does not publish the will."""
        with contextlib.suppress(OSError, ValueError):
            self._client.disconnect()
        self._release()

    def _open(self, settings: MqttSettings, *, resume: bool) -> None:
        session = _session_arguments(settings, resume=resume)
        try:
            self._client.connect(settings.host, settings.port, settings.keepalive_s, **session)
        except (OSError, ValueError) as error:
            self._note_error(str(error))
            raise self._failure(MQTTErrorCode.MQTT_ERR_CONN_LOST, "cannot connect") from error
        sock = self._client.socket()
        if sock is None:
            raise self._failure(MQTTErrorCode.MQTT_ERR_CONN_LOST, "cannot connect")
        self._selector.register(sock, selectors.EVENT_READ)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._step_until(lambda: self._connected, settings.connect_timeout_s, "no answer to CONNECT")

    def _read(self) -> MQTTErrorCode:
        try:
            result = self._client.loop_read()
        except _MALFORMED as error:
            raise PublishError(f"broker {self._address}: it sent what is not MQTT: {error!r}"[:300]) from error
        if self._client._in_packet["remaining_length"] > self._max_incoming_bytes:  # noqa: SLF001  no other way to tell
            raise PublishError(f"broker {self._address}: it sent a packet above {self._max_incoming_bytes} bytes")
        return result

    def _step_until(self, done: Callable[[], bool], timeout_s: float, problem: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise PublishError(f"broker {self._address}: {problem} in {timeout_s:g} s")
            self.step(left_s)

    def _failure(self, result: MQTTErrorCode, what: str = "connection lost") -> PublishError:
        if self._refusal is not None:
            return RefusedError(f"broker {self._address}: {self._refusal}", self._code)
        reason = self._loss_reason or paho.error_string(result)
        return PublishError(f"broker {self._address}: {what}: {reason}", self._code)

    def _release(self) -> None:
        sock = self._client.socket()
        if sock is not None:
            sock.close()
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    def _note_error(self, text: str) -> None:
        if alert := _ALERT.search(text):
            self._refusal = f"refused the connection: TLS alert: {alert[1].strip()}"
        self._loss_reason = text

    # callbacks of paho, inside connect and step

    def _on_connack(self, _client: object, _userdata: object, _flags: object, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._refusal, self._code = f"refused the connection: {reason}", reason.value
            return
        self._connected = True
        # MQTT 5 §3.2.2.3: what a broker states here it enforces by disconnecting
        self.window = min(self.window, getattr(properties, "ReceiveMaximum", self.window))
        self.limits = BrokerLimits(
            getattr(properties, "MaximumPacketSize", None),
            getattr(properties, "MaximumQoS", 1),
            bool(getattr(properties, "RetainAvailable", 1)),
        )

    def _on_disconnect(self, _client: object, _userdata: object, flags: Any, reason: Any, _properties: object) -> None:
        if flags.is_disconnect_packet_from_server:
            self._code = reason.value
        self._loss_reason = self._loss_reason or str(reason)

    def _on_log(self, _client: object, _userdata: object, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:  # the only place where paho says why a socket broke
            self._note_error(text)

    def _on_socket_close(self, _client: object, _userdata: object, sock: Any) -> None:
        try:
            sock.recv(1)
        except OSError as error:  # when sending failed first, the alert with the reason is still unread
            if _ALERT.search(str(error)):
                self._note_error(str(error))

    def _on_puback(self, _client: object, _userdata: object, message: int, reason: Any, *_: object) -> None:
        refused = reason.is_failure
        self._acknowledged.append(
            Acknowledgement(message, str(reason) if refused else None, reason.value if refused else None)
        )

    def _on_suback(self, _client: object, _userdata: object, _number: int, reasons: Any, *_: object) -> None:
        self._subscribe_refusals = [str(reason) if reason.is_failure else None for reason in reasons]

    def _on_paho_message(self, _client: object, _userdata: object, message: paho.MQTTMessage) -> None:
        properties: Any = message.properties
        reply_to, correlation = getattr(properties, "ResponseTopic", None), getattr(properties, "CorrelationData", None)
        payload = bytes(message.payload)
        self._on_message(
            ReceivedMessage(message.topic, payload, message.retain, time.monotonic_ns(), reply_to, correlation)
        )


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
        client.will_set(will.topic, will.payload, qos=will.qos, retain=will.retain)
    return client


def _correlation_properties(correlation: bytes | None) -> Properties | None:
    if correlation is None:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = correlation
    return properties


def _session_arguments(settings: MqttSettings, *, resume: bool) -> dict[str, Any]:
    """Return the session arguments of connect for MQTT 5; MQTT 3.1.1 sets them on the client."""
    if settings.version != "5":
        return {}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.MaximumPacketSize = settings.max_incoming_bytes
    if resume:
        properties.SessionExpiryInterval = _SESSION_S
    return {"clean_start": not resume, "properties": properties}
