"""Commands received over MQTT: their verbs, their parsers and the replies.

Rules:
1. Every accepted command gets one reply, whatever its payload; the parsers raise nothing but CommandError.
2. A retained command is ignored: the broker would repeat it on every connection.
3. Unknown keys of a command are ignored, as in every message from the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edge.errors import CommandError

REPLY_SCHEMA = "finesight.reply/1"
REPLY = "reply"  # the topic cmd/reply carries replies, not commands

Verb = Literal["health", "reload", "camera/enable", "camera/disable", "restart_camera"]
_CAMERA_VERBS: frozenset[str] = frozenset({"camera/enable", "camera/disable", "restart_camera"})
_MAX_BYTES = 4096
_MAX_ID = 128


@dataclass(frozen=True, slots=True)
class Command:
    """One command to the device."""

    verb: Verb
    camera: str | None = None  # set for camera verbs only


def read_command(verb: str, payload: bytes, cameras: Mapping[str, object]) -> Command:
    """Parse a command.

    Args:
        verb: the last levels of its topic.
        payload: a JSON object, or empty.
        cameras: the configured cameras, by name.

    Raises:
        CommandError: the command is invalid; the text goes into the reply.
    """
    if verb not in get_args(Verb):
        raise CommandError(f"unknown verb {_short(verb)}; use one of {', '.join(get_args(Verb))}")
    fields = _fields(payload)
    if verb not in _CAMERA_VERBS:
        return Command(verb)  # type: ignore[arg-type]  # one of get_args(Verb)
    camera = fields.get("camera")
    if not isinstance(camera, str) or camera not in cameras:
        raise _unknown_camera(camera, cameras)
    return Command(verb, camera)  # type: ignore[arg-type]  # one of get_args(Verb)


def read_switch(camera: str, payload: bytes, cameras: Mapping[str, object]) -> Command:
    """Parse a payload of `<camera>/enabled/set`: ON or OFF.

    Raises:
        CommandError: the payload is neither, or there is no such camera.
    """
    if camera not in cameras:
        raise _unknown_camera(camera, cameras)
    if payload not in {b"ON", b"OFF"}:
        raise CommandError(f"{_short(payload[:40].decode(errors='replace'))} is not a switch state; send ON or OFF")
    return Command("camera/enable" if payload == b"ON" else "camera/disable", camera)


def correlation_id(payload: bytes) -> str | None:
    """Return the `id` that the sender gave its command, to be repeated in the reply; None without one."""
    try:
        command_id = _fields(payload).get("id")
    except CommandError:
        return None
    return str(command_id)[:_MAX_ID] if isinstance(command_id, (str, int)) else None


def reply_payload(verb: str, command_id: str | None, outcome: Mapping[str, Any] | CommandError) -> bytes:
    """Return the JSON of a reply; docs/reply.schema.json is its contract.

    Args:
        verb: of the command.
        command_id: the sender's id, if any.
        outcome: the result, or the error.
    """
    reply: dict[str, Any] = {"schema": REPLY_SCHEMA, "id": command_id, "verb": verb[:64]}
    if isinstance(outcome, CommandError):
        reply |= {"ok": False, "error": str(outcome)[:1000]}
    else:
        reply |= {"ok": True, "result": dict(outcome)}
    return json.dumps(reply, ensure_ascii=True, separators=(",", ":")).encode()


def _fields(payload: bytes) -> dict[str, Any]:
    if not payload.strip():
        return {}
    if len(payload) > _MAX_BYTES:
        raise CommandError(f"the payload has {len(payload)} bytes; send at most {_MAX_BYTES}")
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise CommandError('the payload is not JSON; send an object such as {"id": "1"}') from error
    if not isinstance(fields, dict):
        raise CommandError('the payload is not a JSON object; send one such as {"id": "1"}')
    return fields


def _unknown_camera(camera: object, cameras: Mapping[str, object]) -> CommandError:
    return CommandError(f"unknown camera {_short(camera)}; use one of {', '.join(sorted(cameras))}")


def _short(value: object) -> str:
    return repr(value)[:80]
