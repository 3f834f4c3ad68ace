"""One connection to the broker, from its subscriptions to its end: sends what waits, and notes what arrived.

Rules this module keeps:
1. A subscription that is refused stops neither the others nor the reports.
2. A broker that answers nothing for a while is left, so that the next connection may find it well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from edge.errors import MessageError, PublishError, RefusedError, first_validation_error
from edge.messaging.settings import Acknowledgement, BrokerLimits, MqttSettings
from edge.telemetry.counters import Counters
from edge.telemetry.known_secrets import hide_in
from gallery_sync.formats.fields import canonical_json
from gallery_sync.formats.reports import LARGEST_REPORT_BYTES, Reported
from gallery_sync.mailbox.messages import Topics
from gallery_sync.mailbox.outgoing import AnswerMessage, Outgoing

log = logging.getLogger(__name__)

_MAX_STEP_S, _FAREWELL_S = 1.0, 1.0
_TEXTS, _LISTS = ("reason", "problem", "engine", "config"), ("tries", "quarantine")  # what may quote anything
_LEFT_OUT: tuple[tuple[str, ...], ...] = ((), ("counters",), ("cameras",), ("quarantine", "versions"), ("tries",))


class BrokerConnection(Protocol):
    """The part of edge.messaging.connection.Connection that the mailbox uses."""

    limits: BrokerLimits

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> int:
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


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a session needs to know of its device."""

    settings: MqttSettings
    topics: Topics
    outgoing: Outgoing
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]]  # gives a report its number and what every one has
    counters: Counters
    clock: Callable[[], float]  # monotonic seconds


@dataclass(slots=True)
class _InFlight:
    """What the broker has yet to acknowledge, by message id."""

    reports: set[int] = field(default_factory=set)
    answers: dict[int, AnswerMessage] = field(default_factory=dict)
    others: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.reports or self.answers or self.others)


class Session:
    """One connection. One thread uses it."""

    def __init__(self, connection: BrokerConnection, traffic: Traffic) -> None:
        """Use a connection that is open."""
        self._connection, self._traffic = connection, traffic
        self._in_flight = _InFlight()
        self._answered_at = traffic.clock()  # the last acknowledgement, or the first message after it

    def subscribe(self) -> None:
        """Subscribe to each topic alone.

        Raises:
            PublishError: the connection is lost.
        """
        topics = self._traffic.topics
        for topic in (topics.doorbell, topics.turn, topics.commands):
            try:
                self._connection.subscribe(topic)
            except RefusedError as error:
                self._traffic.counters.add("subscriptions_refused")
                log.warning("%s", error)

    def say(self, availability: bytes) -> None:
        """Publish whether the device is there.

        Raises:
            PublishError: the connection is lost.
        """
        topic = self._traffic.topics.available
        self._in_flight.others.add(self._connection.publish(topic, availability, retain=True))

    def exchange(self) -> None:
        """Send what is due, and wait until something happens.

        Raises:
            PublishError: the connection is lost, or the broker answers nothing.
        """
        was_quiet = not self._in_flight
        self._send_answers()
        wait_s = self._send_report()
        now, limit_s = self._traffic.clock(), self._traffic.settings.acknowledge_timeout_s
        if was_quiet:
            self._answered_at = now
        if self._in_flight:
            if (left_s := self._answered_at + limit_s - now) < 0:
                raise PublishError(f"broker {self._traffic.settings.address}: no answer to a message in {limit_s:g} s")
            wait_s = min(wait_s, left_s)
        self._note(self._connection.step(wait_s))

    def say_farewell(self) -> None:
        """Send the answers and the report that wait, and say that the device goes offline.

        Raises:
            PublishError: the connection is lost.
        """
        self._send_answers()
        self._send_report()
        self.say(b"offline")
        until = self._traffic.clock() + _FAREWELL_S
        while self._in_flight and (left_s := until - self._traffic.clock()) > 0:
            self._note(self._connection.step(left_s))

    def end(self) -> None:
        """Note what is lost with the connection."""
        if self._in_flight.reports:
            self._traffic.counters.add("reports", result="lost")
        self._traffic.outgoing.lost(self._in_flight.answers.values())

    def _send_answers(self) -> None:
        outgoing, topic = self._traffic.outgoing, self._traffic.topics.answer
        while len(self._in_flight.answers) < self._traffic.settings.window // 2:
            if (answer := outgoing.next_answer()) is None:
                return
            most = self._connection.limits.max_payload_bytes(topic)
            try:
                if most is not None and len(answer.payload) > most:
                    self._drop_answer(f"it has {len(answer.payload)} bytes, and the broker takes {most}")
                    continue
                self._in_flight.answers[self._connection.publish(topic, answer.payload)] = answer
            except MessageError as error:
                self._drop_answer(str(error))
            except PublishError:
                outgoing.lost([answer])
                raise

    def _drop_answer(self, why: str) -> None:
        self._traffic.counters.add("answers", result="refused")
        log.warning("an answer cannot be sent: %s", why)

    def _send_report(self) -> float:
        """Send the newest report if it is due, and return how long to wait for something else."""
        traffic, now = self._traffic, self._traffic.clock()
        due_s = traffic.outgoing.wait_s(now)
        if due_s is None or due_s > 0:
            return _MAX_STEP_S if due_s is None else min(due_s, _MAX_STEP_S)
        most = self._connection.limits.max_payload_bytes(traffic.topics.reported)
        payload = traffic.outgoing.take_report(lambda content: payload_of(traffic.complete(content), most), now)
        if payload is None:
            traffic.counters.add("reports", result="invalid")
        else:
            self._in_flight.reports.add(self._connection.publish(traffic.topics.reported, payload, retain=True))
        return _MAX_STEP_S

    def _note(self, acknowledged: list[Acknowledgement]) -> None:
        if acknowledged:
            self._answered_at = self._traffic.clock()
        counters, outgoing = self._traffic.counters, self._traffic.outgoing
        for one in acknowledged:
            result = "sent" if one.refusal is None else "refused"
            if one.message_id in self._in_flight.reports:
                self._in_flight.reports.discard(one.message_id)
                outgoing.acknowledged_report()
                counters.add("reports", result=result)
            elif (answer := self._in_flight.answers.pop(one.message_id, None)) is not None:
                outgoing.acknowledged_answer(answer)
                counters.add("answers", result=result)
            self._in_flight.others.discard(one.message_id)


def payload_of(content: Mapping[str, Any], most_bytes: int | None) -> bytes | None:
    """Return a report as JSON without secrets; what makes it too large is left out. None: it is no report.

    Args:
        content: all fields of Reported.
        most_bytes: that the broker takes; None: not stated.
    """
    most = min(LARGEST_REPORT_BYTES, most_bytes or LARGEST_REPORT_BYTES)
    left, size = _without_secrets(content), 0
    try:
        for names in _LEFT_OUT:
            left = {name: value for name, value in left.items() if name not in names}
            payload = canonical_json(Reported.model_validate(left))
            if (size := len(payload)) <= most:
                return payload
    except ValidationError as error:
        log.warning("a report that cannot be sent: %s", first_validation_error(error))
        return None
    log.warning("a report of %d bytes cannot be sent; the broker takes %d", size, most)
    return None


def _without_secrets(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report whose texts hold no secret; names stay, whatever the password is."""
    texts = {name: hide_in(content[name]) for name in _TEXTS if name in content}
    lists = {
        name: [{**one, "reason": hide_in(one.get("reason"))} for one in content[name]]
        for name in _LISTS
        if name in content
    }
    return {**content, **texts, **lists}
