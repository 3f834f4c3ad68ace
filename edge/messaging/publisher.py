"""The thread that publishes waiting messages to the broker.

Rules:
1. A message leaves the outbox when the broker has acknowledged it, never before. Messages that a lost connection left
   unacknowledged are sent again: a subscriber receives every id at least once, and keeps the first.
2. A message put before the connection was made is sent flagged as historical; new and end events go before updates.
3. The frame loop never waits for this thread.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge.errors import PublishError, RefusedError
from edge.messaging.connection import Acknowledgement, Connection, ReceivedMessage, Will
from edge.messaging.outbox import Outbox
from edge.messaging.outbox_file import OutboxMessage
from edge.messaging.payload import availability_payload, mark_historical
from edge.messaging.retained_queue import QueuedMessage, RetainedQueue
from edge.messaging.send_order import SendOrder
from edge.messaging.settings import MqttSettings, backoff_s
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)

_STABLE_S = 10.0  # after a connection that lasted this long, the back-off starts again at its first step
_MAX_FAILED_SUBSCRIBES = 3
_MAX_STEP_S = 1.0  # longest wait in one step


class BrokerConnection(Protocol):
    """The part of a connection that the publisher uses."""

    window: int  # messages that may be in flight

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1, correlation: bytes | None = None
    ) -> int:
        """Send a message; return the id that its acknowledgement will carry."""
        ...

    def subscribe(self, *topics: str) -> None:
        """Subscribe to topics."""
        ...

    def step(self, timeout_s: float) -> list[Acknowledgement]:
        """Send and receive until something happens."""
        ...

    def wake(self) -> None:
        """End a step from another thread."""
        ...

    def close(self) -> None:
        """Disconnect."""
        ...


OnMessage = Callable[[ReceivedMessage], None]  # called on the publisher thread; must return at once
Connect = Callable[[MqttSettings, Will, OnMessage], BrokerConnection]  # raises PublishError


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """Topics that a publisher subscribes to, and who gets their messages."""

    topics: tuple[str, ...] = ()
    on_message: OnMessage = lambda _: None


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who learns, on the publisher thread, what the broker has acknowledged."""

    on_acknowledged: Callable[[list[str]], None] = lambda _: None  # gets ids of events
    on_cleared: Callable[[str], None] = lambda _: None  # gets a topic whose retained message is deleted


