"""Setting the wall clock forward or back by a year while a device runs changes no duration, order or queue.

Tests of cameras are in tests/edge/capture/test_camera.py.
"""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.messaging.outbox import Outbox
from edge.messaging.payload import event_payload
from edge.telemetry.age_clock import AgeClock
from edge.telemetry.counters import Counters
from tests.edge.recognition.test_pipeline import Bench, kinds
from tests.fakes_engine import frame_at, no_box_map

EDGE = Path(__file__).parents[2] / "edge"
NOW = 1_700_000_000.0
YEAR_S = 365 * 86_400.0
JUMPS = pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["forward", "back"])

# Every other module that needs the time measures a duration, and uses the monotonic clock.
WALL_CLOCK_READERS = {
    "age_clock": "to notice when it is set",
    "cameras": "when a camera's state changed, for people",
    "camera_policy": "captured_at, and the offset of a camera's own clock",
    "kiosk": "when an item was taught, for people",
    "open_unknowns": "how many pictures were kept in the last hour and day, also over restarts",
    "outbox": "stamps of messages, whose ages are measured by the age clock",
    "choose_engines": "when the engines were chosen, for people",
    "camera_probe": "the offset of a camera's clock",
    "recorder": "the name of a run's folder",
    "health_reporter": "the time of a report, and the age of the gallery, for people",
    "runtime": "when it started, for the agent's report",
    "support_bundle": "the times of packed files",
}


def reads_the_wall_clock(tree):
    """Return whether a module names time.time or datetime.now."""
    wall = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "time.localtime", "time.gmtime"}
    return any(isinstance(node, ast.Attribute) and ast.unparse(node) in wall for node in ast.walk(tree))


def test_only_listed_modules_read_the_wall_clock():
    found = {path.stem for path in EDGE.rglob("*.py") if reads_the_wall_clock(ast.parse(path.read_text("utf-8")))}
    assert found == set(WALL_CLOCK_READERS)


class Clocks:
    """A wall clock that can be set, and a monotonic one."""

    def __init__(self):
        self.wall_s, self.elapsed_s = NOW, 100.0

    def pass_s(self, seconds):
        self.wall_s += seconds
        self.elapsed_s += seconds

    def outbox(self, path, counters, **bounds):
        ages = AgeClock(lambda: self.wall_s, lambda: self.elapsed_s)
        return Outbox(path, counters, now=lambda: self.wall_s, age_clock=ages, **bounds)


@JUMPS
def test_outbox_keeps_messages_in_order_through_a_clock_jump(tmp_path, jump_s):
    clocks, counters = Clocks(), Counters()
    with clocks.outbox(tmp_path / "outbox.sqlite", counters, max_age_s=3600.0) as outbox:
        for number in range(4):
            if number == 2:
                clocks.wall_s += jump_s
            outbox.put("t/events", b"{}", 2, f"e{number}")
            outbox.flush()
            clocks.pass_s(600.0)
        assert [message.event_id for message in outbox.pending(10)] == ["e0", "e1", "e2", "e3"]
    assert counters.total("outbox_dropped") == 0


def test_outbox_still_drops_old_messages(tmp_path):
    clocks, counters = Clocks(), Counters()
    with clocks.outbox(tmp_path / "outbox.sqlite", counters, max_age_s=3600.0) as outbox:
        outbox.put("t/events", b"{}", 2, "old")
        outbox.flush()
        clocks.pass_s(3601.0)
        outbox.put("t/events", b"{}", 2, "fresh")
        outbox.flush()
        assert [message.event_id for message in outbox.pending(10)] == ["fresh"]
    assert counters.total("outbox_dropped", reason="age") == 1


@JUMPS
@pytest.mark.parametrize("time_source", ["arrival", "rtcp"])
def test_track_and_event_order_survive_a_clock_jump(jump_s, time_source):
    """This holds for a camera's own clock, too."""
    bench, events = Bench(), []
    for number in range(1, 41):
        if number == 31:
            bench.detector_output = no_box_map()  # the object leaves
        at_s = number * 0.1
        bench.clock.now_ns = round((at_s + 0.025) * 1e9)
        captured_at = NOW + at_s + (jump_s if number > 10 else 0.0)
        frame = replace(frame_at(at_s), captured_at=captured_at, time_source=time_source)
        events += bench.pipeline.process(frame).events
    assert kinds(events) == [("new", 1), ("end", 1)]
    payloads = [json.loads(event_payload(e, "shop", "till", "boot", seq)) for seq, e in enumerate(events)]
    assert (payloads[0]["captured_at"] > payloads[1]["captured_at"]) == (jump_s < 0)  # published as the clock showed it
    assert [(p["boot_id"], p["seq"], p["historical"]) for p in payloads] == [("boot", 0, False), ("boot", 1, False)]
    assert all(event.latency_ms["capture_to_decision"] == 25.0 for event in events[:1])
