"""Simulated devices of a fleet: real connections to a broker, real requests to a repository, no recognition.

    python benchmarks/simulated_devices.py TASK.json     # one process of many devices; benchmarks/fleet_simulation.py
                                                         # starts some of them

What is real: each device has its MQTT connection and account, its will and its retained report (`Reported`), polls
metadata/timestamp.json over a connection of its own, and decides by `gallery_sync.device.choice.choose`. When the
timestamp changed, it asks for what a device asks for: the next root, the snapshot, the roles whose version changed,
the documents of the line that it does not have, and, of a release that it takes, bundle head, manifest and objects.

What is not: nothing is verified (the processor time of a device is in benchmarks/fleet_sync.py), proof and trial are
waits, and files that one process already parsed are not parsed again.

Rules this module keeps:
1. A device knows only what the repository and the broker gave it. What it is to suffer (a trial that fails, no power)
   is in its task.
2. Bytes and requests are counted by the server and the broker, not here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import resource
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gallery_sync.device.choice import Choice, choose  # noqa: E402
from gallery_sync.formats.documents import GalleryLog, Release, bundle_target, gallery_targets, release_target  # noqa: E402
from gallery_sync.formats.fields import object_path  # noqa: E402
from gallery_sync.formats.reports import (  # noqa: E402
    MOST_TRIES,
    Quarantined,
    Reported,
    Running,
    Try,
    device_topic,
    line_topic,
)
from gallery_sync.formats.rollouts import Plan, Rollouts, rollouts_target  # noqa: E402

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _PING, _DISCONNECT = 1, 2, 3, 4, 8, 12, 14


# MQTT 3.1.1, as much as a device needs


def _text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def _packet(kind: int, flags: int, body: bytes) -> bytes:
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = rest >> 7, rest & 127
        length.append(digit | (128 if rest else 0))
        if not rest:
            return bytes([kind << 4 | flags]) + bytes(length) + body


class Link(asyncio.Protocol):
    """One connection to the broker."""

    def __init__(self, hello: bytes, topics: list[str], on_message: Callable[[str, bytes], None]) -> None:
        self._hello, self._topics, self._on_message = hello, topics, on_message
        self._buffer = b""
        self._number = 0
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = transport  # type: ignore[assignment]
        self._write(self._hello)

    def data_received(self, data: bytes) -> None:
        """Take the packets that are complete."""
        self._buffer += data
        while (packet := self._next()) is not None:
            self._take(*packet)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was
        """Tell whoever waits."""
        for future in (self.ready, self.lost):
            if not future.done():
                future.set_result(None)

    @property
    def is_open(self) -> bool:
        """Whether messages reach the broker."""
        return self.ready.done() and not self.lost.done()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a retained message at QoS 1; nobody waits for the answer."""
        self._write(_packet(_PUBLISH, 0b0011, _text(topic) + struct.pack(">H", self._next_number()) + payload))

    def ping(self) -> None:
        """Tell the broker that the device is there."""
        self._write(_packet(_PING, 0, b""))

    def close(self, *, farewell: bool) -> None:
        """End the connection; without a farewell, the broker publishes the will."""
        if self._transport is not None:
            if farewell:
                self._write(_packet(_DISCONNECT, 0, b""))
                self._transport.close()
            else:
                self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _next_number(self) -> int:
        self._number = self._number % 65_535 + 1
        return self._number

    def _next(self) -> tuple[int, int, bytes] | None:
        length, shift, at = 0, 0, 1
        while True:
            if len(self._buffer) <= at:
                return None
            digit = self._buffer[at]
            length, shift, at = length | (digit & 127) << shift, shift + 7, at + 1
            if digit < 128:
                break
        if len(self._buffer) < at + length:
            return None
        first, body = self._buffer[0], self._buffer[at : at + length]
        self._buffer = self._buffer[at + length :]
        return first >> 4, first & 15, body

    def _take(self, kind: int, flags: int, body: bytes) -> None:
        if kind == _CONNACK:
            if body[1]:
                raise SystemExit(f"the broker refused a device: {body[1]}")
            topics = b"".join(_text(topic) + b"\1" for topic in self._topics)
            self._write(_packet(_SUBSCRIBE, 2, struct.pack(">H", self._next_number()) + topics))
            self.ready.set_result(None)
        elif kind == _PUBLISH:
            end = 2 + struct.unpack(">H", body[:2])[0]
            topic, qos = body[2:end].decode(), flags >> 1 & 3
            if qos:
                self._write(_packet(_PUBACK, 0, body[end : end + 2]))
            self._on_message(topic, body[end + 2 if qos else end :])


