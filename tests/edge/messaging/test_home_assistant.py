from __future__ import annotations

import json
import re
from dataclasses import replace

from edge.messaging.home_assistant import DeviceDescription, device_topic, discovery

DEVICE = DeviceDescription("fs", "shop", "till-1", "0.1.0", ("door", "roof"), switches=True, snapshots=True)
NODE = "finesight-shop-till-1"


def entities_of(description=DEVICE):
    """Return the messages by platform and id."""
    found = {}
    for topic, payload in discovery("homeassistant", description).items():
        prefix, platform, node, leaf, config = topic.split("/")
        assert (prefix, node, config) == ("homeassistant", NODE, "config")
        found[platform, leaf] = json.loads(payload)
    return found


def test_topics_have_the_discovery_format():
    for topic in discovery("homeassistant", DEVICE):
        assert re.fullmatch(r"homeassistant/[a-z_]+/[a-zA-Z0-9_-]+/[a-zA-Z0-9_-]+/config", topic)
    assert device_topic("homeassistant", DEVICE) == "homeassistant/device/finesight-shop-till-1/config"


def test_every_message_names_device_origin_and_availability():
    for message in entities_of().values():
        assert message["dev"]["ids"] == [NODE]
        assert message["o"] == {"name": "finesight", "sw": "0.1.0"}
        assert message["avty_t"] == "fs/shop/till-1/available"


def test_every_entity_has_a_unique_id():
    messages = entities_of()
    assert {platform for platform, _ in messages} == {"sensor", "binary_sensor", "switch", "event", "image"}
    assert len({message["uniq_id"] for message in messages.values()}) == len(messages) == 3 + 2 * 7


def test_no_message_grows_with_the_cameras():
    """The message for the whole device had 9,373 bytes with 8 cameras; brokers exist that take 8,092."""
    many = replace(DEVICE, cameras=tuple(f"camera-{number}" for number in range(50)))
    messages = discovery("homeassistant", many)
    assert len(messages) == 3 + 50 * 7
    assert max(map(len, messages.values())) < 1500


def test_camera_has_status_connectivity_match_and_switch():
    messages = entities_of()
    assert messages["sensor", "door_status"]["stat_t"] == "fs/shop/till-1/door/status"
    assert {"online", "frozen", "disabled"} <= set(messages["sensor", "door_status"]["ops"])
    assert messages["binary_sensor", "door_connectivity"]["dev_cla"] == "connectivity"
    assert messages["sensor", "door_match"]["stat_t"] == "fs/shop/till-1/door/events"
    assert messages["switch", "door_enabled"]["cmd_t"] == "fs/shop/till-1/door/enabled/set"
    assert messages["switch", "door_enabled"]["stat_t"] == "fs/shop/till-1/door/enabled/state"


def test_device_without_commands_has_no_switch():
    assert ("switch", "door_enabled") not in entities_of(replace(DEVICE, switches=False))


def test_camera_has_an_event_a_count_and_a_picture():
    messages = entities_of()
    assert messages["event", "door_event"]["stat_t"] == "fs/shop/till-1/door/events"
    assert messages["event", "door_event"]["evt_typ"] == ["new", "update", "end"]
    assert messages["sensor", "door_in_view"]["stat_t"] == "fs/shop/till-1/door/in_view"
    assert messages["image", "door_snapshot"]["img_t"] == "fs/shop/till-1/door/snapshot"


def test_device_without_snapshots_has_no_picture():
    assert ("image", "door_snapshot") not in entities_of(replace(DEVICE, snapshots=False))


def test_each_item_has_a_sensor_per_camera():
    labels = ("Pop cola", 'a "quoted" }} label', "Möhre 🥕")
    before, after = entities_of(), entities_of(replace(DEVICE, items=labels))
    messages = [after[key] for key in after if key not in before]
    assert len(messages) == len({message["uniq_id"] for message in messages}) == 2 * 3
    assert {message["stat_t"] for message in messages} == {"fs/shop/till-1/door/in_view", "fs/shop/till-1/roof/in_view"}
    assert [message["name"] for message in messages[:3]] == [f"door {label}" for label in labels]
