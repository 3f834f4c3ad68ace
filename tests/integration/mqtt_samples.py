"""Settings, events and a message collector for tests with a broker."""

from __future__ import annotations

import json
import threading

from edge.messaging.settings import MqttSettings
from tests.waiting import DEADLINE_S

EVENTS, AVAILABLE = "fs/shop/till/door/events", "fs/shop/till/available"


class ReceivedMessages:
    """Collects the messages of a subscriber; tests can wait for them."""

    def __init__(self):
        self.messages, self._changed = [], threading.Condition()

    def __call__(self, message):
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait_for(self, condition, what):
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.messages), DEADLINE_S), what

    def events(self):
        return [json.loads(message.payload) for message in self.messages if message.topic == EVENTS]

    def wait_for_ids(self, wanted):
        def all_there(_):
            return wanted <= {event["id"] for event in self.events()}

        self.wait_for(all_there, f"{len(wanted)} events within {DEADLINE_S} s")


def settings(broker, name, **changes):
    quick = {"backoff_first_s": 0.02, "backoff_max_s": 0.2, "connect_timeout_s": 3.0}
    return MqttSettings(client_id=name, host=broker.host, port=broker.port, **{**quick, **changes})


def put(outbox, numbers):
    for number in numbers:
        payload = json.dumps({"id": f"e{number}", "historical": False}, separators=(",", ":")).encode()
        outbox.put(EVENTS, payload, 1, f"e{number}")
    return {f"e{number}" for number in numbers}
