"""A fleet on loopback: real repository, web server, broker, fleet server, and devices as processes of their own.

    repo/                     signed with development keys, served by tests.fleet_server
    enrolments/               of all devices, with the broker's accounts and its access file
    devices/<id>/             device.yaml, agent.yaml, state/, agent.log, edge.log
    fleet/                    of `edge-sync fleet serve`

A device is `edge run` with one small camera, and `edge-sync agent`. `tend` starts again what ended, as systemd does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edge.messaging.connection import Connection
from edge.messaging.settings import MqttSettings, ReceivedMessage
from edge.telemetry.vital_signs import read_vital_signs
from gallery_sync.enrolment.broker_accounts import password_file
from gallery_sync.enrolment.device_files import enrol
from gallery_sync.formats.enrolment import Enrolment
from gallery_sync.repository.published import Published
from tests.fleet_bundles import Fault, write_bundle, write_gallery, write_pictures
from tests.fleet_server import FleetServer
from tests.integration.mosquitto import Mosquitto, free_port
from tests.sync_samples import published

ROOT = Path(__file__).parents[1]
LINE, SITES = "demo", ("north", "south")
T = TypeVar("T")


def edge_sync(*arguments: object, timeout_s: float = 600.0) -> dict[str, Any]:
    """Run an `edge-sync` command that succeeds, and return its JSON answer."""
    done = try_edge_sync(*arguments, timeout_s=timeout_s)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def try_edge_sync(*arguments: object, timeout_s: float = 600.0) -> subprocess.CompletedProcess[str]:
    """Run an `edge-sync` command."""
    command = [sys.executable, "-m", "gallery_sync.cli", *map(str, arguments), "--json"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


class Background:
    """A process that writes its log to a file."""

    def __init__(self, log: Path, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", *map(str, arguments)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=output, stderr=output
            )
        self.pid = self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        """End it without warning, like a power cut."""
        self._process.kill()
        self._process.wait()

    def end(self, within_s: float = 30.0) -> None:
        """End it cleanly."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        self.kill()


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the memory of a process that it shares with no other, and its part of the rest, in MiB."""
    found = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(found["Pss"].split()[0]) / 1024


_COUNTED = ("bytes/received", "bytes/sent", "messages/received", "messages/sent", "clients/connected")


def broker_counts(broker: Mosquitto, account: tuple[str, str]) -> dict[str, int]:
    """Return what a broker counted so far, by the last part of its topic below $SYS/broker, a second late at most."""
    found: dict[str, int] = {}

    def note(message: ReceivedMessage) -> None:
        name = message.topic.removeprefix("$SYS/broker/")
        if name in _COUNTED:
            found[name] = int(message.payload)

    settings = MqttSettings(
        client_id="monitor", host=broker.host, port=broker.port, username=account[0], password=account[1]
    )
    with Connection(settings, None, note) as connection:
        connection.subscribe(*(f"$SYS/broker/{name}" for name in _COUNTED))
        deadline = time.monotonic() + 5.0
        while len(found) < len(_COUNTED) and time.monotonic() < deadline:
            connection.step(0.2)
    return found


@dataclass(frozen=True)
class Pace:
    """How fast a fleet lives. Short for tests; a fleet of many devices on few cores needs more."""

    poll_s: float = 1.5
    trial_s: float = 4.0
    look_s: float = 0.5
    report_s: float = 2.0  # the longest time between two reports of a device
    silent_after_s: float = 60.0
    fps: int = 8  # of the camera
    answers: int = 3  # that both releases must have given before they are compared

    def agent_yaml(self) -> str:
        """Return what a device allows."""
        return (
            f"poll_s: {self.poll_s}\nretry_first_s: {self.poll_s}\nmost_retry_s: {4 * self.poll_s}\n"
            f"fleet: {{report_every_s: {self.report_s}, spread_s: 1, doorbell_every_s: 1}}\n"
            f"trial: {{seconds: {self.trial_s}, look_s: {self.look_s}, frame_rate: 0.1, "
            f"answers: {self.answers}}}\n"
        )


@dataclass
class Device:
    """One device of the fleet."""

    id: str
    site: str
    folder: Path
    is_on: bool = True
    agent: Background | None = None
    edge: Background | None = None

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def tend(self) -> None:
        """Start what should run and does not."""
        if not self.is_on:
            return
        if self.agent is None or not self.agent.runs:
            where = ("--state-dir", self.state, "--config", self.folder / "agent.yaml")
            self.agent = Background(
                self.folder / "agent.log",
                *("gallery_sync.cli", "--verbose", "agent", *where),
                *("--device-config", self.folder / "device.yaml"),
                environment=self._account(),
            )
        if (self.edge is None or not self.edge.runs) and (self.state / "current").exists():
            self.edge = Background(
                self.folder / "edge.log",
                *("edge", "run", "-c", self.folder / "device.yaml"),
                environment=self._account(),
            )

    def power_off(self) -> None:
        """Cut the power."""
        self.is_on = False
        for process in (self.agent, self.edge):
            if process is not None:
                process.kill()
        self.agent = self.edge = None

    def power_on(self) -> None:
        self.is_on = True
        self.tend()

    def _account(self) -> dict[str, str]:
        """Return the account at the broker, as systemd gives it to both services."""
        lines = (self.state / "broker.env").read_text().splitlines()
        return {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}

    def journal(self) -> dict[str, Any]:
        """Return what its agent does."""
        path = self.state / "agent.json"
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def active(self) -> dict[str, Any]:
        """Return the pointer of the pair that it serves, from its own disk: the truth that reports are held against."""
        path = self.state / "current"
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def answers(self) -> int:
        """Return how many objects its run recognised, or not, so far."""
        signs = read_vital_signs(self.state)
        return signs.known + signs.unknown if signs else 0

    def tail(self, lines: int = 15) -> str:
        """Return the end of its logs."""
        found = []
        for name in ("agent.log", "edge.log"):
            path = self.folder / name
            found += [f"{self.id} {name}: {line}" for line in path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(found)


@dataclass
class Fleet:
    """All of it. Use as a context: at its end every process is gone."""

    folder: Path
    count: int
    pace: Pace = Pace()
    server: FleetServer = field(init=False)
    broker: Mosquitto = field(init=False)
    collector: Background | None = None
    controller: Background | None = None
    devices: list[Device] = field(default_factory=list)
    bundles: int = 0
    api_port: int = field(default_factory=free_port)
    restarts: Counter[str] = field(default_factory=Counter)  # of processes that ended by themselves
    counted: Counter[str] = field(default_factory=Counter)  # by brokers that were killed

    @property
    def repo(self) -> Path:
        return self.folder / "repo"

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    def __enter__(self) -> Fleet:  # noqa: PYI034 - Self is not in Python 3.10
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        running = [one for device in self.devices for one in (device.agent, device.edge) if one is not None]
        running += [one for one in (self.collector, self.controller) if one is not None]
        for one in running:
            one.terminate()
        for one in running:
            one.end(10.0)
        if hasattr(self, "broker"):
            self.broker.kill()
        if hasattr(self, "server"):
            self.server.__exit__()

    def _make(self) -> None:
        edge_sync("init", self.repo, "--line", LINE, "--development")
        self.publish(gallery=True)
        self.server = FleetServer(self.repo)
        self.broker = fleet_broker(self.folder, self.repo, self.count)
        self.broker.start()
        self.collector = start_collector(self.folder, self.repo, self.broker, self.api_port)
        write_pictures(self.folder / "pictures")
        for number, path in enumerate(sorted((self.folder / "enrolments").glob("cam-*.json"))):
            self.devices.append(self._device(path, SITES[number % len(SITES)]))

    def _device(self, enrolment: Path, site: str) -> Device:
        given = Enrolment.model_validate_json(enrolment.read_bytes())
        own = {"repository": self.server.device_url(given.device_id), "labels": {"site": site}}
        device = Device(given.device_id, site, self.folder / "devices" / given.device_id)
        enrol(device.state, given.model_copy(update=own))
        camera = f"folder://{self.folder / 'pictures'}?fps={self.pace.fps}&loop=1"
        (device.folder / "agent.yaml").write_text(self.pace.agent_yaml())
        (device.folder / "device.yaml").write_text(
            f"site: {site}\ndevice: {device.id}\nstate_dir: {device.state}\nengine: {{backend: onnxruntime}}\n"
            f"mqtt: {{host: 127.0.0.1, port: {self.broker.port}, username: '${{FINESIGHT_MQTT_USERNAME}}', "
            "password: '${FINESIGHT_MQTT_PASSWORD}'}\n"
            f"cameras:\n  shelf: {{source: '{camera}', framing: whole_frame}}\n"
        )
        return device

    def control(self) -> None:
        """Start what moves rollouts on."""
        self.controller = start_controller(self.folder, self.repo, self.api)

    def publish(self, fault: Fault | None = None, *options: object, gallery: bool = False) -> int:
        """Publish the next bundle; return its release."""
        self.bundles += 1
        bundle = write_bundle(self.folder / f"bundle-{self.bundles}", self.bundles, fault)
        more = ("--gallery", write_gallery(self.folder / "gallery")) if gallery else ()
        release: int = edge_sync("publish", self.repo, "--bundle", bundle, *more, *options)["release"]
        return release

    def tend(self) -> None:
        """Start again what ended and should run."""
        for device in self.devices:
            device.tend()
        if self.collector is not None and not self.collector.runs:
            self.collector = start_collector(self.folder, self.repo, self.broker, self.api_port)
            self.restarts["collector"] += 1
        if self.controller is not None and not self.controller.runs:
            self.control()
            self.restarts["controller"] += 1

    def until(self, condition: Callable[[], T], what: str | Callable[[], str], deadline_s: float) -> T:
        """Return the first answer of a condition that is true; the fleet is tended meanwhile."""
        deadline = time.monotonic() + deadline_s
        while not (answer := condition()):
            if time.monotonic() >= deadline:
                text = what if isinstance(what, str) else what()
                raise AssertionError(f"not within {deadline_s:.0f} s: {text}\n{self.describe()}")
            self.tend()
            time.sleep(0.1)
        return answer

    def running(self) -> dict[str, int | None]:
        """Return the release that each device has active, by what is on its disk."""
        return {one.id: (one.active().get("release") or {}).get("sequence") for one in self.devices}

    def on_trial(self) -> list[str]:
        return [one.id for one in self.devices if one.active().get("trial")]

    def all_run(self, release: int, devices: Iterable[Device] | None = None) -> bool:
        """Return whether these devices, or all, have a release active and confirmed."""
        found, trials = self.running(), self.on_trial()
        return all(found[one.id] == release and one.id not in trials for one in devices or self.devices)

    def get(self, path: str) -> Any:
        """Return what the fleet server's API answers; None while it is not there."""
        with suppress(OSError), urllib.request.urlopen(f"{self.api}{path}", timeout=60) as answer:
            return json.loads(answer.read())
        return None

    def kill_broker(self) -> None:
        """Kill the broker without warning; its counts begin at 0 again."""
        self.counted.update(broker_counts(self.broker, MONITOR))
        self.broker.kill()

    def published(self) -> Published:
        """Return what the repository has."""
        return published(self.repo)

    def meter(self) -> dict[str, float]:
        """Return what was counted so far."""
        web, processes = self.server.total(), {"collector": self.collector, "controller": self.controller}
        found: dict[str, float] = {
            "repository_requests": web.requests,
            "repository_polls": web.polls,
            "repository_sent_bytes": web.sent,
            "repository_received_bytes": web.received,
        }
        for name, value in broker_counts(self.broker, MONITOR).items():
            if name != "clients/connected":
                found[f"broker_{name.replace('/', '_')}"] = value + self.counted.get(name, 0)
        for name, process in processes.items():
            if process is not None:
                found[f"{name}_cpu_s"] = cpu_s(process.pid)
        return found

    def describe(self) -> str:
        """Return what can explain that something did not happen."""
        lines = [
            f"{one.id}: {json.dumps(one.journal().get('last'))} {one.journal().get('reason')}" for one in self.devices
        ]
        logs = [self.folder / name for name in ("collector.log", "controller.log")]
        for log in logs:
            if log.exists():
                lines += [f"{log.name}: {line}" for line in log.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join([str(self.running()), *lines, *(one.tail(6) for one in self.devices[:6])])


MONITOR = ("monitor", "reads-counts-only")


def start_collector(folder: Path, repo: Path, broker: Mosquitto, port: int) -> Background:
    """Start the fleet's server."""
    return Background(
        folder / "collector.log",
        *("gallery_sync.cli", "--verbose", "fleet", "serve", "--database", folder / "fleet.sqlite"),
        *("--broker", f"mqtt://127.0.0.1:{broker.port}", "--account-file", folder / "fleet.env"),
        *("--repository", repo, "--listen", f"127.0.0.1:{port}"),
    )


def start_controller(folder: Path, repo: Path, api: str) -> Background:
    """Start what moves rollouts on."""
    return Background(
        folder / "controller.log",
        *("gallery_sync.cli", "--verbose", "rollout", "run", repo, "--fleet", api, "--every", "1s"),
    )


def fleet_broker(folder: Path, repo: Path, count: int, lines: tuple[str, ...] = ()) -> Mosquitto:
    """Enrol devices, and make a broker with their accounts and the access file of the enrolment; it is not started.

    Another account may read what the broker counts.
    """
    port, out = free_port(), folder / "enrolments"
    edge_sync(
        *("enrolment", "new", repo, "--url", "http://127.0.0.1:9", "--group", "lab", "-o", out),
        *("--broker", f"mqtt://127.0.0.1:{port}", "--count", count),
    )
    accounts, access = folder / "mosquitto.passwd", folder / "mosquitto.acl"
    accounts.write_bytes((out / "mosquitto.passwd").read_bytes() + password_file([MONITOR]))
    access.write_text((out / "mosquitto.acl").read_text() + f"\nuser {MONITOR[0]}\ntopic read $SYS/#\n")
    accounts.chmod(0o600)
    given = (f"password_file {accounts}", f"acl_file {access}", "sys_interval 1")
    return Mosquitto(folder / "broker", lines=(*given, *lines), port=port, anonymous=False)
