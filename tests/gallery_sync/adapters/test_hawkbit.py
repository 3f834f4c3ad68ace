"""hawkBit decides when; the device's own agent decides whether it worked. Against a server that follows 1.1.0."""

from __future__ import annotations

import json

import pytest

from edge.bundle import slots
from edge.errors import FinesightError, SyncError
from gallery_sync.adapters.hawkbit import MOST_READS, SETTLE_S, Adapter, run
from gallery_sync.adapters.hawkbit_client import open_client
from gallery_sync.adapters.hawkbit_doors import World
from gallery_sync.adapters.hawkbit_record import NAME, read_record
from gallery_sync.cli import main
from gallery_sync.device.permit import read_permit
from tests.gallery_sync.adapters.ddi_server import CONTROLLER, TENANT, TOKEN, hawkbit
from tests.gallery_sync.agent.samples import THREE

RELEASE_2 = b'{"line":"demo","sequence":2}'
HOUR_S = 3600.0


class Bench:
    """hawkBit, the adapter and the agent of one device, on one clock."""

    def __init__(self, server, device):
        self.server, self.device = server, device
        self.start()

    def start(self):
        """Start the adapter as another process would."""
        clock = self.device.clock
        self.world = World(lambda: clock.monotonic_s, clock.sleep, lambda: 0.5)
        self.client = open_client(self.server.url, TENANT, CONTROLLER, ("TargetToken", TOKEN))
        self.adapter = Adapter(self.client, self.device.state_dir, 24 * HOUR_S, self.world)

    def turn(self, seconds=0.0, *, agent=True):
        """Let adapter and agent do one turn each; then time passes."""
        try:
            self.adapter.turn()
        except FinesightError as error:
            self.adapter.pause(error)
        if agent:
            self.device.agent.turn()
        self.device.clock.sleep(seconds or 5.0)

    def go(self, condition, turns=80):
        for _ in range(turns):
            if condition():
                return
            self.turn()
        pytest.fail(f"it did not come; {self.adapter.state}")

    @property
    def state(self):
        """The state of the agent."""
        return self.device.agent.task.state.value


@pytest.fixture
def bench(device):
    with hawkbit() as server:
        yield Bench(server, device)


def test_nothing_is_installed_before_hawkbit_says_so(bench):
    for _ in range(10):
        bench.turn()
    assert bench.device.serving() == "bundle-1"
    assert "fetch" not in bench.device.steps.calls


def test_action_ends_with_success_once_the_agent_confirmed(bench):
    action = bench.server.assign(7, RELEASE_2)
    bench.go(lambda: bench.state == "trial")
    assert action.status == "RUNNING", "a trial is no success"
    bench.go(lambda: not action.is_active)
    assert (action.status, bench.device.serving()) == ("FINISHED", "bundle-2")
    assert action.history[-1] == ("closed", "success", "release 2 of demo is confirmed and serves")
    assert {(one, result) for one, result, _ in action.history[:-1]} == {("proceeding", "none")}
    assert read_permit(bench.device.state_dir) is None


def test_release_that_is_rolled_back_ends_with_failure_and_its_reason(bench):
    bench.device.steps.edge.failing = 0.5
    action = bench.server.assign(7, RELEASE_2)
    bench.go(lambda: not action.is_active)
    assert (action.status, bench.device.serving()) == ("ERROR", "bundle-1")
    assert "rolled back" in action.history[-1][2]
    assert "frames failed" in action.history[-1][2]


def test_failed_action_is_not_tried_again_by_itself(bench):
    bench.device.steps.edge.failing = 0.5
    action = bench.server.assign(7, RELEASE_2)
    bench.go(lambda: not action.is_active)
    action.status = "RUNNING"  # hawkBit offers it again
    sent, fetched = len(action.history), bench.device.steps.calls.count("fetch")
    for _ in range(10):
        bench.turn(1800.0)
    assert (len(action.history), bench.device.steps.calls.count("fetch")) == (sent, fetched)
    assert bench.device.serving() == "bundle-1"


def test_new_action_for_a_release_in_quarantine_fails_at_once(bench):
    bench.device.steps.edge.failing = 0.5
    first = bench.server.assign(7, RELEASE_2)
    bench.go(lambda: not first.is_active)
    second = bench.server.assign(8, RELEASE_2)
    bench.go(lambda: not second.is_active)
    assert "held back" in second.history[-1][2]


def test_release_that_runs_already_is_a_success_without_a_download(bench):
    first = bench.server.assign(7, RELEASE_2)
    bench.go(lambda: not first.is_active)
    calls = bench.device.steps.calls.count("fetch")
    second = bench.server.assign(8, RELEASE_2)
    bench.go(lambda: not second.is_active)
    assert second.status == "FINISHED"
    assert bench.device.steps.calls.count("fetch") == calls


def test_metadata_of_a_module_names_a_release_too(bench):
    action = bench.server.assign(7, metadata={"finesight.release": "2"})
    bench.go(lambda: not action.is_active)
    assert (action.status, bench.server.count("softwaremodules")) == ("FINISHED", 0)


