"""A configuration overlay: keys that replace those of the device's own file, brought by the update agent.

    <state_dir>/config/overlay.json      {"schema": "finesight.overlay/1", "name": …, "revision": …, "values": {…}}

Rules this module keeps:
1. An overlay sets only what `overlay_keys` allows. One that sets anything else is refused as a whole.
2. Mappings are merged, lists and values are replaced. In a mapping of names, null removes an entry.
3. The device's own file is never changed. Secrets stay in it: a camera that is moved on the same host keeps its login.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.config.camera_url import parse_source
from edge.config.overlay_keys import NAMED, key_problems, pattern_of
from edge.config.yaml_file import load_mapping, typed_values
from edge.errors import ConfigError, first_validation_error, one_line

FOLDER, NAME = "config", "overlay.json"
LARGEST_BYTES = 256 << 10
_SCHEMA: Literal["finesight.overlay/1"] = "finesight.overlay/1"
_ANOTHER_CAMERA = "a-camera-of-some-device"
_MOST_PROBLEMS = 5  # in one message


class _File(BaseModel):
    """The content of overlay.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_name: Literal["finesight.overlay/1"] = Field(alias="schema")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")]
    revision: Annotated[int, Field(ge=0, lt=2**53)]
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Overlay:
    """Keys that replace those of the device's own file."""

    name: str
    revision: int  # 0: a file of an operator, which is only checked
    values: Mapping[str, Any]

    def __str__(self) -> str:
        """Its name and revision, as health and vital signs show it."""
        return f"{self.name} {self.revision}" if self.revision else self.name


def overlay_path(state_dir: Path) -> Path:
    """Return where the overlay of a device is."""
    return state_dir / FOLDER / NAME


def overlay_bytes(overlay: Overlay) -> bytes:
    """Return the content of overlay.json."""
    fields = {"schema": _SCHEMA, "name": overlay.name, "revision": overlay.revision, "values": overlay.values}
    return json.dumps(fields, sort_keys=True, indent=1).encode() + b"\n"


def parse_overlay(data: bytes, where: str) -> Overlay:
    """Parse the content of overlay.json, and check its keys.

    Raises:
        ConfigError: it is damaged, or sets a key that may not be set from afar.
    """
    from edge.strict_json import parse_json  # which needs numpy; most devices have no overlay

    try:
        file = _File.model_validate(parse_json(data, LARGEST_BYTES))
    except ValidationError as error:
        raise ConfigError(f"{where}: is not an overlay: {one_line(first_validation_error(error))}") from None
    except ValueError as error:
        raise ConfigError(f"{where}: is damaged: {one_line(str(error))}") from None
    return _checked(Overlay(file.name, file.revision, file.values))


def read_overlay(path: Path) -> Overlay | None:
    """Read an overlay; None if there is no such file.

    Raises:
        ConfigError: it cannot be read, is damaged, or sets a key that may not be set from afar.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
    return parse_overlay(data, str(path))


def read_named(path: Path) -> Overlay:
    """Read an overlay that an operator names: overlay.json, or a YAML file with its keys.

    Raises:
        ConfigError: as `read_overlay`, or there is no such file.
    """
    if path.suffix in {".yaml", ".yml"}:
        return _checked(Overlay(path.stem, 0, load_mapping(path)))
    overlay = read_overlay(path)
    if overlay is None:
        raise ConfigError(f"{path}: there is no such file; name an overlay")
    return overlay


def check_alone(overlay: Overlay) -> None:
    """Check an overlay as far as that is possible without the file of a device.

    Raises:
        ConfigError: it sets a key that may not be set from afar, or to a value that no device takes.
    """
    _checked(overlay)
    cameras = overlay.values.get("cameras") or {}
    any_device = {"cameras": {name: {"source": "rtsp://camera/"} for name in (*cameras, _ANOTHER_CAMERA)}}
    typed_values(merged(any_device, overlay), f"overlay {overlay}")


def _checked(overlay: Overlay) -> Overlay:
    problems = key_problems(overlay.values)
    if problems:
        more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
        raise ConfigError(f"overlay {overlay}: {'; '.join(problems[:_MOST_PROBLEMS])}{more}")
    return overlay


def merged(own: Mapping[str, Any], overlay: Overlay) -> dict[str, Any]:
    """Return the values of a device's own file with those of an overlay over them."""
    values = _merge(own, overlay.values, ())
    cameras, changes = own.get("cameras"), overlay.values.get("cameras")
    if isinstance(cameras, Mapping) and isinstance(changes, Mapping):
        for name, change in changes.items():
            before = cameras.get(name)
            if isinstance(change, Mapping) and isinstance(before, Mapping) and "source" in change:
                values["cameras"][name]["source"] = _with_login(str(before.get("source", "")), str(change["source"]))
    return values


def _merge(own: Mapping[str, Any], over: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    made, removes = dict(own), pattern_of(keys) in NAMED
    for key, value in over.items():
        before = made.get(key)
        if value is None and removes:
            made.pop(key, None)
        elif isinstance(value, Mapping):
            made[key] = _merge(before if isinstance(before, Mapping) else {}, value, (*keys, key))
        else:
            made[key] = value
    return made


def _with_login(own: str, source: str) -> str:
    """Return an address with the login of the one before it, if both are of the same host by the same protocol."""
    try:
        before, after = parse_source(own), parse_source(source)
    except ConfigError:
        return source
    is_same = before.kind == after.kind == "rtsp" and _protocol(before.location) == _protocol(after.location)
    if not is_same or before.user is None or before.address != after.address:
        return source
    return replace(after, user=before.user, password=before.password).url


def _protocol(location: str) -> str:
    return location.partition("://")[0]
