"""Topics and payloads of MQTT messages; pure functions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any, Literal

from edge.errors import PublishError
from edge.telemetry.health_report import HealthReport
from edge.telemetry.known_secrets import hide, hide_in
from edge.types import CameraState, Decision, Event, EventType

EVENT_SCHEMA = "finesight.event/1"
STATUS_SCHEMA = "finesight.status/1"
HEALTH_SCHEMA = "finesight.health/1"
BIRTH_SCHEMA = "finesight.birth/1"
MAX_EVENT_BYTES = 8191  # brokers and clients exist whose default limit is 10 KiB

_MAX_ZONES, _MAX_CROSSINGS, _MAX_ATTRIBUTES = 16, 8, 8

Availability = Literal["online", "offline", "stopped"]

_PRIORITIES: dict[EventType, int] = {"update": 0, "new": 1, "end": 2}
_LIVE, _HISTORICAL = b',"historical":false}', b',"historical":true}'
# limits tried in turn when an event is too long: characters of a label, hits, characters of any other text
_LIMITS = ((256, 5, 256), (64, 5, 256), (64, 1, 128), (32, 0, 24))


def topic_of(root: str, site: str, device: str, camera: str | None, leaf: str) -> str:
    """Return the topic `<root>/<site>/<device>[/<camera>]/<leaf>`; without a camera, a topic of the device.

    Raises:
        PublishError: a level is empty or holds a character with a meaning in topics.
    """
    levels = [level for level in (root, site, device, camera, leaf) if level is not None]
    for level in levels:
        if not level or any(character in "#+/" or not character.isprintable() for character in level):
            raise PublishError(f"topic level {level!r} is not allowed; use printable text without # + /")
    if root.startswith("$"):
        raise PublishError(f"topic root {root!r} is not allowed; brokers reserve topics that start with $")
    return "/".join(levels)


def priority_of(event_type: EventType) -> int:
    """Return the priority of an event; a full outbox drops updates (0) first, then new (1), last end (2) events."""
    return _PRIORITIES[event_type]


def event_payload(event: Event, site: str, device: str, boot_id: str, seq: int, *, historical: bool = False) -> bytes:
    """Return the JSON of an event, shorter than 8192 bytes whatever its texts; docs/event.schema.json is its contract.

    Args:
        event: the event.
        site: of the device.
        device: its name.
        boot_id: names one run of the process.
        seq: counts the events of that run, from 0; with boot_id it orders them whatever the clock does.
        historical: the event waited for a connection; an event that is historical itself is always flagged.
    """
    payload = b""
    for number, (label_length, hits, text_length) in enumerate(_LIMITS):
        fields = _event_fields(event, label_length, hits, text_length)
        head = {
            "schema": EVENT_SCHEMA,
            "id": truncate(event.event_id, text_length),
            "site": truncate(site, text_length),
            "device": truncate(device, text_length),
            "boot_id": truncate(boot_id, text_length),
            "seq": seq,
        }
        # says that texts or hits are missing; historical stays last, as mark_historical expects
        shortened = {"shortened": True} if number else {}
        payload = encode({**head, **fields, **shortened, "historical": historical or event.historical})
        if len(payload) <= MAX_EVENT_BYTES:
            break
    return payload


def mark_historical(payload: bytes) -> bytes:
    """Return an event payload with `historical` set to true; other payloads are returned unchanged."""
    return payload[: -len(_LIVE)] + _HISTORICAL if payload.endswith(_LIVE) else payload


def status_payload(camera: str, state: CameraState, since: float, detail: str | None = None) -> bytes:
    """Return the retained JSON of the state of a camera.

    Args:
        camera: its name.
        state: its state.
        since: Unix seconds of the change to that state.
        detail: the reason, in plain words; not sent while the camera is online, where it would read like a fault.
    """
    detail = None if state == "online" or detail is None else hide(detail)
    message = {"schema": STATUS_SCHEMA, "camera": camera, "state": state, "since": _rfc3339(since), "detail": detail}
    return encode(message)


def availability_payload(availability: Availability) -> bytes:
    """Return the retained payload that says whether a device is online."""
    return availability.encode()


def health_payload(report: HealthReport) -> bytes:
    """Return the JSON of a health report."""
    message: dict[str, Any] = {"schema": HEALTH_SCHEMA, **hide_in(asdict(report))}
    message["at"] = _rfc3339(report.at)
    message["uptime_s"] = _number(report.uptime_s, 1)
    return encode(message)


def birth_payload(report: HealthReport, cameras: Mapping[str, str]) -> bytes:
    """Return the retained JSON that describes a device.

    Args:
        report: its state.
        cameras: the framing of every configured camera, on or off.
    """
    message = {
        "schema": BIRTH_SCHEMA,
        "site": report.site,
        "device": report.device,
        "boot_id": report.boot_id,
        "at": _rfc3339(report.at),
        "versions": dict(report.versions),
        "release": report.release and asdict(report.release),
        "trial": report.trial,
        "fallback": hide_in(report.fallback),
        "cameras": {name: {"framing": framing} for name, framing in cameras.items()},
        "safe_mode": report.safe_mode,
        "config_error": hide_in(report.config_error),
        "config_overlay": report.config_overlay,
        "overlay_error": hide_in(report.overlay_error),
    }
    return encode(message)


def shrink(payload: bytes, max_bytes: int) -> bytes:
    """Leave out optional parts of a JSON message, the least important first, until it fits.

    Args:
        payload: an event, a state, a report or a reply.
        max_bytes: how long it may be.

    Returns:
        The first form that fits, else the shortest one; flagged as shortened. Other payloads are returned unchanged.
    """
    if len(payload) <= max_bytes or not payload.startswith(_SCHEMA_FIRST):
        return payload
    try:
        message = json.loads(payload)
    except (ValueError, RecursionError):  # of a damaged outbox
        return payload
    for step in _STEPS.get(str(message["schema"]), ()):
        message = step(message)
        last = {"historical": message.pop("historical")} if "historical" in message else {}
        message |= {"shortened": True}
        message |= last  # mark_historical expects it at the end
        payload = encode(message)
        if len(payload) <= max_bytes:
            break
    return payload


def _empty(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a step that empties these maps and lists."""
    return lambda message: message | {key: type(message[key])() for key in keys if message.get(key)}


