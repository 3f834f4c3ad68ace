from __future__ import annotations

import contextlib
import json
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.schema import DeviceConfig
from edge.diagnostics.status import fetch, format_status
from edge.errors import FinesightError

ANY_INPUT = settings(derandomize=True, max_examples=100, deadline=None)
KEYS = st.sampled_from(["state", "counters", "versions", "cameras", "stages", "uptime_s", "gallery_stale"]) | st.text()
JSON = st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner))


@ANY_INPUT
@given(st.text(max_size=60) | JSON.map(json.dumps))
def test_any_text_is_formatted_or_our_error(status):
    with contextlib.suppress(FinesightError):
        assert all(isinstance(line, str) for line in format_status(status))


def test_answer_of_another_program_is_one_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer():
            client, _ = server.accept()
            client.recv(1000)
            client.sendall(b"no HTTP\r\n\r\n")
            client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        config = DeviceConfig(cameras={"door": {"source": "rtsp://h/a"}}, health={"port": port})
        with pytest.raises(FinesightError, match=r"/status: no answer \(.*start the device with `edge run`"):
            fetch(config, "/status")
        thread.join()


def test_fallback_and_damaged_files_are_shown():
    report = {"state": "degraded", "uptime_s": 1, "versions": {}, "resident_bytes": 0, "cameras": {}, "stages": {}}
    report |= {"counters": {}, "mqtt_connected": True, "outbox_events": 0}
    lines = format_status(json.dumps(report | {"fallback": "slot b is damaged", "damaged_files": ["probe.png"]}))
    assert lines[2:4] == ["fallback: slot b is damaged", "damaged: probe.png"]
    lines = format_status(json.dumps(report | {"gpu_fallback": "building engine 1 of 7"}))
    assert lines[2] == "engines: the CPU runs the models: building engine 1 of 7"
    lines = format_status(json.dumps(report | {"config_overlay": "night-mode 3"}))
    assert lines[2] == "configuration: with the overlay night-mode 3"
    lines = format_status(json.dumps(report | {"overlay_error": "it is damaged", "config_error": "unknown key 'x'"}))
    assert lines[2] == "configuration: without the overlay, which is refused: it is damaged"
    assert lines[3] == "configuration: the file is invalid: unknown key 'x'"


def test_reason_for_waiting_is_shown():
    assert format_status('{"state": "starting", "waiting_for": "no bundle"}')[1] == "waiting for a bundle: no bundle"
