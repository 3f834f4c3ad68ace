"""How Home Assistant finds the device and its cameras by itself: one message that describes them all.

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload (Home Assistant 2024.11 and later). Its keys
are abbreviated as documented there; topics are written out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

from edge.types import CameraState

_MOST_STATE_CHARACTERS = 255  # of a state in Home Assistant
_ANSWER = f"value_json.match.label[:{_MOST_STATE_CHARACTERS}] if value_json.match else value_json.reason"
_UNREACHABLE = ("stalled", "reconnecting", "offline", "disabled")
_PLATFORMS = {"status": "sensor", "connectivity": "binary_sensor", "match": "sensor", "enabled": "switch"}


@dataclass(frozen=True, slots=True)
class Described:
    """What Home Assistant is told of a device."""

    root: str  # first level of its topics
    site: str
    device: str
    version: str
    cameras: tuple[str, ...]
    switches: bool  # whether cameras can be switched

    @property
    def key(self) -> str:
        """Names the device in Home Assistant."""
        return f"finesight-{self.site}-{self.device}"

    @property
    def base(self) -> str:
        """Above its topics."""
        return f"{self.root}/{self.site}/{self.device}"


def discovery_topic(prefix: str, described: Described) -> str:
    """Where Home Assistant expects the message."""
    return f"{prefix}/device/{described.key}/config"


def discovery_payload(described: Described, removed: Iterable[str] = ()) -> bytes:
    """The JSON of the message.

    Args:
        described: the device.
        removed: cameras that an earlier message described and that are gone.
    """
    components = _device_components(described)
    for camera in described.cameras:
        components |= _camera_components(described, camera)
    for camera in removed:  # a component with a platform and nothing else is taken out
        components |= {f"{camera}_{leaf}": {"p": platform} for leaf, platform in _PLATFORMS.items()}
    message = {
        "dev": {
            "ids": [described.key],
            "name": f"{described.site} {described.device}",
            "mf": "finesight",
            "mdl": "edge runtime",
            "sw": described.version,
        },
        "o": {"name": "finesight", "sw": described.version},
        "avty_t": f"{described.base}/available",
        "avty_tpl": "{{ 'online' if value == 'online' else 'offline' }}",  # it may say stopped, too
        "qos": 1,
        "cmps": components,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _device_components(described: Described) -> dict[str, dict[str, Any]]:
    diagnostics = {
        "events_waiting": ("health", "{{ value_json.outbox_events }}", {"stat_cla": "measurement"}),
        "bundle": ("birth", "{{ value_json.versions.bundle }}", {}),
        "gallery": ("birth", "{{ value_json.versions.gallery }}", {}),
    }
    return {
        leaf: {
            "p": "sensor",
            "uniq_id": f"{described.key}_{leaf}",
            "name": leaf.replace("_", " ").capitalize(),
            "ent_cat": "diagnostic",
            "stat_t": f"{described.base}/{topic}",
            "val_tpl": template,
            **more,
        }
        for leaf, (topic, template, more) in diagnostics.items()
    }


def _camera_components(described: Described, camera: str) -> dict[str, dict[str, Any]]:
    base = f"{described.base}/{camera}"
    fields: dict[str, dict[str, Any]] = {
        "status": {
            "dev_cla": "enum",
            "ops": list(get_args(CameraState)),
            "stat_t": f"{base}/status",
            "val_tpl": "{{ value_json.state }}",
            "json_attr_t": f"{base}/status",
        },
        "connectivity": {
            "dev_cla": "connectivity",
            "ent_cat": "diagnostic",
            "stat_t": f"{base}/status",
            "val_tpl": f"{{{{ 'OFF' if value_json.state in {list(_UNREACHABLE)} else 'ON' }}}}",
        },
        "match": {
            "stat_t": f"{base}/events",
            "val_tpl": f"{{{{ {_ANSWER} }}}}",
            "json_attr_t": f"{base}/events",
        },
    }
    if described.switches:
        fields["enabled"] = {"cmd_t": f"{base}/enabled/set", "stat_t": f"{base}/enabled/state"}
    names = {"match": "last match"}
    return {
        f"{camera}_{leaf}": {
            "p": _PLATFORMS[leaf],
            "uniq_id": f"{described.key}_{camera}_{leaf}",
            "name": f"{camera} {names.get(leaf, leaf)}",
            **more,
        }
        for leaf, more in fields.items()
    }
