"""A release arrives by itself: real broker, web server, commands, update agent and running device.

The tests share one device, and each begins with the release that it publishes. They print what they measure.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.layout import gallery_folder, gallery_generations
from edge.demo.subscriber import Subscriber
from edge.gallery.generation import read_gallery
from edge.gallery.store_file import open_store
from edge.messaging.settings import MqttSettings
from edge.telemetry.vital_signs import read_vital_signs
from gallery_sync.repository.publish import publish
from tests.integration.mosquitto import Mosquitto, free_port
from tests.integration.small_demo import DEMO, foreign_gallery, small_bundle
from tests.sync_samples import make_repository
from tests.sync_server import Server, serving
from tests.waiting import LONG_DEADLINE_S, until

ROOT = Path(__file__).parents[2]
POLL_S = 1.0
SHORT_S, LONG_S = 2.0, 15.0  # of a trial; objects that were known before the switch are gone in half of the long one
ANSWERS = 6
ARRIVES_S = 60.0  # one poll, and the time of fetch, proof and switch, on such a machine
TOPIC = "finesight/shop/cam-1"
OUT = ("bottle", "bottle-00")  # an item to erase


def run(*arguments: object, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run an `edge-sync` command that succeeds, and return its JSON answer."""
    command = [sys.executable, "-m", "gallery_sync.cli", *map(str, arguments), "--json"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | (env or {}), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@contextmanager
def background(log: Path, *arguments: object, environment: dict[str, str] | None = None) -> Iterator[None]:
    """Run a module until the end of the block."""
    command = [sys.executable, "-m", *map(str, arguments)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | (environment or {}), stdout=output, stderr=output
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            finally:
                process.kill()
                process.wait()


@dataclass
class Fleet:
    """A repository and one device that follows it."""

    folder: Path
    broker: Mosquitto
    server: Server
    births: list[tuple[float, dict[str, Any]]] = field(default_factory=list)  # when each arrived
    bundles: int = 1
    trial_s: float = SHORT_S

    @contextmanager
    def agent_runs(self) -> Iterator[None]:
        """Run the agent until the end of the block."""
        policy = self.folder / "agent.yaml"
        policy.write_text(
            f"poll_s: {POLL_S}\n"
            f"trial: {{seconds: {self.trial_s}, look_s: 0.5, answers: {ANSWERS}, match_rate_drop: 0.4, "
            "frame_rate: 0.1}\n"
        )
        where = ["--state-dir", self.state, "--config", policy, "--device-config", self.folder / "device.yaml"]
        with background(self.folder / "agent.log", "gallery_sync.cli", "--verbose", "agent", *where):
            yield

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def next_bundle(self, **how: bool) -> Path:
        self.bundles += 1
        return small_bundle(self.folder / f"bundle-{self.bundles}", self.bundles, **how)

    def publish(self, *arguments: object) -> int:
        return run("publish", self.repo, *arguments)["release"]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect birth messages."""

        def deliver(message: Any) -> None:
            if message.payload:
                self.births.append((time.monotonic(), json.loads(message.payload)))

        settings = MqttSettings(client_id="test", host="127.0.0.1", port=self.broker.port)
        with Subscriber(settings, f"{TOPIC}/birth", deliver):
            yield

    def named(self, release: int, *, confirmed: bool = False) -> float:
        """Wait for a birth message that names a release; return when it arrived."""

        def found() -> float | None:
            for at, birth in self.births:
                if (birth["release"] or {}).get("sequence") == release and not (confirmed and birth["trial"]):
                    return at
            return None

        return until(found, lambda: f"the birth message names release {release}; {self.status()}", LONG_DEADLINE_S)

    def agent(self) -> dict[str, Any]:
        path = self.state / "agent.json"
        return json.loads(path.read_bytes()) if path.exists() else {}

    def ended(self, release: int) -> dict[str, Any]:
        """Wait until the agent is through with a release, and return how that ended."""

        def found() -> dict[str, Any] | None:
            last = self.agent().get("last")
            return last if last and last["sequence"] == release else None

        return until(found, lambda: f"release {release} is through; {self.status()}", LONG_DEADLINE_S)

    def served(self) -> int | None:
        """Return the release that the device says it serves."""
        signs = read_vital_signs(self.state)
        return signs.release.sequence if signs and signs.release else None

    def answers(self) -> int:
        signs = read_vital_signs(self.state)
        return signs.known + signs.unknown if signs else 0

    def status(self) -> str:
        return json.dumps({key: self.agent().get(key) for key in ("state", "reason", "serving", "last")})

    def bundle_id(self, release: int) -> str:
        return run("release", "show", self.repo, release)["bundle"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Iterator[Fleet]:
    """A repository made by commands, an enrolled device, its agent, and `edge run` with the demo's stream."""
    folder = tmp_path_factory.mktemp("fleet")
    repo, state = folder / "repo", folder / "state"
    with ExitStack() as stack:
        run("init", repo, "--line", "demo", "--development")
        server = stack.enter_context(serving(repo))
        broker = Mosquitto(folder / "broker")
        fleet = Fleet(folder, broker, server)
        fleet.publish("--bundle", small_bundle(folder / "bundle-1", 1), "--gallery", DEMO / "gallery")
        devices = folder / "devices"
        run("enrolment", "new", repo, "--url", server.url, "-o", devices, "--device", "cam-1")
        run("enrol", devices / "cam-1.json", "--state-dir", state)
        (folder / "device.yaml").write_text(
            f"site: shop\ndevice: cam-1\nstate_dir: {state}\nmqtt: {{host: 127.0.0.1, port: {broker.port}}}\n"
            "engine: {backend: onnxruntime}\n"
            f"cameras:\n  shelf: {{source: 'file://{DEMO / 'stream.mp4'}?loop=1'}}\n"
        )
        stack.callback(broker.stop)
        broker.start()
        stack.enter_context(fleet.listening())
        first = stack.enter_context(ExitStack())
        first.enter_context(fleet.agent_runs())
        until((state / "current").exists, "the first release is active", LONG_DEADLINE_S)
        stack.enter_context(background(folder / "edge.log", "edge", "run", "--config", folder / "device.yaml"))
        fleet.named(1)
        fleet.ended(1)
        first.close()
        yield fleet


@pytest.fixture
def agent(fleet, request) -> Iterator[None]:
    """The agent of the device, started for one test."""
    fleet.trial_s = getattr(request, "param", SHORT_S)
    with fleet.agent_runs():
        yield


def timed(what: str, act: Callable[[], int], fleet: Fleet) -> int:
    """Publish a release, and check how soon the birth message names it; return the release."""
    release = act()
    published = time.monotonic()
    took_s = max(0.0, fleet.named(release) - published)
    print(f"{what}: the birth message names release {release} after {took_s:.1f} s")
    assert took_s < ARRIVES_S
    return release


@pytest.mark.usefixtures("agent")
def test_published_gallery_and_bundle_arrive_by_themselves(fleet):
    timed(
        "another gallery",
        lambda: run("gallery", "rename", fleet.repo, "can", "can-00", "A new name")["release"],
        fleet,
    )
    release = timed("another bundle", lambda: fleet.publish("--bundle", fleet.next_bundle()), fleet)
    fleet.named(release, confirmed=True)
    assert fleet.ended(release)["outcome"] == "confirmed"
    assert fleet.births[-1][1]["versions"]["bundle"] == f"demo-{fleet.bundles}"


@pytest.mark.usefixtures("agent")
def test_release_arrives_while_the_broker_is_away(fleet):
    fleet.broker.stop()
    release = run("gallery", "rename", fleet.repo, "can", "can-00", "Another name")["release"]
    until(lambda: fleet.served() == release, lambda: f"it serves without a broker; {fleet.status()}", LONG_DEADLINE_S)
    assert all((birth["release"] or {}).get("sequence") != release for _, birth in fleet.births)
    fleet.broker.start()
    fleet.named(release)


@pytest.mark.usefixtures("agent")
def test_bundle_whose_probes_fail_never_serves(fleet):
    before = fleet.served()
    bad = fleet.publish("--bundle", fleet.next_bundle(wrong_probes=True))
    outcome = fleet.ended(bad)
    assert outcome["outcome"] == "refused"
    assert "probe" in outcome["reason"]
    assert [held["sequence"] for held in fleet.agent()["quarantine"]] == [bad]
    assert fleet.served() == before
    assert all((birth["release"] or {}).get("sequence") != bad for _, birth in fleet.births)


@pytest.mark.parametrize("agent", [LONG_S], indirect=True)
@pytest.mark.usefixtures("agent")
def test_release_that_recognises_nothing_is_undone(fleet):
    until(lambda: fleet.answers() >= 2 * ANSWERS, "the release before gives answers", LONG_DEADLINE_S)
    before = read_active_pointer(fleet.state)
    foreign = foreign_gallery(fleet.folder / "foreign")
    good = fleet.next_bundle()
    bad = fleet.publish("--bundle", good, "--gallery", foreign)
    outcome = fleet.ended(bad)
    assert outcome["outcome"] == "rolled back"
    assert "objects were known" in outcome["reason"]
    assert before is not None
    until(
        lambda: fleet.served() == before.release.sequence,
        lambda: f"it serves the one before; {fleet.status()}",
        LONG_DEADLINE_S,
    )

    def says() -> bool:
        birth = fleet.births[-1][1]
        served = (birth["versions"]["bundle"], birth["versions"]["gallery"], birth["trial"])
        return served == (before.bundle_id, before.gallery, None)

    until(says, "the birth message says so", LONG_DEADLINE_S)
    assert all(birth["release"] for _, birth in fleet.births)  # what served had a name at all times


@pytest.mark.usefixtures("agent")
def test_operator_goes_back_with_one_command(fleet):
    release = timed("rollback", lambda: run("rollback", "demo", "--to", "1", "--repo", fleet.repo)["release"], fleet)
    fleet.named(release, confirmed=True)
    assert fleet.ended(release)["outcome"] == "confirmed"
    assert fleet.births[-1][1]["versions"]["bundle"] == "demo-1"


@pytest.mark.usefixtures("agent")
def test_urgent_deletion_reaches_both_generations(fleet):
    category, item = OUT
    release = run("gallery", "delete", fleet.repo, category, item, "--urgent")["release"]
    started = time.monotonic()
    until(lambda: fleet.agent().get("receipts"), lambda: f"a receipt; {fleet.status()}", LONG_DEADLINE_S)
    print(f"urgent deletion: a receipt after {time.monotonic() - started:.1f} s")
    (receipt,) = fleet.agent()["receipts"]
    assert (receipt["category"], receipt["items"]) == (category, 1)
    active = read_active_pointer(fleet.state)
    assert active is not None
    assert active.previous is not None
    generations = gallery_generations(fleet.state)
    assert {active.gallery, active.previous.gallery} <= set(generations)
    for generation in generations:
        assert item not in items_of(gallery_folder(fleet.state, generation), category)
    until(lambda: fleet.served() == release, lambda: f"it serves without the item; {fleet.status()}", LONG_DEADLINE_S)


def items_of(folder: Path, category: str) -> set[str]:
    gallery = read_gallery(folder)
    if category not in gallery.categories:
        return set()
    with open_store(gallery.path(category)) as store:
        return {item for (item,) in store.execute("SELECT item_id FROM items WHERE deleted = 0")}


def test_stick_of_60_days_ago_installs_on_an_offline_line(tmp_path):
    """No network: the repository is a folder, and nothing else is asked."""
    then = datetime.now(timezone.utc) - timedelta(days=60)
    stick, state = tmp_path / "stick", tmp_path / "state"
    keys = make_repository(stick, policy="offline", now=then)
    publish(stick, keys, then, bundle_folder=small_bundle(tmp_path / "b", 1), gallery_folder=DEMO / "gallery")
    run("enrolment", "new", stick, "--url", f"https://127.0.0.1:{free_port()}", "-o", tmp_path / "d", "--device", "c")
    run("enrol", tmp_path / "d/c.json", "--state-dir", state)
    (tmp_path / "device.yaml").write_text("engine: {backend: onnxruntime}\n")
    agent = ("agent", "--once", "--state-dir", state, "--device-config", tmp_path / "device.yaml")
    status = run(*agent, env={"FINESIGHT_REPOSITORY": stick.as_uri()})
    assert status["active"]["release"] == 1
