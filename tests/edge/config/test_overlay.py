"""Configuration overlays: what they may set, how they are merged, and that a wrong one never stops a device."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from edge.config.config_file import LAST_GOOD_FILE, AsWritten, ConfigFile
from edge.config.overlay import Overlay, merged, overlay_bytes, overlay_path, parse_overlay, read_named
from edge.config.overlay_keys import ALLOWED, ANY, FORBIDDEN, key_problems
from edge.config.schema import DeviceConfig
from edge.errors import ConfigError

OWN = """
cameras:
  door: {source: 'rtsp://user:hunter2@10.0.0.5/main', max_px: 1280, zones: {till: {polygon: [[0, 0], [1, 0], [1, 1]]}}}
  yard: {source: 'rtsp://10.0.0.6/main'}
mqtt: {host: broker, password: '${PASSWORD}'}
"""
NIGHT = {"cameras": {"door": {"max_px": 640}}, "recognition": {"min_looks": 5}}


class Device:
    """A device's own file, its state folder, and its overlay."""

    def __init__(self, folder: Path) -> None:
        self.path, self.state = folder / "etc/device.yaml", folder / "state"
        for one in (self.path.parent, self.state):
            one.mkdir()
        self.path.write_text(OWN)

    def file(self, overlay: Path | None = None) -> ConfigFile:
        return ConfigFile(self.path, {"PASSWORD": "hunter3"}, self.state, overlay)

    def set_overlay(self, values: object, name: str = "night-mode", revision: int = 3) -> None:
        self.set_bytes(overlay_bytes(Overlay(name, revision, values)))  # type: ignore[arg-type]

    def set_bytes(self, data: bytes) -> None:
        path = overlay_path(self.state)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


# Loading


def test_without_an_overlay_the_own_file_counts(device):
    file = device.file()
    assert file.load().cameras["door"].max_px == 1280
    assert (file.overlay, file.overlay_problem) == (None, None)


def test_overlay_is_merged_over_the_own_file(device):
    device.set_overlay(NIGHT)
    file = device.file()
    config = file.load()
    assert (config.cameras["door"].max_px, config.recognition.min_looks) == (640, 5)
    assert config.cameras["door"].source == "rtsp://user:hunter2@10.0.0.5/main"
    assert config.cameras["yard"].max_px is None
    assert config.mqtt.password == "hunter3"
    assert (file.overlay, file.overlay_problem) == ("night-mode 3", None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cameras": {"door": {"max_px": 5}}}, r"overlay night-mode 3: cameras\.door\.max_px: found 5"),
        ({"cameras": {"roof": {"max_px": 640}}}, r"overlay night-mode 3: cameras\.roof\.source: this key is missing"),
        ({"cameras": {"door": None, "yard": {"enabled": False}}}, "no camera is enabled"),
        ({"site": "evil"}, "site: may not be set from afar"),
    ],
)
def test_overlay_that_does_not_fit_is_ignored_and_reported(device, values, message, caplog):
    own = device.file().load()
    device.set_overlay(values)
    file = device.file()
    assert file.load() == own
    assert file.overlay is None
    assert file.problem is None
    assert file.overlay_problem is not None
    assert any(one.message.startswith("overlay night-mode 3") for one in caplog.records)
    with pytest.raises(ConfigError, match=message):
        device.file(overlay_path(device.state)).load()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\0" * 100, b'{"schema": "other"}', b"x" * 400_000])
def test_damaged_overlay_is_ignored_and_reported(device, damage):
    own = device.file().load()
    device.set_bytes(damage)
    file = device.file()
    assert file.load() == own
    assert "overlay.json" in file.overlay_problem


def test_folder_in_place_of_the_overlay_is_ignored(device):
    overlay_path(device.state).mkdir(parents=True)
    file = device.file()
    file.load()
    assert "cannot read" in file.overlay_problem


def test_reported_problem_holds_no_secret(device):
    device.set_overlay({"cameras": {"door": {"source": "rtsp://10.0.0.5/a", "framing": "nonsense"}}})
    file = device.file()
    file.load()
    assert "hunter2" not in file.overlay_problem


def test_invalid_own_file_is_no_fault_of_the_overlay(device):
    device.set_overlay(NIGHT)
    device.path.write_text("sitte: x\n")
    file = device.file()
    with pytest.raises(ConfigError, match="unknown key 'sitte'"):
        file.load()
    assert file.overlay_problem is None


def test_safe_mode_keeps_the_overlay(device):
    file = device.file()
    file.load()
    file.save_last_good(device.state)
    device.set_overlay(NIGHT)
    device.path.write_text("sitte: x\n")
    again = device.file()
    assert again.load_or_last_good(device.state).cameras["door"].max_px == 640
    assert (again.safe_mode, again.overlay) == (True, "night-mode 3")
    assert "640" not in (device.state / LAST_GOOD_FILE).read_text()


def test_change_of_the_overlay_is_seen_once(device):
    file = device.file()
    assert not file.overlay_changed()
    file.load()
    assert not file.overlay_changed()
    device.set_overlay(NIGHT)
    assert file.overlay_changed()
    file.load()
    assert not file.overlay_changed()
    overlay_path(device.state).unlink()
    assert file.overlay_changed()
    device.path.write_text("sitte: x\n")
    with pytest.raises(ConfigError):
        file.load()
    assert not file.overlay_changed()


def test_yaml_file_of_an_operator_can_be_checked(device, tmp_path):
    path = tmp_path / "night-mode.yaml"
    path.write_text("cameras: {door: {max_px: 640}}\n")
    file = device.file(path)
    assert file.load().cameras["door"].max_px == 640
    assert file.overlay == "night-mode"
    path.write_text("cameras: {door: {max_px: 640}, door: {}}\n")
    with pytest.raises(ConfigError, match="appears twice"):
        device.file(path).load()
    with pytest.raises(ConfigError, match="no such file"):
        read_named(tmp_path / "none.json")