class Publisher:
    """Keeps a connection to the broker and publishes the outbox to it, at QoS 1."""

    def __init__(
        self,
        settings: MqttSettings,
        outbox: Outbox,
        counters: Counters,
        availability_topic: str,
        *,
        subscriptions: Subscriptions | None = None,
        listeners: Listeners | None = None,
        connect: Connect = Connection,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; `start` connects.

        Args:
            settings: the broker.
            outbox: where messages wait.
            counters: counts deliveries, retries and refusals.
            availability_topic: gets online, stopped and (as the last will) offline.
            subscriptions: renewed on every connection, before anything is published.
            listeners: called for what the broker has acknowledged.
            connect: opens a connection.
            rng: jitters the back-off, so that many devices do not reconnect at once.
        """
        self._settings, self._outbox, self._counters = settings, outbox, counters
        self._will = Will(availability_topic, availability_payload("offline"))
        self._subscriptions = subscriptions or Subscriptions()
        self._listeners = listeners or Listeners()
        self._connect, self._rng = connect, rng or random.Random()
        self._retained_queue = RetainedQueue(counters, self._listeners.on_cleared)
        self._failed_subscribes = 0  # connections in a row that were lost while subscribing
        self._connection: BrokerConnection | None = None
        self._error: str | None = None
        self._stop_at: float | None = None  # monotonic; waiting messages may be sent until then
        self._end_backoff = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)

    def __enter__(self) -> Publisher:  # noqa: PYI034  Self is not in Python 3.10
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Connect in the background."""
        self._outbox.set_listener(self._wake)
        self._thread.start()

    def publish_latest(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Publish the latest state of something; returns at once.

        Args:
            topic: a newer payload on the same topic replaces one not yet sent.
            payload: the message.
            retain: retained by the broker and sent again on every connection; otherwise sent only while connected.
        """
        self._retained_queue.put_latest(QueuedMessage(topic, payload, retain))
        self._wake()

    def publish_once(self, topic: str, payload: bytes, what: str, correlation: bytes | None = None) -> None:
        """Publish a message once, if connected; returns at once.

        Args:
            topic: the topic.
            payload: the message.
            what: label of the drop counter, used while disconnected or when the queue is full.
            correlation: of the command that this message answers (MQTT 5).
        """
        self._retained_queue.put_once(QueuedMessage(topic, payload, what=what, correlation=correlation))
        self._wake()

    @property
    def connected(self) -> bool:
        """Whether a connection is open."""
        return self._connection is not None

    @property
    def error(self) -> str | None:
        """The reason for having no connection; None while connected."""
        return self._error

    def close(self, drain_s: float = 2.0) -> None:
        """Send waiting messages if connected, publish "stopped" and disconnect.

        Args:
            drain_s: time for sending; the rest stays in the outbox for the next start.
        """
        self._stop_at = time.monotonic() + drain_s
        self._wake()
        if self._thread.is_alive():
            self._thread.join(drain_s + self._settings.connect_timeout_s + 1.0)

    def _wake(self) -> None:
        connection = self._connection
        if connection is not None:
            connection.wake()
        elif self._stop_at is not None:
            self._end_backoff.set()

    # the publisher thread

    def _run(self) -> None:
        failures = 0
        while self._stop_at is None:
            started = time.monotonic()
            try:
                self._run_connection()
            except PublishError as error:
                self._note_failure(error)
            except Exception:
                log.exception("broker %s: unexpected error in the publisher; reconnecting", self._settings.address)
                self._counters.add("mqtt_errors")
            if self._stop_at is None:
                failures = 1 if time.monotonic() - started > _STABLE_S else failures + 1
                self._end_backoff.wait(backoff_s(self._settings, failures, self._rng))

    def _run_connection(self) -> None:
        """Run one connection from CONNECT to its end."""
        self._counters.add("mqtt_attempts")
        connection = self._connect(self._settings, self._will, self._subscriptions.on_message)
        historical_up_to = self._outbox.last_sequence
        try:
            self._subscribe(connection)
            self._counters.add("mqtt_reconnects" if self._counters.total("mqtt_connections") else "mqtt_connections")
            log.info("broker %s: connected; %d messages waiting", self._settings.address, self._outbox.depth()[0])
            self._retained_queue.on_connect()
            self._connection, self._error = connection, None
            self._drain(connection, historical_up_to)
            self._publish_stopped(connection)
        finally:
            self._connection = None
            self._retained_queue.on_disconnect()
            connection.close()

    def _subscribe(self, connection: BrokerConnection) -> None:
        if not self._subscriptions.topics:
            return
        if self._failed_subscribes >= _MAX_FAILED_SUBSCRIBES:
            # some brokers disconnect a client that may not subscribe; events can still be published
            self._failed_subscribes = 0
            self._counters.add("subscriptions_refused")
            log.warning(
                "broker %s: disconnects whenever the device subscribes; commands are off", self._settings.address
            )
            return
        try:
            connection.subscribe(*self._subscriptions.topics)
        except RefusedError as error:
            self._counters.add("subscriptions_refused")
            log.warning("%s", error)
        except PublishError:
            self._failed_subscribes += 1
            raise
        self._failed_subscribes = 0

    def _drain(self, connection: BrokerConnection, historical_up_to: int) -> None:
        """Send waiting messages and handle acknowledgements until it is time to stop."""
        order = SendOrder(self._outbox, historical_up_to)
        ready: deque[OutboxMessage] = deque()
        online = connection.publish(self._will.topic, availability_payload("online"), retain=True)
        # message id on this connection -> event id, or a message that is not an event
        in_flight: dict[int, str | QueuedMessage | None] = {online: None}
        try:
            while True:
                self._send_queued(connection, in_flight)
                if not ready:
                    ready.extend(order.next_messages(connection.window))
                while ready and len(in_flight) < connection.window:
                    message = ready.popleft()
                    late = message.sequence <= historical_up_to
                    payload = mark_historical(message.payload) if late else message.payload
                    in_flight[connection.publish(message.topic, payload)] = message.event_id
                if self._should_stop(idle=not ready and not in_flight):
                    return
                self._handle_acknowledgements(connection.step(self._step_timeout_s()), in_flight)
        finally:
            unanswered = sum(isinstance(sent, str) for sent in in_flight.values())
            if unanswered:
                self._counters.add("events_retried", unanswered)  # on the next connection

    def _handle_acknowledgements(
        self, answers: list[Acknowledgement], in_flight: dict[int, str | QueuedMessage | None]
    ) -> None:
        acknowledged = []
        for answer in answers:
            sent = in_flight.pop(answer.message_id, None)
            if isinstance(sent, QueuedMessage):
                if answer.refusal is None:
                    self._retained_queue.on_acknowledged(sent)
            elif sent is None:
                continue
            elif answer.refusal is None:
                acknowledged.append(sent)
            else:  # stays in the outbox; sent again on the next connection
                self._counters.add("events_refused", reason=answer.refusal)
                log.warning("broker %s: refused event %s: %s", self._settings.address, sent, answer.refusal)
        if acknowledged:
            self._outbox.acknowledge(acknowledged)
            self._counters.add("events_published", len(acknowledged))
            self._listeners.on_acknowledged(acknowledged)

    def _send_queued(self, connection: BrokerConnection, in_flight: dict[int, str | QueuedMessage | None]) -> None:
        while len(in_flight) < connection.window and (message := self._retained_queue.take()) is not None:
            message_id = connection.publish(
                message.topic, message.payload, retain=message.retain, correlation=message.correlation
            )
            in_flight[message_id] = message

    def _publish_stopped(self, connection: BrokerConnection) -> None:
        stopped = connection.publish(self._will.topic, availability_payload("stopped"), retain=True)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            if any(answer.message_id == stopped for answer in connection.step(0.1)):
                return

    def _should_stop(self, *, idle: bool) -> bool:
        return self._stop_at is not None and (idle or time.monotonic() >= self._stop_at)

    def _step_timeout_s(self) -> float:
        """Return how long the next step may wait."""
        return _MAX_STEP_S if self._stop_at is None else min(max(self._stop_at - time.monotonic(), 0.0), _MAX_STEP_S)

    def _note_failure(self, error: PublishError) -> None:
        reason = "refused" if isinstance(error, RefusedError) else "unreachable"
        # a failure that repeats every half minute is one log line, not thousands
        log.log(logging.DEBUG if str(error) == self._error else logging.WARNING, "%s; events wait", error)
        self._error = str(error)  # set before counting, so that the reason is there when the count is read
        self._counters.add("mqtt_failures", reason=reason)
