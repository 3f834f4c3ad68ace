from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge.config.schema import CameraConfig, DeviceConfig, MqttConfig, SnapshotConfig
from edge.errors import CommandError
from edge.messaging.command_queue import ReceivedCommand
from edge.messaging.device_publisher import STAGE, DevicePublisher, PublishLatency
from edge.messaging.retained_topics import RetainedTopics
from edge.messaging.settings import ReceivedMessage
from edge.telemetry.timing import StageTimer
from edge.types import CameraStatus
from tests.edge.messaging.test_payload import EVENT
from tests.fakes import health_report


def test_latency_is_measured_from_capture_to_acknowledgement():
    timer, now_ns = StageTimer(), 90_000_000
    publish_latency = PublishLatency(timer, lambda: now_ns)
    publish_latency.start("a", 40_000_000)
    publish_latency.start("b", 60_000_000)
    publish_latency.finish(["a", "never started"])
    assert timer.snapshot()[STAGE].count == 1
    assert timer.snapshot()[STAGE].p50_ms == 50.0
    publish_latency.finish(["a"])
    assert timer.snapshot()[STAGE].count == 1


def test_after_an_outage_only_the_latest_events_are_measured():
    timer = StageTimer()
    publish_latency = PublishLatency(timer, lambda: 0)
    for number in range(5000):
        publish_latency.start(str(number), 0)
    publish_latency.finish(map(str, range(5000)))
    assert timer.snapshot()[STAGE].count == 4096


class RecordingPublisher:
    """Takes the place of the publisher: remembers what is retained at the broker."""

    def __init__(self):
        self.latest, self.once, self.handed_over = {}, [], []
        self.correlations = []

    def publish_latest(self, topic, payload, *, retain=True):
        self.latest[topic] = payload

    def publish_once(self, topic, payload, what, correlation=None):
        self.once.append(topic)
        self.correlations.append(correlation)

    def hand_over(self, topic, payload):
        self.handed_over.append((topic, payload, len(self.latest)))

    def retained(self):
        return {topic.removeprefix("finesight/shop/till/") for topic, payload in self.latest.items() if payload}

    def cleared(self):
        return {topic.removeprefix("finesight/shop/till/") for topic, payload in self.latest.items() if not payload}


@pytest.fixture
def device(tmp_path, outbox, counters):
    """Make a device that publishes to a recording publisher, as after a start."""

    def make(cameras=("door",), **changes):
        mqtt = MqttConfig(**changes.pop("mqtt", {}))
        sources = {name: CameraConfig(source="rtsp://h/1") for name in ("door", *cameras)}
        config = DeviceConfig(site="shop", device="till", state_dir=tmp_path, cameras=sources, mqtt=mqtt, **changes)
        latency = PublishLatency(StageTimer(), lambda: 0)
        made = DevicePublisher(config, "boot", outbox, latency, counters)
        made.publisher = RecordingPublisher()
        start(made, cameras)
        return made

    return make


def start(device, cameras):
    configs = {name: CameraConfig(source="rtsp://h/1") for name in cameras}
    device.publish_birth(health_report(), configs, dict.fromkeys(cameras, True))


def test_snapshot_is_retained_beside_the_events(device):
    on = device(snapshots=SnapshotConfig())
    on.publish_snapshot("door", b"jpeg")
    assert on.publisher.latest["finesight/shop/till/door/snapshot"] == b"jpeg"


def test_snapshot_is_cleared_when_its_camera_is_removed_and_none_follows(device):
    on = device(["door", "roof"], snapshots=SnapshotConfig())
    on.publish_snapshot("roof", b"jpeg")
    start(on, ["door"])
    on.publish_snapshot("roof", b"late jpeg")
    assert {"roof/snapshot", "roof/status", "roof/in_view", "roof/enabled/state"} <= on.publisher.cleared()


def test_snapshot_is_cleared_after_a_start_without_snapshots(device):
    device(snapshots=SnapshotConfig()).publish_snapshot("door", b"jpeg")
    assert device().publisher.cleared() == {"door/snapshot"}
    assert "door/snapshot" in device().publisher.cleared()  # until the broker has acknowledged it


