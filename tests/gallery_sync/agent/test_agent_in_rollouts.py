"""The agent while a rollout is under way: waves, pauses, aborts, windows, turns and permits; the fleet is played."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from edge.errors import SyncError
from gallery_sync.agent.machine import State
from gallery_sync.agent.policy import Policy
from gallery_sync.device.permit import Permit
from tests.gallery_sync.agent.samples import ONE, QUICK, START, THREE, TWO, Device, Mailbox, start_agent

CANDIDATE = replace(TWO, plan="spring")
PAUSED = "rollout spring is paused: 3 of 10 failed"


@pytest.fixture
def device(folder) -> Device:
    """A device that runs release 1 and may take release 2."""
    device = start_agent(folder)
    device.steps.wanted = CANDIDATE
    return device


def report(device: Device) -> dict:
    return json.loads((device.state_dir / "agent.json").read_bytes())


def turn_until(device: Device, state: State) -> None:
    for _ in range(100):
        if device.agent.task.state is state:
            return
        device.agent.turn()
    raise AssertionError(f"found {device.agent.task}, expected {state}")


def pause(device: Device) -> None:
    """Sign that the rollout is paused: the device follows the base again."""
    device.steps.wanted, device.steps.waits = ONE, PAUSED


def plans(device: Device) -> list[tuple[int, str, str | None]]:
    return [(past.sequence, past.outcome, past.plan) for past in reversed(device.journal.history())]


def test_canary_takes_the_candidate_and_writes_down_its_plan(device):
    device.run()
    assert device.serving() == "bundle-2"
    assert plans(device) == [(2, "confirmed", "spring")]
    assert report(device)["plan"] == "spring"


def test_device_of_another_wave_waits_and_says_why(device):
    device.steps.wanted, device.steps.waits = ONE, "wave 2 of 3 of rollout spring is not open yet"
    device.run()
    assert device.serving() == "bundle-1"
    assert device.steps.calls == ["read", "erase"]
    assert report(device)["reason"] == report(device)["waits"] == "wave 2 of 3 of rollout spring is not open yet"


@pytest.mark.parametrize("state", [State.FETCH, State.STAGE, State.PROVE, State.ARMED])
def test_plan_that_completes_restarts_no_try(device, state):
    turn_until(device, state)
    device.steps.wanted = TWO  # the base now
    device.clock.sleep(60)
    fetched = device.steps.calls.count("fetch")
    device.run()
    assert device.steps.calls.count("fetch") <= max(1, fetched)
    assert plans(device) == [(2, "confirmed", "spring")]


def test_plan_that_completes_ends_its_windows_and_its_turns(folder):
    device = start_agent(folder)
    device.steps.wanted = replace(CANDIDATE, windows=("02:00-03:00",), max_unavailable=1)
    device.run()
    assert device.agent.task.state is State.PROVE
    device.steps.wanted = TWO
    device.poll()
    assert device.serving() == "bundle-2"


@pytest.mark.parametrize("state", [State.FETCH, State.VERIFY, State.STAGE, State.PROVE, State.ARMED])
def test_paused_plan_stops_a_device_before_the_switch(device, state):
    turn_until(device, state)
    pause(device)
    device.clock.sleep(60)
    device.run()
    assert device.serving() == "bundle-1"
    assert "switch" not in device.steps.calls
    assert plans(device) == [(2, "postponed", "spring")]
    assert device.journal.history()[0].reason == PAUSED
    assert report(device)["waits"] == PAUSED


def test_paused_plan_goes_on_where_it_was(device):
    turn_until(device, State.ARMED)
    pause(device)
    device.poll()
    device.steps.wanted, device.steps.waits = CANDIDATE, None
    device.poll()
    assert plans(device) == [(2, "postponed", "spring"), (2, "confirmed", "spring")]


def test_trial_that_is_under_way_goes_to_its_end_when_the_plan_is_paused(device):
    turn_until(device, State.TRIAL)
    pause(device)
    device.clock.sleep(60)
    device.run()
    assert plans(device) == [(2, "confirmed", "spring")]


def test_proof_that_is_under_way_ends_before_the_candidate_is_dropped(device):
    device.steps.may_end.clear()
    device.steps.moment_s = 0.0
    turn_until(device, State.PROVE)
    device.agent.turn()
    pause(device)
    device.clock.sleep(60)
    device.agent.turn()
    assert device.agent.task.state is State.PROVE
    device.steps.may_end.set()
    device.steps.moment_s = 10.0
    device.run()
    assert plans(device) == [(2, "postponed", "spring")]
    assert device.serving() == "bundle-1"


def test_pinned_device_drops_what_it_prepared(device):
    """It stays where it is, and no signed document says what that is."""
    turn_until(device, State.ARMED)
    device.steps.wanted, device.steps.waits = None, "this device stays at release 1: pinned at release 1"
    device.poll()
    assert (device.serving(), device.agent.task.release) == ("bundle-1", None)
    assert plans(device) == [(2, "postponed", "spring")]
    assert "pinned at release 1" in report(device)["waits"]


def test_abort_after_the_confirmation_goes_back_on_the_normal_way(device):
    device.run()
    device.steps.wanted = replace(ONE, sequence=4, security_floor=0)  # the pair of the old base
    device.poll()
    assert device.serving() == "bundle-1"
    assert plans(device) == [(2, "confirmed", "spring"), (4, "confirmed", None)]


def test_abort_during_the_trial_is_followed_after_it(device):
    turn_until(device, State.TRIAL)
    device.steps.wanted = replace(ONE, sequence=4, security_floor=0)
    device.clock.sleep(60)
    device.run()
    device.poll()
    assert device.serving() == "bundle-1"
    assert plans(device) == [(2, "confirmed", "spring"), (4, "confirmed", None)]


def test_device_that_was_off_during_the_whole_rollout_takes_the_base(device):
    device.steps.wanted = THREE
    device.run()
    assert (device.serving(), plans(device)) == ("bundle-3", [(3, "confirmed", None)])


def test_lost_journal_keeps_the_candidate_that_was_confirmed(folder, device):
    device.run()
    device.journal.close()
    (device.state_dir / "journal.sqlite").unlink()
    again = start_agent(folder)
    again.steps.wanted = CANDIDATE
    again.run()
    assert (again.serving(), plans(again)) == ("bundle-2", [])


def test_lost_journal_on_trial_brings_the_trial_to_its_end(folder, device):
    turn_until(device, State.TRIAL)
    device.journal.close()
    (device.state_dir / "journal.sqlite").unlink()
    again = start_agent(folder)
    again.steps.wanted = CANDIDATE
    again.run()
    assert (again.serving(), plans(again)) == ("bundle-2", [(2, "confirmed", "spring")])


def test_windows_of_the_plan_and_of_the_device_must_both_be_open(folder):
    policy = Policy.model_validate({**QUICK.model_dump(), "install": {"windows": ["12:00-14:00"]}})
    device = start_agent(folder, policy)
    device.steps.wanted = replace(CANDIDATE, windows=("13:00-15:00",))
    for hour, reason in ((12, "rollout spring waits for the window 13:00-15:00"), (14, "waits for the window 12:00")):
        device.steps.local = datetime(2026, 11, 28, hour, 30, tzinfo=timezone.utc)
        device.poll()
        assert device.serving() == "bundle-1"
        assert report(device)["reason"].startswith(reason)
    device.steps.local = datetime(2026, 11, 28, 13, 30, tzinfo=timezone.utc)
    device.poll()
    assert device.serving() == "bundle-2"


def test_window_that_cannot_be_read_is_never_open(device):
    device.steps.wanted = replace(CANDIDATE, windows=("at night",))
    device.run()
    assert device.serving() == "bundle-1"
    assert "found the window 'at night'" in report(device)["reason"]


def test_deadline_stops_a_try_that_did_not_begin(device):
    device.steps.wanted = replace(CANDIDATE, deadline=device.steps.local.timestamp() - 1)
    device.run()
    assert "fetch" not in device.steps.calls
    assert report(device)["reason"] == "the deadline of rollout spring is over"


def test_deadline_does_not_stop_a_try_that_began(device):
    turn_until(device, State.STAGE)
    device.steps.wanted = replace(CANDIDATE, deadline=device.steps.local.timestamp() - 1)
    device.clock.sleep(60)
    device.run()
    assert device.steps.begun == 2
    assert device.serving() == "bundle-2"


def test_download_in_several_goes_has_begun(device):
    device.steps.goes = 3
    turn_until(device, State.FETCH)
    device.agent.turn()  # a go that is not the last one
    assert device.agent.task.state is State.CHECK
    device.steps.wanted = replace(CANDIDATE, deadline=device.steps.local.timestamp() - 1)
    device.run()
    assert device.steps.begun == 2
    assert device.serving() == "bundle-2"


def test_device_waits_for_its_turn_and_says_so(folder):
    device = start_agent(folder, mailbox=(mailbox := Mailbox()))
    device.steps.wanted = replace(CANDIDATE, max_unavailable=1)
    device.run()
    assert device.agent.task.state is State.ARMED
    assert (mailbox.newest["waits_for_turn"], mailbox.newest["state"]) == (True, "armed")
    assert mailbox.newest["reason"] == "waits for its turn at its site"
    mailbox.turns = {(2, "another"), (3, "spring")}
    device.run()
    assert device.agent.task.state is State.ARMED
    mailbox.turns = {(2, "spring")}
    device.run()
    assert device.serving() == "bundle-2"
    assert not mailbox.newest["waits_for_turn"]


def test_device_without_a_broker_waits_and_says_what_is_missing(device):
    device.steps.wanted = replace(CANDIDATE, max_unavailable=1)
    device.run()
    assert device.agent.task.state is State.ARMED
    assert "set fleet.host in agent.yaml" in report(device)["reason"]


def test_closed_window_is_no_wait_for_a_turn(folder):
    device = start_agent(folder, mailbox=(mailbox := Mailbox()))
    device.steps.wanted = replace(CANDIDATE, max_unavailable=1)
    turn_until(device, State.ARMED)
    device.steps.wanted = replace(CANDIDATE, max_unavailable=1, windows=("02:00-03:00",))
    device.clock.sleep(60)
    device.run()
    assert (mailbox.newest["state"], mailbox.newest["waits_for_turn"]) == ("armed", False)


def test_permit_of_another_fleet_system_is_waited_for(folder):
    policy = Policy.model_validate({**QUICK.model_dump(), "install": {"permit": True}})
    device = start_agent(folder, policy)
    device.run()
    assert "fetch" not in device.steps.calls
    assert "permit for release 2" in report(device)["reason"]
    device.steps.permit = Permit(line="demo", sequence=2, by="hawkbit", install=False)
    device.poll()
    assert ("fetch" in device.steps.calls, device.serving()) == (True, "bundle-1")
    device.steps.permit = Permit(line="demo", sequence=2, by="hawkbit")
    device.poll()
    assert device.serving() == "bundle-2"


def test_refused_candidate_is_reported_as_a_refused_try(folder):
    device = start_agent(folder, mailbox=(mailbox := Mailbox()))
    device.steps.wanted, device.steps.refused = CANDIDATE, "this device runs finesight 1.0; release 2 needs 9.0"
    device.run()
    (tried,) = mailbox.newest["tries"]
    assert (tried["release"], tried["outcome"], tried["plan"], tried["at"]) == (2, "refused", "spring", START)
    assert "needs 9.0" in tried["reason"]
    device.poll()
    assert mailbox.newest["tries"] == [tried]
    device.steps.refused = None
    device.poll()
    assert [one["outcome"] for one in mailbox.newest["tries"]] == ["confirmed"]


def test_choice_is_made_again_when_a_person_went_back(folder, device):
    """The rollout is paused, which the device does not mind as long as it runs the candidate."""
    from edge.bundle import slots

    device.run()
    device.steps.same = True
    device.steps.calls.clear()
    device.poll()
    assert "read" in device.steps.calls  # another release is active than when it was chosen
    device.steps.calls.clear()
    device.poll()
    assert device.steps.calls == ["unchanged"]
    slots.rollback(device.state_dir)
    pause(device)
    device.poll()
    assert device.serving() == "bundle-1"


def test_lost_journal_on_trial_without_a_network_still_names_the_pair(folder, device):
    """The fleet's server believes a confirmation only if it names the pair."""
    turn_until(device, State.TRIAL)
    device.journal.close()
    (device.state_dir / "journal.sqlite").unlink()
    again = start_agent(folder)
    again.steps.errors["read"] = [SyncError("no network") for _ in range(50)]
    again.run()
    (past,) = again.journal.history()
    assert (past.outcome, past.bundle_id, past.gallery_sequence) == ("confirmed", "bundle-2", 2)
