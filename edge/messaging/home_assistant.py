"""Home Assistant discovery: one retained message for each entity.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery. Keys are abbreviated as documented there; topics are
written out. A message for the whole device would grow with its cameras, beyond what brokers take: with 8 cameras it had
9 kB. Releases that sent it are followed by the documented change of form, so that entities keep their settings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, get_args

from edge.types import CameraState, EventType

_MOST_STATE_CHARACTERS = 255  # of a state in Home Assistant
_ANSWER = f"value_json.match.label[:{_MOST_STATE_CHARACTERS}] if value_json.match else value_json.reason"
_UNREACHABLE = ("stalled", "reconnecting", "offline", "unsupported", "disabled")
_PLATFORMS = {
    "status": "sensor",
    "connectivity": "binary_sensor",
    "match": "sensor",
    "in_view": "sensor",
    "event": "event",
    "snapshot": "image",
    "enabled": "switch",
}
_NAMES = {"match": "last match", "in_view": "in view"}
# an empty result is ignored: an event that waited for the broker must not look like one of now
_EVENT = (
    "{% if not value_json.historical %}"
    "{{ {'event_type': value_json.type, 'label': value_json.match.label if value_json.match else none,"
    " 'item': value_json.match.item if value_json.match else none,"
    " 'probability': value_json.match.probability if value_json.match else none,"
    " 'category': value_json.category.name if value_json.category else none, 'reason': value_json.reason,"
    " 'track_id': value_json.track_id, 'zones': value_json.zones,"
    " 'started_at': value_json.started_at, 'dwell_s': value_json.dwell_s} | tojson }}"
    "{% endif %}"
)


@dataclass(frozen=True, slots=True)
class DeviceDescription:
    """The properties of a device that discovery needs."""

    root: str  # first level of its topics
    site: str
    device: str
    version: str
    cameras: tuple[str, ...]
    switches: bool  # whether cameras can be switched on and off
    snapshots: bool = False  # whether pictures of recognised objects are published
    items: tuple[str, ...] = ()  # labels of items with a sensor of their own

    @property
    def key(self) -> str:
        """The id of the device in Home Assistant."""
        return f"finesight-{self.site}-{self.device}"

    @property
    def base(self) -> str:
        """The prefix of its topics."""
        return f"{self.root}/{self.site}/{self.device}"


# tells Home Assistant that the entities of a topic are about to be announced in another form
HAND_OVER = b'{"migrate_discovery":true}'


def device_topic(prefix: str, description: DeviceDescription) -> str:
    """Return the topic of the message for the whole device, which earlier releases sent."""
    return f"{prefix}/device/{description.key}/config"


def discovery(prefix: str, description: DeviceDescription) -> dict[str, bytes]:
    """Return the message of every entity, by topic. An empty message on its topic deletes an entity."""
    entities = [*_device_entities(description).items()]
    for camera in description.cameras:
        entities += [*_camera_entities(description, camera).items(), *_item_sensors(description, camera).items()]
    shared = _shared(description)
    return {
        # the same ids as in the message for the whole device
        f"{prefix}/{platform}/{description.key}/{leaf}/config": _encode({**shared, **entity})
        for (platform, leaf), entity in entities
    }


def _shared(description: DeviceDescription) -> dict[str, Any]:
    """Return the keys of every message: device, origin and availability."""
    return {
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
    }


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors="replace")


_Entities = dict[tuple[str, str], dict[str, Any]]  # fields by platform and id within the device


def _device_entities(description: DeviceDescription) -> _Entities:
    diagnostics = {
        "events_waiting": ("health", "{{ value_json.outbox_events }}", {"stat_cla": "measurement"}),
        "bundle": ("birth", "{{ value_json.versions.bundle }}", {}),
        "gallery": ("birth", "{{ value_json.versions.gallery }}", {}),
    }
    return {
        ("sensor", leaf): {
            "uniq_id": f"{description.key}_{leaf}",
            "name": leaf.replace("_", " ").capitalize(),
            "ent_cat": "diagnostic",
            "stat_t": f"{description.base}/{topic}",
            "val_tpl": template,
            **more,
        }
        for leaf, (topic, template, more) in diagnostics.items()
    }


def _camera_entities(description: DeviceDescription, camera: str) -> _Entities:
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
    fields["in_view"] = {
        "stat_t": f"{base}/in_view",
        "val_tpl": "{{ value_json.total }}",
        "json_attr_t": f"{base}/in_view",
        "stat_cla": "measurement",
    }
    fields["event"] = {"stat_t": f"{base}/events", "evt_typ": list(get_args(EventType)), "val_tpl": _EVENT}
    if description.snapshots:
        fields["snapshot"] = {"img_t": f"{base}/snapshot", "cont_type": "image/jpeg"}
    if description.switches:
        fields["enabled"] = {"cmd_t": f"{base}/enabled/set", "stat_t": f"{base}/enabled/state"}
    return {
        (_PLATFORMS[leaf], f"{camera}_{leaf}"): {
            "uniq_id": f"{description.key}_{camera}_{leaf}",
            "name": f"{camera} {_NAMES.get(leaf, leaf)}",
            **more,
        }
        for leaf, more in fields.items()
    }


def _item_sensors(description: DeviceDescription, camera: str) -> _Entities:
    """Return the sensors that count one item each."""
    sensors: _Entities = {}
    for label in description.items:
        digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:12]  # a label may be any text
        leaf = f"{camera}_item_{digest}"
        literal = json.dumps(label, ensure_ascii=False)  # also valid in a template
        sensors["sensor", leaf] = {
            "uniq_id": f"{description.key}_{leaf}",
            "name": f"{camera} {label}",
            "stat_t": f"{description.base}/{camera}/in_view",
            "val_tpl": f"{{{{ value_json.by_item.get({literal}, 0) }}}}",
            "stat_cla": "measurement",
        }
    return sensors
