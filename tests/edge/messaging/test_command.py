from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import CommandError
from edge.messaging.command import (
    Command,
    correlation_id,
    read_command,
    read_switch,
    reply_correlation,
    reply_payload,
    reply_topic,
)
from tests.edge.messaging.test_payload import check

CAMERAS = {"door": object(), "till": object()}
ANY_INPUT = settings(derandomize=True, max_examples=100, deadline=None)


def error_of(verb, payload):
    with pytest.raises(CommandError) as caught:
        read_command(verb, payload, CAMERAS)
    return str(caught.value)


def test_device_command_needs_no_payload():
    assert read_command("health", b"", CAMERAS) == Command("health")
    assert read_command("reload", b' {"id": 1, "unheard of": 2}', CAMERAS) == Command("reload")


def test_camera_command_names_the_camera():
    assert read_command("camera/disable", b'{"camera": "door"}', CAMERAS) == Command("camera/disable", "door")
    assert read_command("restart_camera", b'{"camera": "till"}', CAMERAS) == Command("restart_camera", "till")


@pytest.mark.parametrize(
    ("verb", "payload", "error"),
    [
        ("reboot", b"{}", "unknown verb 'reboot'; use one of health, reload, camera/enable"),
        ("health", b"now!", "the payload is not JSON; send an object"),
        ("health", b"\xff\xfe", "the payload is not JSON; send an object"),
        ("health", b"[" * 4000, "the payload is not JSON; send an object"),
        ("health", b'{"id": NaN}', "the payload is not JSON; send an object"),
        ("restart_camera", b'{"camera": "door", "camera": "till"}', "a key comes twice in the payload"),
        ("health", b'{"a": {"b": 1, "b": 2}}', "a key comes twice in the payload"),
        ("health", b"[1]", "the payload is not a JSON object; send one such as"),
        ("health", b"{" + b" " * 5000 + b"}", "the payload has 5002 bytes; send at most 4096"),
        ("camera/enable", b"{}", "unknown camera None; use one of door, till"),
        ("camera/enable", b'{"camera": ["door"]}', "unknown camera ['door']; use one of door, till"),
        ("restart_camera", b'{"camera": "roof"}', "unknown camera 'roof'; use one of door, till"),
    ],
)
def test_invalid_command_is_one_clear_error(verb, payload, error):
    assert error_of(verb, payload).startswith(error)


@ANY_INPUT
@given(st.text(max_size=30), st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_every_command_gets_a_reply_that_fits_the_schema(verb, payload):
    payload = payload.encode() if isinstance(payload, str) else payload
    try:
        outcome = {"verb": read_command(verb, payload, CAMERAS).verb}
    except CommandError as error:
        outcome = error
    check("reply", reply_payload(verb, correlation_id(payload), outcome))


def test_reply_repeats_the_id_of_the_sender():
    assert correlation_id(b'{"id": 17}') == "17"
    assert correlation_id(b'{"id": "' + b"x" * 500 + b'"}') == "x" * 128
    assert correlation_id(b'{"id": {}}') is None
    assert correlation_id(b"nonsense") is None
    done = check("reply", reply_payload("reload", "a", {"added": ["roof"]}))
    assert done == {
        "schema": "finesight.reply/1", "id": "a", "verb": "reload", "ok": True, "result": {"added": ["roof"]},
    }  # fmt: skip
    refused = check("reply", reply_payload("reload", None, CommandError("found x, expected y")))
    assert (refused["ok"], refused["error"]) == (False, "found x, expected y")


def test_switch_accepts_only_on_and_off():
    assert read_switch("door", b"ON", CAMERAS) == Command("camera/enable", "door")
    assert read_switch("door", b"OFF", CAMERAS) == Command("camera/disable", "door")
    with pytest.raises(CommandError, match="'off' is not a switch state; send ON or OFF"):
        read_switch("door", b"off", CAMERAS)
    with pytest.raises(CommandError, match="unknown camera 'roof'; use one of door, till"):
        read_switch("roof", b"ON", CAMERAS)


@ANY_INPUT
@given(st.sampled_from(["door", "till", "roof", ""]), st.binary(max_size=8) | st.sampled_from([b"ON", b"OFF"]))
def test_any_switch_payload_is_a_command_or_our_error(camera, payload):
    try:
        command = read_switch(camera, payload, CAMERAS)
    except CommandError:
        assert camera not in CAMERAS or payload not in {b"ON", b"OFF"}
    else:
        assert (command.camera, command.verb == "camera/enable") == (camera, payload == b"ON")


@ANY_INPUT
@given(st.binary(max_size=100) | st.dictionaries(st.just("id"), st.integers() | st.text()).map(json.dumps))
def test_any_payload_has_a_short_id_or_none(payload):
    payload = payload.encode() if isinstance(payload, str) else payload
    command_id = correlation_id(payload)
    assert command_id is None or len(command_id) <= 128


OWN = "fs/shop/till/cmd/reply"


@pytest.mark.parametrize("wanted", [None, OWN, f"{OWN}/app-7", f"{OWN}/app/7 ü"])
def test_own_reply_topics_are_used(wanted):
    assert reply_topic("fs/shop/till", wanted) == (wanted or OWN, None)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("fs/shop/other/door/enabled/set", "foreign"),
        ("fs/shop/till-2/cmd/reply", "foreign"),
        ("fs/shop/till/door/enabled/set", "foreign"),
        ("fs/shop/till/available", "foreign"),
        ("fs/shop/till/cmd/replys", "foreign"),
        ("$SYS/broker", "foreign"),
        ("/", "invalid"),
        ("", "invalid"),
        (f"{OWN}/", "invalid"),
        (f"{OWN}//x", "invalid"),
        (f"{OWN}/+", "invalid"),
        (f"{OWN}/#", "invalid"),
        (f"{OWN}/a\0b", "invalid"),
        (f"{OWN}/a\nb", "invalid"),
        (f"{OWN}/" + "x" * 250, "too_long"),
    ],
)
def test_other_topics_are_not_replied_on(wanted, reason):
    assert reply_topic("fs/shop/till", wanted) == (OWN, reason)


@ANY_INPUT
@given(st.text(max_size=300) | st.text(max_size=20).map(lambda tail: f"{OWN}/{tail}"))
def test_no_reply_topic_leaves_the_own_ones(wanted):
    topic, reason = reply_topic("fs/shop/till", wanted)
    assert topic == OWN or topic.startswith(OWN + "/")
    assert not set("#+\0") & set(topic)
    assert (topic == wanted) == (reason is None)


def test_correlation_data_is_bounded():
    assert reply_correlation(None) == (None, None)
    assert reply_correlation(b"x" * 1024) == (b"x" * 1024, None)
    assert reply_correlation(b"x" * 65535) == (None, "correlation")
