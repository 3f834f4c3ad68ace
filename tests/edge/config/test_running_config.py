"""The configuration that runs, and reading its file again."""

from __future__ import annotations

import shutil

import pytest

from edge.config.config_file import LAST_GOOD_FILE, ConfigFile
from edge.config.overlay import Overlay, overlay_bytes, overlay_path
from edge.config.running_config import RunningConfig
from edge.config.schema import DeviceConfig
from edge.errors import CommandError, ConfigError
from edge.telemetry.counters import Counters

ONE = "state_dir: {state}\ncameras:\n  door: {{source: 'file://clips/a.mp4'}}\n"
TWO = ONE + "  yard: {{source: 'file://clips/b.mp4'}}\n"


class Bench:
    def __init__(self, folder):
        self.state = folder / "state"
        self.state.mkdir()
        self.path = folder / "device.yaml"
        self.counters = Counters()
        self.write(ONE)
        file = ConfigFile(self.path, {})
        self.running = RunningConfig(file.load(), file, self.counters)

    def write(self, text):
        self.path.write_text(text.format(state=self.state))

    def set_overlay(self, data):
        path = overlay_path(self.state)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_plan_changes_nothing_until_it_is_used(bench):
    bench.write(TWO)
    plan = bench.running.plan_reload()
    assert (plan.added, list(bench.running.config.cameras)) == (("yard",), ["door"])
    bench.running.use(plan)
    assert list(bench.running.config.cameras) == ["door", "yard"]


def test_invalid_file_is_counted_and_the_old_one_runs_on(bench):
    bench.running.keep()
    bench.write("cameras: 7\n")
    with pytest.raises(ConfigError):
        bench.running.plan_reload()
    assert bench.counters.total("reloads", result="refused") == 1
    assert bench.running.problem is not None
    assert list(bench.running.config.cameras) == ["door"]
    assert (bench.state / LAST_GOOD_FILE).read_text() == ONE.format(state=bench.state)


def test_copy_that_cannot_be_kept_is_counted(bench):
    shutil.rmtree(bench.state)
    bench.running.keep()
    assert bench.counters.total("configurations_not_kept") == 1


def test_overlay_is_counted_when_it_is_used_and_when_it_is_refused(bench):
    bench.set_overlay(overlay_bytes(Overlay("night-mode", 3, {"recognition": {"min_looks": 5}})))
    assert bench.running.overlay_changed()
    bench.running.use(bench.running.plan_reload())
    bench.running.keep()
    assert (bench.running.overlay, bench.counters.total("config_overlays", result="used")) == ("night-mode 3", 1)
    bench.set_overlay(b"no overlay")
    bench.running.use(bench.running.plan_reload())
    bench.running.keep()
    assert bench.running.overlay is None
    assert bench.running.overlay_problem is not None
    assert bench.counters.total("config_overlays", result="refused") == 1


def test_device_without_a_file_has_nothing_to_reload():
    running = RunningConfig(DeviceConfig(), None, Counters())
    running.keep()
    assert (running.problem, running.overlay, running.overlay_problem, running.safe_mode) == (None, None, None, False)
    assert not running.overlay_changed()
    with pytest.raises(CommandError, match="without a configuration file"):
        running.plan_reload()