def _cut(length: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a step that shortens every text, but not ids, times and names of topics."""

    def cut(value: Any) -> Any:
        if isinstance(value, str):
            return truncate(value, length)
        if isinstance(value, dict):
            return {key: one if key in _WHOLE else cut(one) for key, one in value.items()}
        return [cut(one) for one in value] if isinstance(value, list) else value

    return lambda message: dict(cut(message))


_SCHEMA_FIRST = b'{"schema":"finesight.'
_WHOLE = frozenset({"schema", "id", "boot_id", "site", "device", "camera", "item", "at", "captured_at", "started_at"})
_STEPS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], ...]] = {
    EVENT_SCHEMA: (_empty("latency_ms"), _empty("top"), _cut(64), _empty("zones"), _empty("crossings"), _cut(24)),
    HEALTH_SCHEMA: (
        _empty("engines"),
        _empty("stages"),
        _empty("evidence", "clock_offsets_s", "temperatures_c"),
        _empty("counters"),
        _cut(120),
        _empty("in_view", "mqtt_problems", "gallery_stale", "set_aside"),
        _empty("update"),
    ),
    BIRTH_SCHEMA: (_cut(120), _empty("cameras")),
    STATUS_SCHEMA: (_cut(64),),
    "finesight.in_view/1": (_empty("by_category"), _empty("by_item")),
    "finesight.reply/1": (_cut(120), _empty("result")),
}


def _event_fields(event: Event, label_length: int, hits: int, text_length: int) -> dict[str, Any]:
    """Return the fields of the event itself."""
    decision = event.decision

    def text(value: str) -> str:
        return truncate(value, text_length)

    def label(value: str) -> str:
        return truncate(value, label_length)

    category, match = decision.category, decision.match
    return {
        "type": event.type,
        "camera": text(event.camera),
        "track_id": event.track_id,
        "captured_at": _rfc3339(event.captured_at),
        "time_source": event.time_source,
        "pts_s": None if event.pts_s is None else _number(event.pts_s, 3),
        "box": [_number(max(0.0, min(1.0, edge))) for edge in event.box_rel],
        "started_at": _rfc3339(event.started_at),
        "dwell_s": _number(event.dwell_s, 3),
        "category": category and {"name": label(category.name), "score": _number(category.score)},
        "match": match
        and {
            "item": text(match.item_id),
            "label": label(match.label),
            "score": _number(match.score),
            "margin": _number(match.margin),
            "probability": None if match.probability is None else _number(match.probability),
        },
        "reason": decision.reason,
        "top": [
            {"item": text(hit.item_id), "label": label(hit.label), "score": _number(hit.score)}
            for hit in decision.top[:hits]
        ],
        **_attributes(decision, text_length if hits else 0),
        "bundle": text(event.bundle),
        "gallery": text(event.gallery),
        "latency_ms": _latency(event.latency_ms, text_length),
        "zones": [text(zone) for zone in event.zones[:_MAX_ZONES]],
        "crossings": [
            {"line": text(one.line), "direction": one.direction} for one in event.crossings[-_MAX_CROSSINGS:]
        ],
    }


def _attributes(decision: Decision, text_length: int) -> dict[str, Any]:
    """Return the attributes of an object as a field; no field where its gallery has none, or texts have no room."""
    voted = [
        {
            "name": truncate(one.name, text_length),
            "value": truncate(one.value, text_length),
            "confidence": _number(one.confidence),
        }
        for one in decision.attributes[: _MAX_ATTRIBUTES if text_length else 0]
    ]
    return {"attributes": voted} if voted else {}


def _latency(latency_ms: Mapping[str, float], text_length: int) -> dict[str, float | None]:
    """Return the milliseconds of the sixteen slowest stages."""
    slowest = sorted(latency_ms.items(), key=lambda item: -item[1])[:16]
    kept = dict(slowest)
    return {truncate(stage, text_length): _number(ms, 2) for stage, ms in latency_ms.items() if stage in kept}


def _number(value: float, digits: int = 4) -> float | None:
    """Return a rounded number; None for NaN and infinity, which JSON cannot hold."""
    return round(float(value), digits) if math.isfinite(value) else None


def truncate(text: str, length: int) -> str:
    """Return a text of at most this many characters; a shortened one ends in an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _rfc3339(unix_s: float) -> str:
    moment = datetime.fromtimestamp(unix_s, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def encode(message: Mapping[str, Any]) -> bytes:
    """Return the JSON of a message, in UTF-8."""
    # a lone surrogate, as in a broken file name, has no UTF-8
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", errors="replace")