def hello(client_id: str, username: str, password: str, will_topic: str, keepalive_s: int) -> bytes:
    """Return CONNECT, with a retained will."""
    flags = 0b1110_1110  # username, password, will: retained at QoS 1, clean session
    body = _text("MQTT") + bytes([4, flags]) + struct.pack(">H", keepalive_s)
    return _packet(_CONNECT, 0, body + b"".join(map(_text, (client_id, will_topic, b"offline", username, password))))


# the repository


class Web:
    """The server of the repository, over one connection that stays open for as long as one look at it takes."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._open: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> bytes:
        """Return a file, asked for with the words of gallery_sync.transport.

        Raises:
            FileNotFoundError: the server has no such file.
            OSError: the server is not there.
        """
        if self._open is None:
            self._open = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._open
        try:
            writer.write(
                f"GET /{path} HTTP/1.1\r\nAccept-Encoding: identity\r\nUser-Agent: finesight\r\n"
                f"Host: {self._host}:{self._port}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")]
            body = await reader.readexactly(int(lengths[0].partition(b":")[2]))
        except (asyncio.IncompleteReadError, IndexError) as error:
            self.close()
            raise ConnectionResetError(path) from error
        except OSError:
            self.close()
            raise
        if b"\r\nConnection: close\r\n" in head:
            self.close()
        if b" 200 " not in head[:20]:
            raise FileNotFoundError(path)
        return body

    def close(self) -> None:
        """End the connection."""
        if self._open is not None:
            self._open[1].close()
            self._open = None


@lru_cache(maxsize=512)
def _json(data: bytes) -> Any:
    return json.loads(data)


@lru_cache(maxsize=256)
def _release(data: bytes) -> Release:
    return Release.model_validate_json(data)


@lru_cache(maxsize=256)
def _rollouts(data: bytes) -> Rollouts:
    return Rollouts.model_validate_json(data)


@lru_cache(maxsize=16)
def _ranks(salt: str, ids: tuple[str, ...]) -> dict[str, int]:
    """Return the place of each device in the order of a plan's buckets, so that each wave has its share of failures."""
    plan = Plan.model_construct(salt=salt)
    return {one: rank for rank, one in enumerate(sorted(ids, key=plan.bucket))}


