"""What earlier runs of `edge-train learn` left in its folder, so that the same command goes on where it was."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.durable import write_durably
from learn.plan import Plan


@dataclass(frozen=True, slots=True)
class Memory:
    """The state of the folder."""

    learned_from: str = ""  # key of the photos, weights and minutes that the plan is for
    plan: Plan | None = None
    packed_from: str = ""  # key of what the bundle was packed from
    sequence: int = 0  # of the bundle that was packed last
    warnings: tuple[str, ...] = ()  # of that bundle


def read_memory(path: Path) -> Memory:
    """Read the memory; a missing or damaged file, or one of another version, is none."""
    try:
        found = json.loads(path.read_bytes())
        plan = None if found["plan"] is None else Plan(**found["plan"])
        packed = str(found["packed_from"]), int(found["sequence"]), tuple(map(str, found["warnings"]))
        return Memory(str(found["learned_from"]), plan, *packed)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return Memory()


def write_memory(path: Path, memory: Memory) -> None:
    """Write the memory durably.

    Raises:
        OSError: it cannot be written.
    """
    write_durably(path, json.dumps(asdict(memory), indent=1, ensure_ascii=False).encode("utf-8"))
