from __future__ import annotations

import json
import re
from dataclasses import replace

from edge.messaging.home_assistant import DeviceDescription, discovery_payload, discovery_topic, item_sensors

DEVICE = DeviceDescription("fs", "shop", "till-1", "0.1.0", ("door", "roof"), switches=True, snapshots=True)


def message_of(description=DEVICE, removed=()):
    return json.loads(discovery_payload(description, removed))


def test_topic_has_the_discovery_format():
    topic = discovery_topic("homeassistant", DEVICE)
    assert topic == "homeassistant/device/finesight-shop-till-1/config"
    assert re.fullmatch(r"homeassistant/device/[a-zA-Z0-9_-]+/config", topic)


def test_message_names_device_and_origin():
    message = message_of()
    assert message["dev"]["ids"] == ["finesight-shop-till-1"]
    assert message["o"] == {"name": "finesight", "sw": "0.1.0"}
    assert message["avty_t"] == "fs/shop/till-1/available"


def test_every_component_has_a_platform_and_a_unique_id():
    components = message_of()["cmps"]
    there = {key: one for key, one in components.items() if len(one) > 1}
    assert {one["p"] for one in there.values()} == {"sensor", "binary_sensor", "switch", "event", "image"}
    assert len({one["uniq_id"] for one in there.values()}) == len(there) == len(components) == 3 + 2 * 7


def test_camera_has_status_connectivity_match_and_switch():
    components = message_of()["cmps"]
    assert components["door_status"]["stat_t"] == "fs/shop/till-1/door/status"
    assert {"online", "frozen", "disabled"} <= set(components["door_status"]["ops"])
    assert components["door_connectivity"]["dev_cla"] == "connectivity"
    assert components["door_match"]["stat_t"] == "fs/shop/till-1/door/events"
    assert components["door_enabled"]["cmd_t"] == "fs/shop/till-1/door/enabled/set"
    assert components["door_enabled"]["stat_t"] == "fs/shop/till-1/door/enabled/state"


def test_device_without_commands_has_no_switch():
    components = message_of(replace(DEVICE, switches=False))["cmps"]
    assert components["door_enabled"] == {"p": "switch"}  # deletes it, if it was there


def test_components_of_a_removed_camera_are_deleted():
    components = message_of(removed=["cellar"])["cmps"]
    assert components["cellar_status"] == {"p": "sensor"}
    assert components["cellar_enabled"] == {"p": "switch"}


def test_camera_has_an_event_a_count_and_a_picture():
    components = message_of()["cmps"]
    assert components["door_event"]["stat_t"] == "fs/shop/till-1/door/events"
    assert components["door_event"]["evt_typ"] == ["new", "update", "end"]
    assert components["door_in_view"]["stat_t"] == "fs/shop/till-1/door/in_view"
    assert components["door_snapshot"]["img_t"] == "fs/shop/till-1/door/snapshot"


def test_picture_is_deleted_when_snapshots_are_off():
    assert message_of(replace(DEVICE, snapshots=False))["cmps"]["door_snapshot"] == {"p": "image"}


def test_each_item_has_a_sensor_per_camera_with_a_topic_of_its_own():
    labels = ("Pop cola", 'a "quoted" }} label', "Möhre 🥕")
    sensors = item_sensors("ha", replace(DEVICE, items=labels))
    assert len(sensors) == 2 * 3
    assert all(re.fullmatch(r"ha/sensor/finesight-shop-till-1/[a-zA-Z0-9_-]+/config", topic) for topic in sensors)
    messages = [json.loads(payload) for payload in sensors.values()]
    assert len({message["uniq_id"] for message in messages}) == 6
    assert {message["stat_t"] for message in messages} == {"fs/shop/till-1/door/in_view", "fs/shop/till-1/roof/in_view"}
    assert [message["name"] for message in messages[:3]] == [f"door {label}" for label in labels]
