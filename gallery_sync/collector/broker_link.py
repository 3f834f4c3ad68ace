"""The connection of the fleet's server to the broker, in a thread of its own.

Rules this module keeps:
1. A retained message of the server is published again on every connection, because a broker may have lost it. Its
   deletion is repeated until the broker acknowledged it.
2. A command is sent only while there is a connection, and its sender learns whether the broker has it.
3. The broker sends what it keeps after every connection; nothing is remembered from the one before.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edge.errors import MessageError, PublishError, RefusedError
from edge.messaging.reconnect import Backoff
from edge.messaging.settings import Acknowledgement, MqttSettings, ReceivedMessage
from edge.types import Counts

log = logging.getLogger(__name__)

_MAX_STEP_S = 1.0
SETTLED_S = 60.0  # after a connection, the broker has sent what it keeps
_MOST_WAITING = 1000  # messages that are not sent yet
_MOST_IN_FLIGHT = 200
OnMessage = Callable[[ReceivedMessage], None]


class Connection(Protocol):
    """The part of edge.messaging.connection.Connection that is used here."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send a message."""
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


Connect = Callable[[MqttSettings, OnMessage], Connection]  # raises PublishError


def _open_connection(settings: MqttSettings, on_message: OnMessage) -> Connection:
    from edge.messaging.connection import Connection as Mqtt

    return Mqtt(settings, None, on_message)


@dataclass(slots=True, eq=False)
class _Outgoing:
    """A message that is sent once."""

    topic: str
    payload: bytes
    done: threading.Event = field(default_factory=threading.Event)
    problem: str | None = None

    def end(self, problem: str | None = None) -> None:
        self.problem = problem
        self.done.set()


