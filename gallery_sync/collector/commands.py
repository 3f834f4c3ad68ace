"""Sends commands to devices, keeps those of devices that are off, and remembers who sent which.

Rules this module keeps:
1. A command is stored before it is sent, and then whether the broker has it.
2. A command goes to a device that is known, on that device's own topic.
3. A command whose device is off, or does not answer, is kept until its time is over. It is sent again, with the same
   id, each time the device connects and every ten minutes while it is connected, until the device's last answer is
   there: devices carry no id out twice, and say again how it ended.
4. `restart_camera` is never kept: `edge run`, which takes it, does not remember ids, and later nobody wants it.
"""

from __future__ import annotations

import json
import logging
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

from pydantic import Field, ValidationError

from edge.errors import CommandError, FinesightError, PublishError, first_validation_error
from edge.telemetry.counters import Counters
from edge.types import Counts
from gallery_sync.collector import records
from gallery_sync.collector.database import Database
from gallery_sync.collector.messages import is_device_id
from gallery_sync.collector.queries import contact_of
from gallery_sync.collector.writer import Writer
from gallery_sync.formats.fields import Document, canonical_json
from gallery_sync.formats.reports import LARGEST_REQUEST_BYTES, LONGEST_KEEP_S, PREFIX, Request, device_topic
from gallery_sync.formats.rollouts import Person

log = logging.getLogger(__name__)

RESTART_CAMERA = "restart_camera"  # `edge run` takes it itself
KEEP_S = 86_400.0
_EXPIRE_S, _AGAIN_S, _STEP_S = 10.0, 600.0, 1.0
_LEVEL = re.compile(r"[^/+#\x00-\x1f\x7f]{1,120}")  # of a topic


class Order(Document):
    """A command that an operator requests."""

    kind = "command"

    verb: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    arguments: Annotated[dict[Annotated[str, Field(max_length=120)], Any], Field(default_factory=dict, max_length=16)]
    by: Person
    keep_s: Annotated[float, Field(ge=0.0, le=LONGEST_KEEP_S, allow_inf_nan=False)] = KEEP_S  # for a device that is off


class UnknownDeviceError(CommandError):
    """No device with this id has reported."""


class NotSentError(CommandError):
    """The broker does not have the command, and it is not kept."""


class Link(Protocol):
    """The connection to the broker, as commands use it."""

    def send(self, topic: str, payload: bytes) -> None:
        """Send a message; raises PublishError."""
        ...


@dataclass(frozen=True, slots=True)
class Ordered:
    """A command that was stored."""

    id: str
    is_sent: bool  # the broker has it; otherwise it waits for its device
    until: float | None  # Unix seconds: it is kept so long; None: it is not


