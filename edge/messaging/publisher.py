"""The thread that publishes waiting messages to the broker.

Rules:
1. A message leaves the outbox when the broker has acknowledged it, never before. Messages that a lost connection left
   unacknowledged are sent again: a subscriber receives every id at least once, and keeps the first.
2. A message put before the connection was made is sent flagged as historical; new and end events go before updates.
3. The frame loop never waits for this thread.
4. One message that the broker does not take stops no other: see delivery.py and refusals.py.
5. A broker that another client of the same id takes away is approached ever more slowly.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge.errors import PublishError, RefusedError
from edge.messaging.delivery import BrokerHistory, Delivery, DeliveryConnection, Queues
from edge.messaging.outbox import Outbox
from edge.messaging.payload import availability_payload
from edge.messaging.reconnect import (
    STABLE_S,
    TAKEN_OVER,
    Backoff,
    Subscriber,
    failure_reason,
    lowered,
    open_connection,
)
from edge.messaging.refusals import HeldTopics
from edge.messaging.retained_queue import QueuedMessage, RetainedQueue
from edge.messaging.settings import CLASHES, Acknowledgement, MqttSettings, ReceivedMessage, Will
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)

_MAX_STEP_S = 1.0  # longest wait in one step
_NO_CLASH_S = 600.0  # a connection that lasted this long was not taken away
_MOST_PROBLEMS = 20
_UNANSWERED = 4  # every so many connections that ended without any answer, one does without the greeting


class BrokerConnection(DeliveryConnection, Protocol):
    """The part of a connection that the publisher uses."""

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

    def __init__(  # noqa: PLR0913  half of them are doors with a default
        self,
        settings: MqttSettings,
        outbox: Outbox,
        counters: Counters,
        availability_topic: str,
        *,
        subscriptions: Subscriptions | None = None,
        listeners: Listeners | None = None,
        connect: Connect = open_connection,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
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
            clock: monotonic seconds.
        """
        self._settings, self._outbox, self._counters = settings, outbox, counters
        self._will = Will(availability_topic, availability_payload("offline"))
        self._subscriptions = subscriptions or Subscriptions()
        self._listeners = listeners or Listeners()
        self._connect, self._rng, self._clock = connect, rng or random.Random(), clock
        self._retained_queue = RetainedQueue(counters, self._listeners.on_cleared)
        self._history = BrokerHistory(HeldTopics(clock))
        self._subscriber = Subscriber()
        self._clashes = 0  # in a row
        self._unanswered = 0  # connections in a row that ended before any answer
        self._standing: dict[str, str] = {}  # problems of the connection as a whole, for people
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

    def hand_over(self, topic: str, payload: bytes) -> None:
        """Publish a last retained message on a topic, and clear the topic after what was queued since."""
        self._retained_queue.put_latest(QueuedMessage(topic, payload, retain=True, then_clear=True))
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

    def problems(self) -> tuple[str, ...]:
        """Return what the broker does not do for this device, and why, for people; from any thread."""
        return tuple([*self._standing.copy().values(), *self._history.problems()][:_MOST_PROBLEMS])

    def close(self, drain_s: float = 2.0) -> None:
        """Send waiting messages if connected, publish "stopped" and disconnect.

        Args:
            drain_s: time for sending; the rest stays in the outbox for the next start.
        """
        self._stop_at = self._clock() + drain_s
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
        backoff = Backoff(self._settings, self._rng, self._clock)
        while self._stop_at is None:
            backoff.start()
            try:
                self._run_connection()
            except PublishError as error:
                self._note_failure(error)
            except Exception:
                log.exception("broker %s: unexpected error in the publisher; reconnecting", self._settings.address)
                self._counters.add("mqtt_errors")
            if self._stop_at is None:
                self._end_backoff.wait(backoff.next_s(self._clashes))

    def _run_connection(self) -> None:
        """Run one connection from CONNECT to its end."""
        self._counters.add("mqtt_attempts")
        try:
            connection = self._connect(self._settings, self._will, self._subscriptions.on_message)
        except PublishError as error:
            self._will = lowered(self._will, error)
            self._forget_clashes()
            raise
        connected_at, historical_up_to = self._clock(), self._outbox.last_sequence
        queues = Queues(self._outbox, self._retained_queue, self._listeners.on_acknowledged)
        delivery = Delivery(connection, queues, self._history, self._counters, historical_up_to, self._clock)
        try:
            self._subscribe(connection)
            self._counters.add("mqtt_reconnects" if self._counters.total("mqtt_connections") else "mqtt_connections")
            log.info("broker %s: connected; %d messages waiting", self._settings.address, self._outbox.depth()[0])
            self._note_limits(connection)
            self._retained_queue.on_connect()
            self._connection, self._error = connection, None
            self._drain(connection, delivery)
            self._publish_stopped(connection)
            delivery.end(None)
        except PublishError as error:
            idle = self._connection is not None and delivery.is_answered and not delivery.in_flight
            delivery.end(error)
            self._note_end(error, idle=idle, lasted_s=self._clock() - connected_at)
            self._unanswered = 0 if delivery.is_answered else self._unanswered + 1
            raise
        finally:
            self._connection = None
            self._retained_queue.on_disconnect()
            connection.close()

    def _note_limits(self, connection: BrokerConnection) -> None:
        limits = connection.limits
        said = {
            "qos": "the broker takes QoS 0 only: events in flight are lost when the connection breaks",
            "retain": "the broker keeps no retained messages: a subscriber learns a state when it changes",
        }
        for what, is_missing in (("qos", limits.max_qos == 0), ("retain", not limits.retain)):
            if not is_missing:
                self._standing.pop(what, None)
            elif what not in self._standing:
                self._standing[what] = said[what]
                log.warning("broker %s: %s", self._settings.address, said[what])

    def _note_end(self, error: PublishError, *, idle: bool, lasted_s: float) -> None:
        """Notice that another client with the same id takes the connections away, by the reason or by the pattern.

        Args:
            error: why the connection ended.
            idle: everything sent was acknowledged.
            lasted_s: how long it lasted.
        """
        is_sure = error.code == TAKEN_OVER
        if is_sure:
            self._clashes = max(self._clashes + 1, CLASHES)
        elif error.code is None and idle and lasted_s < STABLE_S:
            self._clashes = min(self._clashes + 1, CLASHES + 1)
        elif lasted_s > _NO_CLASH_S:
            self._forget_clashes()
            return
        else:
            return
        if self._clashes < CLASHES:
            return
        self._counters.add("mqtt_clashes")
        if "clash" not in self._standing:
            self._standing["clash"] = (
                f"another client {'uses' if is_sure else 'seems to use'} the client id {self._settings.client_id!r},"
                " and the broker keeps only one of the two; give every device its own mqtt.client_id"
            )
            log.warning("broker %s: %s", self._settings.address, self._standing["clash"])

    def _forget_clashes(self) -> None:
        self._clashes = 0
        self._standing.pop("clash", None)

    def _subscribe(self, connection: BrokerConnection) -> None:
        if not self._subscriptions.topics:
            return
        try:
            if self._subscriber.run(lambda: connection.subscribe(*self._subscriptions.topics)):
                self._standing.pop("commands", None)
                return
        except RefusedError as error:
            self._standing["commands"] = f"commands are off: {error}"
            log.warning("%s", error)
        else:
            self._standing["commands"] = "commands are off: the broker disconnects whenever the device subscribes"
            log.warning("broker %s: %s", self._settings.address, self._standing["commands"])
        self._counters.add("subscriptions_refused")

    def _drain(self, connection: BrokerConnection, delivery: Delivery) -> None:
        """Send waiting messages and handle acknowledgements until it is time to stop."""
        connected_at = self._clock()
        self._greet(delivery, self._will.topic, availability_payload("online"))
        while True:
            delivery.send()
            if self._should_stop(idle=delivery.is_idle):
                return
            delivery.handle(connection.step(self._step_timeout_s()))
            if delivery.silent_s > self._settings.acknowledge_timeout_s:
                silent = f"{delivery.in_flight} messages in flight, and no answer in {delivery.silent_s:.0f} s"
                raise PublishError(f"broker {self._settings.address}: {silent}")
            if self._clashes and self._clock() - connected_at > _NO_CLASH_S:
                self._forget_clashes()

    def _greet(self, delivery: Delivery, topic: str, payload: bytes) -> None:
        """Publish that the device is online: first, unless the broker may hang up on just that."""
        suspects = self._history.suspects
        if self._unanswered % _UNANSWERED == _UNANSWERED - 1:
            suspects.accuse(topic)
            self._retained_queue.put_latest(QueuedMessage(topic, payload, retain=True))
        elif self._unanswered or not suspects.has_struck(topic):
            delivery.greet(topic, payload)

    def _publish_stopped(self, connection: BrokerConnection) -> None:
        stopped = connection.publish(self._will.topic, availability_payload("stopped"), retain=True)
        deadline = self._clock() + 1.0
        while self._clock() < deadline:
            if any(answer.message_id == stopped for answer in connection.step(0.1)):
                return

    def _should_stop(self, *, idle: bool) -> bool:
        return self._stop_at is not None and (idle or self._clock() >= self._stop_at)

    def _step_timeout_s(self) -> float:
        """Return how long the next step may wait."""
        return _MAX_STEP_S if self._stop_at is None else min(max(self._stop_at - self._clock(), 0.0), _MAX_STEP_S)

    def _note_failure(self, error: PublishError) -> None:
        # a failure that repeats every half minute is one log line, not thousands
        log.log(logging.DEBUG if str(error) == self._error else logging.WARNING, "%s; events wait", error)
        self._error = str(error)  # set before counting, so that the reason is there when the count is read
        self._counters.add("mqtt_failures", reason=failure_reason(error))
