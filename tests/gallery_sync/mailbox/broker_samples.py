"""A broker in memory at the mailbox's door, and a device at it."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.errors import PublishError
from edge.messaging.settings import Acknowledgement, BrokerLimits, MqttSettings, ReceivedMessage, Will
from edge.telemetry.counters import Counters
from gallery_sync.mailbox.incoming import Chance, Incoming
from gallery_sync.mailbox.mailbox import MqttMailbox
from gallery_sync.mailbox.messages import Topics
from gallery_sync.mailbox.numbers import Numbers
from gallery_sync.mailbox.settings import Fleet
from tests.waiting import DEADLINE_S

TOPICS = Topics("cam-1", "shop")
SETTINGS = MqttSettings("finesight-cam-1-agent", backoff_first_s=0.001, backoff_max_s=0.001)
QUICK = Fleet(spread_s=0, doorbell_every_s=0, report_every_s=300)
IDLE = {"labels": {"device": "cam-1", "line": "shop"}, "state": "idle"}


def message(topic: str, content: Any, *, retained: bool = True) -> ReceivedMessage:
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    return ReceivedMessage(topic, payload, retained, 0)


def doorbell(revision: Any, line: str = "shop", **more: Any) -> ReceivedMessage:
    content = {"schema": "finesight.desired/1", "line": line, "revision": revision, **more}
    return message(TOPICS.doorbell, content)


def turn(release: int, plan: str = "plan-1", device: str = "cam-1") -> ReceivedMessage:
    content = {"schema": "finesight.turn/1", "device": device, "release": release, "plan": plan}
    return message(TOPICS.turn, content)


@dataclass
class Clock:
    """Time that passes only where a test says so."""

    s: float = 100.0

    def chance(self) -> Chance:
        return Chance(lambda: 1e9 + self.s, lambda: self.s, random.Random(1))


def incoming(folder: Path, fleet: Fleet = QUICK, clock: Clock | None = None) -> tuple[Incoming, Counters]:
    """Return what arrived for a device, with its counters."""
    counters = Counters()
    return Incoming(TOPICS, Numbers(folder, "cam-1 shop"), fleet, counters, (clock or Clock()).chance()), counters


@dataclass
class Broker:
    """What a broker has, and how it behaves."""

    published: list[tuple[str, bytes, bool]] = field(default_factory=list)
    subscribed: list[str] = field(default_factory=list)
    will: Will | None = None
    connections: list[FakeConnection] = field(default_factory=list)
    acknowledges: bool = True
    is_there: bool = True
    disconnects_subscribers: bool = False
    limits: BrokerLimits = BrokerLimits()  # noqa: RUF009  it is frozen
    changed: threading.Condition = field(default_factory=threading.Condition)

    def connect(self, _: MqttSettings, will: Will, on_message: Any) -> FakeConnection:
        if not self.is_there:
            raise PublishError("broker localhost:1883: cannot connect")
        self.will = will
        connection = FakeConnection(self, on_message)
        self.connections.append(connection)
        return connection

    def wait_for(self, condition: Any, what: str) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE_S), what

    def reports(self) -> list[dict[str, Any]]:
        return [json.loads(payload) for topic, payload, _ in self.published if topic == TOPICS.reported]

    def answers(self) -> list[bytes]:
        return [payload for topic, payload, _ in self.published if topic == TOPICS.answer]

    def lose(self) -> None:
        """Break the connection."""
        with self.changed:
            self.connections[-1].is_lost = True
            self.changed.notify_all()

    def send(self, received: ReceivedMessage) -> None:
        """Deliver a message to the device."""
        self.connections[-1].on_message(received)


class FakeConnection:
    """A connection to it."""

    def __init__(self, broker: Broker, on_message: Any) -> None:
        self.broker, self.on_message, self.limits = broker, on_message, broker.limits
        self.is_lost, self.is_woken, self._ids = False, False, 0
        self._waiting: list[int] = []

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> int:
        assert qos == 1
        with self.broker.changed:
            if self.is_lost:
                raise PublishError("broker localhost:1883: connection lost")
            self._ids += 1
            self._waiting.append(self._ids)
            self.broker.published.append((topic, payload, retain))
            self.broker.changed.notify_all()
            return self._ids

    def subscribe(self, *topics: str) -> None:
        if self.broker.disconnects_subscribers:
            raise PublishError("broker localhost:1883: connection lost")
        self.broker.subscribed += topics

    def step(self, timeout_s: float) -> list[Acknowledgement]:
        with self.broker.changed:
            self.broker.changed.wait_for(lambda: self.is_woken or self.is_lost or self._has_answers(), timeout_s)
            self.is_woken = False
            if self.is_lost:
                raise PublishError("broker localhost:1883: connection lost")
            answers, self._waiting = (self._waiting, []) if self._has_answers() else ([], self._waiting)
            return [Acknowledgement(one) for one in answers]

    def _has_answers(self) -> bool:
        return bool(self._waiting) and self.broker.acknowledges

    def wake(self) -> None:
        with self.broker.changed:
            self.is_woken = True
            self.broker.changed.notify_all()

    def close(self) -> None:
        """Nothing is open."""


def mailbox_at(broker: Broker, folder: Path, fleet: Fleet = QUICK, settings: MqttSettings = SETTINGS) -> MqttMailbox:
    """Return a mailbox at a broker in memory, not started."""
    numbers = Numbers(folder, "cam-1 shop")
    about = {"allowed": ["sync"]}
    return MqttMailbox(settings, TOPICS, numbers, fleet, Counters(), about=about, connect=broker.connect)