class Repository:
    """What one device has read of the repository. It asks as gallery_sync.trust.client does, in that order."""

    def __init__(self, web: Web, base: str, line: str) -> None:
        self._web, self._base, self._line = web, base, line
        self._timestamp = b""
        self._newest: dict[str, int] = {}  # version of each role, by the newest snapshot
        self._roles: dict[str, tuple[int, dict[str, Any]]] = {}  # version and targets of each role that was read
        self._root = 1
        self._files: dict[str, bytes] = {}  # by hash, that the device has
        self.revision = 0  # of the timestamp

    async def check(self) -> None:
        """Ask for the timestamp, and for what changed."""
        if self._timestamp and await self._get("metadata/timestamp.json") == self._timestamp:
            return
        try:
            await self._get(f"metadata/{self._root + 1}.root.json")
            self._root += 1
        except FileNotFoundError:
            pass
        data = await self._get("metadata/timestamp.json")
        signed = _json(data)["signed"]
        snapshot = await self._get(f"metadata/{signed['meta']['snapshot.json']['version']}.snapshot.json")
        self._newest = {name[:-5]: one["version"] for name, one in _json(snapshot)["signed"]["meta"].items()}
        await self._targets_of("targets")
        self._timestamp, self.revision = data, signed["version"]

    async def _targets_of(self, role: str) -> dict[str, Any]:
        version = self._newest.get(role, 0)
        if not version:
            return {}
        if role not in self._roles or self._roles[role][0] != version:
            found = _json(await self._get(f"metadata/{version}.{role}.json"))
            self._roles[role] = version, found["signed"]["targets"]
        return self._roles[role][1]

    async def document(self, path: str) -> bytes | None:
        """Return a signed document; None: nobody signed one. One that the device has is not asked for."""
        target = (await self._targets_of(path.partition("/")[0])).get(path)
        if target is None:
            return None
        folder, _, name = path.rpartition("/")
        sha256 = target["hashes"]["sha256"]
        return await self._file(sha256, f"targets/{folder}/{sha256}.{name}")

    async def fetch(self, release: Release) -> None:
        """Ask for all of a release that the device does not have."""
        head = _json(await self.document(bundle_target(self._line, release.bundle_id)) or b"{}")
        manifest = _json(await self._object(head["manifest"]["sha256"]))
        categories = [one for embedder in manifest["embedders"] for one in embedder["categories"]]
        for path in gallery_targets(self._line, categories).values():
            log = GalleryLog.model_validate_json(await self.document(path) or b"")
            for space in log.spaces:
                await self._object(space.bases[-1].object.sha256)
        for file in manifest["files"]:
            await self._object(file["sha256"])

    def close(self) -> None:
        """End the connection: what was looked for is read."""
        self._web.close()

    async def _object(self, sha256: str) -> bytes:
        return await self._file(sha256, object_path(sha256))

    async def _file(self, sha256: str, path: str) -> bytes:
        if sha256 not in self._files:
            self._files[sha256] = await self._get(path)
        return self._files[sha256]

    async def _get(self, path: str) -> bytes:
        return await self._web.get(f"{self._base}/{path}")


# the devices


@dataclass(frozen=True)
class Task:
    """What all devices of one process are given."""

    devices: list[dict[str, Any]]  # id, password, labels, and what it is to suffer
    everyone: tuple[str, ...]  # ids of the whole fleet
    repository: tuple[str, int]
    broker: tuple[str, int]
    line: str
    seed: int
    start_over_s: float  # all devices come up within this time
    poll_s: float
    report_s: float  # where nothing changes
    proof_s: float
    trial_s: float
    spread_s: float  # after the doorbell
    keepalive_s: int
    fails: dict[str, int] = field(default_factory=dict)  # bundle id: every so many-th device in bucket order fails it
    control: str = ""  # a file: {"off": [ids], "silent": [ids]}, read when it changes


@dataclass
class Known:
    """What a device has on its disk."""

    running: Release | None = None
    trial: str | None = None
    tries: list[Try] = field(default_factory=list)
    held: dict[int, str] = field(default_factory=dict)
    revision: int = 0  # of its reports