def test_camera_removed_while_the_device_was_off_leaves_home_assistant(device):
    device(["door", "roof"], mqtt={"home_assistant": {}})
    later = device(mqtt={"home_assistant": {}})
    assert "roof/status" in later.publisher.cleared()
    entities = {topic for topic in later.publisher.cleared() if topic.startswith("homeassistant/")}
    assert len(entities) == 6  # all but the snapshot
    assert all(topic.split("/")[3].startswith("roof_") for topic in entities)


def test_entities_of_an_earlier_release_are_handed_over(device, tmp_path):
    """An earlier release announced all of them in one message, which Home Assistant must forget, not delete."""
    bundle = "homeassistant/device/finesight-shop-till/config"
    RetainedTopics(tmp_path / "retained_topics.json").add({bundle})
    on = device(mqtt={"home_assistant": {}})
    [(topic, payload, published_before)] = on.publisher.handed_over
    assert (topic, json.loads(payload)) == (bundle, {"migrate_discovery": True})
    discovered = [number for number, name in enumerate(on.publisher.latest) if name.startswith("homeassistant/")]
    assert published_before <= min(discovered)
    assert bundle not in on.publisher.latest
    assert device().publisher.latest[bundle] == b""  # without Home Assistant it is deleted


def test_sensor_of_an_item_is_cleared_when_its_label_goes(device):
    device(mqtt={"home_assistant": {"items": ["Pop cola"]}})
    cleared = device(mqtt={"home_assistant": {"items": ["Milk"]}}).publisher.cleared()
    assert [topic.split("/")[:2] for topic in cleared] == [["homeassistant", "sensor"]]


def test_counts_start_at_zero_and_follow_the_events(device):
    on = device()
    topic = "finesight/shop/till/door/in_view"
    assert json.loads(on.publisher.latest[topic])["total"] == 0
    on.publish_event(EVENT)
    assert json.loads(on.publisher.latest[topic])["by_item"] == {"Red 0.5 l": 1}
    assert on.objects_in_view() == {"door": 1}
    on.publish_event(replace(EVENT, type="end", event_id="2"))
    assert on.objects_in_view() == {"door": 0}


def test_frigate_mirror_has_the_configured_prefix(device):
    on = device(mqtt={"frigate_mirror": True, "frigate_prefix": "shop"})
    on.publish_event(EVENT)
    on.publish_event(replace(EVENT, event_id="2", historical=True))
    assert on.publisher.once == ["shop/events"]


def reply_to(device, wanted, correlation=None, outcome=None):
    """Answer a command; return the topic of the reply."""
    message = ReceivedMessage("finesight/shop/till/cmd/health", b"{}", False, 0, wanted, correlation)
    device.publish_reply(ReceivedCommand("command", "health", message), outcome or {"state": "running"})
    return device.publisher.once[-1]


def test_reply_goes_to_own_reply_topics_alone(device, counters, caplog):
    on, own = device(), "finesight/shop/till/cmd/reply"
    assert reply_to(on, None) == reply_to(on, own) == own
    assert reply_to(on, f"{own}/app-7") == f"{own}/app-7"
    assert counters.total("reply_wishes_unmet") == 0
    for wanted in ("finesight/shop/other/door/enabled/set", "finesight/shop/till/door/enabled/set", "x"):
        assert reply_to(on, wanted) == own
    assert counters.total("reply_wishes_unmet", reason="foreign") == 3
    assert len(caplog.records) == 1


def test_long_correlation_data_is_not_repeated(device, counters):
    on = device()
    reply_to(on, None, b"x" * 1024)
    reply_to(on, None, b"x" * 1025)
    assert on.publisher.correlations == [b"x" * 1024, None]
    assert counters.total("reply_wishes_unmet", reason="correlation") == 1


def test_flood_of_invalid_commands_is_counted_and_logged_once(device, counters, caplog):
    on = device()
    for number in range(500):
        reply_to(on, None, outcome=CommandError(f"unknown verb {number}"))
    assert counters.total("commands", result="refused") == 500
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_camera_that_is_well_has_no_detail(device):
    on, topic = device(), "finesight/shop/till/door/status"
    on.publish_status(CameraStatus("door", "stalled", "no frame for 5 s", 1_700_000_000.0))
    assert json.loads(on.publisher.latest[topic])["detail"] == "no frame for 5 s"
    on.publish_status(CameraStatus("door", "online", "1280x720 by gstreamer, hardware nvh264dec", 1_700_000_000.0))
    assert json.loads(on.publisher.latest[topic])["detail"] is None
