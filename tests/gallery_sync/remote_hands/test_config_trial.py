"""Judging a configuration on trial: pure."""

from __future__ import annotations

import pytest

from gallery_sync.remote_hands.config_files import Trial
from gallery_sync.remote_hands.config_trial import SETTLE_S, Watch, judge, look, resumed
from tests.gallery_sync.remote_hands.config_samples import PlayedDevice

SHA = "a" * 64
TRIAL = Trial(
    overlay=None,
    sha256=None,
    previous_sha256=SHA,
    cameras=["door", "yard"],
    seconds=60,
    began_s=1000,
    boot_id="boot-1",
    request="1",
)


@pytest.fixture
def device(tmp_path):
    return PlayedDevice(tmp_path)


def watch_to(device: PlayedDevice, trial: Trial, seconds: float) -> Watch:
    watch, end_s = Watch(), device.now_s + seconds
    while device.now_s <= end_s:
        watch = look(watch, trial, device.signs(), device.now_s)
        device.now_s += 1.0
    device.now_s -= 1.0
    return watch


def test_nothing_is_confirmed_before_the_end(device):
    watch = watch_to(device, TRIAL, 59)
    assert watch.missing is None
    assert judge(watch, TRIAL, device.now_s).kind == "waiting"
    assert judge(watch_to(device, TRIAL, 1), TRIAL, device.now_s).kind == "bad"  # another agent, at the very end
    device.now_s = 1000.0
    assert judge(watch_to(device, TRIAL, 60), TRIAL, device.now_s).kind == "good"


def test_camera_that_fails_late_fails_the_trial(device):
    device.later = {1055.0: {"yard": "frozen"}}
    verdict = judge(watch_to(device, TRIAL, 60), TRIAL, device.now_s)
    assert (verdict.kind, verdict.reason) == ("bad", "camera 'yard' is frozen, and was online before")


def test_camera_must_be_back_for_a_while(device):
    device.later = {0.0: {"yard": "reconnecting"}, 1060.0 - SETTLE_S + 5: {"yard": "online"}}
    assert judge(watch_to(device, TRIAL, 60), TRIAL, device.now_s).kind == "bad"
    device.later = {0.0: {"yard": "reconnecting"}, 1060.0 - SETTLE_S: {"yard": "online"}}
    device.now_s = 1000.0
    assert judge(watch_to(device, TRIAL, 60), TRIAL, device.now_s).kind == "good"


@pytest.mark.parametrize("state", ["disabled", None])
def test_camera_that_is_switched_off_or_gone_is_not_waited_for(device, state):
    trial = TRIAL.model_copy(update={"cameras": ["door", "gone" if state is None else "yard"]})
    device.states = {None: {"yard": state or "stalled"}}
    assert judge(watch_to(device, trial, 60), trial, device.now_s).kind == "good"


def test_camera_that_was_not_online_before_is_not_waited_for(device):
    device.states = {None: {"yard": "reconnecting"}}
    trial = TRIAL.model_copy(update={"cameras": ["door"]})
    assert judge(watch_to(device, trial, 60), trial, device.now_s).kind == "good"


def test_device_that_does_not_run_fails_at_the_end(device):
    device.runs = False
    watch = watch_to(device, TRIAL, 59)
    assert judge(watch, TRIAL, device.now_s).kind == "waiting"
    assert judge(watch, TRIAL, 1060.0).reason == "edge is not running"


def test_device_that_restarts_again_and_again_fails_at_once(device):
    watch = watch_to(device, TRIAL, 3)
    for run in ("run-2", "run-3"):
        assert judge(watch, TRIAL, device.now_s).kind == "waiting"
        device.run = run
        watch = look(watch, TRIAL, device.signs(), device.now_s)
    assert judge(watch, TRIAL, device.now_s).reason == "edge restarted 2 times during the trial"


def test_refused_overlay_fails_once_edge_has_read_it(device):
    trial = TRIAL.model_copy(update={"overlay": "night-mode 3"})
    watch = Watch(missing="edge refuses it: overlay night-mode 3: cameras.door.max_px: found 5")
    assert judge(watch, trial, 1001.0).kind == "waiting"  # it may be of an earlier try
    assert judge(watch, trial, 1006.0).kind == "bad"
    assert judge(watch, trial.model_copy(update={"overlay": "night-mode 4"}), 1006.0).kind == "waiting"


def test_edge_that_does_not_turn_to_it_fails_at_the_end(device):
    trial = TRIAL.model_copy(update={"overlay": "night-mode 3"})
    assert judge(watch_to(device, trial, 60), trial, device.now_s).reason == "edge has not taken it yet"


def test_agent_that_starts_again_goes_on_while_the_trial_is_young():
    assert resumed(TRIAL, None, "boot-1", 1030.0) == TRIAL
    assert resumed(TRIAL, None, "boot-1", 1060.0) == "nobody watched the end of the trial"
    assert resumed(TRIAL, None, "boot-1", 10.0) == "nobody watched the end of the trial"
    assert resumed(TRIAL, SHA, "boot-1", 1030.0) == "it was interrupted before it was taken"


def test_one_restart_of_the_machine_is_survived():
    again = resumed(TRIAL, None, "boot-2", 10.0)
    assert isinstance(again, Trial)
    assert (again.began_s, again.boots, again.boot_id) == (10.0, 1, "boot-2")
    assert resumed(again, None, "boot-3", 10.0) == "the machine started 2 times during the trial"
