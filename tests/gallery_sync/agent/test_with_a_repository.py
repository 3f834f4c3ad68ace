"""The agent of an enrolled device with a signed repository on loopback; proof and `edge` are played."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from edge.bundle.active_pointer import read_active_pointer
from gallery_sync.agent.agent import Agent
from gallery_sync.agent.doors import World
from gallery_sync.agent.machine import State
from gallery_sync.agent.open_agent import Place, one_agent, open_agent
from gallery_sync.agent.policy import Policy
from gallery_sync.cli import main
from gallery_sync.device.security_floor import read_security_floor
from gallery_sync.repository.publish import Demands
from gallery_sync.repository.releases import rollback
from tests.gallery_sync.agent.samples import Clock, Edge
from tests.sync_samples import keys_of, publish_release, time_now, trusted_root
from tests.sync_server import Server, serving
from tests.waiting import until

ROOT = Path(__file__).parents[3]
POLICY = Policy.model_validate({"trial": {"seconds": 20, "serve_within_s": 10}})


class Proof:
    """Proves everything, and counts."""

    def __init__(self) -> None:
        self.early = self.calls = self.closed = 0

    def start_early(self) -> None:
        self.early += 1

    def close(self) -> None:
        self.closed += 1

    def __call__(self, *_: object) -> list[str]:
        self.calls += 1
        return []


class Fleet:
    """One device of a repository."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server, self.state_dir = folder, server, folder / "device"
        (self.state_dir / "trust").mkdir(parents=True, exist_ok=True)
        (self.state_dir / "trust/root").write_bytes(trusted_root(folder / "repo"))
        self.clock, self.proof = Clock(now_s=time_now().timestamp()), Proof()
        self.edge = Edge(self.state_dir, self.clock)
        self.agent = self.start()

    def start(self, policy: Policy = POLICY) -> Agent:
        clock = self.clock
        world = World(
            lambda: clock.now_s, lambda: clock.monotonic_s, self.sleep, lambda: 0.5, "boot", lambda: f"t{clock.now_s}"
        )
        place = Place(self.state_dir, self.server.url, "demo", None)
        return open_agent(place, policy, self.proof, world)  # type: ignore[arg-type]

    def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)
        self.edge.write()

    def run(self) -> None:
        """Check, and follow what comes of it to its end, as a loop does."""
        self.clock.sleep(60)
        self.agent.turn()
        for _ in range(100):
            self.edge.write()
            if wait_s := self.agent.turn():
                self.sleep(wait_s)
            if self.agent.task.state is State.IDLE:
                return

    def active(self) -> tuple[str, int | None]:
        pointer = read_active_pointer(self.state_dir)
        assert pointer is not None
        assert pointer.trial is None
        return pointer.bundle_id, pointer.release.sequence if pointer.release else None

    def report(self) -> dict:
        return json.loads((self.state_dir / "agent.json").read_bytes())


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A repository with one release, and a device that took it."""
    folder = tmp_path_factory.mktemp("first")
    publish_release(folder, "one", 1, 3)
    with serving(folder / "repo") as server:
        fleet = Fleet(folder, server)
        fleet.run()
        assert fleet.report()["last"]["outcome"] == "confirmed"
        fleet.agent._journal.close()
    return folder


@pytest.fixture
def fleet(first, tmp_path):
    """A copy of it."""
    shutil.copytree(first, tmp_path, dirs_exist_ok=True, symlinks=True)
    with serving(tmp_path / "repo") as server:
        yield Fleet(tmp_path, server)


def test_release_arrives_by_itself_and_raises_its_floor(fleet):
    assert fleet.active() == ("one", 1)
    publish_release(fleet.folder, "two", 2, 4, demands=Demands(security_floor=2))
    fleet.run()
    assert fleet.active() == ("two", 2)
    assert read_security_floor(fleet.state_dir, "demo") == 2
    assert fleet.report()["last"]["outcome"] == "confirmed"
    assert not (fleet.state_dir / "cache/sync").exists()


def test_first_release_is_on_trial_before_its_floor_is_raised(tmp_path):
    """Nothing ran here before: `edge` has yet to show that it can serve the pair."""
    publish_release(tmp_path, "one", 1, 3, demands=Demands(security_floor=1))
    with serving(tmp_path / "repo") as server:
        fleet = Fleet(tmp_path, server)
        fleet.edge.runs = False
        fleet.run()
        active = read_active_pointer(fleet.state_dir)
        assert active is not None
        assert (active.bundle_id, active.previous) == ("one", None)
        assert active.trial is not None
        assert (fleet.agent.task.state, read_security_floor(fleet.state_dir, "demo")) == (State.TRIAL, 0)
        fleet.edge.runs = True
        fleet.run()
        assert (fleet.active(), read_security_floor(fleet.state_dir, "demo")) == (("one", 1), 1)


def test_first_release_that_fails_its_trial_is_kept_and_raises_no_floor(tmp_path):
    publish_release(tmp_path, "one", 1, 3, demands=Demands(security_floor=1))
    with serving(tmp_path / "repo") as server:
        fleet = Fleet(tmp_path, server)
        fleet.edge.failing = 0.5
        fleet.run()
        assert (fleet.active(), read_security_floor(fleet.state_dir, "demo")) == (("one", 1), 0)
        assert fleet.report()["last"]["outcome"] == "kept"


def test_nothing_to_do_is_one_small_request(fleet):
    fleet.run()
    fleet.server.requests.clear()
    fleet.run()
    assert [path for path, *_ in fleet.server.requests] == ["metadata/timestamp.json"]


def test_gallery_alone_is_a_release_whose_proof_starts_early(fleet):
    publish_release(fleet.folder, "one", 1, 5)
    fleet.run()
    assert fleet.active() == ("one", 2)
    assert fleet.proof.early


def test_child_that_no_proof_follows_is_ended(fleet):
    fleet.agent._journal.close()
    fleet.agent = fleet.start(Policy.model_validate({"install": {"windows": ["Mon 00:00-00:01"]}}))
    publish_release(fleet.folder, "one", 1, 5)
    for _ in range(20):
        fleet.proof.closed = 0
        if wait_s := fleet.agent.turn():
            fleet.sleep(wait_s)
        if fleet.agent.task.state is State.PROVE:
            break
    fleet.agent.turn()
    assert (fleet.agent.task.state, fleet.proof.calls) == (State.PROVE, 0)
    assert fleet.proof.early >= 1
    assert fleet.proof.closed >= 1


def test_bad_release_goes_back_offline_and_a_rollback_is_newer(fleet):
    publish_release(fleet.folder, "two", 2, 4)
    fleet.edge.fps = 1.0
    fleet.run()
    assert fleet.active() == ("one", 1)
    assert [held["sequence"] for held in fleet.report()["quarantine"]] == [2]
    rollback(fleet.folder / "repo", keys_of(fleet.folder / "repo"), time_now(), "demo", 1)
    fleet.run()
    assert fleet.active() == ("one", 3)


def test_t6_release_below_the_floor_is_refused_and_told(fleet):
    publish_release(fleet.folder, "two", 2, 4)
    from gallery_sync.device.security_floor import raise_security_floor

    raise_security_floor(fleet.state_dir, "demo", 9)
    fleet.run()
    assert fleet.active() == ("one", 1)
    assert "this device runs none below 9" in fleet.report()["reason"]


def test_release_that_needs_a_newer_package_is_refused_and_told(fleet):
    publish_release(fleet.folder, "two", 2, 4, demands=Demands(needs="99.0"))
    fleet.run()
    assert fleet.active() == ("one", 1)
    assert "needs 99.0; update the package" in fleet.report()["reason"]


def test_p1_restart_in_each_state_downloads_nothing_twice(fleet):
    publish_release(fleet.folder, "two", 2, 4)
    fleet.server.requests.clear()
    seen, before, manifests = [], None, paths_of_manifests(fleet)
    for _ in range(100):
        fleet.clock.sleep(60 if fleet.agent.task.state is State.IDLE else 0)
        fleet.edge.write()
        fleet.sleep(fleet.agent.turn())
        state = fleet.agent.task.state
        if state is not before:
            seen.append(state)
            fleet.agent._journal.close()
            fleet.agent = fleet.start()
            fleet.agent.turn() if state not in (State.IDLE, State.CHECK, State.GATE) else None
        before = state
        if state is State.IDLE and fleet.report()["last"]["sequence"] == 2:
            break
    assert fleet.active() == ("two", 2)
    assert {State.FETCH, State.VERIFY, State.STAGE, State.PROVE, State.ARMED, State.SWITCH, State.TRIAL} <= set(seen)
    objects = [path for path, *_ in fleet.server.requests if "objects/" in path and path not in manifests]
    assert len(objects) == len(set(objects))


def test_f9_second_agent_is_refused(fleet):
    with (
        one_agent(fleet.state_dir),
        pytest.raises(Exception, match="another agent is running"),
        one_agent(fleet.state_dir),
    ):
        pass


def paths_of_manifests(fleet: Fleet) -> set[str]:
    """Return the documents among the objects: a check reads them again after each start."""
    objects = fleet.folder / "repo/objects"
    return {f"{path.relative_to(fleet.folder / 'repo')}" for path in objects.rglob("*") if _start(path) == b"{"}


def _start(path: Path) -> bytes:
    return path.read_bytes()[:1] if path.is_file() else b""


def test_n3_missing_objects_are_asked_for_less_and_less(fleet):
    before = set((fleet.folder / "repo/objects").rglob("*"))
    publish_release(fleet.folder, "two", 2, 4)
    new = {path for path in (fleet.folder / "repo/objects").rglob("*") if path not in before and path.is_file()}
    hidden = {path: path.read_bytes() for path in new if _start(path) != b"{"}
    for path in hidden:
        path.unlink()
    fleet.server.requests.clear()
    for _ in range(20):  # a minute each
        fleet.run()
    asked = [path for path, *_ in fleet.server.requests if path.rpartition("/")[2] in {one.name for one in hidden}]
    assert 0 < len(asked) <= 4 * len(hidden)
    assert fleet.active() == ("one", 1)
    assert "404" in fleet.report()["reason"]
    for path, data in hidden.items():
        path.write_bytes(data)
    for _ in range(200):
        fleet.run()
        if fleet.active() == ("two", 2):
            break
    assert fleet.active() == ("two", 2)


def test_c1_clock_of_1970_takes_releases(fleet):
    """The clock floor is the time of the last signed timestamp."""
    fleet.clock.now_s = 1000.0
    publish_release(fleet.folder, "two", 2, 4)
    fleet.run()
    assert fleet.active() == ("two", 2)


def test_t4_expired_repository_is_told_and_serves(tmp_path):
    publish_release(tmp_path, "one", 1, 3, now=time_now() - timedelta(days=30))
    with serving(tmp_path / "repo") as server:
        fleet = Fleet(tmp_path, server)
        fleet.run()
        assert "expired" in fleet.report()["reason"]
        assert read_active_pointer(fleet.state_dir) is None


def test_status_shows_what_a_person_asks(fleet, capsys):
    publish_release(fleet.folder, "two", 2, 4)
    fleet.edge.fps = 1.0
    fleet.run()
    fleet.agent._journal.close()
    assert main(["agent", "status", "--state-dir", str(fleet.state_dir)]) == 0
    shown = capsys.readouterr().out
    assert "active: release 1, bundle one with gallery" in shown
    assert "quarantine: release 2 until" in shown
    assert main(["agent", "status", "--state-dir", str(fleet.state_dir), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["active"]["bundle"] == "one"
    assert told["history"][0]["outcome"] == "rolled back"
    assert told["bytes_today"] > 0
    assert main(["agent", "clear-quarantine", "--state-dir", str(fleet.state_dir)]) == 0
    assert capsys.readouterr().out == "cleared: 1\n"


def test_status_of_a_new_folder_says_so(tmp_path, capsys):
    assert main(["agent", "status", "--state-dir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines() == [
        "active: nothing",
        "running: edge does not run",
        "agent: absent, no agent ran here yet",
        "security floor: 0",
        "journal: there is none yet",
    ]
    assert list(tmp_path.iterdir()) == []


def test_stop_ends_the_agent_at_once(tmp_path):
    """SIGTERM, as systemd sends it; the next start goes on."""
    publish_release(tmp_path, "one", 1, 3)
    (tmp_path / "device/trust").mkdir(parents=True)
    (tmp_path / "device/trust/root").write_bytes(trusted_root(tmp_path / "repo"))
    (tmp_path / "agent.yaml").write_text("install: {windows: ['Mon 00:00-00:01']}\npoll_s: 3600\n")
    arguments = ["--state-dir", str(tmp_path / "device"), "--config", str(tmp_path / "agent.yaml")]
    command = [sys.executable, "-m", "gallery_sync.cli", "agent", *arguments]
    environment = os.environ | {"FINESIGHT_REPOSITORY": (tmp_path / "repo").as_uri()}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as agent:
        until((tmp_path / "device/staged").exists, "the release is staged")
        agent.terminate()
        assert agent.wait(60) == 0
        assert agent.stderr is not None
        assert agent.stderr.read() == b""


def test_agent_that_is_not_enrolled_says_what_to_do(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("FINESIGHT_REPOSITORY", raising=False)
    assert main(["agent", "--once", "--state-dir", str(tmp_path)]) == 1
    assert "no repository; enrol it with edge-sync enrol" in capsys.readouterr().err