def test_closed_maintenance_window_downloads_and_waits(bench):
    action = bench.server.assign(7, RELEASE_2, window="unavailable")
    bench.go(lambda: bench.state == "prove")
    for _ in range(10):
        bench.turn()
    assert (bench.state, action.is_active) == ("prove", True)
    action.window = "available"
    bench.go(lambda: not action.is_active)
    assert action.status == "FINISHED"


def test_download_only_is_done_once_all_is_verified(bench):
    action = bench.server.assign(7, RELEASE_2, download_only=True)
    bench.go(lambda: not action.is_active)
    assert (action.status, action.history[-1][:2]) == ("DOWNLOADED", ("downloaded", "none"))
    assert bench.device.serving() == "bundle-1"


def test_cancellation_before_the_switch_withdraws_the_permit(bench):
    action = bench.server.assign(7, RELEASE_2, window="unavailable")
    bench.go(lambda: bench.state == "prove")
    action.status = "CANCELING"
    bench.go(lambda: not action.is_active)
    assert action.status == "CANCELED"
    for _ in range(10):
        bench.turn()
    assert (bench.device.serving(), read_permit(bench.device.state_dir)) == ("bundle-1", None)


def test_cancellation_waits_for_an_agent_that_may_just_switch(bench):
    action = bench.server.assign(7, RELEASE_2)
    bench.go(lambda: bench.state == "armed")
    action.status = "CANCELING"
    bench.device.clock.sleep(60.0)
    bench.adapter.turn()
    assert bench.adapter.settles, "the agent may have read the permit a moment ago"
    bench.adapter.turn()
    assert action.status == "CANCELING", "no time has passed"
    bench.device.agent.turn()  # it had not: it waits now
    bench.device.clock.sleep(SETTLE_S)
    bench.adapter.turn()
    assert action.status == "CANCELED"


def test_cancellation_after_the_switch_is_rejected(bench):
    action = bench.server.assign(7, RELEASE_2)
    bench.go(lambda: bench.state == "trial")
    action.status = "CANCELING"
    bench.go(lambda: any(one.startswith("cancel") for one, *_ in action.history))
    assert (action.history[-1][:2], action.status) == (("cancel rejected", "none"), "RUNNING")
    bench.go(lambda: not action.is_active)
    assert (action.status, bench.device.serving()) == ("FINISHED", "bundle-2")


def test_cancellation_of_an_action_that_never_began_is_confirmed(bench):
    action = bench.server.assign(7, RELEASE_2, status="CANCELING")
    bench.turn()
    assert action.status == "CANCELED"


@pytest.mark.parametrize("end", ["FINISHED", "ERROR"])
def test_adapter_that_is_killed_at_any_request_answers_once(bench, end):
    bench.device.steps.edge.failing = 0.5 if end == "ERROR" else 0.0
    action = bench.server.assign(7, RELEASE_2)
    for _ in range(120):
        if not action.is_active:
            break
        bench.start()
        bench.turn()
    for _ in range(3):
        bench.start()
        bench.turn(60.0)
    assert action.status == end
    assert sum(execution == "closed" for execution, *_ in action.history) == 1


def test_result_whose_answer_was_lost_is_not_sent_again(bench):
    action = bench.server.assign(7, RELEASE_2)
    bench.go(lambda: bench.state == "trial")
    bench.go(lambda: bench.device.agent.task.state.value == "idle")
    record = read_record(bench.device.state_dir)
    bench.go(lambda: not action.is_active)
    lost = record.with_action(record.action.model_copy(update={"result": None}))  # the process died before it was kept
    (bench.device.state_dir / NAME).write_bytes(lost.model_dump_json(by_alias=True).encode())
    sent = len(action.history)
    bench.start()
    for _ in range(3):
        bench.turn(60.0)
    assert len(action.history) == sent
    assert read_record(bench.device.state_dir).action is None


def test_release_that_the_agent_does_not_begin_with_fails_after_a_day(bench):
    bench.device.steps.wanted = THREE
    action = bench.server.assign(7, RELEASE_2)
    bench.turn()
    for _ in range(5):
        bench.turn(4 * HOUR_S, agent=False)
    assert action.is_active
    for _ in range(3):
        bench.turn(4 * HOUR_S, agent=False)
    assert action.status == "ERROR"
    assert "did not begin with it within 24.0 h" in action.history[-1][2]
    assert read_permit(bench.device.state_dir) is None


