"""What arrives from devices over MQTT: which device a topic names, and whether its message is one.

Rules this module keeps:
1. A message counts for the device of its topic alone, which the broker guards; one that names another is wrong.
2. Whatever arrives, nothing is raised but WrongMessageError, with a reason from a small closed set.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from edge.errors import SyncError
from edge.strict_json import parse_json
from gallery_sync.formats.fields import parse
from gallery_sync.formats.reports import LARGEST_REPORT_BYTES, Answer, Reported
from gallery_sync.formats.rollouts import DEVICE, LINE

Kind = Literal["reported", "available", "answer", "reply"]
_KINDS: tuple[Kind, ...] = ("reported", "available", "answer")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}")
_AVAILABLE = {b"online": True, b"offline": False, b"stopped": False}
_LARGEST_BYTES = {"reported": LARGEST_REPORT_BYTES, "available": 64, "answer": LARGEST_REPORT_BYTES, "reply": 64 << 10}

Reason = Literal["topic", "empty", "too_large", "invalid", "other_device"]
_Parsed = TypeVar("_Parsed", Answer, Reported)


class WrongMessageError(SyncError):
    """A message that is ignored; `reason` is a code for the counters."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as it came."""

    device: str
    kind: Kind
    payload: bytes
    at: float  # Unix seconds, by the server's clock
    retained: bool = False  # it was at the broker before the server subscribed, nobody knows since when


def is_device_id(text: str) -> bool:
    """Return whether a text can be the id of a device."""
    return _NAME.fullmatch(text) is not None


def topics(prefix: str) -> tuple[str, ...]:
    """Return what the server subscribes to."""
    return tuple(f"{prefix}/device/+/{kind}" for kind in _KINDS)


def arrived(topic: str, payload: bytes, at: float, *, retained: bool, prefix: str, topic_root: str) -> Arrived:
    """Return what a message is, by its topic and its size.

    Args:
        topic: of the message.
        payload: of the message.
        at: Unix seconds, by the server's clock.
        retained: whether the broker had it before.
        prefix: of the fleet's topics.
        topic_root: first level of the topics of `edge run`, which answers some commands itself.

    Raises:
        WrongMessageError: it is none that the server reads.
    """
    device, kind = _place(topic, prefix, topic_root)
    if not payload:
        raise WrongMessageError("empty", f"device {device}: an empty message of the kind {kind}")
    if len(payload) > _LARGEST_BYTES[kind]:
        text = f"found {len(payload)} bytes, expected at most {_LARGEST_BYTES[kind]}"
        raise WrongMessageError("too_large", f"device {device}: {kind}: {text}")
    return Arrived(device, kind, payload, at, retained)


def read_report(message: Arrived) -> Reported:
    """Parse a report.

    Raises:
        WrongMessageError: it is none, or one of another device.
    """
    report = _parse(Reported, message)
    labels = report.labels
    if labels.get(DEVICE, report.device) != report.device or labels.get(LINE, report.line) != report.line:
        text = f"device {message.device}: its report has labels of another device or line"
        raise WrongMessageError("other_device", text)
    own = {DEVICE: report.device, LINE: report.line}
    return report if own.items() <= labels.items() else report.model_copy(update={"labels": {**labels, **own}})


def read_answer(message: Arrived) -> Answer:
    """Parse the answer to a command.

    Raises:
        WrongMessageError: it is none, or one of another device.
    """
    if message.kind == "answer":
        return _parse(Answer, message)
    reply = _reply_fields(message)
    text = "" if reply.get("ok") is True else str(reply.get("error", ""))[:1000]
    fields: dict[str, Any] = {
        "device": message.device,
        "id": reply.get("id"),
        "verb": reply.get("verb"),
        "by": "edge run",
        "state": "done" if reply.get("ok") is True else "failed",
        "text": text,
        "result": reply.get("result") or {},
        "at": message.at,
    }
    try:
        return Answer.model_validate(fields)
    except ValueError as error:
        raise WrongMessageError("invalid", f"device {message.device}: not a reply that can be read") from error


def read_available(message: Arrived) -> bool:
    """Return whether a device reports that it is connected.

    Raises:
        WrongMessageError: the message says neither.
    """
    if (available := _AVAILABLE.get(message.payload)) is None:
        raise WrongMessageError("invalid", f"device {message.device}: its availability is neither online nor offline")
    return available


def _parse(kind: type[_Parsed], message: Arrived) -> _Parsed:
    try:
        found = parse(kind, message.payload, f"device {message.device}")
    except (SyncError, RecursionError) as error:
        raise WrongMessageError("invalid", str(error)) from error
    if found.device != message.device:
        text = f"device {message.device}: its {kind.kind} is of device {found.device}"
        raise WrongMessageError("other_device", text)
    return found


def _reply_fields(message: Arrived) -> dict[str, Any]:
    """Return the reply of `edge run`, see edge.messaging.command."""
    try:
        reply = parse_json(message.payload, _LARGEST_BYTES["reply"])
    except ValueError as error:
        raise WrongMessageError("invalid", f"device {message.device}: a reply that is not JSON") from error
    if not isinstance(reply, dict):
        raise WrongMessageError("invalid", f"device {message.device}: a reply that is not a JSON object")
    return reply


def _place(topic: str, prefix: str, topic_root: str) -> tuple[str, Kind]:
    levels = topic.removeprefix(f"{prefix}/").split("/")
    if topic.startswith(f"{prefix}/") and len(levels) == 3 and levels[0] == "device":
        for kind in _KINDS:
            if levels[2] == kind and is_device_id(levels[1]):
                return levels[1], kind
    levels = topic.split("/")
    if len(levels) == 5 and levels[0] == topic_root and levels[3:] == ["cmd", "reply"] and is_device_id(levels[2]):
        return levels[2], "reply"
    raise WrongMessageError("topic", f"topic {topic[:120]!r} is none that devices report on")
