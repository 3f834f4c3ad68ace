from __future__ import annotations

import json
import re

from edge.messaging.home_assistant import DeviceDescription, discovery_payload, discovery_topic

DEVICE = DeviceDescription("fs", "shop", "till-1", "0.1.0", ("door", "roof"), switches=True)


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
    assert all(component["p"] in {"sensor", "binary_sensor", "switch"} for component in components.values())
    assert len({component["uniq_id"] for component in components.values()}) == len(components) == 3 + 2 * 4


def test_camera_has_status_connectivity_match_and_switch():
    components = message_of()["cmps"]
    assert components["door_status"]["stat_t"] == "fs/shop/till-1/door/status"
    assert {"online", "frozen", "disabled"} <= set(components["door_status"]["ops"])
    assert components["door_connectivity"]["dev_cla"] == "connectivity"
    assert components["door_match"]["stat_t"] == "fs/shop/till-1/door/events"
    assert components["door_enabled"]["cmd_t"] == "fs/shop/till-1/door/enabled/set"
    assert components["door_enabled"]["stat_t"] == "fs/shop/till-1/door/enabled/state"


def test_device_without_commands_has_no_switch():
    assert not any(
        c["p"] == "switch"
        for c in message_of(DeviceDescription("fs", "s", "d", "1", ("door",), False))["cmps"].values()
    )


def test_components_of_a_removed_camera_are_deleted():
    components = message_of(removed=["cellar"])["cmps"]
    assert components["cellar_status"] == {"p": "sensor"}
    assert components["cellar_enabled"] == {"p": "switch"}