def test_variable_that_is_not_set_can_stay_as_written(device):
    config = ConfigFile(device.path, AsWritten({}), device.state).load()
    assert config.mqtt.password == "${PASSWORD}"
    assert AsWritten({"A": "1"}).get("A", "2") == "1"
    assert AsWritten({}).get("A", "2") == "2"


# Merging


def test_mappings_merge_and_other_values_replace():
    own = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    assert merged(own, Overlay("x", 1, {"a": {"c": [3]}, "e": 5})) == {"a": {"b": 1, "c": [3]}, "d": 4, "e": 5}
    assert own == {"a": {"b": 1, "c": [1, 2]}, "d": 4}


def test_null_removes_a_named_entry_and_is_a_value_elsewhere(device):
    device.set_overlay({"cameras": {"yard": None, "door": {"max_px": None, "zones": {"till": None}}}})
    config = device.file().load()
    assert list(config.cameras) == ["door"]
    assert config.cameras["door"].max_px is None
    assert config.cameras["door"].zones == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rtsp://10.0.0.5/sub", "rtsp://user:hunter2@10.0.0.5/sub"),
        ("rtsp://10.0.0.5:554/sub", "rtsp://user:hunter2@10.0.0.5:554/sub"),
        ("rtsp://10.0.0.9/sub", "rtsp://10.0.0.9/sub"),
        ("rtsp://10.0.0.5:8554/sub", "rtsp://10.0.0.5:8554/sub"),
        ("rtsps://10.0.0.5:554/sub", "rtsps://10.0.0.5:554/sub"),
        ("v4l2://0?width=640", "v4l2://0?width=640"),
    ],
)
def test_login_goes_only_to_the_same_host(device, source, expected):
    device.set_overlay({"cameras": {"door": {"source": source}}})
    assert device.file().load().cameras["door"].source == expected


# Keys


def _keys(kind: object, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every key of a type, with `*` for names that the user chooses."""
    if get_origin(kind) is dict:
        yield from _keys(get_args(kind)[1], (*keys, ANY))
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            path = (*keys, field.alias or name)
            yield path
            yield from _keys(field.annotation, path)
    else:
        for inner in get_args(kind):
            yield from _keys(inner, keys)


def test_every_key_is_decided():
    """A new key of the schema needs a decision: may an operator set it from afar? See edge/config/overlay_keys.py."""
    decided = ALLOWED | FORBIDDEN.keys()
    for path in _keys(DeviceConfig):
        above = [path[:n] for n in range(1, len(path) + 1)]
        inside = any(one[: len(path)] == path for one in decided)
        assert inside or any(one in decided for one in above), f"decide about {'.'.join(path)}"
    assert not ALLOWED & FORBIDDEN.keys()


def test_every_decision_is_about_a_key():
    known = set(_keys(DeviceConfig))
    assert ALLOWED | FORBIDDEN.keys() <= known


@pytest.mark.parametrize("path", sorted(FORBIDDEN))
def test_forbidden_keys_are_refused_with_the_reason(path):
    values: object = 1
    for key in reversed(path):
        values = {"door" if key == ANY else key: values}
    (problem,) = key_problems(values)  # type: ignore[arg-type]
    assert "may not be set from afar" in problem
    assert FORBIDDEN[path] in problem


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recogniton": {}}, "unknown key 'recogniton'; did you mean 'recognition'"),
        ({"cameras": {"door": {"max_pixels": 1}}}, r"cameras\.door\.max_pixels: unknown key"),
        ({"cameras": []}, "cameras: expected a mapping"),
        ({"cameras": {"door": 5}}, r"cameras\.door: expected a mapping"),
        ({"recognition": None}, "recognition: expected a mapping"),
        ({"cameras": {"door": {"source": "rtsp://u:p@host/x"}}}, "user and password stay"),
        ({"cameras": {"door": {"source": "rtsp://${HOST}/x"}}}, "only the device's own file may use variables"),
        ({"cameras": {"door": {"source": "gst:videotestsrc ! appsink name=sink"}}}, "may be set from afar"),
        ({"cameras": {"door": {"source": "file:///etc/passwd"}}}, "may be set from afar"),
        ({"cameras": {"door": {"source": "v4l2:///etc/passwd"}}}, "may be set from afar"),
        ({"cameras": {"door": {"source": 7}}}, "no known scheme"),
    ],
)
def test_wrong_keys_and_values_are_refused(values, message):
    (problem,) = key_problems(values)
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(problem)
    with pytest.raises(ConfigError, match=message):
        parse_overlay(overlay_bytes(Overlay("x", 1, values)), "x")


def test_many_problems_make_one_short_message():
    values = {f"key{n}": 1 for n in range(100)}
    with pytest.raises(ConfigError, match="and 95 more"):
        parse_overlay(overlay_bytes(Overlay("x", 1, values)), "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
NAMES = st.sampled_from(["cameras", "recognition", "door", "source", "zones", "max_px", "mqtt", "min_looks"])


@given(st.dictionaries(NAMES | st.text(max_size=8), JSON | st.dictionaries(NAMES, JSON, max_size=3), max_size=3))
def test_any_values_are_merged_or_refused(values):
    data = json.dumps({"schema": "finesight.overlay/1", "name": "x", "revision": 1, "values": values}).encode()
    overlay = Overlay("x", 1, {})
    with contextlib.suppress(ConfigError):
        overlay = parse_overlay(data, "x")
    merged({"cameras": {"door": {"source": "rtsp://a/b"}}}, overlay)
