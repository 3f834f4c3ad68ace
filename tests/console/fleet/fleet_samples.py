"""A fleet for tests of the console: the real fleet server without a broker, and a repository with a held release."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from console.access.tokens import add_token
from console.access.users import add_user
from edge.telemetry.counters import Counters
from gallery_sync.collector.commands import Commands
from gallery_sync.collector.database import Database
from gallery_sync.collector.inflow import Inflow
from gallery_sync.collector.messages import Arrived
from gallery_sync.collector.server import FleetServer, Listen, Parts
from gallery_sync.collector.writer import Writer
from gallery_sync.formats.documents import Release
from gallery_sync.rollouts.plans import read_draft
from tests.console_samples import Client
from tests.waiting import until

TOKEN = "the-fleet-server-knows-me"
EPOCH = "0123456789abcdef"


@dataclass
class FakeBroker:
    """A connection to a broker: `on_send` is what devices do with a command."""

    sent: list[tuple[str, Any]] = field(default_factory=list)
    on_send: Callable[[str, Any], None] = lambda *_: None
    problem: str | None = None
    connected: bool = True

    def send(self, topic: str, payload: bytes) -> None:
        self.sent.append((topic, json.loads(payload)))
        self.on_send(topic, json.loads(payload))


class SmallFleet:
    """A fleet server whose devices are told by a test."""

    def __init__(self, folder: Path, token: str | None = TOKEN) -> None:
        self.counters, self.broker = Counters(), FakeBroker()
        self.database = Database(folder / "fleet.sqlite")
        self.inflow = Inflow(self.counters)
        self.writer = Writer(self.database, self.inflow, self.counters, keep_s=86_400.0)
        link: Any = self.broker
        commands = Commands(self.database, self.writer, link)
        self.server = FleetServer(
            Parts(self.database, self.inflow, link, commands, self.counters), Listen(port=0, token=token)
        )
        self.url = self.server.url
        self._revisions: dict[str, int] = {}

    def report(self, device: str, *, ago_s: float = 1.0, **fields: Any) -> None:
        """Let a device report; it is stored before this returns."""
        revision = self._revisions[device] = self._revisions.get(device, 0) + 1
        content = report(device, revision, **fields)
        before = self.counters.total("reports")
        self.inflow.put(Arrived(device, "reported", json.dumps(content).encode(), time.time() - ago_s))
        until(lambda: self.counters.total("reports") > before, "the report is stored")

    def report_all(self, devices: Iterable[str]) -> None:
        """Let many devices report the usual."""
        names, before = list(devices), self.counters.total("reports")
        for name in names:
            self._revisions[name] = 1
            self.inflow.put(Arrived(name, "reported", json.dumps(report(name)).encode(), time.time()))
        until(lambda: self.counters.total("reports") >= before + len(names), "all reports are stored")

    def answer(self, device: str, command: str, state: str, text: str = "", verb: str = "sync") -> None:
        """Let a device answer a command."""
        fields = {"schema": "finesight.answer/1", "device": device, "id": command, "verb": verb, "by": "x"}
        content = {**fields, "state": state, "text": text, "at": time.time()}
        self.inflow.put(Arrived(device, "answer", json.dumps(content).encode(), time.time()))


def report(device: str, revision: int = 1, **fields: Any) -> dict[str, Any]:
    """A report as JSON values."""
    usual = {
        "schema": "finesight.reported/1",
        "device": device,
        "line": "demo",
        "labels": {"site": "berlin", "group": "lab"},
        "site": "berlin",
        "epoch": EPOCH,
        "revision": revision,
        "at": time.time(),
        "state": "idle",
        "running": {"line": "demo", "release": 1, "bundle_id": "one", "gallery_sequence": 3},
        "engine": "onnxruntime fp32",
        "cameras": {"shelf": "online", "door": "offline"},
        "fps": 9.97,
        "serves": True,
        "versions": {"finesight": "0.1.0"},
        "allowed": ["sync", "prove", "rollback"],
    }
    return usual | fields


def took(release: Release, outcome: str = "confirmed") -> dict[str, Any]:
    """Fields of a report of a device that tried a release."""
    pair = {"release": release.sequence, "bundle_id": release.bundle_id, "gallery_sequence": release.gallery_sequence}
    one_try = {**pair, "outcome": outcome, "trial": "t1", "at": time.time(), "reason": "knows nothing"}
    return {"tries": [one_try], **({"running": {"line": "demo", **pair}} if outcome == "confirmed" else {})}


@contextmanager
def small_fleet(folder: Path, token: str | None = TOKEN) -> Iterator[SmallFleet]:
    """Run a fleet server on loopback."""
    folder.mkdir(exist_ok=True)
    fleet = SmallFleet(folder, token)
    writing = threading.Thread(target=fleet.writer.run)
    writing.start()
    try:
        with fleet.server:
            yield fleet
    finally:
        fleet.writer.stop()
        writing.join()
        fleet.database.close()


@contextmanager
def fake_server(answers: Mapping[str, Any], asked: list[str] | None = None) -> Iterator[str]:
    """Run a server that answers each path with the same, whatever it is; bytes as they are, others as JSON."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if asked is not None:
                asked.append(path)
            found = answers.get(path, answers.get("*", {}))
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


PEOPLE = {"ada": "admin", "grace": "operator", "vic": "viewer"}


def people(client: Client) -> dict[str, Client]:
    """Add an admin, an operator and a viewer to a console; return a client of each."""
    found = {}
    for name, role in PEOPLE.items():
        with client.services.database.write() as rows:
            user = add_user(rows, time.time(), "test", name, role, "no password")
            token = add_token(rows, time.time(), "test", user, "tests", role, 1)
        found[name] = replace(client, token=token)
    return found


def digest_of(repo: Path, plan: str) -> str:
    """Return the digest of a draft of a plan."""
    return read_draft(repo, plan).digest()
