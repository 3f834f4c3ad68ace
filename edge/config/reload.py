"""From the configuration that runs to another one: what is closed, opened and replaced, and what needs a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from edge.config.schema import DeviceConfig

_LIVE = ("cameras", "recognition")  # what can change between two frames


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, while the other cameras go on."""

    config: DeviceConfig  # what the device runs by from now on
    removed: tuple[str, ...]  # cameras
    added: tuple[str, ...]
    changed: tuple[str, ...]  # closed, and opened anew
    recognition: bool  # how often objects are looked at has changed
    needs_restart: tuple[str, ...]  # key paths that differ and stay as they are until then

    def summary(self) -> dict[str, Any]:
        """For logs and replies."""
        return {
            "removed": list(self.removed),
            "added": list(self.added),
            "changed": list(self.changed),
            "recognition": self.recognition,
            "needs_restart": list(self.needs_restart),
        }


def plan_reload(running: DeviceConfig, wanted: DeviceConfig) -> Plan:
    """Compare two configurations."""
    old, new = running.cameras, wanted.cameras
    return Plan(
        config=running.model_copy(update={key: getattr(wanted, key) for key in _LIVE}),
        removed=tuple(name for name in old if name not in new),
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        recognition=running.recognition != wanted.recognition,
        needs_restart=tuple(_differences(running, wanted, _LIVE)),
    )


def _differences(old: BaseModel, new: BaseModel, ignored: tuple[str, ...] = ()) -> list[str]:
    """The key paths whose values differ; the values themselves may be secrets."""
    found = []
    for key in type(old).model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if key in ignored or before == after:
            continue
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            found += [f"{key}.{deeper}" for deeper in _differences(before, after)]
        else:
            found.append(key)
    return found
