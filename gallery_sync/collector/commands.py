"""Sends commands to devices, and keeps who sent which.

Rules this module keeps:
1. A command is stored before it is sent, and then whether the broker has it. It is never sent later by itself: devices
   refuse old ones.
2. A command goes to a device that is known, on that device's own topic.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from pydantic import Field, ValidationError

from edge.errors import CommandError, PublishError, first_validation_error
from gallery_sync.collector import records
from gallery_sync.collector.database import Database
from gallery_sync.collector.messages import is_device_id
from gallery_sync.collector.queries import site_of
from gallery_sync.collector.writer import Writer
from gallery_sync.formats.fields import Document, canonical_json
from gallery_sync.formats.reports import LARGEST_REQUEST_BYTES, PREFIX, Request, device_topic
from gallery_sync.formats.rollouts import Person

RESTART_CAMERA = "restart_camera"  # `edge run` takes it itself
_LEVEL = re.compile(r"[^/+#\x00-\x1f\x7f]{1,120}")  # of a topic


class Order(Document):
    """A command that an operator requests."""

    kind = "command"

    verb: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
    arguments: Annotated[dict[Annotated[str, Field(max_length=120)], Any], Field(default_factory=dict, max_length=16)]
    by: Person


class UnknownDeviceError(CommandError):
    """No device with this id has reported."""


class NotSentError(CommandError):
    """The broker does not have the command."""


class Link(Protocol):
    """The connection to the broker, as commands use it."""

    def send(self, topic: str, payload: bytes) -> None:
        """Send a message; raises PublishError."""
        ...


@dataclass(frozen=True, slots=True)
class Commands:
    """Sends commands; from any thread."""

    database: Database
    writer: Writer
    link: Link
    prefix: str = PREFIX
    topic_root: str = "finesight"
    now: Callable[[], float] = time.time

    def send(self, device: str, order: Order) -> str:
        """Send a command; return its id.

        Raises:
            UnknownDeviceError: there is no such device.
            CommandError: the command cannot be sent to it.
            NotSentError: the broker does not have it.
            SyncError: the database cannot be used now.
        """
        request = Request(id=secrets.token_hex(8), by=order.by, at=self.now(), arguments=order.arguments)
        topic, payload = self._message(device, order.verb, request)
        if len(payload) > LARGEST_REQUEST_BYTES:
            raise CommandError(f"the command has {len(payload)} bytes; send at most {LARGEST_REQUEST_BYTES}")
        self.writer.call(lambda db: records.put_command(db, device, order.verb, request))
        try:
            self.link.send(topic, payload)
        except PublishError as error:
            reason = str(error)
            self.writer.call(lambda db: records.put_sent(db, request.id, reason))
            raise NotSentError(f"the command was not sent: {reason}; send it again") from error
        self.writer.call(lambda db: records.put_sent(db, request.id, "sent"))
        return request.id

    def _message(self, device: str, verb: str, request: Request) -> tuple[str, bytes]:
        with self.database.reading() as db:
            known, site = site_of(db, device) if is_device_id(device) else (False, None)
        if not known:
            raise UnknownDeviceError(f"no device {device[:80]!r} has reported; edge-sync devices lists those that did")
        if verb != RESTART_CAMERA:
            return device_topic(device, f"cmd/{verb}", self.prefix), canonical_json(request)
        if site is None or not _LEVEL.fullmatch(site):
            raise CommandError(f"device {device} did not report the site of its configuration; is `edge run` set up?")
        fields: Mapping[str, Any] = {**request.arguments, "id": request.id}
        return f"{self.topic_root}/{site}/{device}/cmd/{verb}", json.dumps(fields, separators=(",", ":")).encode()


def read_order(tree: Any) -> Order:
    """Read the command that an operator requests from JSON.

    Raises:
        CommandError: it is no command.
    """
    if isinstance(tree, dict) and (unknown := sorted(set(tree) - set(Order.model_fields))):
        raise CommandError(f"unknown key {unknown[0][:80]!r}; send verb, arguments and by")
    try:
        return Order.model_validate(tree)
    except ValidationError as error:
        raise CommandError(f"not a command: {first_validation_error(error)}") from error
