from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edge.config.schema import CameraConfig, DeviceConfig, MqttConfig, SnapshotConfig
from edge.messaging.device_publisher import STAGE, DevicePublisher, PublishLatency
from edge.telemetry.timing import StageTimer
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
        self.latest, self.once = {}, []

    def publish_latest(self, topic, payload, *, retain=True):
        self.latest[topic] = payload

    def publish_once(self, topic, payload, what, correlation=None):
        self.once.append(topic)

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
    discovery = json.loads(later.publisher.latest["homeassistant/device/finesight-shop-till/config"])
    assert discovery["cmps"]["roof_status"] == {"p": "sensor"}
    assert "roof/status" in later.publisher.cleared()


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
