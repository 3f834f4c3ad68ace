"""All that is known of one device: its history, the commands that were sent, and what it answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from console.fleet.devices import DeviceView, view
from console.fleet.reader import FleetReader
from console.fleet.texts import as_object, clean, is_count, moment
from edge.errors import ConsoleError
from gallery_sync.collector.messages import is_device_id
from gallery_sync.fleet_client.client import parse_rows

_MOST_ENTRIES = 50  # of history, commands and answers


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the history of a device."""

    at: float | None
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class SentCommand:
    """A command that was sent, and what became of it."""

    id: str
    verb: str
    arguments: str
    by: str
    at: float | None
    state: str  # waiting, sent, not sent, expired, accepted, done, refused or failed
    text: str
    is_waiting: bool  # for its last answer

    @property
    def kind(self) -> str:
        """How its badge looks."""
        return {"done": "good", "failed": "bad", "refused": "bad", "not sent": "bad", "expired": "bad"}.get(
            self.state, "warn"
        )


@dataclass(frozen=True, slots=True)
class DeviceDetails:
    """All that is known of a device."""

    device: DeviceView
    history: tuple[Entry, ...]
    commands: tuple[SentCommand, ...]
    turn: int | None  # the release to which it may switch


def read_device(reader: FleetReader, device: str, now_s: float) -> DeviceDetails:
    """Return all that is known of a device.

    Raises:
        ConsoleError: there is none, its report cannot be read, or see FleetReader.
    """
    if not is_device_id(device):
        raise ConsoleError("not_found", "ids of devices have letters, digits, '.', '_' and '-'")
    found = reader.device(device)
    rows = parse_rows([found.get("row")]).rows
    if not rows or rows[0].device != device:
        raise ConsoleError(
            "invalid", f"what the fleet server tells of {device} cannot be read; update the device or the server"
        )
    answers = _lists(found.get("answers"))
    commands = tuple(command_view(one, answers) for one in _lists(found.get("commands")))
    history = tuple(_entry(one) for one in _lists(found.get("history")))
    release = as_object(found.get("turn")).get("release")
    return DeviceDetails(view(rows[0], now_s), history, commands, release if is_count(release) else None)


def command_view(command: Mapping[str, Any], answers: list[Mapping[str, Any]]) -> SentCommand:
    """Return a command with the newest of its answers; the newest answer is the first one that names it."""
    answer = next((one for one in answers if one.get("id") == command.get("id")), None)
    sent = command.get("sent")
    stored = clean(command.get("state"), 20) or ("sent" if sent in ("sent", None) else "not sent")
    state = clean(answer.get("state"), 20) if answer else stored
    arguments = as_object(command.get("arguments"))
    return SentCommand(
        id=clean(command.get("id"), 80),
        verb=clean(command.get("verb"), 60),
        arguments=clean(", ".join(f"{name} {value}" for name, value in arguments.items())),
        by=clean(command.get("by"), 80),
        at=moment(command.get("at")),
        state=state,
        text=clean(answer.get("text"), 500) if answer else "" if state in ("sent", "expired") else clean(sent),
        is_waiting=state in ("waiting", "sent", "accepted"),
    )


def _entry(found: Mapping[str, Any]) -> Entry:
    """Return a line of the history, which the server makes of two reports."""
    change = as_object(found.get("change"))
    old, new = (_told(change.get(name)) for name in ("from", "to"))
    reason = f": {clean(change['reason'])}" if change.get("reason") else ""
    return Entry(moment(found.get("at")), clean(found.get("kind"), 40), f"{old} → {new}{reason}")


def _told(value: object) -> str:
    fields = as_object(value)
    if "release" in fields or "bundle_id" in fields:
        return f"release {clean(fields.get('release'), 20) or '?'} ({clean(fields.get('bundle_id'), 60)})"
    if fields:
        return clean(", ".join(f"{name} {one}" for name, one in fields.items()))
    return clean(value) or "nothing"


def _lists(value: object) -> list[Mapping[str, Any]]:
    found = value if isinstance(value, list) else []
    return [one for one in found[:_MOST_ENTRIES] if isinstance(one, Mapping)]
