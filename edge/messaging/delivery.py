"""What is in flight on one connection: sends messages, handles their answers, and sets aside what the broker refuses.

Rules:
1. Until the broker has answered once, one message is in flight; then up to its window. A suspect is sent alone, and
   for the last time only on a connection that has lasted for a while.
2. No message is sent that is longer than the broker states. An event, a report or a reply is shortened until it fits.
3. An event that cannot be sent is set aside in the outbox, by its id, and the next one goes. Any other message is
   dropped and counted.
4. A topic that the broker refuses is held. So is one of which it never took anything, once it hung up on _ROW of its
   events. Such a topic is tried with its shortest event.
5. Messages of one topic are sent in the order of `SendOrder`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from edge.errors import MessageError, PublishError
from edge.messaging.outbox import Outbox
from edge.messaging.outbox_file import OutboxMessage
from edge.messaging.payload import mark_historical, shrink
from edge.messaging.refusals import CONTROL_S, HeldTopics, Suspects
from edge.messaging.retained_queue import QueuedMessage, RetainedQueue
from edge.messaging.send_order import SendOrder
from edge.messaging.settings import Acknowledgement, BrokerLimits
from edge.telemetry.counters import Counters

log = logging.getLogger(__name__)

_ROW = 3
_MOST_REFUSALS = 5  # of one event for a reason that says nothing
_MAX_COUNTED = 1000  # events whose refusals are counted, and topics
_LOOK_AT = 256  # events at once
_ABOUT_THE_MESSAGE = frozenset({0x90, 0x95, 0x99})  # topic name invalid, packet too large, payload format invalid
_SAYS_NOTHING = frozenset({0x80, 0x83})  # unspecified error, implementation specific error


class DeliveryConnection(Protocol):
    """The part of a connection that is used here."""

    window: int  # messages that may be in flight
    limits: BrokerLimits

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1, correlation: bytes | None = None
    ) -> int:
        """Send a message; return the id that its acknowledgement will carry."""
        ...


@dataclass(frozen=True, slots=True)
class Queues:
    """What waits to be sent, and who learns of acknowledged events."""

    outbox: Outbox
    retained: RetainedQueue
    on_acknowledged: Callable[[list[str]], None]


@dataclass(slots=True)
class BrokerHistory:
    """What one process has learned of its broker, over all connections."""

    held: HeldTopics
    suspects: Suspects = field(default_factory=Suspects)
    refusals: dict[str, int] = field(default_factory=dict)  # for a reason that says nothing, by event
    hung_up: dict[str, int] = field(default_factory=dict)  # events on which the broker hung up, by topic
    taken: set[str] = field(default_factory=set)  # topics of acknowledged messages
    longest_taken: int = 0  # bytes of the longest acknowledged payload
    hangs_up_on_long: bool = False  # a message was refused, and taken when it was shortened
    turn: int = 0  # which suspect goes first on a connection without any other message
    too_long: dict[str, str] = field(default_factory=dict)  # the latest message of a topic is, for people

    def problems(self) -> list[str]:
        """Return what is not sent and why, for people; from any thread."""
        held = [f"nothing is sent on {topic}: {reason}" for topic, reason in self.held.reasons().items()]
        return held + list(self.too_long.copy().values())


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """One message on its way, and its source: an event of the outbox, or a message of the retained queue."""

    key: str  # names it among the suspects
    topic: str
    payload: bytes
    source: OutboxMessage | QueuedMessage
    is_shortened: bool = False


class Delivery:
    """The messages of one connection; used by the publisher thread alone."""

    def __init__(
        self,
        connection: DeliveryConnection,
        queues: Queues,
        history: BrokerHistory,
        counters: Counters,
        historical_up_to: int,
        clock: Callable[[], float],
    ) -> None:
        """Start with nothing in flight.

        Args:
            connection: sends.
            queues: what waits.
            history: changed by what happens here.
            counters: counts deliveries and refusals.
            historical_up_to: sequence of the last event put before the connection was made.
            clock: monotonic seconds.
        """
        self._connection, self._queues, self._history, self._counters = connection, queues, history, counters
        self._historical_up_to, self._clock = historical_up_to, clock
        self._order = SendOrder(queues.outbox, historical_up_to)
        self._ready: deque[OutboxMessage] = deque()
        self._openings = queues.outbox.openings
        self._waiting: _Outgoing | None = None  # the next one, which must be sent alone
        self._postponed: deque[_Outgoing] = deque()  # suspects that came before the first answer
        self._in_flight: dict[int, _Outgoing] = {}
        self._answered_at = self._since = clock()
        self.is_answered = False  # the broker has acknowledged something
        history.held.on_connect()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is in flight or ready to be sent."""
        return not (self._in_flight or self._ready or self._waiting or self._postponed)

    @property
    def in_flight(self) -> int:
        """How many messages have no answer."""
        return len(self._in_flight)

    def greet(self, topic: str, payload: bytes) -> None:
        """Send a small retained message first: its answer shows that the broker works."""
        if not self._history.held.blocks(topic):
            self._send(_Outgoing(topic, topic, payload, QueuedMessage(topic, payload, retain=True)))

    def send(self) -> None:
        """Send what may be sent now."""
        if due := self._history.held.take_due():
            self._restart_order()
            for topic, hangs_up in due.items():
                self._queues.retained.requeue(topic)
                if hangs_up and (shortest := self._shortest(topic)) is not None:
                    self._ready.appendleft(shortest)
        if self._queues.outbox.openings != self._openings:  # the disk came back, with events of an earlier process
            self._openings, self._historical_up_to = self._queues.outbox.openings, self._queues.outbox.last_sequence
            self._restart_order()
        if self._clock() - self._since < CONTROL_S and self._history.suspects.awaits_last_try() and self.is_answered:
            return
        while len(self._in_flight) < self._connection.window and (self.is_answered or not self._in_flight):
            message = self._waiting or self._next()
            self._waiting = None
            if message is None:
                return
            if self._in_flight and self._is_alone(message):
                self._waiting = message
                return
            self._send(message)

    def handle(self, answers: list[Acknowledgement]) -> None:
        """Handle the broker's answers."""
        acknowledged = []
        for answer in answers:
            sent = self._in_flight.pop(answer.message_id, None)
            if sent is None:
                continue
            self._answered_at, self.is_answered = self._clock(), True
            self._clear_suspect(sent.key)
            if answer.refusal is not None:
                self._refuse(sent, answer.refusal, answer.code)
                continue
            self._accept(sent)
            if isinstance(sent.source, OutboxMessage):
                acknowledged.append(sent.source.event_id)
        if acknowledged:
            self._queues.outbox.acknowledge(acknowledged)
            self._counters.add("events_published", len(acknowledged))
            self._queues.on_acknowledged(acknowledged)

    @property
    def silent_s(self) -> float:
        """How long messages have been in flight without an answer to any."""
        return self._clock() - self._answered_at if self._in_flight else 0.0

    def end(self, error: PublishError | None) -> None:
        """Count what got no answer; an event is sent again on the next connection.

        Args:
            error: why the connection ended; None: this side ended it.
        """
        if error is not None:
            keys, lasted_s = [message.key for message in self._in_flight.values()], self._clock() - self._since
            self._history.suspects.connection_ended(keys, answered=self.is_answered, lasted_s=lasted_s, code=error.code)
            self._history.held.on_disconnect()
        for message in self._in_flight.values():
            if isinstance(message.source, OutboxMessage):
                self._counters.add("events_retried")
            elif not message.source.retain:
                self._drop(message.source, "unanswered")
        self._in_flight.clear()

    def _next(self) -> _Outgoing | None:
        if self.is_answered and self._postponed:
            return self._postponed.popleft()
        while (message := self._take()) is not None:
            if self.is_answered or message.key not in self._history.suspects:
                return message
            self._postponed.append(message)
        if not self._postponed:
            return None
        self._postponed.rotate(-self._history.turn)  # none but suspects: each has its turn to show the broker works
        self._history.turn += 1
        return self._postponed.popleft()

    def _take(self) -> _Outgoing | None:
        while (queued := self._queues.retained.take()) is not None:
            if not self._is_held(queued.topic, queued.topic):
                return _Outgoing(queued.topic, queued.topic, queued.payload, queued)
            if not queued.retain:
                self._drop(queued, "held")
        in_flight = {sent.key for sent in chain(self._in_flight.values(), self._postponed)}
        while True:
            if not self._ready:
                self._ready.extend(self._order.next_messages(self._connection.window))
            if not self._ready:
                return None
            event = self._ready.popleft()
            if event.event_id not in in_flight and not self._is_held(event.topic, event.event_id):
                late = event.sequence <= self._historical_up_to
                payload = mark_historical(event.payload) if late else event.payload
                return _Outgoing(event.event_id, event.topic, payload, event)

    def _is_held(self, topic: str, key: str) -> bool:
        suspects, held = self._history.suspects, self._history.held
        waits_for_others = self.is_answered and bool(suspects) and key not in suspects
        return held.blocks(topic) or (waits_for_others and topic in held)

    def _clear_suspect(self, key: str) -> None:
        if key in self._history.suspects:
            self._history.held.tell_again()  # some wait until there are no suspects
        self._history.suspects.clear(key)

    def _shortest(self, topic: str) -> OutboxMessage | None:
        shortest, after = None, 0
        while found := self._queues.outbox.pending(_LOOK_AT, after):
            after = found[-1].sequence
            for event in found:
                if event.topic == topic and (shortest is None or len(event.payload) < len(shortest.payload)):
                    shortest = event
        return shortest

    def _is_alone(self, message: _Outgoing) -> bool:
        """Return whether a message, or the one in flight, is sent alone."""
        suspects = self._history.suspects
        return bool(suspects) and (
            message.key in suspects or any(sent.key in suspects for sent in self._in_flight.values())
        )

    def _send(self, message: _Outgoing) -> None:
        if self._history.suspects.is_guilty(message.key):
            self._set_aside(message, "the broker hangs up on it", "hangs_up")
            return
        fitting = self._fit(message)
        if fitting is None:
            return
        queued = message.source if isinstance(message.source, QueuedMessage) else None
        try:
            message_id = self._connection.publish(
                message.topic,
                fitting.payload,
                retain=queued is not None and queued.retain,
                correlation=queued.correlation if queued else None,
            )
        except MessageError as error:
            self._set_aside(message, str(error), "invalid")
            return
        self._history.held.start_try(message.topic)
        if not self._in_flight:
            self._answered_at = self._clock()
        self._in_flight[message_id] = fitting

    def _fit(self, message: _Outgoing) -> _Outgoing | None:
        """Return the message, shortened if it must be; None if the broker cannot take it."""
        correlation = message.source.correlation if isinstance(message.source, QueuedMessage) else None
        limit = self._connection.limits.max_payload_bytes(message.topic, correlation)
        payload = message.payload
        if limit is not None and len(payload) > limit:
            payload = shrink(payload, limit)
            if len(payload) > limit:
                self._refuse_long(message, f"{len(message.payload)} bytes, and the broker takes {max(limit, 0)}")
                return None
        self._history.too_long.pop(message.topic, None)
        if self._history.suspects.is_last_try(message.key) or self._history.hangs_up_on_long:
            payload = shrink(payload, self._history.longest_taken)
        return _Outgoing(message.key, message.topic, payload, message.source, payload != message.payload)

    def _refuse_long(self, message: _Outgoing, why: str) -> None:
        if isinstance(message.source, OutboxMessage):
            self._set_aside(message, why, "too_long")
            return
        problem = f"the message on {message.topic} is not sent: {why}"
        if message.topic not in self._history.too_long:
            log.warning("%s", problem)
        self._history.too_long[message.topic] = problem
        self._drop(message.source, "too_long")

    def _accept(self, sent: _Outgoing) -> None:
        history = self._history
        if sent.is_shortened:
            self._counters.add("messages_shortened")
        history.hangs_up_on_long |= sent.is_shortened and self._connection.limits.max_packet_bytes is None
        history.longest_taken = max(history.longest_taken, len(sent.payload))
        if len(history.taken) < _MAX_COUNTED:
            history.taken.add(sent.topic)
        history.refusals.pop(sent.key, None)
        if history.held.release(sent.topic):
            log.info("the broker takes messages on %s again", sent.topic)
            self._restart_order()
        if isinstance(sent.source, QueuedMessage):
            self._queues.retained.on_acknowledged(sent.source)

    def _refuse(self, sent: _Outgoing, refusal: str, code: int | None) -> None:
        history = self._history
        if isinstance(sent.source, OutboxMessage):
            self._counters.add("events_refused", reason=refusal)
        else:
            self._drop(sent.source, "refused")
        if code in _SAYS_NOTHING:
            history.refusals[sent.key] = history.refusals.pop(sent.key, 0) + 1
            while len(history.refusals) > _MAX_COUNTED:
                del history.refusals[next(iter(history.refusals))]
        if code in _ABOUT_THE_MESSAGE or history.refusals.get(sent.key, 0) >= _MOST_REFUSALS:
            history.refusals.pop(sent.key, None)
            history.held.release(sent.topic)
            self._set_aside(sent, f"the broker refuses it: {refusal}", "refused")
        elif history.held.hold(sent.topic, f"the broker refuses it: {refusal}"):
            log.warning("nothing is sent on %s for now: the broker refuses it: %s", sent.topic, refusal)

    def _set_aside(self, message: _Outgoing, why: str, reason: str) -> None:
        """Take a message out of the way for good; after _ROW of one topic, or one that is no event, hold the topic."""
        history = self._history
        self._clear_suspect(message.key)
        if isinstance(message.source, OutboxMessage):
            log.warning(
                "event %s on %s, %d bytes, is set aside: %s", message.key, message.topic, len(message.payload), why
            )
            self._queues.outbox.set_aside(message.source, why)
            self._counters.add("events_set_aside", reason=reason)
            if reason != "hangs_up" or message.topic in history.taken:
                return
            hung_up = history.hung_up.pop(message.topic, 0) + 1
            if hung_up < _ROW:
                history.hung_up[message.topic] = hung_up
                return
        elif reason in {"hangs_up", "invalid"}:
            self._drop(message.source, reason)
        if history.held.hold(message.topic, why, hangs_up=reason == "hangs_up"):
            log.warning("nothing is sent on %s for now: %s", message.topic, why)

    def _drop(self, message: QueuedMessage, reason: str) -> None:
        self._counters.add("messages_dropped", what=message.what or "state", reason=reason)

    def _restart_order(self) -> None:
        """Look at all waiting events again; those in flight are skipped."""
        self._order = SendOrder(self._queues.outbox, self._historical_up_to)
        self._ready.clear()
        if self._waiting is not None and isinstance(self._waiting.source, OutboxMessage):
            self._waiting = None
