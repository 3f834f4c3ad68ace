"""Commands received over MQTT: their verbs, their parsers and the replies.

Rules:
1. Every accepted command gets one reply, whatever its payload; the parsers raise nothing but CommandError.
2. A retained command is ignored: the broker would repeat it on every connection.
3. Unknown keys of a command are ignored, as in every message from the network. A key that comes twice is an error.
4. A reply goes to the device's own reply topics alone, whatever the sender asks for: anybody who may send a command
   could otherwise let the device write to topics that the sender itself may not write to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from edge.errors import CommandError
from edge.telemetry.known_secrets import hide

REPLY_SCHEMA = "finesight.reply/1"
REPLY = "reply"  # the topic cmd/reply carries replies, not commands

Verb = Literal["health", "reload", "camera/enable", "camera/disable", "restart_camera"]
_CAMERA_VERBS: frozenset[str] = frozenset({"camera/enable", "camera/disable", "restart_camera"})
_MAX_BYTES = 4096
_MAX_ID = 128
_MAX_TOPIC_BYTES = 256
_MAX_CORRELATION_BYTES = 1024


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


def reply_topic(device_topic: str, wanted: str | None) -> tuple[str, str | None]:
    """Return the topic of a reply, and why it is not the wanted one.

    Args:
        device_topic: `<root>/<site>/<device>`.
        wanted: the response topic of the command (MQTT 5); used if it is `<device_topic>/cmd/reply` or below it.

    Returns:
        The topic; and None, or too_long, invalid or foreign.
    """
    own = f"{device_topic}/cmd/{REPLY}"
    if wanted is None or wanted == own:
        return own, None
    if len(wanted.encode("utf-8", "replace")) > _MAX_TOPIC_BYTES:
        return own, "too_long"
    if not wanted.isprintable() or set("#+") & set(wanted) or "" in wanted.split("/"):
        return own, "invalid"
    return (wanted, None) if wanted.startswith(own + "/") else (own, "foreign")


def reply_correlation(correlation: bytes | None) -> tuple[bytes | None, str | None]:
    """Return the correlation data of a reply, and why it is not that of the command."""
    is_long = correlation is not None and len(correlation) > _MAX_CORRELATION_BYTES
    return (None, "correlation") if is_long else (correlation, None)


def reply_payload(verb: str, command_id: str | None, outcome: Mapping[str, Any] | CommandError) -> bytes:
    """Return the JSON of a reply; docs/reply.schema.json is its contract.

    Args:
        verb: of the command.
        command_id: the sender's id, if any.
        outcome: the result, or the error.
    """
    reply: dict[str, Any] = {"schema": REPLY_SCHEMA, "id": command_id, "verb": verb[:64]}
    if isinstance(outcome, CommandError):
        reply |= {"ok": False, "error": hide(str(outcome))[:1000]}
    else:
        reply |= {"ok": True, "result": dict(outcome)}
    return json.dumps(reply, ensure_ascii=True, separators=(",", ":")).encode()


def _fields(payload: bytes) -> dict[str, Any]:
    if not payload.strip():
        return {}
    if len(payload) > _MAX_BYTES:
        raise CommandError(f"the payload has {len(payload)} bytes; send at most {_MAX_BYTES}")
    try:
        fields = json.loads(payload, object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CommandError('the payload is not JSON; send an object such as {"id": "1"}') from error
    if not isinstance(fields, dict):
        raise CommandError('the payload is not a JSON object; send one such as {"id": "1"}')
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise CommandError("a key comes twice in the payload; send each key once")
    return fields


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _unknown_camera(camera: object, cameras: Mapping[str, object]) -> CommandError:
    return CommandError(f"unknown camera {_short(camera)}; use one of {', '.join(sorted(cameras))}")


def _short(value: object) -> str:
    return repr(value)[:80]
