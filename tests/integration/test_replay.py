"""Replaying a recording gives the same events again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from edge.capture.recorder import segments
from tests.integration.mosquitto import Mosquitto
from tests.integration.rtsp_server import RtspServer
from tests.integration.test_device import DEMO, ROOT, edge, gather, install, subscribe, write_config

RUN_FIELDS = ("id", "boot_id", "seq", "latency_ms", "historical")


def without_ids_and_times(events: list[dict]) -> list[dict]:
    return [{key: value for key, value in event.items() if key not in RUN_FIELDS} for event in events]


def test_replay_gives_the_events_of_the_recording(tmp_path):
    install(tmp_path / "state")
    with (
        Mosquitto(tmp_path) as broker,
        RtspServer(f"file:{DEMO / 'stream.mp4'}", fps=12, size=(640, 360), quantizer=22) as camera,
        subscribe(broker.port) as subscriber,
    ):
        config = write_config(
            tmp_path, broker.port, f"  door: {{source: '{camera.url}', backend: gstreamer, stall_timeout_s: 2}}\n"
        )
        command = [sys.executable, "-m", "edge", "record", "-c", str(config), "--mib", "64"]
        device = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        try:
            messages = gather(subscriber.messages, lambda found: sum(m.get("type") == "end" for _, m in found) >= 5)
            camera.kill()  # a lost stream ends all tracks
            messages += gather(
                subscriber.messages, lambda found: any(m.get("state") == "reconnecting" for _, m in found)
            )
        finally:
            device.send_signal(signal.SIGTERM)
            _, log = device.communicate(timeout=60)
        assert device.returncode == 0, log
        messages += gather(subscriber.messages, lambda found: any(m.get("state") == "stopping" for _, m in found))
    (ring,) = (tmp_path / "state/ring").glob("*/door")
    assert segments(ring)
    done = edge("replay", ring, "-c", config)
    assert done.returncode == 0, done.stderr
    live = [message for topic, message in messages if topic == "door/events"]
    assert without_ids_and_times([json.loads(line) for line in done.stdout.splitlines()]) == without_ids_and_times(live)
    assert {event["type"] for event in live} >= {"new", "end"}
