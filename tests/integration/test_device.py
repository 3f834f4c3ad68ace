"""The whole device through the `edge` command: demo, dead cameras, absent brokers, damaged bundles."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.install import install_bundle, install_gallery
from edge.demo.subscriber import Subscriber
from edge.gallery.generation import write_gallery_index
from edge.messaging.settings import MqttSettings
from edge.process import StateLock
from tests.integration.mosquitto import Mosquitto, free_port
from tests.once import once
from tests.store_samples import trusted
from tests.waiting import DEADLINE_S, until

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo"


def edge(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False, **options)


def prove(state: Path) -> None:
    """Install the demo and prove it, which tries every engine of this machine."""
    slot = install_bundle(DEMO / "bundle", state)
    slots.activate(state, slot, install_gallery(DEMO / "gallery", state))


def install(state: Path) -> None:
    """Make the state folder of a device with the demo's pair, proved and active."""
    shutil.copytree(once("proved-demo", prove), state)


def write_config(folder: Path, port: int, cameras: str) -> Path:
    path = folder / "device.yaml"
    path.write_text(
        f"site: test\ndevice: one\nstate_dir: {folder / 'state'}\nmqtt: {{host: 127.0.0.1, port: {port}}}\n"
        f"cameras:\n{cameras}"
    )
    return path


def recorded(name: str) -> str:
    return f"  {name}: {{source: 'file://{DEMO / 'stream.mp4'}', pacing: every_frame}}\n"


def subscribe(port: int) -> Subscriber:
    return Subscriber(MqttSettings(client_id="test", host="127.0.0.1", port=port), "finesight/test/one/#")


def gather(messages: queue.SimpleQueue, enough) -> list[tuple[str, dict]]:
    """Collect messages until there are enough; fail when that takes too long."""
    found: list[tuple[str, dict]] = []
    deadline = time.monotonic() + DEADLINE_S
    while not enough(found):
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            pytest.fail(f"only {len(found)} messages in time, the last {found[-1:]}")
        try:
            message = messages.get(timeout=left_s)
        except queue.Empty:
            continue
        # not JSON; an empty payload clears a retained topic
        if message.payload and not message.topic.endswith(("/available", "/state")):
            found.append(
                (message.topic.split("/")[-2] + "/" + message.topic.split("/")[-1], json.loads(message.payload))
            )
    return found


def test_second_device_on_a_state_folder_is_refused(tmp_path):
    install(tmp_path / "state")
    path = write_config(tmp_path, free_port(), "  gate: {source: 'rtsp://127.0.0.1:9/none'}\n")
    held = StateLock(tmp_path / "state")
    done = edge("run", "-c", path)
    held.release()
    assert done.returncode == 1
    assert "another `edge` process uses this folder" in done.stderr


def test_missing_file_is_an_error_at_the_end(tmp_path):
    install(tmp_path / "state")
    config = write_config(tmp_path, free_port(), f"  shelf: {{source: 'file://{tmp_path}/none.mp4'}}\n")
    done = edge("run", "--until-end", "-c", config)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"edge: file://{tmp_path}/none.mp4: no such file"


def test_dead_camera_reports_its_state_and_the_other_goes_on(tmp_path):
    install(tmp_path / "state")
    dead = f"  dead: {{source: 'rtsp://user:secret@127.0.0.1:{free_port()}/x', backend: opencv, open_timeout_s: 1}}\n"
    with Mosquitto(tmp_path) as broker, subscribe(broker.port) as subscriber:
        config = write_config(tmp_path, broker.port, recorded("shelf") + dead)
        with subprocess.Popen(
            [sys.executable, "-m", "edge", "run", "-c", config], cwd=ROOT, stderr=subprocess.PIPE, text=True
        ) as device:
            messages = gather(
                subscriber.messages,
                lambda found: (
                    sum(topic == "shelf/events" for topic, _ in found) >= 10
                    and any(topic == "dead/status" and m["state"] == "reconnecting" for topic, m in found)
                ),
            )
            device.send_signal(signal.SIGTERM)
            log = device.communicate(timeout=60)[1]
    assert device.returncode == 0
    assert not any(topic == "dead/events" for topic, _ in messages)
    assert "secret" not in log + json.dumps(messages)


def test_health_and_metrics_of_a_running_device(tmp_path):
    install(tmp_path / "state")
    port = free_port()
    config = write_config(tmp_path, free_port(), recorded("shelf"))
    config.write_text(f"health: {{port: {port}}}\n" + config.read_text())
    with subprocess.Popen([sys.executable, "-m", "edge", "run", "-c", config], cwd=ROOT) as device:
        try:
            events = _metric_above_zero(port, 'finesight_events_total{camera="shelf",type="new"}')
            status, body = _http(port, "/readyz")
        finally:
            device.send_signal(signal.SIGTERM)
    assert device.returncode == 0
    assert events >= 1
    assert status == 200
    assert json.loads(body)["state"] == "running"