class SimulatedDevice:
    """One device."""

    def __init__(self, task: Task, about: dict[str, Any], chance: random.Random) -> None:
        self._task, self._chance = task, chance
        self.id: str = about["id"]
        self._labels: dict[str, str] = about["labels"]
        self._password: str = about["password"]
        self._repository = Repository(Web(*task.repository), self.id, task.line)
        self._known = Known()
        self._epoch = hashlib.sha256(self.id.encode()).hexdigest()[:16]
        self._choice = Choice(None)
        self._state = "idle"
        self._link: Link | None = None
        self._woken = asyncio.Event()
        self._heard = 0
        self.is_on = True
        self.is_silent = False  # its trial finds it without a network, until that comes back

    async def live(self) -> None:
        """Run for ever."""
        await asyncio.sleep(self._chance.random() * self._task.start_over_s)
        await asyncio.gather(self._stay_connected(), self._work(), self._report_now_and_then())

    async def _stay_connected(self) -> None:
        waited_s = 1.0
        while True:
            if not self._has_network():
                await asyncio.sleep(0.5)
                continue
            try:
                await self._connect()
            except OSError:
                await asyncio.sleep(waited_s * (0.5 + self._chance.random()))
                waited_s = min(60.0, waited_s * 2.0)
                continue
            waited_s = 1.0
            await self._hold()

    async def _connect(self) -> None:
        topics = [
            line_topic(self._task.line),
            device_topic(self.id, "desired"),
            device_topic(self.id, "cmd/+"),
        ]
        will = device_topic(self.id, "available")
        say_hello = hello(f"finesight-{self.id}-agent", self.id, self._password, will, self._task.keepalive_s)
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(lambda: Link(say_hello, topics, self._hear), *self._task.broker)
        await link.ready
        if not link.is_open:
            raise ConnectionResetError
        link.publish(will, b"online")
        self._link = link
        self._report()

    async def _hold(self) -> None:
        link = self._link
        assert link is not None
        last = time.monotonic()
        while link.is_open and self._has_network():
            await asyncio.wait([link.lost], timeout=1.0)
            if time.monotonic() - last >= self._task.keepalive_s * 0.8:
                link.ping()
                last = time.monotonic()
        link.close(farewell=False)
        self._link = None

    def _has_network(self) -> bool:
        return self.is_on and not (self.is_silent and self._state == "trial")

    def _hear(self, topic: str, payload: bytes) -> None:
        if topic == line_topic(self._task.line) and payload:
            revision = json.loads(payload)["revision"]
            if revision > max(self._heard, self._repository.revision):
                self._heard = revision
                self._woken.set()

    async def _work(self) -> None:
        while True:
            if self.is_on:
                with suppress(OSError):  # the repository is not there: later
                    await self._look()
                self._repository.close()
            wait_s = self._task.poll_s * (0.8 + 0.4 * self._chance.random())
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), wait_s)
                self._woken.clear()
                await asyncio.sleep(self._chance.random() * self._task.spread_s)

    async def _look(self) -> None:
        await self._repository.check()
        base_json = await self._repository.document(release_target(self._task.line))
        rollouts_json = await self._repository.document(rollouts_target(self._task.line))
        base = _release(base_json) if base_json else None
        rollouts = _rollouts(rollouts_json) if rollouts_json else None
        running = self._known.running
        number, now = running.sequence if running else 0, datetime.now(timezone.utc)
        before, self._choice = self._choice, choose(base, rollouts, self._labels, self.id, number, now)
        wanted = self._choice.release
        if wanted is None or (running and wanted.sequence == running.sequence) or wanted.sequence in self._known.held:
            if self._choice.reason != before.reason:
                self._report()
            return
        await self._take(wanted, rollouts)

    async def _take(self, wanted: Release, rollouts: Rollouts | None) -> None:
        running, task, known = self._known.running, self._task, self._known
        if running and (running.bundle_id, running.gallery_sequence) == (wanted.bundle_id, wanted.gallery_sequence):
            self._end(wanted, "confirmed", None)  # its pair serves already
            return
        self._turn_to("fetch")
        await self._repository.fetch(wanted)
        self._turn_to("verify", "stage", "prove")
        await asyncio.sleep(task.proof_s * (0.5 + self._chance.random()))
        self._turn_to("armed", "switch")
        known.running, known.trial = wanted, f"{self._chance.getrandbits(64):016x}"
        self._turn_to("trial")
        await asyncio.sleep(task.trial_s / 2)
        self._turn_to("trial")
        await asyncio.sleep(task.trial_s / 2)
        while not self._has_network():  # noqa: ASYNC110 - it was cut off in the middle of its trial
            await asyncio.sleep(1.0)
        trial = known.trial
        if self._fails(wanted, rollouts):
            known.running = running
            self._end(wanted, "rolled back", trial)
        else:
            self._turn_to("confirm")
            self._end(wanted, "confirmed", trial)

    def _turn_to(self, *states: str) -> None:
        """Go through states; each change is a report, as a device sends it."""
        for state in states:
            self._state = state
            self._report()

    def _fails(self, wanted: Release, rollouts: Rollouts | None) -> bool:
        every, plan = self._task.fails.get(wanted.bundle_id), rollouts.plan if rollouts else None
        if every is None or plan is None or plan.release.sequence != wanted.sequence:
            return False
        return _ranks(plan.salt, self._task.everyone)[self.id] % every == every // 2

    def _end(self, release: Release, outcome: Any, trial: str | None) -> None:
        known = self._known
        plan = self._choice.plan
        reason = None
        if outcome == "confirmed":
            known.running = release
        else:
            reason = "61 frames failed, 75.0%; 0.0% before"
            known.held[release.sequence] = reason
        known.trial, self._state = None, "idle"
        ended = Try(
            release=release.sequence,
            bundle_id=release.bundle_id,
            gallery_sequence=release.gallery_sequence,
            outcome=outcome,
            trial=trial,
            plan=plan.id if plan else None,
            reason=reason,
            at=time.time(),
        )
        known.tries = [ended, *known.tries][:MOST_TRIES]
        self._report()

    async def _report_now_and_then(self) -> None:
        await asyncio.sleep(self._chance.random() * self._task.report_s)
        while True:
            self._report()
            await asyncio.sleep(self._task.report_s)

    def _report(self) -> None:
        if self._link is None or not self._link.is_open:
            return
        self._known.revision += 1
        self._link.publish(device_topic(self.id, "reported"), self._reported())

    def _reported(self) -> bytes:
        known, choice = self._known, self._choice
        release, target = known.running, choice.release
        is_busy = self._state != "idle"
        running = release and Running(
            line=self._task.line,
            release=release.sequence,
            bundle_id=release.bundle_id,
            gallery_sequence=release.gallery_sequence,
            gallery="06a185b8941d588a",
            slot="a",
            trial=known.trial,
        )
        report = Reported(
            device=self.id,
            line=self._task.line,
            labels=self._labels,
            site=self._labels.get("site"),
            epoch=self._epoch,
            revision=known.revision,
            at=time.time(),
            state=self._state,
            since=time.time(),
            reason=choice.reason,
            target=target.sequence if target and is_busy else None,
            plan=choice.plan.id if choice.plan and is_busy else None,
            running=running,
            serves=True,
            tries=known.tries,
            quarantine=[Quarantined(release=number, reason=why) for number, why in known.held.items()],
            engine="onnxruntime fp32",
            cameras={"shelf": "online"},
            fps=7.9,
            versions={"agent": "0.1.0", "edge": "0.1.0"},
            counters={"doorbells": 2, "mailbox_connections": 1, 'reports{result="sent"}': known.revision},
            expires_at=time.time() + 7 * 86400,
        )
        return report.model_dump_json(by_alias=True, exclude_none=True).encode()


async def _follow(control: str, devices: dict[str, SimulatedDevice]) -> None:
    """Do to devices what the file says, whenever it changes."""
    seen = b""
    while True:
        with open(control, "rb") as file:  # noqa: ASYNC230, PTH123 - small, and on this machine
            data = file.read()
        if data != seen:
            seen, told = data, json.loads(data)
            off, silent = set(told.get("off", ())), set(told.get("silent", ()))
            for one in devices.values():
                one.is_on, one.is_silent = one.id not in off, one.id in silent
        await asyncio.sleep(0.5)


async def run(task: Task) -> None:
    """Run the devices of a task until the process ends."""
    devices = {one["id"]: SimulatedDevice(task, one, random.Random(f"{task.seed} {one['id']}")) for one in task.devices}
    await asyncio.gather(_follow(task.control, devices), *(device.live() for device in devices.values()))


def main() -> None:
    """Run the devices that a file names."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    given = json.loads(Path(sys.argv[1]).read_bytes())
    given["everyone"] = tuple(given["everyone"])
    asyncio.run(run(Task(**given)))


if __name__ == "__main__":
    main()
