"""What earlier runs of `edge-train learn` left in its folder, so that the same command goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge.durable import write_durably
from learn.plan import Plan, Speed
from learn.scene_plan import ScenePlan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Memory:
    """The state of the folder. Both ways to learn may have used it: each has its plan, and they share the bundle."""

    learned_from: str = ""  # key of the photos, weights and minutes that the plan is for
    plan: Plan | None = None
    scenes_from: str = ""  # key of the scenes, names, weights and minutes that the scene plan is for
    scene_plan: ScenePlan | None = None
    speed: Speed | None = None  # that the scene plan was made with
    packed_from: str = ""  # key of what the bundle was packed from
    warnings: tuple[str, ...] = ()  # of that bundle


def read_memory(path: Path) -> Memory:
    """Read the memory; a missing or damaged file, or one of another version, is none."""
    try:
        found = json.loads(path.read_bytes())
        return Memory(
            str(found["learned_from"]),
            _made(Plan, found["plan"]),
            str(found.get("scenes_from", "")),
            _made(ScenePlan, found.get("scene_plan")),
            _made(Speed, found.get("speed")),
            str(found["packed_from"]),
            tuple(map(str, found["warnings"])),
        )
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return Memory()


def _made(kind: type[T], stored: Any) -> T | None:
    return None if stored is None else kind(**stored)


def write_memory(path: Path, memory: Memory) -> None:
    """Write the memory durably.

    Raises:
        OSError: it cannot be written.
    """
    write_durably(path, json.dumps(asdict(memory), indent=1, ensure_ascii=False).encode("utf-8"))
