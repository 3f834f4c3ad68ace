"""The HTTP API as data: how queries are read, and its description in OpenAPI 3.1.

Rules this module keeps:
1. An unknown key of a query is an error: a typo would otherwise select all devices.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from edge import __version__
from edge.errors import CommandError
from gallery_sync.collector.commands import Order
from gallery_sync.collector.messages import is_device_id
from gallery_sync.collector.queries import MOST_ROWS, DeviceQuery
from gallery_sync.formats.reports import Answer, DeviceRow
from gallery_sync.formats.rollouts import GROUP, MOST_LABELS, LabelKey, LabelValue

_KEYS = ("line", "group", "label", "state", "release", "silent_s", "about", "within", "after", "limit")
_ABOUT = re.compile(r"([0-9]{1,15}),([A-Za-z0-9_-][A-Za-z0-9._-]{0,79}),([0-9]{1,15})")
_WITHIN = re.compile(r"([0-9a-f]{16,64}),([0-9]{1,5})")
_WHOLE = re.compile(r"[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_LABEL: TypeAdapter[tuple[str, str]] = TypeAdapter(tuple[LabelKey, LabelValue])
_LONGEST_TEXT, _LONGEST_NAME = 120, 80


def read_device_query(pairs: Sequence[tuple[str, str]]) -> DeviceQuery:
    """Read the query of `/v1/devices`.

    Raises:
        CommandError: a key is unknown, comes twice, or has a value that it cannot have.
    """
    labels: list[tuple[str, str]] = []
    found: dict[str, str] = {}
    for key, value in pairs:
        if key not in _KEYS:
            raise CommandError(f"unknown key {key[:80]!r} in the query; use {', '.join(_KEYS)}")
        if key in found and key != "label":
            raise CommandError(f"the key {key} comes twice in the query; send it once")
        found[key] = value
        if key == "label":
            labels.append(_label(*value.partition("=")[::2]))
        elif key == "group":
            labels.append(_label(GROUP, value))
    if len(labels) > MOST_LABELS:
        raise CommandError(f"found {len(labels)} labels in the query, expected at most {MOST_LABELS}")
    after = found.get("after", "")
    if after and not is_device_id(after):
        raise CommandError("after: expected the id of a device; take `next` of the previous page")
    limit = _whole("limit", found.get("limit", "200"))
    if not 1 <= limit <= MOST_ROWS:
        raise CommandError(f"limit: found {limit}, expected 1 to {MOST_ROWS}")
    return DeviceQuery(
        line=_text("line", found.get("line")),
        labels=tuple(labels),
        state=_text("state", found.get("state")),
        release=_whole("release", found["release"]) if "release" in found else None,
        silent_s=_number("silent_s", found["silent_s"]) if "silent_s" in found else None,
        about=_about(found["about"]) if "about" in found else None,
        within=_within(found["within"]) if "within" in found else None,
        after=after,
        limit=limit,
    )


def read_line_query(pairs: Sequence[tuple[str, str]]) -> str | None:
    """Read the query of `/v1/summary`.

    Raises:
        CommandError: a key is unknown, or comes twice.
    """
    if unknown := [key for key, _ in pairs if key != "line"]:
        raise CommandError(f"unknown key {unknown[0][:80]!r} in the query; use line")
    if len(pairs) > 1:
        raise CommandError("the key line comes twice in the query; send it once")
    return _text("line", pairs[0][1]) if pairs else None


def read_by_query(pairs: Sequence[tuple[str, str]]) -> str:
    """Read the query of a withdrawal: who withdraws.

    Raises:
        CommandError: it is missing, or there is another key.
    """
    if [key for key, _ in pairs] != ["by"] or not 1 <= len(pairs[0][1]) <= _LONGEST_NAME:
        raise CommandError(f"expected the query by=NAME, of 1 to {_LONGEST_NAME} characters")
    return pairs[0][1]


def read_no_query(pairs: Sequence[tuple[str, str]]) -> None:
    """Check that a query is empty.

    Raises:
        CommandError: it is not.
    """
    if pairs:
        raise CommandError(f"unknown key {pairs[0][0][:80]!r} in the query; this address takes none")


def _label(key: str, value: str) -> tuple[str, str]:
    try:
        return _LABEL.validate_python((key, value))
    except ValidationError as error:
        raise CommandError(f"label: found {f'{key}={value}'[:80]!r}, expected one such as site=berlin") from error


def _about(value: str) -> tuple[int, str, int]:
    if (parts := _ABOUT.fullmatch(value)) is None:
        raise CommandError(f"about: found {value[:80]!r}, expected RELEASE,BUNDLE,GALLERY such as 41,shop-7,118")
    return int(parts[1]), parts[2], int(parts[3])


def _within(value: str) -> tuple[str, int]:
    if (parts := _WITHIN.fullmatch(value)) is None:
        raise CommandError(
            f"within: found {value[:80]!r}, expected SALT,BUCKET of a rollout such as 0123456789abcdef,500"
        )
    return parts[1], int(parts[2])


def _text(key: str, value: str | None) -> str | None:
    if value is not None and len(value) > _LONGEST_TEXT:
        raise CommandError(f"{key}: found {len(value)} characters, expected at most {_LONGEST_TEXT}")
    return value


def _whole(key: str, value: str) -> int:
    if not _WHOLE.fullmatch(value):
        raise CommandError(f"{key}: found {value[:40]!r}, expected a whole number")
    return int(value)


def _number(key: str, value: str) -> float:
    if not _NUMBER.fullmatch(value):
        raise CommandError(f"{key}: found {value[:40]!r}, expected a number of seconds")
    return float(value)


def openapi() -> dict[str, Any]:
    """Return the description of the API."""
    _, schemas = models_json_schema(
        [(DeviceRow, "serialization"), (Answer, "serialization"), (Order, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "finesight fleet server",
            "version": __version__,
            "description": "What devices report, and commands to them. A report is a claim of its device.",
        },
        "security": [{"token": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**schemas["$defs"], **_ANSWERS},
        },
    }


def _paths() -> dict[str, Any]:
    device, command = _parameter("device", "path", {"type": "string"}), _parameter("id", "path", {"type": "string"})
    text, number = {"type": "string"}, {"type": "number"}
    query = [
        _parameter("line", "query", text, "product line"),
        _parameter("group", "query", text, "value of the label group"),
        _parameter("label", "query", {"type": "array", "items": text}, "such as site=berlin; may be repeated"),
        _parameter("state", "query", text, "of the agent, such as idle or trial"),
        _parameter("release", "query", {"type": "integer", "minimum": 0}, "that the device runs"),
        _parameter("silent_s", "query", number, "no report for so many seconds"),
        _parameter("about", "query", text, "RELEASE,BUNDLE,GALLERY: rows with only what concerns this release"),
        _parameter("within", "query", text, "SALT,BUCKET: devices in buckets of a rollout below this one, 0 to 10000"),
        _parameter("after", "query", text, "`next` of the previous page"),
        _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": MOST_ROWS}, "rows of the page"),
    ]
    upload = {"required": True, "content": {kind: {"schema": {}} for kind in ("application/zip", "image/jpeg")}}
    order = {"required": True, "content": {"application/json": {"schema": _ref("Order")}}}
    name = _parameter("name", "path", {"type": "string"}, "a plain name that ends in .zip or .jpg")
    return {
        "/v1/devices": {"get": _operation("A page of devices, by device id", "Devices", parameters=query)},
        "/v1/devices/{device}": {"get": _operation("All of one device", "Device", 404, parameters=[device])},
        "/v1/devices/{device}/commands": {
            "post": _operation(
                *("Send a command, or keep it for a device that is off", "Sent", 403, 404, 408, 413, 503),
                good=202,
                parameters=[device],
                requestBody=order,
            )
        },
        "/v1/commands": {"get": _operation("Commands that wait for a device or its answer", "Commands")},
        "/v1/commands/{id}": {
            "get": _operation("A command and its answers", "Command", 404, parameters=[command]),
            "delete": _operation(
                *("Withdraw a command that was not sent yet", "Withdrawn", 403, 409),
                parameters=[command, {**_parameter("by", "query", text), "required": True}],
            ),
        },
        "/v1/summary": {
            "get": _operation("Counts of devices", "Summary", parameters=[_parameter("line", "query", text)])
        },
        "/inbox/{device}/{name}": {
            "put": _operation(
                *("Store an upload", "Stored", 403, 404, 408, 413, 415, 507),
                good=201,
                parameters=[device, name],
                requestBody=upload,
            )
        },
        "/metrics": {"get": _operation("Metrics in the format of Prometheus", None)},
        "/healthz": {"get": {**_operation("Whether the server answers, and has its broker", "Health"), "security": []}},
        "/openapi.json": {"get": _operation("This description", None)},
    }


def _operation(summary: str, schema: str | None, *errors: int, good: int = 200, **more: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(schema)}} if schema else {}
    responses: dict[str, Any] = {str(good): {"description": summary, **({"content": content} if content else {})}}
    for status in sorted({*errors, 400, 401, 421, 503}):
        error = {"application/json": {"schema": _ref("Error")}}
        responses[str(status)] = {"description": _DESCRIPTIONS[status], "content": error}
    return {"summary": summary, **more, "responses": responses}


def _parameter(name: str, place: str, schema: dict[str, Any], text: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "schema": schema,
        **({"description": text} if text else {}),
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(**fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(fields)}


_DESCRIPTIONS = {
    400: "The request is wrong",
    401: "No valid token",
    403: "A page of another server sent this",
    404: "There is none",
    408: "The body came too slowly",
    409: "It was sent already, or is not kept",
    413: "Too long",
    415: "Not such a file",
    421: "Another host was meant",
    503: "Not now",
    507: "The inbox is full",
}
_TEXT, _OPTIONAL, _NUMBER_SCHEMA = {"type": "string"}, {"type": ["string", "null"]}, {"type": "number"}
_COUNTS = {"type": "object", "additionalProperties": {"type": "integer"}}
_LIST: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
_STORED_COMMAND: dict[str, dict[str, Any]] = {
    "id": _TEXT,
    "device": _TEXT,
    "verb": _TEXT,
    "arguments": {"type": "object"},
    "by": _TEXT,
    "at": _NUMBER_SCHEMA,
    "sent": _OPTIONAL,
    "until": {"type": ["number", "null"]},  # it is kept so long
    "state": _TEXT,  # waiting, sent, accepted, done, refused, failed, expired or not sent
}
_ANSWERS_LIST: dict[str, Any] = {"type": "array", "items": _ref("Answer")}
_ANSWERS: dict[str, Any] = {
    "Error": _object(reason=_TEXT, error=_TEXT),
    "Health": _object(broker={"type": "boolean"}, problem=_OPTIONAL),
    "Devices": _object(devices={"type": "array", "items": _ref("DeviceRow")}, next=_OPTIONAL),
    "Device": _object(
        row=_ref("DeviceRow"), history=_LIST, commands=_LIST, answers=_ANSWERS_LIST, turn={"type": ["object", "null"]}
    ),
    "Sent": _object(id=_TEXT, state=_TEXT, until={"type": ["number", "null"]}),
    "Commands": _object(commands={"type": "array", "items": _object(**_STORED_COMMAND)}),
    "Withdrawn": _object(withdrawn={"type": "boolean"}),
    "Stored": _object(new={"type": "boolean"}),
    "Command": _object(**_STORED_COMMAND, answers=_ANSWERS_LIST),
    "Summary": _object(
        devices={"type": "integer"},
        silent={"type": "integer"},
        failed={"type": "integer"},
        oldest_report={"type": ["number", "null"]},
        by_line=_COUNTS, by_release=_COUNTS, by_state=_COUNTS, by_available=_COUNTS, by_engine=_COUNTS,
        waiting_for_turn=_COUNTS,
    ),
}  # fmt: skip
