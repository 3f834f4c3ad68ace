"""Plan a reload of the configuration: which cameras to close and open, and what needs a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from edge.config.schema import DeviceConfig

_RELOADABLE = ("cameras", "recognition")  # can change between two frames


@dataclass(frozen=True, slots=True)
class ReloadPlan:
    """The changes to make while the unchanged cameras go on."""

    config: DeviceConfig  # runs from now on
    removed: tuple[str, ...]  # cameras
    added: tuple[str, ...]
    changed: tuple[str, ...]  # close, and open again
    recognition: bool  # the recognition settings have changed
    needs_restart: tuple[str, ...]  # key paths that differ and take effect only after a restart

    def summary(self) -> dict[str, Any]:
        """Return the plan for logs and replies."""
        return {
            "removed": list(self.removed),
            "added": list(self.added),
            "changed": list(self.changed),
            "recognition": self.recognition,
            "needs_restart": list(self.needs_restart),
        }


def plan_reload(running: DeviceConfig, wanted: DeviceConfig) -> ReloadPlan:
    """Compare the running configuration with a new one."""
    old, new = running.cameras, wanted.cameras
    return ReloadPlan(
        config=running.model_copy(update={key: getattr(wanted, key) for key in _RELOADABLE}),
        removed=tuple(name for name in old if name not in new),
        added=tuple(name for name in new if name not in old),
        changed=tuple(name for name in new if name in old and new[name] != old[name]),
        recognition=running.recognition != wanted.recognition,
        needs_restart=tuple(_differences(running, wanted, _RELOADABLE)),
    )


def _differences(old: BaseModel, new: BaseModel, ignored: tuple[str, ...] = ()) -> list[str]:
    """Return the key paths whose values differ, without the values: they may be secrets."""
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
