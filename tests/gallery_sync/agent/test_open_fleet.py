"""The agent with its fleet: commands between its steps, on a device with real slots, pointers and journal."""

from __future__ import annotations

import os
from typing import Any

import pytest

from edge.bundle.active_pointer import read_active_pointer
from edge.telemetry.counters import Counters
from gallery_sync.agent.agent import Agent
from gallery_sync.agent.machine import Held
from gallery_sync.agent.open_fleet import Fleet, Parts, hands_of, in_fleet
from gallery_sync.agent.policy import Policy
from gallery_sync.agent.report import Reporter, Told
from gallery_sync.agent.repository_steps import RenewedDeadline, Repository
from gallery_sync.agent.status import read_status
from gallery_sync.cli import build_parser
from gallery_sync.device.identity import Identity
from gallery_sync.device.source import Source
from gallery_sync.mailbox.messages import CommandMessage
from gallery_sync.remote_hands.hands import RemoteHands
from tests.gallery_sync.agent.samples import QUICK, START, Device, start_agent
from tests.gallery_sync.remote_hands.samples import Post, request


class Box(Post):
    """A mailbox whose messages are lists."""

    rings = 0

    def ring(self) -> None:
        self.rings += 1


def hands(device: Device, box: Any, allow: tuple[str, ...] = ("rollback", "sync", "activate")) -> RemoteHands:
    client: Any = None
    source = Source(client, client, "demo", lambda: None, b"", Identity("cam-1", {"device": "cam-1", "line": "demo"}))
    budget: Any = None
    repository = Repository(source, lambda: None, RenewedDeadline(), budget, budget)
    policy = Policy.model_validate({"commands": {"allow": list(allow)}})
    parts = Parts(device.state_dir, None, repository, device.journal, lambda *_: [], lambda *_: [])
    found = hands_of(Fleet(box, Counters()), policy, parts, lambda: START)
    assert found is not None
    return found


@pytest.fixture
def device(folder) -> Device:
    """Release 2 serves, and release 1 is before it."""
    made = start_agent(folder)
    made.run()
    return made


def with_commands(device: Device, box: Box) -> Agent:
    """Return the agent of a device that takes commands."""
    agent = device.agent
    return Agent(agent._steps, device.journal, QUICK, agent._world, device.reporter, requests=hands(device, box))


def test_rolled_back_release_is_not_taken_again(device):
    box = Box([CommandMessage("rollback", request(at=START))])
    agent = with_commands(device, box)
    for _ in range(5):
        agent.run(once=True)
        device.clock.sleep(30 * 86400)
    assert box.states() == ["done"]
    assert read_active_pointer(device.state_dir).bundle_id == "bundle-1"
    assert device.journal.all_held() == [Held("demo", 2, "rolled back by ada", 1, None)]


def test_rollback_in_a_trial_ends_it(folder):
    device = start_agent(folder)
    device.steps.edge.runs = False  # the trial cannot end
    device.run()
    assert read_active_pointer(device.state_dir).trial is not None
    box = Box([CommandMessage("rollback", request(at=START))])
    agent = with_commands(device, box)
    device.steps.edge.runs = True
    agent.run(once=True)
    assert box.states() == ["done"]
    assert device.serving() == "bundle-1"
    assert device.outcomes()[-1] == (2, "taken over")


def test_sync_rings_the_mailbox(device):
    box = Box([CommandMessage("sync", request(at=START))])
    hands(device, box).turn()
    assert (box.states(), box.rings) == (["done"], 1)


def test_clock_behind_its_floor_is_not_trusted(device):
    box = Box([CommandMessage("sync", request(at=START + 5000))])
    hands(device, box).turn()
    assert box.states() == ["refused"]


def test_device_without_an_identity_takes_no_commands(device):
    box: Any = Box()
    client: Any = None
    source = Source(client, client, "demo", lambda: None, b"")
    repository = Repository(source, lambda: None, RenewedDeadline(), client, client)
    parts = Parts(device.state_dir, None, repository, device.journal, lambda *_: [], lambda *_: [])
    assert hands_of(Fleet(box), Policy(), parts) is None


def test_without_a_broker_nothing_is_opened(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FINESIGHT_MQTT")}
    with in_fleet(tmp_path, Policy(), environment) as fleet:
        assert fleet.about() is None
    assert list(tmp_path.iterdir()) == []


def test_wrong_address_is_reported_and_stops_nothing(tmp_path):
    policy = Policy.model_validate({"fleet": {"host": "broker.example.com"}})
    with in_fleet(tmp_path, policy, {}) as fleet:
        assert fleet.mailbox is None
        assert "this device has no id; enrol it" in fleet.about()["error"]


def test_audit_shows_who_commanded_what(device, capsys):
    box = Box([CommandMessage("sync", request(at=START)), CommandMessage("prove", request("c-2", at=START))])
    hands(device, box).turn()
    parsed = build_parser().parse_args(["agent", "audit", "--state-dir", str(device.state_dir)])
    assert parsed.act(parsed) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2][:20] for line in lines] == [
        "prove of ada: refuse",
        "sync of ada: done th",
        "sync of ada: accepte",
    ]


def test_connection_is_part_of_the_status(device):
    reporter = Reporter(
        device.state_dir, device.journal, lambda: START, None, lambda: {"connected": False, "error": "x"}
    )
    reporter.write(device.agent.task, Told(), device.steps)
    assert read_status(device.state_dir)["fleet"] == "not connected: x"