def test_running_device_swaps_to_an_activated_gallery(tmp_path):
    state = tmp_path / "state"
    install(state)
    port = free_port()
    stream = f"  shelf: {{source: 'file://{DEMO / 'stream.mp4'}'}}\n"
    config = write_config(tmp_path, free_port(), stream)
    config.write_text(f"health: {{port: {port}}}\n" + config.read_text())
    smaller = tmp_path / "smaller"
    smaller.mkdir()
    for category in ("bottle", "can", "carton", "jar"):
        shutil.copy(DEMO / f"gallery/{category}.sqlite", smaller)
    with subprocess.Popen(
        [sys.executable, "-m", "edge", "run", "-c", config], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as device:
        try:
            _metric_above_zero(port, "finesight_ready")
            pointer = json.loads((state / "current").read_text())
            damaged = pointer | {"bundle_id": "other", "gallery": "0" * 16}
            (state / "current").write_text(json.dumps(damaged))
            _metric_above_zero(port, 'finesight_activations_total{result="refused"}')
            generation = install_gallery(write_gallery_index(smaller, "2026-01-01T00:00:00Z").folder, state)
            slots.activate(state, pointer["slot"], generation, trusted)
            _metric_above_zero(port, 'finesight_activations_total{result="serving"}')
            metrics = _http(port, "/metrics")[1]
        finally:
            device.send_signal(signal.SIGTERM)
            log = device.communicate(timeout=60)[1]
    assert device.returncode == 0
    assert f'gallery="{generation}"' in metrics
    assert "what serves stays" in log


def _http(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def _metric_above_zero(port: int, name: str) -> float:
    """Wait for a metric above zero and return it; the device may not listen yet."""

    def highest() -> float:
        with contextlib.suppress(ConnectionRefusedError):
            lines = _http(port, "/metrics")[1].splitlines()
            return max((float(line.removeprefix(name)) for line in lines if line.startswith(name)), default=0.0)
        return 0.0

    return until(lambda: max(0.0, highest()), name)


def test_events_without_a_broker_arrive_later_once_and_historical(tmp_path):
    install(tmp_path / "state")
    port = free_port()
    config = write_config(tmp_path, port, recorded("shelf"))
    assert edge("run", "-c", config, "--until-end").returncode == 0
    with Mosquitto(tmp_path, lines=()) as broker:
        config = write_config(tmp_path, broker.port, f"  none: {{source: 'file://{tmp_path / 'no.mp4'}'}}\n")
        with subscribe(broker.port) as subscriber:
            edge("run", "-c", config, "--until-end")
            events = [m for topic, m in gather(subscriber.messages, _all_ended) if topic == "shelf/events"]
    assert all(event["historical"] for event in events)
    assert len(events) == len({event["id"] for event in events})
    assert {e["track_id"] for e in events if e["type"] == "new"} == {
        e["track_id"] for e in events if e["type"] == "end"
    }


def _all_ended(found: list[tuple[str, dict]]) -> bool:
    events = [m for topic, m in found if topic == "shelf/events"]
    started = {e["track_id"] for e in events if e["type"] == "new"}
    return len(started) > 20 and started == {e["track_id"] for e in events if e["type"] == "end"}


def test_empty_video_is_one_clear_error_and_the_device_goes_on(tmp_path):
    install(tmp_path / "state")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    done = edge(
        "run", "-c", write_config(tmp_path, free_port(), f"  broken: {{source: 'file://{empty}'}}\n"), "--until-end"
    )
    assert done.returncode == 1
    assert done.stderr.count("ERROR") == 1
    assert str(empty) in done.stderr


def test_truncated_model_is_refused_and_the_active_bundle_stays(tmp_path):
    state = tmp_path / "state"
    install(state)
    before = (state / "current").read_bytes()
    damaged = tmp_path / "damaged"
    shutil.copytree(DEMO / "bundle", damaged)
    manifest = json.loads((damaged / "bundle.json").read_text())
    models = manifest["classifier"]["files"][manifest["classifier"]["ship"]]
    entry = next(e for e in manifest["files"] if e["path"] == models)
    model = damaged / entry["path"]
    model.write_bytes(model.read_bytes()[:1000])

    refused = edge("bundle", "install", damaged, "--state-dir", state)
    assert (refused.returncode, entry["path"] in refused.stderr) == (1, True)

    # the same in every form, with a manifest that matches the damaged files: only running the model shows it
    import hashlib

    for path in manifest["classifier"]["files"].values():
        entry = next(e for e in manifest["files"] if e["path"] == path)
        model = damaged / path
        model.write_bytes(model.read_bytes()[:1000])
        entry |= {"size": 1000, "sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
    manifest["bundle_id"] = "damaged"
    (damaged / "bundle.json").write_text(json.dumps(manifest))
    installed = edge("bundle", "install", damaged, "--gallery", DEMO / "gallery", "--state-dir", state)
    assert installed.returncode == 0, installed.stderr
    refused = edge("bundle", "activate", "damaged", "--state-dir", state)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
    assert (state / "current").read_bytes() == before
    assert edge("bundle", "list", "--state-dir", state).returncode == 0


def test_altered_gallery_is_refused_and_the_active_one_stays(tmp_path):
    state = tmp_path / "state"
    install(state)
    before = (state / "current").read_bytes()
    altered = tmp_path / "gallery"
    shutil.copytree(DEMO / "gallery", altered)
    store = min(altered.glob("*.sqlite"))
    store.write_bytes(store.read_bytes()[:-1] + b"x")
    refused = edge("bundle", "install", DEMO / "bundle", "--gallery", altered, "--state-dir", state)
    assert refused.returncode == 1
    assert store.stem in refused.stderr
    assert (state / "current").read_bytes() == before
    assert edge("gallery", "status", "--state-dir", state).returncode == 0


def test_config_typo_is_one_line_with_file_line_and_nearest_key(tmp_path):
    path = tmp_path / "device.yaml"
    path.write_text("cameras:\n  door:\n    sorce: file:///x.mp4\n")
    done = edge("check", "-c", path)
    assert done.returncode == 1
    assert f"{path}:3: cameras.door.sorce: unknown key 'sorce'; did you mean 'source'?" in done.stderr


def test_port_that_is_no_broker_only_delays_events(tmp_path):
    """Another program listens on the port of the broker: the device runs on and keeps its events."""
    install(tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        port = stranger.getsockname()[1]
        done = edge("run", "-c", write_config(tmp_path, port, recorded("shelf")), "--until-end")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "state" / "outbox.sqlite").stat().st_size > 4096
