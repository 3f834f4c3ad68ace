"""A broker in memory that misbehaves as told, a clock that a test moves, and an outbox without a disk."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from edge.errors import PublishError
from edge.messaging.outbox_file import OutboxMessage, SetAside
from edge.messaging.publisher import Publisher
from edge.messaging.settings import Acknowledgement, BrokerLimits, MqttSettings
from edge.telemetry.counters import Counters


class FakeOutbox:
    """The part of an outbox that the publisher uses."""

    openings = 0

    def __init__(self):
        self.waiting, self.aside, self.last_sequence = {}, {}, 0

    def put(self, topic, payload, priority, event_id):
        self.last_sequence += 1
        self.waiting[event_id] = OutboxMessage(self.last_sequence, event_id, topic, payload, priority, 0.0)

    def pending(self, limit, after=0, priority=None):
        return [m for m in self.waiting.values() if m.sequence > after and priority in (None, m.priority)][:limit]

    def acknowledge(self, event_ids):
        for event_id in event_ids:
            self.waiting.pop(event_id, None)

    def set_aside(self, message, reason):
        del self.waiting[message.event_id]
        self.aside[message.event_id] = SetAside(message.event_id, message.topic, len(message.payload), reason, 0.0)

    def depth(self):
        return len(self.waiting), 0

    def set_listener(self, listener):
        pass


@dataclass
class Behaviour:
    """What a broker does on one connection; the defaults are those of a healthy one."""

    refuses_connection: bool = False
    stated_bytes: int | None = None  # MQTT 5
    enforced_bytes: int | None = None  # it hangs up on more
    hangs_up_on: frozenset[str] = frozenset()  # topics
    refuses: dict[str, int] = field(default_factory=dict)  # reason code by topic
    ends_after: int | None = None  # it goes away after so many messages, whatever they are
    lasts_s: float | None = None  # it goes away after this time, whatever was sent
    end_code: int | None = None
    silent: bool = False  # it never acknowledges
    idle_end: bool = False  # it closes the connection once it has acknowledged everything


class FakeBroker:
    """Takes messages as its behaviour says; `run` drives a publisher until its connection ends, or nothing is left."""

    def __init__(self, outbox, *, window=8):
        self.now_s, self.behaviour, self.window = 0.0, Behaviour(), window
        self.taken, self.subscribed_to, self.connections = [], [], 0
        self.counters = Counters()
        self.publisher = Publisher(
            MqttSettings("till"),
            outbox,
            self.counters,
            "t/available",
            connect=self._connect,
            rng=random.Random(1),
            clock=lambda: self.now_s,
        )

    def _connect(self, settings, will, on_message):
        if self.behaviour.refuses_connection:
            raise PublishError("broker: connection refused")
        self.connections += 1
        return _FakeConnection(self, self.behaviour)

    def run(self, behaviour=None, *, steps=400):
        """Make one connection; return the error that ended it, or None after so many steps with nothing new."""
        self.behaviour, self.steps_left = behaviour or Behaviour(), steps
        self.now_s += 1.0
        try:
            self.publisher._run_connection()
        except PublishError as error:
            return error
        except _StepsAreUp:
            return None

    def ids(self):
        """Return the ids of the events taken, in order; a doubled one counts once."""
        return list(dict.fromkeys(payload for topic, payload in self.taken if topic.endswith("events")))

    def doubled(self):
        return Counter(payload for topic, payload in self.taken if topic.endswith("events"))


_LATENCY_S = 0.05


class _StepsAreUp(BaseException):
    pass


class _FakeConnection:
    def __init__(self, broker, behaviour):
        self.window = broker.window
        self.limits = BrokerLimits(behaviour.stated_bytes)
        self._broker, self._behaviour = broker, behaviour
        self._sent, self._answers, self._ended = 0, [], None
        self._ends_at = broker.now_s + (1e9 if behaviour.lasts_s is None else behaviour.lasts_s)

    def publish(self, topic, payload, *, retain=False, qos=1, correlation=None):
        if self._ended is not None:
            raise self._ended
        does = self._behaviour
        self._broker.now_s += _LATENCY_S
        self._sent += 1
        size = len(topic) + len(payload)
        assert does.stated_bytes is None or size + 7 <= does.stated_bytes, "longer than the broker states"
        too_long = does.enforced_bytes is not None and size > does.enforced_bytes
        if too_long or topic in does.hangs_up_on or self._broker.now_s > self._ends_at:
            self._ended = PublishError("broker: connection lost")
        elif does.ends_after is not None and self._sent > does.ends_after:
            self._ended = PublishError("broker: connection lost", does.end_code)
        elif does.silent:
            pass
        elif topic in does.refuses:
            code = does.refuses[topic]
            self._answers.append(Acknowledgement(self._sent, f"reason {code:#x}", code))
        else:
            self._broker.taken.append((topic, payload))
            self._answers.append(Acknowledgement(self._sent))
        return self._sent

    def subscribe(self, *topics):
        self._broker.subscribed_to += topics

    def step(self, timeout_s):
        answers, self._answers = self._answers, []
        if answers:
            return answers
        self._broker.now_s += _LATENCY_S
        if self._ended is not None or self._behaviour.idle_end or self._broker.now_s > self._ends_at:
            raise self._ended or PublishError("broker: connection lost")
        self._broker.steps_left -= 1
        if self._broker.steps_left < 0:
            raise _StepsAreUp
        self._broker.now_s = min(self._broker.now_s + timeout_s, max(self._ends_at, self._broker.now_s))
        return []

    def wake(self):
        pass

    def close(self):
        pass
