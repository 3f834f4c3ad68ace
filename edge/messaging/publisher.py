"""The thread that brings waiting messages to the broker.

Rules:
1. A message leaves the outbox when the broker has acknowledged it, never before. What a lost connection left
   unacknowledged is sent again: a subscriber sees every id at least once, and keeps the first.
2. What was put before a connection stood is flagged historical when it is sent; new and end events go before updates.
3. Nothing here is waited for by the frame path.
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
from edge.messaging.connection import Acknowledgement, Connection, Received, Will
from edge.messaging.outbox import Outbox
from edge.messaging.outbox_file import Waiting
from edge.messaging.payload import availability_payload, mark_historical
from edge.messaging.retained_queue import Notice, Notices
from edge.messaging.send_order import Backlog
from edge.messaging.settings import MqttSettings, backoff_s
from edge.telemetry.metrics import Counters

log = logging.getLogger(__name__)

_STEADY_S = 10.0  # a connection that lasted this long was a good one: the next back-off starts small
_MOST_HUNG_UP = 3
_IDLE_S = 1.0  # a connection is looked after at least this often


class Link(Protocol):
    """What the publisher needs of a connection."""

    window: int  # messages that may be on their way

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1, correlation: bytes | None = None
    ) -> int:
        """Send; the number that the acknowledgement will carry."""
        ...

    def subscribe(self, *topics: str) -> None:
        """Ask for topics."""
        ...

    def step(self, timeout_s: float) -> list[Acknowledgement]:
        """Move bytes until something happens."""
        ...

    def wake(self) -> None:
        """End a step from another thread."""
        ...

    def close(self) -> None:
        """Say goodbye."""
        ...


Hear = Callable[[Received], None]  # in the publisher's thread: it must return at once
Dial = Callable[[MqttSettings, Will, Hear], Link]  # raises PublishError


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """What a publisher listens to besides."""

    topics: tuple[str, ...] = ()
    hear: Hear = lambda _: None


class Publisher:
    """Keeps a connection to the broker and drains the outbox into it, at QoS 1."""

    def __init__(
        self,
        settings: MqttSettings,
        outbox: Outbox,
        counters: Counters,
        availability_topic: str,
        *,
        subscriptions: Subscriptions | None = None,
        on_delivered: Callable[[list[str]], None] | None = None,
        dial: Dial = Connection,
        chance: random.Random | None = None,
    ) -> None:
        """Prepare; nothing is connected before `start`.

        Args:
            settings: the broker.
            outbox: where messages wait.
            counters: where deliveries, retries and refusals are counted.
            availability_topic: where online, stopped and (as the last will) offline are told.
            subscriptions: renewed on every connection, before anything is said.
            on_delivered: told the ids of events that the broker has, on the publisher's thread.
            dial: opens a connection.
            chance: spreads the reconnects of many devices.
        """
        self._settings, self._outbox, self._counters = settings, outbox, counters
        self._will = Will(availability_topic, availability_payload("offline"))
        self._subscriptions = subscriptions or Subscriptions()
        self._on_delivered = on_delivered
        self._dial, self._chance = dial, chance or random.Random()
        self._notices = Notices(counters)
        self._hung_up = 0  # connections in a row that were lost while subscribing
        self._link: Link | None = None
        self._error: str | None = None
        self._stop_at: float | None = None  # monotonic; what waits may be sent until then
        self._alarm = threading.Event()  # ends a back-off
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)

    def __enter__(self) -> Publisher:  # noqa: PYI034  Self is not in Python 3.10
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin connecting, in the background."""
        self._outbox.watch(self._wake)
        self._thread.start()

    def announce(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Tell the latest state of something. Returns at once.

        Args:
            topic: a newer payload on the same topic replaces one not yet sent.
            payload: what to tell.
            retain: kept by the broker, and told again on every connection; otherwise told only while connected.
        """
        self._notices.put(Notice(topic, payload, retain))
        self._wake()

    def tell(self, topic: str, payload: bytes, what: str, correlation: bytes | None = None) -> None:
        """Say something once, if that is possible now. Returns at once.

        Args:
            topic: where to.
            payload: what.
            what: how it is counted when it cannot be said: there is no connection, or too much to say already.
            correlation: of the message that it answers (MQTT 5).
        """
        self._notices.put_once(Notice(topic, payload, what=what, correlation=correlation))
        self._wake()

    @property
    def connected(self) -> bool:
        """Whether the broker accepted us and is still there."""
        return self._link is not None

    @property
    def error(self) -> str | None:
        """Why there is no connection; None while there is one."""
        return self._error

    def close(self, drain_s: float = 2.0) -> None:
        """Send what waits if the broker is there, say stopped, and disconnect.

        Args:
            drain_s: what has not been sent by then stays in the outbox for the next start.
        """
        self._stop_at = time.monotonic() + drain_s
        self._wake()
        if self._thread.is_alive():
            self._thread.join(drain_s + self._settings.connect_timeout_s + 1.0)

    def _wake(self) -> None:
        link = self._link
        if link is not None:
            link.wake()
        elif self._stop_at is not None:
            self._alarm.set()

    # the publisher thread

    def _run(self) -> None:
        failures = 0
        while self._stop_at is None:
            begun = time.monotonic()
            try:
                self._converse()
            except PublishError as error:
                self._note_failure(error)
            except Exception:
                log.exception("broker %s: the publisher stumbled", self._settings.address)
                self._counters.add("mqtt_errors")
            if self._stop_at is None:
                failures = 1 if time.monotonic() - begun > _STEADY_S else failures + 1
                self._alarm.wait(backoff_s(self._settings, failures, self._chance))

    def _converse(self) -> None:
        """Hold one connection, from its start to its end."""
        self._counters.add("mqtt_attempts")
        link = self._dial(self._settings, self._will, self._subscriptions.hear)
        historical_up_to = self._outbox.last_sequence
        try:
            self._listen(link)
            self._counters.add("mqtt_reconnects" if self._counters.total("mqtt_connections") else "mqtt_connections")
            log.info("broker %s: connected; %d messages wait", self._settings.address, self._outbox.depth()[0])
            self._notices.begin()
            self._link, self._error = link, None
            self._drain(link, historical_up_to)
            self._say_stopped(link)
        finally:
            self._link = None
            self._notices.end()
            link.close()

    def _listen(self, link: Link) -> None:
        if not self._subscriptions.topics:
            return
        if self._hung_up >= _MOST_HUNG_UP:  # as brokers do on who may not subscribe; events can still be told
            self._hung_up = 0
            self._counters.add("subscriptions_refused")
            log.warning("broker %s: hangs up on our subscriptions; no commands are heard", self._settings.address)
            return
        try:
            link.subscribe(*self._subscriptions.topics)
        except RefusedError as error:
            self._counters.add("subscriptions_refused")
            log.warning("%s", error)
        except PublishError:
            self._hung_up += 1
            raise
        self._hung_up = 0

    def _drain(self, link: Link, historical_up_to: int) -> None:
        """Send what waits and take in acknowledgements, until told to stop."""
        backlog = Backlog(self._outbox, historical_up_to)
        ready: deque[Waiting] = deque()
        online = link.publish(self._will.topic, availability_payload("online"), retain=True)
        on_the_way: dict[int, str | None] = {online: None}  # number on this connection -> event id; None: notice
        try:
            while True:
                self._say_notices(link, on_the_way)
                if not ready:
                    ready.extend(backlog.next(link.window))
                while ready and len(on_the_way) < link.window:
                    message = ready.popleft()
                    late = message.sequence <= historical_up_to
                    payload = mark_historical(message.payload) if late else message.payload
                    on_the_way[link.publish(message.topic, payload)] = message.event_id
                if self._is_time_to_stop(idle=not ready and not on_the_way):
                    return
                self._take_in(link.step(self._patience_s()), on_the_way)
        finally:
            unanswered = sum(event_id is not None for event_id in on_the_way.values())
            if unanswered:
                self._counters.add("events_retried", unanswered)  # on the next connection

    def _take_in(self, answers: list[Acknowledgement], on_the_way: dict[int, str | None]) -> None:
        arrived = []
        for answer in answers:
            event_id = on_the_way.pop(answer.message, None)
            if event_id is None:
                continue  # a notice
            if answer.refusal is None:
                arrived.append(event_id)
            else:  # stays in the outbox; offered again on the next connection
                self._counters.add("events_refused", reason=answer.refusal)
                log.warning("broker %s: refused event %s: %s", self._settings.address, event_id, answer.refusal)
        if arrived:
            self._outbox.acknowledge(arrived)
            self._counters.add("events_published", len(arrived))
            if self._on_delivered is not None:
                self._on_delivered(arrived)

    def _say_notices(self, link: Link, on_the_way: dict[int, str | None]) -> None:
        while len(on_the_way) < link.window and (notice := self._notices.take()) is not None:
            number = link.publish(notice.topic, notice.payload, retain=notice.retain, correlation=notice.correlation)
            on_the_way[number] = None

    def _say_stopped(self, link: Link) -> None:
        number = link.publish(self._will.topic, availability_payload("stopped"), retain=True)
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            if any(answer.message == number for answer in link.step(0.1)):
                return

    def _is_time_to_stop(self, *, idle: bool) -> bool:
        return self._stop_at is not None and (idle or time.monotonic() >= self._stop_at)

    def _patience_s(self) -> float:
        """How long a step may wait."""
        return _IDLE_S if self._stop_at is None else min(max(self._stop_at - time.monotonic(), 0.0), _IDLE_S)

    def _note_failure(self, error: PublishError) -> None:
        reason = "refused" if isinstance(error, RefusedError) else "unreachable"
        # the same answer every half minute for a weekend is one line, not thousands
        log.log(logging.DEBUG if str(error) == self._error else logging.WARNING, "%s; events wait", error)
        self._error = str(error)  # before it is counted: who sees the count finds the reason
        self._counters.add("mqtt_failures", reason=reason)
