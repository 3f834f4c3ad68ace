"""Writes `agent.json`: what the update agent does and why. The running device sends it on.

Rules this module keeps:
1. The file is replaced as a whole when something changed; a new time alone is written every ten minutes.
2. A disk that is full costs the report, never a step of the agent.
3. It holds enough to rebuild the quarantine of a journal that is lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import set_aside, write_durably
from edge.errors import FinesightError
from edge.telemetry.agent_report import NAME
from gallery_sync.agent.doors import Steps
from gallery_sync.agent.journal import Journal
from gallery_sync.agent.machine import AT_REST, Held, Task
from gallery_sync.formats.fields import LARGEST_SEQUENCE

log = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 18
_MOST_RECEIPTS, _MOST_HELD = 64, 20
_REASON_LENGTH = 400
_TIME_EVERY_S = 600.0


class _Held(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    line: Annotated[str, Field(max_length=80)]
    sequence: Annotated[int, Field(ge=1, le=LARGEST_SEQUENCE)]
    reason: Annotated[str, Field(max_length=1000)]
    count: Annotated[int, Field(ge=1, le=10**6)]
    until: float | None = None


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    quarantine: Annotated[list[_Held], Field(default_factory=list, max_length=1000)]


def read_held(state_dir: Path) -> list[Held]:
    """Return the quarantine of the last report; empty if it is missing or damaged."""
    try:
        with (state_dir / NAME).open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
        found = _Report.model_validate_json(data[:_LARGEST_BYTES])
    except (OSError, ValidationError) as error:
        log.debug("%s", error)
        return []
    return [Held(**one.model_dump()) for one in found.quarantine]


class Reporter:
    """Writes the report of one device."""

    def __init__(self, state_dir: Path, journal: Journal, now: Callable[[], float], told: str | None = None) -> None:
        """Write nothing yet.

        Args:
            state_dir: of the device.
            journal: gives quarantine and receipts.
            now: returns Unix seconds.
            told: what was wrong with the journal; None: nothing.
        """
        self._path, self._journal, self._now, self._told = state_dir / NAME, journal, now, told
        self._checked_at: float | None = None
        self._written: dict[str, Any] | None = None
        self._written_at = 0.0
        self.failed = 0  # reports that could not be written

    def checked(self, at: float) -> None:
        """Note when the repository was looked at, in Unix seconds."""
        self._checked_at = at

    def write(self, task: Task, reason: str | None, steps: Steps) -> None:
        """Write the report, if it has changed."""
        try:
            content, now = self.content(task, reason, steps), self._now()
            if content == self._written and 0 <= now - self._written_at < _TIME_EVERY_S:
                return
            data = content | {"written_at": now, "checked_at": self._checked_at}
            set_aside(self._path)
            write_durably(self._path, json.dumps(data, indent=1).encode() + b"\n", mode=0o640)
        except (OSError, FinesightError) as error:
            self.failed += 1
            log.warning("%s: cannot write: %s", self._path, error)
            return
        self._written, self._written_at = content, now

    def content(self, task: Task, reason: str | None, steps: Steps) -> dict[str, Any]:
        """Return the report, without its times."""
        serving, fresh, release = steps.serving(), steps.freshness(), task.release
        reason = reason or task.failed
        past = self._journal.history(1)
        return {
            "schema": "finesight.agent/1",
            "state": "idle" if task.state in AT_REST else task.state.value,
            "since": task.since,
            "reason": reason and reason[:_REASON_LENGTH],
            "release": release
            and {
                "line": release.line,
                "sequence": release.sequence,
                "bundle_id": release.bundle_id,
                "gallery_sequence": release.gallery_sequence,
            },
            "trial": task.trial,
            "serving": {"line": serving.line, "sequence": serving.sequence, "trial": serving.trial},
            "last": asdict(past[0]) if past else None,
            "quarantine": [asdict(one) for one in self._journal.all_held()[-_MOST_HELD:]],
            "receipts": [
                {
                    "category": one.category[:_REASON_LENGTH],
                    "sequence": one.sequence,
                    "items": one.items,
                    "erased_at": one.at,
                }
                for one in reversed(self._journal.receipts(_MOST_RECEIPTS))
            ],
            "expires_at": fresh and fresh.expires_at,
            "warn_at": fresh and fresh.warn_at,
            "expired": fresh and fresh.expired,
            "problem": self._told and self._told[:_REASON_LENGTH],
        }
