"""Any YAML text gives a configuration or a ConfigError."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config.schema import DeviceConfig
from edge.config.yaml_file import parse_config
from edge.errors import ConfigError

FOLDER = Path("/etc/finesight")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=4)
)
KEYS = st.sampled_from([*DeviceConfig.model_fields, "source", "door", "zones", "from", "<<"]) | SCALARS
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
MARKS = ["\n", "  ", "- ", "? ", ": ", "[", "]", "{", "}", "&a ", "*a", "<<: ", "|", ">", "#", "'", '"', "\t", "\\"]
TAGS = [
    "!!int ",
    "!!float ",
    "!!bool ",
    "!!timestamp ",
    "!!binary ",
    "!!set ",
    "!!omap ",
    "!x ",
    "---\n",
    "%YAML 1.1\n",
]
VALUES = [
    "cameras:",
    "door:",
    "2026-13-01",
    "0b_",
    "0x",
    "1e999",
    ".nan",
    "12:99:99",
    "${A}",
    "${B:-b}",
    "\0",
    "\ud800",
]


def parse(text: str) -> DeviceConfig:
    return parse_config(text, FOLDER / "device.yaml", FOLDER, {"A": "a"})


def check(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text), DeviceConfig)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*MARKS, *TAGS, *VALUES]) | st.text(max_size=5), max_size=20).map("".join))
def test_any_text_gives_a_configuration_or_a_config_error(text):
    check(text)
    check(f"cameras: {{door: {{source: 'rtsp://h/a'}}}}\n{text}")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.dictionaries(KEYS, TREES, max_size=5))
def test_any_mapping_gives_a_configuration_or_a_config_error(tree):
    check(yaml.safe_dump(tree))


@settings(derandomize=True, max_examples=50, deadline=None)
@given(
    names=st.lists(NAMES.filter(lambda name: name != "cmd"), min_size=1, max_size=3, unique=True),
    latency_ms=st.integers(0, 5000),
    password=st.text(st.characters(codec="utf-8", exclude_characters="$"), max_size=12),
)
def test_configuration_survives_a_round_trip(names, latency_ms, password):
    cameras = {name: {"source": f"rtsp://cam/{name}", "latency_ms": latency_ms} for name in names}
    tree = {"site": names[0], "cameras": cameras, "mqtt": {"password": password}}
    config = parse(yaml.safe_dump(tree))
    assert list(config.cameras) == sorted(names)  # safe_dump sorts keys
    assert {camera.latency_ms for camera in config.cameras.values()} == {latency_ms}
    assert (config.site, config.mqtt.password) == (names[0], password)
    again = yaml.safe_dump(config.model_dump(mode="json", by_alias=True))
    assert parse(again) == config


@pytest.mark.parametrize(
    "value", ["2026-13-01", "0b_", "!!int x", "!!float x", "!!bool x", "!!timestamp x", "&a [*a]", "[" * 1500]
)
def test_value_that_pyyaml_cannot_convert_is_a_config_error(value):
    with pytest.raises(ConfigError, match=r"device\.yaml"):
        parse(f"cameras: {{door: {{source: rtsp://cam/1}}}}\nsite: {value}\n")
