"""The Home Assistant discovery message, which describes the device and all its cameras.

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
class DeviceDescription:
    """The properties of a device that discovery needs."""

    root: str  # first level of its topics
    site: str
    device: str
    version: str
    cameras: tuple[str, ...]
    switches: bool  # whether cameras can be switched on and off

    @property
    def key(self) -> str:
        """The id of the device in Home Assistant."""
        return f"finesight-{self.site}-{self.device}"

    @property
    def base(self) -> str:
        """The prefix of its topics."""
        return f"{self.root}/{self.site}/{self.device}"


def discovery_topic(prefix: str, description: DeviceDescription) -> str:
    """Return the topic on which Home Assistant expects the message."""
    return f"{prefix}/device/{description.key}/config"


def discovery_payload(description: DeviceDescription, removed: Iterable[str] = ()) -> bytes:
    """Return the JSON of the message.

    Args:
        description: the device.
        removed: cameras of an earlier message that no longer exist.
    """
    components = _device_components(description)
    for camera in description.cameras:
        components |= _camera_components(description, camera)
    for camera in removed:  # a component with nothing but a platform is deleted
        components |= {f"{camera}_{leaf}": {"p": platform} for leaf, platform in _PLATFORMS.items()}
    message = {
        "dev": {
            "ids": [description.key],
            "name": f"{description.site} {description.device}",
            "mf": "finesight",
            "mdl": "edge runtime",
            "sw": description.version,
        },
        "o": {"name": "finesight", "sw": description.version},
        "avty_t": f"{description.base}/available",
        "avty_tpl": "{{ 'online' if value == 'online' else 'offline' }}",  # it may also be "stopped"
        "qos": 1,
        "cmps": components,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def _device_components(description: DeviceDescription) -> dict[str, dict[str, Any]]:
    diagnostics = {
        "events_waiting": ("health", "{{ value_json.outbox_events }}", {"stat_cla": "measurement"}),
        "bundle": ("birth", "{{ value_json.versions.bundle }}", {}),
        "gallery": ("birth", "{{ value_json.versions.gallery }}", {}),
    }
    return {
        leaf: {
            "p": "sensor",
            "uniq_id": f"{description.key}_{leaf}",
            "name": leaf.replace("_", " ").capitalize(),
            "ent_cat": "diagnostic",
            "stat_t": f"{description.base}/{topic}",
            "val_tpl": template,
            **more,
        }
        for leaf, (topic, template, more) in diagnostics.items()
    }


def _camera_components(description: DeviceDescription, camera: str) -> dict[str, dict[str, Any]]:
    base = f"{description.base}/{camera}"
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
    if description.switches:
        fields["enabled"] = {"cmd_t": f"{base}/enabled/set", "stat_t": f"{base}/enabled/state"}
    names = {"match": "last match"}
    return {
        f"{camera}_{leaf}": {
            "p": _PLATFORMS[leaf],
            "uniq_id": f"{description.key}_{camera}_{leaf}",
            "name": f"{camera} {names.get(leaf, leaf)}",
            **more,
        }
        for leaf, more in fields.items()
    }
