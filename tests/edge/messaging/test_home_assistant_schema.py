"""Discovery holds what Home Assistant accepts, and its templates give what Home Assistant expects.

tests/golden/home_assistant_2025.4.4.json holds the keys of Home Assistant's own schemas, of that version.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edge.messaging.home_assistant import DeviceDescription, discovery
from edge.messaging.in_view import InView
from edge.types import Decision
from tests.edge.messaging.test_payload import EVENT, KNOWN, payload_of

ACCEPTED = json.loads((Path(__file__).parents[2] / "golden/home_assistant_2025.4.4.json").read_text(encoding="utf-8"))
LABELS = ("Red 0.5 l", 'a "quoted" }} {% label \\', "Möhre 🥕")
DEVICE = DeviceDescription("fs", "shop", "till-1", "0.1.0", ("door", "roof"), True, True, LABELS)
MESSAGES = {topic: json.loads(payload) for topic, payload in discovery("homeassistant", DEVICE).items()}
SENSORS = [message for topic, message in MESSAGES.items() if "_item_" in topic]
SHARED = {"device", "origin", "availability_topic", "availability_template", "qos"}


def expanded(message):
    return {ACCEPTED["abbreviations"].get(key, key): value for key, value in message.items()}


def check_component(platform, component):
    schema = ACCEPTED["platforms"][platform]
    keys = set(component) - {"platform"}
    assert keys <= {*schema["required"], *schema["optional"]}
    assert keys >= {*schema["required"], "unique_id", "name"}
    assert component.get("device_class", "enum") in ACCEPTED["device_classes"].get(platform, ["enum"])
    assert component.get("state_class", "measurement") in ACCEPTED["state_classes"]
    assert component.get("entity_category", "diagnostic") in {"config", "diagnostic"}
    assert ("options" in component) == (component.get("device_class") == "enum")
    assert platform != "image" or ("image_topic" in component) != ("url_topic" in component)


def message_of(leaf):
    return next(message for topic, message in MESSAGES.items() if topic.endswith(f"/{leaf}/config"))


@pytest.mark.parametrize("topic", MESSAGES)
def test_message_fits_the_schema_of_its_platform(topic):
    full = expanded(MESSAGES[topic])
    assert full.keys() >= SHARED
    assert {ACCEPTED["device"][key] for key in full["device"]} >= {"identifiers", "name"}
    assert {ACCEPTED["origin"][key] for key in full["origin"]} == {"name", "sw_version"}
    check_component(topic.split("/")[1], {key: value for key, value in full.items() if key not in SHARED})


def render(template, payload):
    """Render a template as Home Assistant does, with the JSON of a message as value_json."""
    found = ImmutableSandboxedEnvironment().from_string(template)
    return found.render(value=payload.decode(), value_json=json.loads(payload))


def event_template():
    return message_of("door_event")["val_tpl"]


def test_event_has_a_declared_type_and_names_the_object():
    found = json.loads(render(event_template(), payload_of(replace(EVENT, type="end"))))
    assert found["event_type"] in message_of("door_event")["evt_typ"]
    assert (found["label"], found["category"], found["probability"]) == ("Red 0.5 l", "bottle", 0.97)
    assert (found["started_at"], found["dwell_s"]) == ("2023-11-14T22:13:10.500Z", 9.623)


def test_unknown_object_is_an_event_without_a_label():
    found = json.loads(render(event_template(), payload_of(replace(EVENT, decision=Decision(None, None, "too_small")))))
    assert (found["event_type"], found["label"], found["reason"]) == ("new", None, "too_small")


def test_event_that_waited_for_the_broker_is_ignored():
    assert render(event_template(), payload_of(EVENT, historical=True)) == ""


@pytest.mark.parametrize("label", LABELS)
def test_item_sensor_counts_its_item_whatever_the_label(label):
    in_view = InView()
    decision = replace(KNOWN, match=replace(KNOWN.match, label=label))
    in_view.update(replace(EVENT, decision=decision))
    in_view.update(replace(EVENT, decision=decision, track_id=8))
    counts = {sensor["name"]: render(sensor["val_tpl"], in_view.payload("door")) for sensor in SENSORS}
    assert counts[f"door {label}"] == "2"
    assert sorted(counts.values()) == ["0"] * 4 + ["2"] * 2  # both cameras' sensors render this message


def test_sensor_of_what_is_in_view_shows_the_total():
    in_view = InView()
    in_view.update(EVENT)
    assert render(message_of("door_in_view")["val_tpl"], in_view.payload("door")) == "1"
