from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import CommandError
from edge.messaging.command import Command, correlation_id, read_command, read_switch, reply_payload
from tests.edge.messaging.test_payload import check

CAMERAS = {"door": object(), "till": object()}


def complaint_of(verb, payload):
    with pytest.raises(CommandError) as caught:
        read_command(verb, payload, CAMERAS)
    return str(caught.value)


def test_commands_of_the_device_need_no_payload():
    assert read_command("health", b"", CAMERAS) == Command("health")
    assert read_command("reload", b' {"id": 1, "unheard of": 2}', CAMERAS) == Command("reload")


def test_commands_of_a_camera_name_it():
    assert read_command("camera/disable", b'{"camera": "door"}', CAMERAS) == Command("camera/disable", "door")
    assert read_command("restart_camera", b'{"camera": "till"}', CAMERAS) == Command("restart_camera", "till")


@pytest.mark.parametrize(
    ("verb", "payload", "complaint"),
    [
        ("reboot", b"{}", "found verb 'reboot', expected one of health, reload, camera/enable"),
        ("health", b"now!", "found no JSON, expected an object"),
        ("health", b"\xff\xfe", "found no JSON, expected an object"),
        ("health", b"[" * 4000, "found no JSON, expected an object"),
        ("health", b"[1]", "found list, expected an object"),
        ("health", b"{" + b" " * 5000 + b"}", "found 5002 bytes, expected at most 4096"),
        ("camera/enable", b"{}", "found camera None, expected one of door, till"),
        ("camera/enable", b'{"camera": ["door"]}', "found camera ['door'], expected one of door, till"),
        ("restart_camera", b'{"camera": "roof"}', "found camera 'roof', expected one of door, till"),
    ],
)
def test_what_cannot_be_understood_is_told_in_one_sentence(verb, payload, complaint):
    assert complaint_of(verb, payload).startswith(complaint)


@given(st.text(max_size=30), st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_whatever_is_sent_gets_a_reply_that_reads_as_its_schema_says(verb, payload):
    payload = payload.encode() if isinstance(payload, str) else payload
    try:
        outcome = {"verb": read_command(verb, payload, CAMERAS).verb}
    except CommandError as error:
        outcome = error
    check("reply", reply_payload(verb, correlation_id(payload), outcome))


def test_a_reply_repeats_the_senders_id():
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


def test_a_switch_knows_on_and_off_and_nothing_else():
    assert read_switch("door", b"ON", CAMERAS) == Command("camera/enable", "door")
    assert read_switch("door", b"OFF", CAMERAS) == Command("camera/disable", "door")
    with pytest.raises(CommandError, match="found 'off', expected ON or OFF"):
        read_switch("door", b"off", CAMERAS)
    with pytest.raises(CommandError, match="found camera 'roof', expected one of door, till"):
        read_switch("roof", b"ON", CAMERAS)
