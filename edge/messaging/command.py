"""Commands that come over MQTT: their verbs, how they are read, and the reply each gets.

Rules:
1. Every command that is taken up gets one reply, whatever is wrong with it; nothing raises beyond CommandError.
2. A retained command is ignored: the broker would repeat it on every connection.
3. Keys of a command that are not known are ignored, as in every message from the network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edge.errors import CommandError

REPLY_SCHEMA = "finesight.reply/1"
REPLY = "reply"  # cmd/reply: beside the verbs, for replies

Verb = Literal["health", "reload", "camera/enable", "camera/disable", "restart_camera"]
_OF_A_CAMERA: frozenset[str] = frozenset({"camera/enable", "camera/disable", "restart_camera"})
_MAX_BYTES = 4096
_MAX_ID = 128


@dataclass(frozen=True, slots=True)
class Command:
    """What a device is asked to do."""

    verb: Verb
    camera: str | None = None  # set exactly for verbs of a camera


def read_command(verb: str, payload: bytes, cameras: Mapping[str, object]) -> Command:
    """Understand a command.

    Args:
        verb: the last levels of its topic.
        payload: a JSON object, or nothing.
        cameras: those that are configured, by name.

    Raises:
        CommandError: it cannot be understood; the text goes into the reply.
    """
    if verb not in get_args(Verb):
        raise CommandError(f"found verb {_short(verb)}, expected one of {', '.join(get_args(Verb))}")
    fields = _fields(payload)
    if verb not in _OF_A_CAMERA:
        return Command(verb)  # type: ignore[arg-type]  # one of get_args(Verb)
    camera = fields.get("camera")
    if not isinstance(camera, str) or camera not in cameras:
        raise CommandError(f"found camera {_short(camera)}, expected one of {', '.join(sorted(cameras))}")
    return Command(verb, camera)  # type: ignore[arg-type]  # one of get_args(Verb)


def read_switch(camera: str, payload: bytes, cameras: Mapping[str, object]) -> Command:
    """Understand what came on `<camera>/enabled/set`: ON or OFF.

    Raises:
        CommandError: it is neither, or there is no such camera.
    """
    if camera not in cameras:
        raise CommandError(f"found camera {_short(camera)}, expected one of {', '.join(sorted(cameras))}")
    if payload not in {b"ON", b"OFF"}:
        raise CommandError(f"found {_short(payload[:40].decode(errors='replace'))}, expected ON or OFF")
    return Command("camera/enable" if payload == b"ON" else "camera/disable", camera)


def correlation_id(payload: bytes) -> str | None:
    """The sender's own name for its command, repeated in the reply; None when there is none to be had."""
    try:
        found = _fields(payload).get("id")
    except CommandError:
        return None
    return str(found)[:_MAX_ID] if isinstance(found, (str, int)) else None


def reply_payload(verb: str, command_id: str | None, outcome: Mapping[str, Any] | CommandError) -> bytes:
    """The JSON of a reply; docs/reply.schema.json is its contract.

    Args:
        verb: of the command.
        command_id: the sender's.
        outcome: what came of it, or why nothing did.
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
        raise CommandError(f"found {len(payload)} bytes, expected at most {_MAX_BYTES}")
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise CommandError('found no JSON, expected an object such as {"id": "1"}') from error
    if not isinstance(fields, dict):
        raise CommandError(f'found {type(fields).__name__}, expected an object such as {{"id": "1"}}')
    return fields


def _short(value: object) -> str:
    return repr(value)[:80]
