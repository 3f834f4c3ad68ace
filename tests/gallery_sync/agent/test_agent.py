"""The agent on a device with real slots, pointers and journal; each test is named by its row of the fault list."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from edge.bundle.active_pointer import read_active_pointer
from edge.errors import BundleError, EngineError, GpuError, SyncError
from edge.telemetry.agent_report import read_agent_report
from gallery_sync.agent.doors import Erased, Freshness
from gallery_sync.agent.journal import Receipt
from gallery_sync.agent.machine import State
from gallery_sync.agent.policy import Policy
from gallery_sync.device.security_floor import read_security_floor
from gallery_sync.transport.errors import ReleaseError
from tests.gallery_sync.agent.samples import QUICK, START, THREE, TWO, Device, start_agent


@pytest.fixture
def device(folder) -> Device:
    return start_agent(folder)


def report(device: Device) -> dict:
    return json.loads((device.state_dir / "agent.json").read_bytes())


def test_published_release_serves_is_tried_and_confirmed(device):
    device.run()
    assert device.serving() == "bundle-2"
    assert device.outcomes() == [(2, "confirmed")]
    assert read_security_floor(device.state_dir, "demo") == 2
    assert device.agent.task.state is State.IDLE
    told = read_agent_report(device.state_dir / "agent.json")
    assert (told.state, told.reason) == ("idle", None)
    assert report(device)["serving"] == {"line": "demo", "sequence": 2, "trial": None}


def test_nothing_to_do_is_one_request(device):
    device.run()
    device.steps.same = True
    device.steps.calls.clear()
    device.poll()
    assert device.steps.calls == ["unchanged"]


def test_security_floor_is_raised_by_a_confirmation_alone(device):
    seen = []
    device.steps.hook = lambda point: seen.append((point, read_security_floor(device.state_dir, "demo")))
    device.run()
    assert {floor for point, floor in seen if point not in {"after confirm", "before tidy"}} == {0}
    assert ("after confirm", 2) in seen


def test_release_that_fails_its_proof_is_held_and_told(device):
    device.steps.errors["prove"] = [BundleError("probe 3: found item a, expected b")]
    device.run()
    assert device.serving() == "bundle-1"
    assert device.outcomes() == [(2, "refused")]
    device.steps.calls.clear()
    device.clock.sleep(120)
    device.agent.turn()
    device.run()
    assert "fetch" not in device.steps.calls
    assert report(device)["reason"] == "in quarantine: probe 3: found item a, expected b"
    assert report(device)["quarantine"][0]["sequence"] == 2


def test_f7_held_release_is_tried_again_after_its_time(device):
    device.steps.errors["prove"] = [EngineError("wrong"), EngineError("wrong")]
    device.run()
    device.poll()
    assert [held.count for held in device.journal.all_held()] == [2]
    device.poll()  # an hour, of two
    assert device.serving() == "bundle-1"
    device.clock.sleep(7200)
    device.poll()
    assert device.serving() == "bundle-2"
    assert device.journal.all_held() == []


def test_f7_newer_release_is_taken_at_once(device):
    device.steps.errors["prove"] = [EngineError("wrong")]
    device.run()
    device.steps.wanted = THREE
    device.clock.sleep(60)
    device.agent.turn()
    device.run()
    assert device.serving() == "bundle-3"


def test_lost_gpu_postpones_a_release(device):
    device.steps.errors["prove"] = [GpuError("the GPU fell off the bus")]
    device.run()
    assert device.journal.all_held() == []
    device.poll()
    assert device.serving() == "bundle-2"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"fps": 5.0}, "camera 'shelf': 5.0 frames a second, 10.0 before"),
        ({"failing": 0.3}, "frames failed"),
        ({"known": 0.2}, "objects were known"),
        ({"restarts_on_trial": True}, "edge restarted"),
        ({"refuses": "bundle-2"}, "bundle bundle-2 cannot be loaded"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_release_is_rolled_back_and_held(device, fault, told):
    for _ in range(30):  # the release before has given enough answers
        device.clock.sleep(5)
        device.steps.edge.signs()
    for name, value in fault.items():
        setattr(device.steps.edge, name, value)
    device.run()
    assert device.serving() == "bundle-1"
    assert device.outcomes() == [(2, "rolled back")]
    assert told in report(device)["last"]["reason"]
    assert read_security_floor(device.state_dir, "demo") == 0
    assert read_active_pointer(device.state_dir).release.sequence == 1


def test_f4_fallback_is_a_failure_and_no_success(device):
    device.steps.edge.refuses = "bundle-2"
    device.run()
    assert device.outcomes() == [(2, "rolled back")]


def test_idle_camera_is_no_failure(device):
    device.steps.edge.fps = 0.0
    device.steps.edge.only_on_trial = False
    device.run()
    assert device.outcomes() == [(2, "confirmed")]


def test_device_that_does_not_run_cannot_confirm(device):
    device.steps.edge.runs = False
    device.run()
    assert device.agent.task.state is State.TRIAL
    assert report(device)["reason"] == "edge is not running; a trial needs it"
    device.steps.edge.runs = True
    device.run()
    assert device.outcomes() == [(2, "confirmed")]


def test_device_that_never_runs_is_waited_for_within_a_limit(device):
    device.steps.edge.runs = False
    while device.agent.task.state is not State.IDLE:
        device.clock.sleep(device.agent.turn())
    assert device.outcomes() == [(2, "rolled back")]
    assert "edge did not run for 60 s" in report(device)["last"]["reason"]
    assert device.clock.now_s < START + 200


def test_trial_that_cannot_be_undone_serves_on(folder, device):
    """There is nothing to go back to: a proved pair serves on, and is told as a failure."""
    device.steps.edge.fps = 1.0
    device.steps.hook = lambda point: (
        (device.state_dir / "slots/a/bundle.json").unlink(missing_ok=True) if point == "before roll_back" else None
    )
    device.run()
    assert device.serving() == "bundle-2"
    assert device.outcomes() == [(2, "kept")]
    device.steps.calls.clear()
    device.poll()
    assert "switch" not in device.steps.calls


def test_window_holds_proof_and_switch_but_not_the_download(folder):
    policy = Policy.model_validate(QUICK.model_dump() | {"install": {"windows": ["02:00-05:00"]}})
    device = start_agent(folder, policy)
    device.run()
    assert device.agent.task.state is State.PROVE
    assert report(device)["reason"] == "waits for the window 02:00-05:00 (local time)"
    assert device.serving() == "bundle-1"
    device.steps.local = datetime(2026, 11, 29, 3, 0, tzinfo=timezone.utc)
    device.run()
    assert device.serving() == "bundle-2"


def test_window_that_closes_during_the_proof_holds_the_switch(folder):
    policy = Policy.model_validate(QUICK.model_dump() | {"install": {"windows": ["11:00-13:00"]}})
    device = start_agent(folder, policy)
    later = datetime(2026, 11, 28, 13, 30, tzinfo=timezone.utc)
    device.steps.hook = lambda point: setattr(device.steps, "local", later) if point == "before prove" else None
    device.run()
    assert device.agent.task.state is State.ARMED
    assert device.serving() == "bundle-1"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [("free", 1000, "the disk has 1000 bytes free"), ("left", 0, "the bytes that a day allows are spent")],
)
def test_gate_tells_why_it_is_closed(device, field, value, told):
    setattr(device.steps, field, value)
    device.run()
    assert told in report(device)["reason"]
    assert "fetch" not in device.steps.calls
    setattr(device.steps, field, 1 << 40)
    device.poll()
    assert device.serving() == "bundle-2"


def test_urgent_deletion_passes_windows_and_is_receipted(folder):
    policy = Policy.model_validate(QUICK.model_dump() | {"download": {"windows": ["02:00-05:00"]}})
    device = start_agent(folder, policy)
    device.steps.erased = [Erased((Receipt("tyre", 7, 2, START),), changed=True)]
    device.run()
    assert device.serving() == "bundle-1"
    assert report(device)["receipts"] == [{"category": "tyre", "sequence": 7, "items": 2, "erased_at": START}]
    told = read_agent_report(device.state_dir / "agent.json")
    assert [(one.category, one.sequence, one.items) for one in told.receipts] == [("tyre", 7, 2)]


def test_urgent_deletion_during_a_trial(device):
    device.steps.erased = [Erased(), Erased((Receipt("tyre", 7, 2, START),), changed=True)]
    policy_poll = QUICK.poll_s
    device.agent.turn()
    while device.agent.task.state is not State.TRIAL:
        device.agent.turn()
    device.clock.sleep(policy_poll)
    device.agent.turn()
    assert device.agent.task.state is State.TRIAL
    assert [one.sequence for one in device.journal.receipts()] == [7]


def test_urgent_deletion_prepares_a_staged_release_again(folder):
    policy = Policy.model_validate(QUICK.model_dump() | {"install": {"windows": ["02:00-05:00"]}})
    device = start_agent(folder, policy)
    device.run()
    device.steps.calls.clear()
    device.steps.erased = [Erased((Receipt("tyre", 7, 2, START),), changed=True)]
    device.poll()
    assert device.steps.calls == ["unchanged", "read", "erase", "fetch", "verify", "stage"]
    assert device.agent.task.state is State.PROVE


def test_download_in_goes_checks_between_them(device):
    device.steps.goes = 3
    device.run()
    assert device.steps.calls.count("fetch") == 3
    assert device.steps.calls.count("read") >= 3
    assert device.serving() == "bundle-2"


def test_n5_network_that_fails_leaves_the_agent_idle_and_told(device):
    device.steps.errors["fetch"] = [SyncError("gave up after 4 attempts")]
    device.run()
    assert device.agent.task.state is State.IDLE
    assert report(device)["reason"] == "gave up after 4 attempts"
    device.poll()
    assert device.serving() == "bundle-2"


def test_wrong_release_is_held(device):
    device.steps.errors["fetch"] = [ReleaseError("object ab: found SHA-256 cd, expected ab")]
    device.run()
    assert device.outcomes() == [(2, "refused")]


def test_t4_expired_metadata_installs_nothing_and_serves(device):
    device.steps.fresh = Freshness(START - 1, START - 100, expired=True)
    device.run()
    assert device.serving() == "bundle-1"
    assert report(device)["expired"] is True
    assert "expired" in report(device)["reason"]


def test_f1_stale_check_changes_nothing(device):
    device.steps.errors["read"] = [SyncError("the server is down")]
    device.run()
    assert report(device)["reason"] == "the server is down"
    assert device.serving() == "bundle-1"
    device.poll()
    assert device.serving() == "bundle-2"


def test_f2_release_of_while_it_was_off_is_taken_at_the_next_start(folder, device):
    device.steps.wanted = None
    device.run()
    again = start_agent(folder)
    again.run()
    assert again.serving() == "bundle-2"


def test_f6_newer_release_during_a_trial_comes_after_it(device):
    device.steps.hook = lambda point: setattr(device.steps, "wanted", THREE) if point == "after switch" else None
    device.run()
    device.poll()
    assert device.outcomes() == [(2, "confirmed"), (3, "confirmed")]
    assert device.serving() == "bundle-3"


def test_person_who_rolls_back_ends_the_trial(device):
    from edge.bundle import slots

    while device.agent.task.state is not State.TRIAL:
        device.agent.turn()
    slots.rollback(device.state_dir)
    device.run()
    assert device.outcomes()[0] == (2, "taken over")
    assert read_security_floor(device.state_dir, "demo") == 0


@pytest.mark.parametrize("state", ["fetch", "verify", "stage", "prove", "armed", "switch", "trial", "confirm", "idle"])
def test_s1_full_disk_at_each_store(device, state):
    """Nothing goes on before it is written down; when there is space again, it does."""
    fail = {"left": 3}

    def hook(point: str) -> None:
        if point == f"before store {state}" and fail["left"]:
            fail["left"] -= 1
            device.journal.full = 1

    device.journal.hook = hook
    before = device.agent.task
    for _ in range(200):
        device.clock.sleep(device.agent.turn())
        if device.agent.task.state is State.IDLE and device.outcomes():
            break
        if state == "switch" and fail["left"] and device.agent.task.state is State.ARMED:
            assert read_active_pointer(device.state_dir).bundle_id == "bundle-1"
    assert before.state is State.CHECK
    assert fail["left"] == 0
    assert device.serving() == "bundle-2"


@pytest.mark.parametrize("state", ["rollback", "quarantine", "idle"])
def test_s1_full_disk_at_each_store_of_a_rollback(device, state):
    device.steps.edge.fps = 1.0
    fail = {"left": 3}

    def hook(point: str) -> None:
        if point == f"before store {state}" and fail["left"]:
            fail["left"] -= 1
            device.journal.full = 1

    device.journal.hook = hook
    for _ in range(200):
        device.clock.sleep(device.agent.turn())
        if device.agent.task.state is State.IDLE and device.outcomes():
            break
    assert device.outcomes() == [(2, "rolled back")]
    assert device.serving() == "bundle-1"


def test_unexpected_error_is_told_and_tried_again(device):
    device.steps.errors["read"] = [ZeroDivisionError("a bug")]
    device.run()
    assert report(device)["reason"] == "ZeroDivisionError: a bug; see the log of the agent"
    device.poll()
    assert device.serving() == "bundle-2"


def test_p6_boots_without_a_frame_roll_back(folder, device):
    """Crash between the switch and the first frame: `edge` never gets to run, the machine boots again and again."""
    while device.agent.task.state is not State.TRIAL:
        device.agent.turn()
    for boot in ("boot-2", "boot-3", "boot-4"):
        assert read_active_pointer(device.state_dir).trial is not None
        device.journal.close()
        device = start_agent(folder, boot_id=boot)
        device.steps.edge.runs = False
        device.agent.turn()
    device.run()
    assert device.serving() == "bundle-1"
    assert device.outcomes() == [(2, "rolled back")]
    assert "3 boots found the trial unconfirmed" in report(device)["last"]["reason"]


def test_p5_start_that_never_ends_its_step_ends_in_failsafe(folder, device):
    while device.agent.task.state is not State.PROVE:
        device.agent.turn()
    for _ in range(40):
        device.journal.close()
        device = start_agent(folder)
        device.agent.turn()
        if device.agent.task.state is State.FAILSAFE:
            break
    device.run()
    assert device.outcomes() == [(2, "failsafe")]
    assert device.serving() == "bundle-1"
    device.clock.sleep(1e6)
    device.poll()
    assert device.serving() == "bundle-1"
    assert "28 stores" in report(device)["reason"]
    device.journal.clear_quarantine()
    device.poll()
    assert device.serving() == "bundle-2"


def test_pair_that_serves_already_is_confirmed_without_a_trial(device, monkeypatch):
    device.run()
    device.steps.wanted = replace(TWO, sequence=4)

    def stage(release):
        from edge.bundle.active_pointer import ReleaseName, rename_active_pointer

        active = read_active_pointer(device.state_dir)
        name = ReleaseName(line="demo", sequence=release.sequence, gallery_sequence=2)
        rename_active_pointer(device.state_dir, active.model_copy(update={"release": name}))
        return True

    monkeypatch.setattr(device.steps, "stage", stage)
    device.poll()
    assert device.outcomes() == [(2, "confirmed"), (4, "confirmed")]
