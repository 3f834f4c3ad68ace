"""A configuration overlay on a real device: a good one is taken while it runs, a bad one is taken back by itself."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edge.bundle import slots
from edge.bundle.install import install_bundle, install_gallery
from edge.config.overlay import Overlay, overlay_path
from edge.telemetry.vital_signs import VitalSigns, fresh_vital_signs, monotonic_s
from gallery_sync.remote_hands.commands import Outcome
from gallery_sync.remote_hands.config import ConfigTrials, real_world
from gallery_sync.remote_hands.config_files import current
from tests.integration.mosquitto import free_port
from tests.integration.small_demo import DEMO, small_bundle
from tests.store_samples import trusted
from tests.waiting import until

GOOD = Overlay("night-mode", 3, {"cameras": {"shelf": {"max_px": 320}}, "recognition": {"min_looks": 4}})


@contextmanager
def running_device(folder: Path, log: Path) -> Iterator[Path]:
    """Run a device with two cameras that read the demo's video; yield its state folder."""
    state, config = folder / "state", folder / "device.yaml"
    slot = install_bundle(small_bundle(folder / "bundle", 1), state)
    slots.activate(state, slot, install_gallery(DEMO / "gallery", state), trusted)
    camera = f"{{source: 'file://{DEMO}/stream.mp4?loop=1'}}"
    config.write_text(
        f"state_dir: {state}\nmqtt: {{password: '${{SECRET}}'}}\ncameras:\n  shelf: {camera}\n  gate: {camera}\n"
    )
    command = [sys.executable, "-m", "edge", "run", "-c", str(config)]
    with log.open("wb") as stderr, subprocess.Popen(command, stderr=stderr, env={"SECRET": "hunter2"}) as device:
        try:
            yield state
        finally:
            device.send_signal(signal.SIGTERM)
    assert device.returncode == 0


def is_online(state: Path, overlay: str | None) -> bool:
    signs: VitalSigns | None = fresh_vital_signs(state, monotonic_s())
    if signs is None or signs.config is None or signs.config.overlay != overlay:
        return False
    return [camera.state for _, camera in sorted(signs.cameras.items())] == ["online", "online"]


def refused(state: Path) -> str:
    signs = fresh_vital_signs(state, monotonic_s())
    return (signs.config.refused or "") if signs is not None and signs.config is not None else ""


def tried(trials: ConfigTrials, overlay: Overlay, seconds: float) -> Outcome:
    trial = trials.begin(overlay, "r-1", seconds)
    assert trial is not None
    return trials.watch(trial)


def test_good_overlay_is_taken_and_a_bad_one_is_taken_back(tmp_path):
    log = tmp_path / "log"
    with running_device(tmp_path, log) as state:
        until(lambda: is_online(state, None), "both cameras are online")
        world = real_world(state, tmp_path / "device.yaml")
        assert tried(ConfigTrials(state, world), GOOD, 12.0).text == "night-mode 3 is in use, and all cameras are back"
        assert "'removed': [], 'added': [], 'changed': ['shelf'], 'recognition': True" in log.read_text()

        moved = {"gate": {"source": f"rtsp://127.0.0.1:{free_port()}/none"}}
        wrong = Overlay("night-mode", 4, {**GOOD.values, "cameras": {**GOOD.values["cameras"], **moved}})
        done = tried(ConfigTrials(state, replace(world, check=lambda _: None)), wrong, 8.0)
        assert done.state == "failed"
        said = r"camera 'gate' is (reconnecting|offline), and was online before; the device is back at night-mode 3"
        assert re.search(said, done.text), done.text
        until(lambda: is_online(state, "night-mode 3"), "both cameras are back")
        assert current(state) == "night-mode 3"

        overlay_path(state).write_bytes(b"{")
        until(lambda: "is damaged" in refused(state), "the overlay is ignored and reported")
    assert current(state) is None
    assert log.read_text().count("'changed': ['shelf']") == 2  # it went on when the other camera changed, twice
    assert log.read_text().count("'changed': ['gate']") == 2
