"""The mailbox of the agent: a thread with a connection of its own to the broker of the fleet.

Rules this module keeps:
1. The agent never waits for the broker. Without one, or with one that is silent, nothing changes but counts.
2. Nothing that arrives is carried out here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from edge.errors import PublishError
from edge.messaging.reconnect import Backoff, Subscriber, failure_reason, lowered, open_connection
from edge.messaging.settings import MqttSettings, ReceivedMessage, Will
from edge.supervised_thread import SupervisedThread
from edge.telemetry.counters import Counters
from edge.telemetry.known_secrets import hide
from gallery_sync.formats.reports import MOST_COUNTERS
from gallery_sync.mailbox.incoming import Chance, Incoming
from gallery_sync.mailbox.messages import CommandMessage, Topics
from gallery_sync.mailbox.numbers import Numbers
from gallery_sync.mailbox.outgoing import AnswerMessage, Outgoing
from gallery_sync.mailbox.session import BrokerConnection, Session, Traffic
from gallery_sync.mailbox.settings import Fleet

log = logging.getLogger(__name__)

_END_S = 2.0  # that `close` waits beside the time to connect

OnMessage = Callable[[ReceivedMessage], None]
Connect = Callable[[MqttSettings, Will, OnMessage], BrokerConnection]  # raises PublishError


class MqttMailbox:
    """The mailbox of one device; `start` connects in the background."""

    def __init__(
        self,
        settings: MqttSettings,
        topics: Topics,
        numbers: Numbers,
        fleet: Fleet,
        counters: Counters,
        *,
        about: Mapping[str, Any] | None = None,
        connect: Connect = open_connection,
        chance: Chance | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            settings: of the broker.
            topics: of the device.
            numbers: of its reports and doorbells.
            fleet: how often to report and to listen.
            counters: `reports`, `answers`, `doorbells`, `messages_ignored`, `mailbox_failures`.
            about: fields of every report, such as the labels of the device.
            connect: opens a connection.
            chance: clocks and chance.
        """
        chance = chance or Chance()
        self._settings, self._topics, self._numbers, self._counters = settings, topics, numbers, counters
        self._about, self._connect, self._chance = dict(about or {}), connect, chance
        self._incoming = Incoming(topics, numbers, fleet, counters, chance)
        self._outgoing = Outgoing(fleet.report_every_s)
        self._connection: BrokerConnection | None = None
        self._error: str | None = "not connected yet"
        self._stopping = threading.Event()
        self._subscriber = Subscriber()
        self._will = Will(topics.available, b"offline")
        self._thread = SupervisedThread("mailbox", self._run, counters)

    def start(self) -> None:
        """Connect in the background."""
        self._thread.start()

    def close(self) -> None:
        """Say that the device goes offline, and disconnect."""
        self._stopping.set()
        self._incoming.nudge()
        self._wake()
        self._thread.stop(_END_S + self._settings.connect_timeout_s)

    @property
    def connected(self) -> bool:
        """Whether a connection is open."""
        return self._connection is not None

    @property
    def error(self) -> str | None:
        """Why there is no connection; None while there is one."""
        return self._error

    def counts(self) -> dict[str, int]:
        """Return what was counted so far, by name."""
        return dict(list(self._counters.snapshot().items())[:MOST_COUNTERS])

    def put(self, content: Mapping[str, Any]) -> None:
        """Report a state: fields of gallery_sync.formats.reports.Reported; what is in front of it is replaced."""
        self._outgoing.put(content)
        self._wake()

    def wait(self, wait_s: float) -> None:
        """Wait, or until something arrives: the doorbell, a turn or a command."""
        self._incoming.wait(wait_s)

    def nudge(self) -> None:
        """End the wait of the agent; from any thread."""
        self._incoming.nudge()

    def rang(self) -> bool:
        """Return whether the repository has something new since the last call."""
        return self._incoming.rang()

    def ring(self) -> None:
        """Have `rang` be true at once, as for a command."""
        self._incoming.ring()

    def has_turn(self, sequence: int, plan: str | None) -> bool:
        """Return whether this device may switch to a release of a plan now."""
        return self._incoming.has_turn(sequence, plan)

    def take_commands(self) -> list[CommandMessage]:
        """Return the commands that arrived since the last call."""
        return self._incoming.take_commands()

    def answer(self, key: str, payload: bytes) -> None:
        """Send an answer to a command, as soon as there is a connection.

        Args:
            key: that `take_delivered` returns, once the broker has it.
            payload: the answer.
        """
        if self._outgoing.add_answer(AnswerMessage(key, payload)):
            self._counters.add("answers", result="dropped")
        self._wake()

    def take_delivered(self) -> list[str]:
        """Return the keys of answers that the broker has since the last call."""
        return self._outgoing.take_delivered()

    def _wake(self) -> None:
        if (connection := self._connection) is not None:
            connection.wake()

    # the thread of the mailbox

    def _run(self) -> None:
        backoff = Backoff(self._settings, self._chance.random, self._chance.clock)
        while not self._stopping.is_set():
            backoff.start()
            try:
                self._run_connection()
            except PublishError as error:
                self._note_failure(error)
            if not self._stopping.is_set():
                self._stopping.wait(backoff.next_s())

    def _note_failure(self, error: PublishError) -> None:
        text = hide(str(error))
        if text != self._error:
            log.warning("%s; the agent looks for releases without it", text)
        self._error = text
        self._counters.add("mailbox_failures", reason=failure_reason(error))

    def _run_connection(self) -> None:
        """Run one connection from CONNECT to its end."""
        connection = self._open()
        traffic = Traffic(
            self._settings, self._topics, self._outgoing, self._complete, self._counters, self._chance.clock
        )
        session = Session(connection, traffic)
        try:
            self._incoming.forget_turn()
            self._subscribe(session)
            session.say(b"online")
            self._counters.add("mailbox_connections")
            log.info("broker %s: connected", self._settings.address)
            self._connection, self._error = connection, None
            while not self._stopping.is_set():
                session.exchange()
            session.say_farewell()
        finally:
            self._connection = None
            session.end()
            connection.close()

    def _open(self) -> BrokerConnection:
        try:
            return self._connect(self._settings, self._will, self._incoming.receive)
        except PublishError as error:
            self._will = lowered(self._will, error)
            raise

    def _subscribe(self, session: Session) -> None:
        if not self._subscriber.run(session.subscribe):
            self._counters.add("subscriptions_refused")
            log.warning("broker %s: disconnects whenever the agent subscribes; it only reports", self._settings.address)

    def _complete(self, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a report with its number, which is on the disk then, and with what every report has."""
        epoch, revision = self._numbers.next_report()
        counters = {**dict(content.get("counters") or {}), **self.counts()}
        whole = {"at": max(0.0, self._chance.now()), **self._about, **content}
        whole |= {"device": self._topics.device, "line": self._topics.line, "epoch": epoch, "revision": revision}
        return whole | {"counters": dict(list(counters.items())[:MOST_COUNTERS])}