@dataclass(frozen=True, slots=True)
class Commands:
    """Sends commands, from any thread; `run` is the target of the thread that sends those that were kept."""

    database: Database
    writer: Writer
    link: Link
    prefix: str = PREFIX
    topic_root: str = "finesight"
    now: Callable[[], float] = time.time
    counters: Counts = field(default_factory=Counters)
    _online: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)  # devices that connected
    _waited_for: set[str] = field(default_factory=set)  # devices for which commands are or were kept
    _failed: set[str] = field(default_factory=set)  # devices to try again: the database failed meanwhile
    _stopped: threading.Event = field(default_factory=threading.Event)

    def send(self, device: str, order: Order) -> Ordered:
        """Send a command, or keep it for its device.

        Raises:
            UnknownDeviceError: there is no such device.
            CommandError: the command cannot be sent to it.
            NotSentError: the broker does not have it, and it is not kept.
            SyncError: the database cannot be used now.
        """
        now, keep_s = self.now(), 0.0 if order.verb == RESTART_CAMERA else order.keep_s
        until = now + keep_s if keep_s else None
        request = Request(id=secrets.token_hex(8), by=order.by, at=now, until=until, arguments=order.arguments)
        topic, payload = self._message(device, order.verb, request)
        if len(payload) > LARGEST_REQUEST_BYTES:
            raise CommandError(f"the command has {len(payload)} bytes; send at most {LARGEST_REQUEST_BYTES}")
        if until is not None:
            self._waited_for.add(device)
        if not self.writer.call(lambda db: records.put_command(db, device, order.verb, request)):
            raise CommandError(
                f"{records.MOST_KEPT} commands wait for device {device} already, or for its answers; withdraw some "
                "(edge-sync commands lists them), or do not keep this one (--keep 0s)"
            )
        if until is not None and self._is_off(device):  # read after the command is stored: it may connect meanwhile
            return Ordered(request.id, is_sent=False, until=until)
        return Ordered(request.id, self._send(request, topic, payload), until)

    def _send(self, request: Request, topic: str, payload: bytes) -> bool:
        """Send a stored command; return False if it is kept because the broker does not have it."""
        before: str | None = None
        if request.until is not None:  # stored first, so that nobody withdraws what is on its way
            is_kept, before = self.writer.call(lambda db: records.claim(db, request.id))
            if not is_kept:
                return True  # withdrawn or answered meanwhile
        try:
            self.link.send(topic, payload)
        except PublishError as error:
            reason = str(error)
            if before != "sent":  # the broker never had it
                self.writer.call(lambda db: records.put_sent(db, request.id, reason))
            if request.until is None:
                raise NotSentError(f"the command was not sent: {reason}; send it again") from error
            return False
        if request.until is None:
            self.writer.call(lambda db: records.put_sent(db, request.id, "sent"))
        return True

    def withdraw(self, command: str, by: str) -> bool:
        """Keep a command no longer; return False if it was sent already, or is not kept.

        Raises:
            SyncError: the database cannot be used now.
        """
        return self.writer.call(lambda db: records.withdraw(db, command, by))

    def on_online(self, device: str) -> None:
        """Have `run` send a device that connected what is kept for it; return at once."""
        if device in self._waited_for:
            self._online.put(device)

    def remember_kept(self) -> None:
        """Read for which devices an earlier process kept commands; before the connection, which tells who is online.

        Raises:
            SyncError: the database cannot be used now.
        """
        with self.database.reading() as db:
            self._waited_for.update(records.devices_with_kept(db))

    def run(self) -> None:
        """Send what is kept to devices that connect or do not answer, and let it expire, until `stop`."""
        expire_at, again_at = 0.0, time.monotonic() + _AGAIN_S
        while not self._stopped.is_set():
            self.step(_STEP_S)
            now = time.monotonic()
            if now >= expire_at:
                expire_at = now + _EXPIRE_S
                self.expire()
                self.try_again()
            if now >= again_at:
                again_at = now + _AGAIN_S
                self.send_again()

    def stop(self) -> None:
        """Make `run` return."""
        self._stopped.set()
        self._online.put("")

    def step(self, wait_s: float) -> None:
        """Wait for a device that connects, and send what is kept for it."""
        try:
            device = self._online.get(timeout=wait_s) if wait_s else self._online.get_nowait()
        except queue.Empty:
            return
        try:
            self._deliver(device)
        except FinesightError as error:
            self.counters.add("command_failures")
            self._failed.add(device)
            log.warning("device %s: a kept command was not sent, it waits on: %s", device, error)

    def expire(self) -> None:
        """Let go what was kept for too long."""
        now = self.now()
        try:
            count = self.writer.call(lambda db: records.drop_expired(db, now))
        except FinesightError as error:
            log.warning("cannot look for commands that expired: %s", error)
            return
        if count:
            self.counters.add("commands_expired", count)
            log.warning("%d commands expired before their devices connected", count)

    def try_again(self) -> None:
        """Have `run` send what is kept to devices for which that failed, such as on a full disk."""
        while self._failed:
            self._online.put(self._failed.pop())

    def send_again(self) -> None:
        """Have `run` send what is kept to connected devices that have not answered for a while."""
        try:
            with self.database.reading() as db:
                silent = records.devices_without_answer(db, self.now() - _AGAIN_S)
        except FinesightError as error:
            log.warning("cannot look for commands without an answer: %s", error)
            return
        for device in silent:
            self._online.put(device)

    def _deliver(self, device: str) -> None:
        with self.database.reading() as db:
            kept = records.kept_commands(db, device, self.now())
        for verb, request in kept:
            topic, payload = self._message(device, verb, request)
            if not self._send(request, topic, payload):
                return  # the connection is gone; the device's next one, or the server's, begins again
            self.counters.add("commands_delivered")

    def _is_off(self, device: str) -> bool:
        with self.database.reading() as db:
            return contact_of(db, device)[1] is False

    def _message(self, device: str, verb: str, request: Request) -> tuple[str, bytes]:
        """Return the topic and payload of a command to a device."""
        with self.database.reading() as db:
            known, _, site = contact_of(db, device) if is_device_id(device) else (False, None, None)
        if not known:
            raise UnknownDeviceError(f"no device {device[:80]!r} has reported; edge-sync devices lists those that did")
        if verb != RESTART_CAMERA:
            return device_topic(device, f"cmd/{verb}", self.prefix), canonical_json(request)
        if site is None or not _LEVEL.fullmatch(site):
            raise CommandError(f"device {device} did not report the site of its configuration; is `edge run` set up?")
        fields: Mapping[str, Any] = {**request.arguments, "id": request.id}
        topic = f"{self.topic_root}/{site}/{device}/cmd/{verb}"
        return topic, json.dumps(fields, separators=(",", ":")).encode()


def read_order(tree: Any) -> Order:
    """Read the command that an operator requests from JSON.

    Raises:
        CommandError: it is no command.
    """
    if isinstance(tree, dict) and (unknown := sorted(set(tree) - set(Order.model_fields))):
        raise CommandError(f"unknown key {unknown[0][:80]!r}; send verb, arguments, by and keep_s")
    try:
        return Order.model_validate(tree)
    except ValidationError as error:
        raise CommandError(f"not a command: {first_validation_error(error)}") from error