def test_agent_that_died_in_the_middle_does_not_hold_an_action_for_ever(bench):
    action = bench.server.assign(7, RELEASE_2, window="unavailable")
    bench.go(lambda: bench.state == "prove")
    for _ in range(8):
        bench.turn(4 * HOUR_S, agent=False)
    assert action.status == "ERROR"


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        (b'{"line":"other","sequence":2}', "not for this device of line demo"),
        (b'{"line":"demo","sequence":0}', "release.json"),
        (b"[]", "release.json"),
        (None, "found 0 names of a release"),
    ],
)
def test_action_that_names_no_release_of_this_device_fails(bench, release, reason):
    action = bench.server.assign(7, release)
    for _ in range(80):
        if not action.is_active:
            break
        bench.turn(HOUR_S, agent=False)
    assert action.status == "ERROR"
    assert reason in action.history[-1][2]
    assert read_permit(bench.device.state_dir) is None
    assert bench.server.count("softwaremodules") <= MOST_READS


def test_file_that_cannot_be_read_is_read_a_few_times_over_restarts(bench):
    action = bench.server.assign(7, RELEASE_2)
    action.deployment = lambda url, made=action.deployment: json.loads(
        json.dumps(made(url)).replace("softwaremodules/23", "softwaremodules/99")
    )
    for _ in range(10):
        bench.start()
        bench.turn(HOUR_S, agent=False)
    assert action.status == "ERROR"
    assert bench.server.count("softwaremodules") == MOST_READS


def test_action_that_another_one_replaced_is_forgotten(bench):
    first = bench.server.assign(7, RELEASE_2, window="unavailable")
    bench.go(lambda: bench.state == "prove")
    first.status = "CANCELED"  # force quit by an operator
    second = bench.server.assign(8, RELEASE_2)
    bench.go(lambda: not second.is_active)
    assert (second.status, first.history[-1][0]) == ("FINISHED", "proceeding")


def test_action_that_hawkbit_closed_withdraws_the_permit(bench):
    action = bench.server.assign(7, RELEASE_2, window="unavailable")
    bench.go(lambda: bench.state == "prove")
    action.status = "CANCELED"
    for _ in range(15):
        bench.turn()
    assert read_permit(bench.device.state_dir) is None


def test_hawkbit_is_asked_as_often_as_it_says(bench):
    bench.server.sleep = "00:10:00"
    bench.server.assign(7, RELEASE_2, window="unavailable")
    for _ in range(240):
        bench.turn(15.0, agent=False)
    assert bench.server.count("GET /DEFAULT/controller/v1/cam-001") == 2 * 6 + 1  # with deploymentBase, and a file


def test_progress_is_told_every_ten_minutes_at_most(bench):
    action = bench.server.assign(7, RELEASE_2, window="unavailable")
    path = bench.device.state_dir / "agent.json"
    for number in range(60):
        path.write_text(json.dumps({"state": "fetch", "reason": f"{number} %", "release": json.loads(RELEASE_2)}))
        bench.turn(60.0, agent=False)
    assert [one[:2] for one in action.history] == [("proceeding", "none")] * 6


def test_server_that_fails_is_asked_less_and_less_often(bench):
    bench.server.fails = [503] * 100
    pauses = []
    for _ in range(10):
        with pytest.raises(SyncError, match="503") as error:
            bench.adapter.turn()
        pauses.append(bench.adapter.pause(error.value))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (30.0, 3600.0)
    record = read_record(bench.device.state_dir)
    assert (record.failures, "503" in record.problem) == (10, True)
    bench.server.fails.clear()
    bench.adapter.turn()
    assert read_record(bench.device.state_dir).problem is None


def test_attributes_are_sent_when_hawkbit_asks(bench):
    bench.server.wants_attributes = True
    bench.turn()
    assert bench.server.attributes["bundle"] == "bundle-1"
    assert bench.server.count("PUT") == 1


def test_wrong_token_is_told_and_never_printed(bench):
    client = open_client(bench.server.url, TENANT, CONTROLLER, ("GatewayToken", "another-token"))
    with pytest.raises(SyncError, match="401; check the token") as error:
        run(client, bench.device.state_dir, give_up_s=1.0, once=True, world=bench.world)
    assert "another-token" not in str(error.value)
    assert "another-token" not in repr(client)


def test_once_begins_an_action_and_ends(bench):
    bench.server.assign(7, RELEASE_2)
    state = run(bench.client, bench.device.state_dir, give_up_s=HOUR_S, once=True, world=bench.world)
    assert (state["action"], state["release"]) == ("7", 2)
    assert read_permit(bench.device.state_dir).sequence == 2


def test_pair_that_a_person_activated_is_no_success(bench):
    action = bench.server.assign(7, RELEASE_2, window="unavailable")
    bench.go(lambda: bench.state == "prove")
    slots.activate(bench.device.state_dir, prove=lambda *_: [])
    for _ in range(10):
        bench.turn()
    assert all(execution != "closed" for execution, *_ in action.history)


@pytest.mark.parametrize("hours", ["nan", "inf", "-1", "0", "1e9", "x"])
def test_time_to_give_up_is_a_number_above_zero(hours, capsys):
    """With another one, an action would fail at once, or never."""
    with pytest.raises(SystemExit):
        main(["hawkbit", "--url", "https://hawkbit.example.com", "--give-up-hours", hours])
    assert "expected hours above 0" in capsys.readouterr().err
