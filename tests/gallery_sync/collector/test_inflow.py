"""Messages that wait for the database."""

from __future__ import annotations

import threading

from edge.telemetry.counters import Counters
from gallery_sync.collector.inflow import Inflow
from gallery_sync.collector.messages import Arrived


class Waiting:
    """An inflow with a clock that a test moves."""

    def __init__(self, **limits):
        self.now = 100.0
        self.counters = Counters()
        self.inflow = Inflow(self.counters, clock=lambda: self.now, longest_wait_s=0.0, **limits)

    def put(self, device, payload=b"x", kind="reported"):
        self.inflow.put(Arrived(device, kind, payload, self.now))

    def take(self, most=100):
        return [(one.device, one.payload) for one in self.inflow.take(most, 0.0)]


def test_newest_of_a_device_wins_and_keeps_its_place():
    waiting = Waiting()
    for device, payload in (("a", b"1"), ("b", b"1"), ("a", b"2")):
        waiting.put(device, payload)
    assert waiting.take() == [("a", b"2"), ("b", b"1")]
    assert waiting.counters.total("coalesced", kind="reported") == 1
    assert waiting.inflow.depth() == 0


def test_kinds_and_answers_do_not_replace_each_other():
    waiting = Waiting()
    for kind in ("reported", "available", "answer", "answer", "reply"):
        waiting.put("a", kind=kind)
    assert len(waiting.take()) == 5


def test_device_that_reports_too_often_waits_and_its_newest_comes():
    waiting = Waiting()
    for number in range(30):
        waiting.put("a", b"%d" % number)
        assert waiting.take() == [("a", b"%d" % number)]
    for number in range(30, 200):
        waiting.put("a", b"%d" % number)
    waiting.put("b", b"calm")
    assert waiting.take() == [("b", b"calm")]
    waiting.now += 1.0
    assert waiting.take() == [("a", b"199")]
    assert waiting.counters.total("delayed") == 1


def test_too_many_answers_are_dropped():
    waiting = Waiting()
    for _ in range(110):
        waiting.put("a", kind="answer")
    assert len(waiting.take(200)) == 100
    assert waiting.counters.total("dropped", kind="answer", reason="too_often") == 10
    waiting.now += 2.0
    waiting.put("a", kind="answer")
    assert len(waiting.take()) == 1


def test_full_inflow_drops_other_devices_and_counts():
    waiting = Waiting(most_bytes=1000)
    for device in "abcdef":
        waiting.put(device, bytes(100))
    assert [device for device, _ in waiting.take()] == ["a", "b"]
    assert waiting.counters.total("dropped", kind="reported", reason="full") == 4
    waiting.put("f")
    assert waiting.take() == [("f", b"x")]


def test_whoever_receives_waits_for_room():
    inflow = Inflow(Counters(), most_bytes=700, longest_wait_s=20.0)
    for device in "ab":
        inflow.put(Arrived(device, "reported", b"", 0.0))
    receiver = threading.Thread(target=inflow.put, args=(Arrived("c", "reported", bytes(200), 0.0),))
    receiver.start()
    taken = []
    while len(taken) < 3:
        taken += [one.device for one in inflow.take(1, 20.0)]
    receiver.join()
    assert taken == ["a", "b", "c"]


def test_messages_put_back_come_first_unless_newer_ones_are_there():
    waiting = Waiting()
    for device in "ab":
        waiting.put(device, b"old")
    taken = waiting.inflow.take(10, 0.0)
    waiting.put("c", b"new")
    waiting.put("a", b"new")
    waiting.inflow.put_back(taken)
    assert waiting.take() == [("b", b"old"), ("c", b"new"), ("a", b"new")]


def test_wake_ends_the_wait():
    inflow = Inflow(Counters())
    inflow.wake()
    assert inflow.take(1, 20.0) == []
