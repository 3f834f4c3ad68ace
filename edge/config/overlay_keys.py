"""Which keys of `device.yaml` an operator may set from afar, and why not the others.

Rules this module keeps:
1. A key may be set only if it is in `ALLOWED`. A new key of the schema may not, until somebody decides; a test sees it.
2. What may be set takes effect while the device runs, so that a trial can judge it and take it back.
3. No secret, no local file, nothing that runs a program, and nothing that could cut the device off or open it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from edge.config.camera_url import parse_source
from edge.config.schema import DeviceConfig
from edge.config.yaml_file import shown_key, valid_keys
from edge.errors import ConfigError

ANY = "*"  # a name that the user chose
_CAMERA = (
    *("source", "backend", "enabled", "framing", "pacing", "rtsp_transport", "latency_ms", "max_px"),
    *("open_timeout_s", "stall_timeout_s", "view", "zones", "lines", "motion"),
)
_RECOGNITION = (
    *("min_object_px", "min_looks", "max_looks", "look_interval_s", "recheck_s", "looks_per_s", "track_gap_s"),
    *("recall_tracks", "recall_age_s"),
)
ALLOWED: frozenset[tuple[str, ...]] = frozenset(
    [*(("cameras", ANY, key) for key in _CAMERA), *(("recognition", key) for key in _RECOGNITION)]
)  # with everything below them

_RESTART = "it takes effect only after a restart, so no trial can take it back"
_PICTURES = "it sends or keeps pictures; whoever owns the device decides that"
FORBIDDEN: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("site",): "it names the topics of the device, and nobody would find it any more",
        ("device",): "it names the topics of the device, and nobody would find it any more",
        ("state_dir",): "it names a local folder, which holds all that the device has",
        ("mqtt",): "it says which broker gets the events, with which account; a mistake cuts the device off",
        ("engine",): f"{_RESTART}; an engine may be a plug-in, too, which runs a program",
        ("gallery",): _RESTART,
        ("outbox",): _RESTART,
        ("health",): "it opens the device to the network, and holds a token",
        ("kiosk",): "it opens the device to the network, and holds tokens and the names of local files",
        ("snapshots",): _PICTURES,
        ("live",): _PICTURES,
        ("unknowns",): f"{_PICTURES}; it holds a token, too",
        ("cameras", ANY, "record_mib"): "it keeps video on the disk of the device",
        ("recognition", "seek"): _RESTART,
    }
)
# in these mappings, null removes an entry that the device's own file has
NAMED: frozenset[tuple[str, ...]] = frozenset(
    {("cameras",), ("cameras", ANY, "zones"), ("cameras", ANY, "lines")},
)
_LIVE_SOURCE = re.compile(r"(v4l2|csi)://[0-9]{1,4}(\?[A-Za-z0-9=&.]*)?")


def key_problems(values: Mapping[str, Any]) -> list[str]:
    """Return why keys may not be set from afar, each with its path; empty if all may."""
    return list(_problems(values, ()))


def pattern_of(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return a key path with `*` in the place of names that the user chose."""
    made: tuple[str, ...] = ()
    for key in keys:
        made = (*made, ANY if made in NAMED else key)
    return made


def _problems(value: Any, keys: tuple[str, ...]) -> Iterator[str]:
    where, pattern = ".".join(map(shown_key, keys)) or "(top)", pattern_of(keys)
    if pattern in ALLOWED:
        yield from _value_problems(value, keys)
    elif pattern in FORBIDDEN:
        yield f"{where}: may not be set from afar: {FORBIDDEN[pattern]}"
    elif not any(one[: len(pattern)] == pattern for one in ALLOWED):
        valid = valid_keys(list(keys[:-1]), DeviceConfig)
        near = difflib.get_close_matches(str(keys[-1]), valid, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys are {', '.join(valid)}"
        yield f"{where}: unknown key {shown_key(keys[-1])!r}; {hint}"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _problems(item, (*keys, str(key)))
    elif value is not None or pattern[:-1] not in NAMED:
        yield f"{where}: expected a mapping of keys"


def _value_problems(value: Any, keys: tuple[str, ...]) -> Iterator[str]:
    where = ".".join(map(shown_key, keys))
    if any("${" in text for text in _texts(value)):
        yield f"{where}: found ${{...}}; only the device's own file may use variables"
    elif keys[-1] == "source" and (problem := source_problem(value)):
        yield f"{where}: {problem}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)


def source_problem(source: Any) -> str | None:
    """Return why the address of a camera may not be set from afar; None if it may."""
    try:
        parsed = parse_source(str(source))
    except ConfigError as error:
        return str(error)
    if parsed.kind == "rtsp":
        secret = parsed.user is not None or parsed.password is not None
        return "user and password stay in the device's own file; leave them out" if secret else None
    if _LIVE_SOURCE.fullmatch(str(source).strip()):
        return None
    return (
        "only rtsp://, rtsps://, v4l2://NUMBER and csi://NUMBER may be set from afar: others name files or run programs"
    )
