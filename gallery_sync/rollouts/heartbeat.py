"""When the controller looked last: a file beside the audit log, for people. Nothing is decided by it.

    REPO/rollouts/controller.seen

Rules this module keeps:
1. A file that cannot be written stops no look, and one that cannot be read counts as none.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from edge.strict_json import parse_json

_NAME = "rollouts/controller.seen"
_LARGEST_BYTES = 4096
_LOOKS, _SPARE_S = 3, 10.0  # that may be missed before it counts as stopped


@dataclass(frozen=True, slots=True)
class Seen:
    """A look of a controller that goes on."""

    at: float  # Unix seconds
    every_s: float  # time between looks

    def is_alive(self, now_s: float) -> bool:
        """Return whether the controller still looks, as far as a clock of another machine can tell."""
        return abs(now_s - self.at) <= _LOOKS * self.every_s + _SPARE_S


def write_seen(repo: Path, seen: Seen) -> None:
    """Note a look. It is not flushed: after a power cut nothing looks either."""
    path = repo / _NAME
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(asdict(seen)))
        partial.replace(path)


def read_seen(repo: Path) -> Seen | None:
    """Return the last look of a controller; None: none is known."""
    try:
        with (repo / _NAME).open("rb") as file:
            found = parse_json(file.read(_LARGEST_BYTES + 1), _LARGEST_BYTES)
        return Seen(float(found["at"]), min(max(float(found["every_s"]), 0.0), 86_400.0))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def forget_seen(repo: Path) -> None:
    """Note that a controller ended."""
    with contextlib.suppress(OSError):
        (repo / _NAME).unlink(missing_ok=True)
