"""A fleet's server without a broker: reports, a database, a writer without a thread, a broker in memory."""

from __future__ import annotations

import contextlib
import http.client
import json
from pathlib import Path

from edge.errors import PublishError
from edge.telemetry.counters import Counters
from gallery_sync.collector.commands import Commands
from gallery_sync.collector.database import Database
from gallery_sync.collector.inbox import Inbox
from gallery_sync.collector.inflow import Inflow
from gallery_sync.collector.messages import Arrived
from gallery_sync.collector.queries import DeviceQuery, find_device, find_devices
from gallery_sync.collector.writer import Writer
from gallery_sync.formats.documents import Release
from gallery_sync.formats.reports import Reported
from gallery_sync.formats.rollouts import Plan, Wave

NOW = 1_800_000_000.0
EPOCH = "0123456789abcdef"


def report(device="cam-1", revision=1, **fields) -> dict:
    """A report as JSON values."""
    running = {"line": "shop", "release": 3, "bundle_id": "b3", "gallery_sequence": 2}
    usual = {
        "schema": "finesight.reported/1",
        "device": device,
        "line": "shop",
        "epoch": EPOCH,
        "revision": revision,
        "at": NOW - 5,
        "state": "idle",
        "running": running,
        "labels": {"site": "berlin", "group": "lab"},
    }
    return usual | fields


def a_try(release=3, outcome="confirmed", at=NOW - 100, **fields) -> dict:
    return {"release": release, "bundle_id": f"b{release}", "outcome": outcome, "at": at, **fields}


def message(fields: dict, kind="reported", *, at=NOW, retained=False) -> Arrived:
    return Arrived(fields["device"], kind, json.dumps(fields).encode(), at, retained)


def answer(device="cam-1", command="c1", state="done", **fields) -> dict:
    usual = {"schema": "finesight.answer/1", "device": device, "id": command, "verb": "sync", "by": "ann"}
    return {**usual, "state": state, "at": NOW, **fields}


def a_plan(**fields) -> Plan:
    release = Release(line="shop", sequence=4, created_at="", bundle_id="b4", bundle_head="0" * 64, gallery_sequence=2)
    usual = {
        "id": "p1",
        "release": release,
        "salt": "0" * 16,
        "waves": [Wave(buckets=10_000)],
        "open_waves": 1,
        "planned_by": "ann",
        "planned_at": "",
        "approved_by": "ann",
        "approved_at": "",
        "max_unavailable": 1,
    }
    return Plan(**(usual | fields))


class FakeLink:
    """A connection to a broker: keeps what is sent, or has none."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict]] = []
        self.retained: dict[str, bytes] = {}
        self.problem: str | None = None
        self.reconnects = 0

    @property
    def connected(self) -> bool:
        return self.problem is None

    def send(self, topic: str, payload: bytes) -> None:
        if self.problem is not None:
            raise PublishError(f"broker: {self.problem}")
        self.sent.append((topic, json.loads(payload)))

    def retain(self, topic: str, payload: bytes) -> None:
        self.retained[topic] = payload

    def reconnect(self) -> None:
        self.reconnects += 1


class Desk:
    """The parts of a server without threads: a test makes each step."""

    def __init__(self, folder: Path) -> None:
        self.now = NOW
        self.counters, self.link = Counters(), FakeLink()
        self.database = Database(folder / "fleet.sqlite")
        self.inflow = Inflow(self.counters, longest_wait_s=0.0, clock=lambda: self.now)
        self.writer = Writer(
            *(self.database, self.inflow, self.counters),
            keep_s=86_400.0,
            on_reset=self.link.reconnect,
            now=lambda: self.now,
            sleep=lambda _: None,
        )
        self.commands = Commands(self.database, self.writer, self.link, now=lambda: self.now, counters=self.counters)
        self.writer.on_online = self.commands.on_online
        self.inbox = Inbox(folder / "inbox")

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    def take(self, *messages: Arrived) -> None:
        """Store messages."""
        for one in messages:
            self.inflow.put(one)
            self.writer.step(0.0)

    def rows(self, **query) -> list[dict]:
        with self.database.reading() as db:
            return [json.loads(row) for row in find_devices(db, DeviceQuery(**query), self.now).rows]

    def device(self, device="cam-1"):
        with self.database.reading() as db:
            return find_device(db, device)

    def count(self, name: str, **labels: str) -> int:
        return self.counters.total(name, **labels)


def ask(port, method, path, body=None, **headers):
    """Status, JSON (or text) and headers of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        data = response.read()
    is_json = response.headers.get("content-type", "").startswith("application/json")
    return response.status, json.loads(data) if is_json and data else data.decode(), response.headers


def as_report(fields: dict) -> Reported:
    return Reported.model_validate(fields)