class BrokerLink:
    """Keeps a connection; `run` is the target of its thread."""

    def __init__(  # noqa: PLR0913  half of them are doors with a default
        self,
        settings: MqttSettings,
        topics: tuple[str, ...],
        on_message: OnMessage,
        counters: Counts,
        *,
        optional_topics: tuple[str, ...] = (),
        on_settled: Callable[[int], None] = lambda _: None,
        settled_s: float = SETTLED_S,
        connect: Connect = _open_connection,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            settings: the broker.
            topics: that are subscribed to.
            on_message: gets what arrives, in the thread of the link.
            counters: counts connections and failures.
            optional_topics: that are subscribed to if the broker allows it.
            on_settled: called once on every connection, with the number of retained messages that came on it.
            settled_s: how long after the connection.
            connect: opens a connection.
            rng: jitters the back-off.
            clock: monotonic seconds.
        """
        self._settings, self._topics, self._on_message, self._counters = settings, topics, on_message, counters
        self._optional_topics, self._connect, self._clock = optional_topics, connect, clock
        self._on_settled, self._settled_s = on_settled, settled_s
        self._retained = 0  # messages of this connection
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._kept: dict[str, bytes] = {}  # retained messages, by topic; empty: its deletion
        self._changed: dict[str, None] = {}  # topics of those that were not sent on this connection
        self._waiting: list[_Outgoing] = []
        self._stop = threading.Event()
        self._again = False
        self._connection: Connection | None = None
        self.problem: str | None = "not connected yet"  # None: connected

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self.problem is None

    def retain(self, topic: str, payload: bytes) -> None:
        """Publish a retained message, now and on every connection; empty: delete it at the broker."""
        with self._lock:
            self._kept[topic] = payload
            self._changed[topic] = None
        self._wake()

    def send(self, topic: str, payload: bytes, wait_s: float = 5.0) -> None:
        """Send a message once, and wait until the broker has it.

        Raises:
            PublishError: there is no connection, or no answer in time.
        """
        outgoing = _Outgoing(topic, payload)
        with self._lock:
            if self.problem is not None:
                raise PublishError(f"broker {self._settings.address}: {self.problem}")
            if len(self._waiting) >= _MOST_WAITING:
                raise PublishError(f"broker {self._settings.address}: {_MOST_WAITING} messages wait; try again later")
            self._waiting.append(outgoing)
        self._wake()
        if not outgoing.done.wait(wait_s):
            raise PublishError(f"broker {self._settings.address}: no answer in {wait_s:g} s")
        if outgoing.problem is not None:
            raise PublishError(f"broker {self._settings.address}: {outgoing.problem}")

    def reconnect(self) -> None:
        """Connect again, so that the broker sends what it keeps."""
        self._again = True
        self._wake()

    def stop(self) -> None:
        """Make `run` return."""
        self._stop.set()
        self._wake()

    def run(self) -> None:
        """Keep a connection until `stop`."""
        backoff = Backoff(self._settings, self._rng, self._clock)
        while not self._stop.is_set():
            backoff.start()
            try:
                self._run_connection()
                backoff.reset()
                continue
            except PublishError as error:
                self._note(error)
            finally:
                self._end_waiting()
            self._stop.wait(backoff.next_s())

    def _note(self, error: PublishError) -> None:
        self._counters.add("broker_failures", reason="refused" if isinstance(error, RefusedError) else "unreachable")
        text = str(error).removeprefix(f"broker {self._settings.address}: ")
        if text != self.problem:
            log.warning("%s; connecting again", error)
        self.problem = text

    def _run_connection(self) -> None:
        self._retained = 0
        connection = self._connect(self._settings, self._receive)
        try:
            with self._lock:
                self._changed = dict.fromkeys(self._kept)
                self._again = False
                self._connection = connection
            connection.subscribe(*self._topics)
            self._subscribe_optional(connection)
            self._counters.add("broker_connections")
            log.info("broker %s: connected", self._settings.address)
            self.problem = None
            self._serve(connection)
        finally:
            with self._lock:
                self._connection = None
            connection.close()

    def _receive(self, message: ReceivedMessage) -> None:
        self._retained += message.retained
        self._on_message(message)

    def _subscribe_optional(self, connection: Connection) -> None:
        for topic in self._optional_topics:
            try:
                connection.subscribe(topic)
            except RefusedError as error:
                self._counters.add("subscriptions_refused")
                log.warning("%s; answers to restart_camera will not arrive", error)

    def _serve(self, connection: Connection) -> None:
        """Send and receive until `stop` or `reconnect`."""
        sent: dict[int, _Outgoing | tuple[str, bytes]] = {}
        settled_at: float | None = self._clock() + self._settled_s
        try:
            while not (self._stop.is_set() or self._again):
                if settled_at is not None and self._clock() >= settled_at:
                    settled_at = None
                    self._on_settled(self._retained)
                with self._lock:
                    room = _MOST_IN_FLIGHT - len(sent)
                    retained = [(topic, self._kept[topic]) for topic in list(self._changed)[:room]]
                    for topic, _ in retained:
                        del self._changed[topic]
                    room -= len(retained)
                    once = self._waiting[:room]
                for topic, payload in retained:
                    sent[connection.publish(topic, payload, retain=True)] = (topic, payload)
                for message in once:
                    with self._lock:
                        self._waiting.remove(message)
                    self._publish(connection, message, sent)
                for answer in connection.step(_MAX_STEP_S):
                    self._acknowledge(sent.pop(answer.message_id, None), answer)
        finally:
            for one in sent.values():
                if isinstance(one, _Outgoing):
                    one.end("the connection was lost before the broker answered")

    @staticmethod
    def _publish(connection: Connection, message: _Outgoing, sent: dict[int, _Outgoing | tuple[str, bytes]]) -> None:
        try:
            sent[connection.publish(message.topic, message.payload)] = message
        except MessageError as error:
            message.end(str(error))
        except PublishError:
            message.end("the connection was lost")
            raise

    def _acknowledge(self, message: _Outgoing | tuple[str, bytes] | None, answer: Acknowledgement) -> None:
        if answer.refusal is not None:
            self._counters.add("publish_refused")
            log.warning("broker %s: refused a message: %s", self._settings.address, answer.refusal)
        if isinstance(message, _Outgoing):
            message.end(answer.refusal and f"refused the message: {answer.refusal}")
        elif message is not None and not message[1]:
            topic = message[0]
            with self._lock:
                if self._kept.get(topic) == b"":
                    del self._kept[topic]

    def _end_waiting(self) -> None:
        with self._lock:
            if self.problem is None:
                self.problem = "not connected"
            waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.end("not connected")

    def _wake(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.wake()
