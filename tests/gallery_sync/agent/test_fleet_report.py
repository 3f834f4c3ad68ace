"""What a device reports to its fleet, and when it listens to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge.errors import SyncError
from edge.telemetry.vital_signs import VitalConfig, VitalPair, VitalRelease, VitalSigns
from gallery_sync.agent.check import Refusal
from gallery_sync.agent.doors import Active
from gallery_sync.agent.fleet_report import About, FleetReport
from gallery_sync.agent.journal import Journal, open_journal
from gallery_sync.agent.machine import Ended, Held, State, Step, Target, Task
from gallery_sync.agent.report import Told
from gallery_sync.formats.reports import MOST_CAMERAS, MOST_HELD, MOST_TRIES, Reported
from tests.gallery_sync.agent.samples import QUICK, START, THREE, TWO, Device, Mailbox, start_agent

ACTIVE = Active("b", "bundle-2", "0" * 16, "demo", 2, 5)
LABELS = {"device": "shelf-1", "line": "demo", "site": "berlin"}
IDLE, NOTHING = Task(), Told()


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return open_journal(tmp_path)


class Doors:
    """What the report looks at."""

    def __init__(self, signs: VitalSigns | None = None, active: Active | None = ACTIVE) -> None:
        self._signs, self._active = signs, active

    def signs(self) -> VitalSigns | None:
        return self._signs

    def active(self) -> Active | None:
        return self._active

    def freshness(self) -> None:
        return None


def signs(**change: Any) -> VitalSigns:
    known = {
        "schema": "finesight.vital_signs/1",
        "boot_id": "run-1",
        "pid": 1,
        "started_at": START,
        "written_at": START,
        "started_monotonic_s": 0.0,
        "written_monotonic_s": 1.0,
        "state": "running",
        "pair": VitalPair(slot="b", bundle_id="bundle-2", gallery="0" * 16),
        "release": VitalRelease(line="demo", sequence=2, gallery_sequence=5),
        "cameras": {"door": {"state": "online", "frames": 1, "errors": 0, "fps": 9.96}},
        "site": "shop",
        "engine": "onnxruntime int8",
        "version": "1.4.0",
    }
    return VitalSigns.model_validate(known | change)


def made(journal: Journal, doors: Doors, task: Task = IDLE, told: Told = NOTHING, **about: Any) -> dict[str, Any]:
    """Return a report, which is one."""
    report = FleetReport(About("shelf-1", "demo", LABELS, "1.4.1", **about), journal, lambda: START)
    content = report.content(task, told, doors)  # type: ignore[arg-type]
    Reported.model_validate({**content, "epoch": "0" * 8, "revision": 1})
    return content


def test_running_device_reports_what_serves_and_how_well(journal):
    found = made(journal, Doors(signs()), allowed=("sync",))
    assert found["running"] == {
        "line": "demo",
        "release": 2,
        "bundle_id": "bundle-2",
        "gallery_sequence": 5,
        "gallery": "0" * 16,
        "slot": "b",
        "trial": None,
    }
    assert (found["serves"], found["site"], found["engine"], found["fps"]) == (True, "shop", "onnxruntime int8", 10.0)
    assert (found["cameras"], found["allowed"]) == ({"door": "online"}, ["sync"])
    assert found["versions"] == {"agent": "1.4.1", "edge": "1.4.0"}
    assert (found["state"], found["target"], found["plan"], found["labels"]) == ("idle", None, None, LABELS)


def test_pair_that_serves_in_place_of_the_active_one_is_what_runs(journal):
    before = VitalPair(slot="a", bundle_id="bundle-1", gallery="1" * 16)
    fallback = signs(pair=before, release=VitalRelease(line="demo", sequence=1), fallback="cannot be loaded")
    found = made(journal, Doors(fallback))
    assert (found["running"]["bundle_id"], found["running"]["release"], found["serves"]) == ("bundle-1", 1, True)


def test_device_that_does_not_run_reports_its_pointer(journal):
    found = made(journal, Doors(None, replace(ACTIVE, trial="t1")))
    assert (found["running"]["bundle_id"], found["running"]["trial"], found["serves"]) == ("bundle-2", "t1", False)
    assert (found["engine"], found["cameras"], found["fps"]) == (None, {}, None)
    assert made(journal, Doors(None, None))["running"] is None


def test_pointer_has_the_newest_name_of_what_serves(journal):
    """A release with the pair that serves already, and a trial that was confirmed: `edge` need not know yet."""
    found = made(journal, Doors(signs(trial="t1"), replace(ACTIVE, sequence=4, trial=None)))
    assert (found["running"]["release"], found["running"]["trial"]) == (4, None)


def test_vital_signs_from_before_a_rollback_do_not_name_what_runs(journal):
    report = FleetReport(About("shelf-1", "demo", LABELS, "1.4.1"), journal, lambda: START)

    def running(found: VitalSigns, active: Active) -> tuple[str, str | None]:
        pair = report.content(Task(), Told(), Doors(found, active))["running"]  # type: ignore[arg-type]
        return pair["bundle_id"], pair["trial"]

    before = replace(ACTIVE, slot="a", bundle_id="bundle-1", gallery="1" * 16)
    on_trial = signs(trial="t1")
    assert running(on_trial, replace(ACTIVE, trial="t1")) == ("bundle-2", "t1")
    assert running(on_trial, before) == running(on_trial, before) == ("bundle-1", None)
    newer = signs(trial="t1", written_monotonic_s=3.0)
    assert running(newer, before) == ("bundle-2", "t1")  # it has yet to turn to the active pair


def test_pair_on_trial_runs_once_vital_signs_name_it(journal):
    report = FleetReport(About("shelf-1", "demo", LABELS, "1.4.1"), journal, lambda: START)
    for active in (ACTIVE, replace(ACTIVE, slot="a", bundle_id="bundle-3", trial="t1")):
        content = report.content(Task(), Told(), Doors(signs(), active))  # type: ignore[arg-type]
        assert content["running"]["bundle_id"] == "bundle-2"


def test_first_report_of_an_agent_believes_the_vital_signs(journal):
    found = made(journal, Doors(signs(), replace(ACTIVE, slot="a", bundle_id="bundle-1")))
    assert found["running"]["bundle_id"] == "bundle-2"


def test_device_that_fell_back_after_an_activation_reports_what_serves(journal):
    report = FleetReport(About("shelf-1", "demo", LABELS, "1.4.1"), journal, lambda: START)
    fallback = signs(fallback="bundle-3 cannot be loaded")
    for active in (ACTIVE, replace(ACTIVE, slot="a", bundle_id="bundle-3")):
        content = report.content(Task(), Told(), Doors(fallback, active))  # type: ignore[arg-type]
        assert content["running"]["bundle_id"] == "bundle-2"


def test_try_that_is_under_way_names_its_release_and_plan(journal):
    task = Task(State.TRIAL, replace(TWO, plan="spring"), START, 8, "t1")
    found = made(journal, Doors(), task, Told("on trial: served for 3 of 20 s", TWO))
    assert (found["state"], found["target"], found["plan"]) == ("trial", 2, "spring")
    assert found["reason"] == "on trial: served for 3 of 20 s"


def test_release_that_is_not_begun_is_no_target(journal):
    task = Task(State.IDLE, replace(TWO, plan="spring"), START)
    found = made(journal, Doors(), task, Told("waits for the window 02:00-05:00 (local time)", task.release))
    assert (found["target"], found["plan"]) == (None, "spring")
    assert made(journal, Doors(), replace(task, postponed=1))["target"] == 2


def test_tries_are_the_newest_of_the_line_with_their_plan(journal):
    for n in range(1, MOST_TRIES + 4):
        one = Target("demo", n, f"bundle-{n}", gallery_sequence=n, plan="spring" if n % 2 else None)
        journal.store(Step(Task(), ended=Ended(one, "rolled back" if n % 2 else "confirmed", "why", f"t{n}")), n)
    journal.store(Step(Task(), ended=Ended(Target("other", 1, "x"), "confirmed", None, None)), 99.0)
    tries = made(journal, Doors())["tries"]
    assert [one["release"] for one in tries][:2] == [13, 12]
    assert (tries[0]["outcome"], tries[0]["plan"], tries[0]["trial"], tries[0]["at"]) == (
        "rolled back",
        "spring",
        "t13",
        13.0,
    )
    assert tries[1]["plan"] is None


def test_refused_release_is_a_refused_try(journal):
    refusal = Refusal(replace(THREE, plan="spring"), "needs 9.0", START)
    (one,) = made(journal, Doors(), told=Told("needs 9.0", refusal=refusal))["tries"]
    assert (one["release"], one["outcome"], one["plan"], one["reason"]) == (3, "refused", "spring", "needs 9.0")
    assert made(journal, Doors(), told=Told(refusal=Refusal(None, "absent", START)))["tries"] == []


def test_whatever_it_holds_stays_within_the_limits(journal):
    journal.hold(Held("demo", n, "x" * 900, 1, None) for n in range(1, MOST_HELD + 9))
    cameras = {f"{n:03}" + "c" * 200: {"state": "online", "frames": 1, "errors": 0, "fps": 1.0} for n in range(99)}
    config = VitalConfig(overlay="o" * 900, error="e" * 900)
    long = signs(cameras=cameras, engine="e" * 900, site="s" * 900, version="v" * 900, config=config)
    long_one = Target("demo", 2, "b" * 300, plan="p" * 300)
    journal.store(Step(Task(), ended=Ended(long_one, "refused", "r" * 900, "t" * 300)), 5.0)
    found = made(journal, Doors(long), Task(State.FETCH, long_one, -5.0), Told("r" * 900))
    assert len(found["cameras"]) == MOST_CAMERAS
    assert [one["release"] for one in found["quarantine"]][:2] == [MOST_HELD + 8, MOST_HELD + 7]
    assert (found["problem"], found["config"]) == ("e" * 400, "o" * 400)


def test_labels_of_the_enrolment_come_first(journal):
    labels = LABELS | {f"a{n:03}": "x" for n in range(50)}
    report = FleetReport(About("shelf-1", "demo", labels, "1"), journal, lambda: START)
    content = report.content(Task(), Told(), Doors())  # type: ignore[arg-type]
    Reported.model_validate({**content, "epoch": "0" * 8, "revision": 1})
    assert {"device", "line"} <= content["labels"].keys()


# the agent and its mailbox


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def device(folder: Path, mailbox: Mailbox) -> Device:
    return start_agent(folder, mailbox=mailbox)


def test_each_stored_step_is_reported(device, mailbox):
    device.steps.wanted = replace(TWO, plan="spring")
    device.run()
    states = list(dict.fromkeys(one["state"] for one in mailbox.put_))
    assert states == ["fetch", "verify", "stage", "prove", "armed", "switch", "trial", "confirm", "idle"]
    on_trial = next(one for one in mailbox.put_ if one["state"] == "trial" and one["running"]["release"] == 2)
    assert on_trial["running"]["trial"] is not None
    last = mailbox.newest
    assert (last["running"]["release"], last["running"]["trial"]) == (2, None)
    assert (last["tries"][0]["outcome"], last["tries"][0]["plan"]) == ("confirmed", "spring")


def run_for(device: Device, seconds: float) -> None:
    """Run the loop of the agent until a time."""

    class Over(BaseException):
        pass

    end_s, wait = device.clock.now_s + seconds, device.agent._mailbox.wait  # type: ignore[union-attr]

    def wait_or_end(wait_s: float) -> None:
        if device.clock.now_s >= end_s:
            raise Over
        wait(min(wait_s, end_s - device.clock.now_s))

    device.agent._mailbox.wait = wait_or_end  # type: ignore[union-attr, method-assign]
    with pytest.raises(Over):
        device.agent.run()
    device.agent._mailbox.wait = wait  # type: ignore[union-attr, method-assign]


def test_doorbell_makes_the_device_look_at_once(folder, mailbox):
    device = start_agent(folder, QUICK.model_copy(update={"poll_s": 86400.0}), mailbox=mailbox)
    device.run()
    device.steps.calls.clear()
    mailbox.rings_at = [device.clock.now_s + 100]
    device.steps.wanted = THREE
    run_for(device, 200)
    assert device.steps.calls[0] == "unchanged"
    assert device.serving() == "bundle-3"


def test_doorbell_is_heard_while_the_device_waits_for_its_turn(device, mailbox):
    device.steps.wanted = replace(TWO, plan="spring", max_unavailable=1)
    device.run()
    assert device.agent.task.state is State.ARMED
    mailbox.rings_at = [device.clock.now_s + 5]
    device.steps.wanted = THREE
    run_for(device, 50)
    assert device.serving() == "bundle-3"


def test_turn_that_arrives_ends_the_wait(device, mailbox):
    device.steps.wanted = replace(TWO, plan="spring", max_unavailable=1)
    device.run()
    mailbox.turns, mailbox.wakes_at = {(2, "spring")}, [device.clock.now_s + 3]
    before_s = device.clock.now_s
    run_for(device, 4)
    assert device.agent.task.state is State.TRIAL
    assert device.clock.now_s - before_s < 30


def test_command_that_arrives_is_no_reason_to_ask_the_repository(device, mailbox):
    device.run()
    device.steps.same = True
    device.steps.calls.clear()
    mailbox.wakes_at = [device.clock.now_s + 3]
    run_for(device, 20)
    assert device.steps.calls == ["unchanged"]  # the check at the start of the loop


def test_report_is_made_again_as_time_passes(folder, mailbox):
    policy = QUICK.model_copy(update={"poll_s": 86400.0})
    device = start_agent(folder, policy, mailbox=mailbox)
    device.run()
    made_before = len(mailbox.put_)
    run_for(device, 10 * policy.fleet.report_every_s)
    assert len(mailbox.put_) >= made_before + 10


def test_journal_that_cannot_be_read_costs_the_report_alone(device, mailbox, monkeypatch):
    device.run()
    count = len(mailbox.put_)

    def fail(*_: object) -> None:
        raise SyncError("the disk is gone")

    monkeypatch.setattr(device.journal, "all_held", fail)
    device.agent._report()
    assert len(mailbox.put_) == count


def test_mailbox_that_fails_does_not_end_the_loop(device, mailbox):
    calls = []

    def wait(wait_s: float) -> None:
        calls.append(wait_s)
        if len(calls) == 1:
            raise ZeroDivisionError("a bug")
        raise KeyboardInterrupt

    mailbox.wait = wait  # type: ignore[method-assign]
    device.steps.wanted = None
    with pytest.raises(KeyboardInterrupt):
        device.agent.run()
    assert len(calls) == 2
