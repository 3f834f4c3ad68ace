"""Writes `agent.json`: what the update agent does and why. The running device sends it on.

Rules this module keeps:
1. The file is replaced as a whole when something changed; a new time alone is written every ten minutes.
2. A disk that is full costs the report, never a step of the agent.
3. It holds enough to rebuild the quarantine of a journal that is lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import set_aside, write_durably
from edge.errors import FinesightError
from edge.telemetry.agent_report import NAME
from gallery_sync.agent.check import Refusal
from gallery_sync.agent.doors import Steps
from gallery_sync.agent.journal import Journal
from gallery_sync.agent.machine import AT_REST, Held, Target, Task
from gallery_sync.formats.fields import LARGEST_SEQUENCE

log = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 18
_MOST_RECEIPTS, _MOST_HELD = 64, 20
_REASON_LENGTH = 400
_TIME_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the agent knows beside its task."""

    reason: str | None = None  # why it waits or failed
    wanted: Target | None = None  # the release that this device takes
    refusal: Refusal | None = None  # of the release that it should take
    waits: str | None = None  # why it does not take what other devices take
    waits_for_turn: bool = False  # ready to switch


class _Held(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    line: Annotated[str, Field(max_length=80)]
    sequence: Annotated[int, Field(ge=1, le=LARGEST_SEQUENCE)]
    reason: Annotated[str, Field(max_length=1000)]
    count: Annotated[int, Field(ge=1, le=10**6)]
    until: float | None = None


class _FleetState(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    connected: bool = False
    error: Annotated[str, Field(max_length=1000)] | None = None


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    quarantine: Annotated[list[_Held], Field(default_factory=list, max_length=1000)]
    plan: Annotated[str, Field(max_length=_REASON_LENGTH)] | None = None
    waits: Annotated[str, Field(max_length=_REASON_LENGTH)] | None = None
    fleet: _FleetState | None = None


def _read(state_dir: Path) -> _Report:
    try:
        with (state_dir / NAME).open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
        return _Report.model_validate_json(data[:_LARGEST_BYTES])
    except (OSError, ValidationError) as error:
        log.debug("%s", error)
        return _Report.model_validate({})


def read_held(state_dir: Path) -> list[Held]:
    """Return the quarantine of the last report; empty if it is missing or damaged."""
    return [Held(**one.model_dump()) for one in _read(state_dir).quarantine]


def read_rollout(state_dir: Path) -> tuple[str | None, str | None]:
    """Return the rollout that brings the release of a device, and why it does not take what others take."""
    found = _read(state_dir)
    return found.plan, found.waits


def read_fleet(state_dir: Path) -> str | None:
    """Return how the connection to the fleet is, in words; None: the device has no broker."""
    fleet = _read(state_dir).fleet
    if fleet is None:
        return None
    return "connected" if fleet.connected else f"not connected: {fleet.error or 'not yet'}"


class Reporter:
    """Writes the report of one device."""

    def __init__(
        self,
        state_dir: Path,
        journal: Journal,
        now: Callable[[], float],
        told: str | None = None,
        fleet: Callable[[], Mapping[str, Any] | None] = lambda: None,
    ) -> None:
        """Write nothing yet.

        Args:
            state_dir: of the device.
            journal: gives quarantine and receipts.
            now: returns Unix seconds.
            told: what was wrong with the journal; None: nothing.
            fleet: returns how the connection to the fleet is, with counters; None: there is none.
        """
        self._path, self._journal, self._now, self._told = state_dir / NAME, journal, now, told
        self._fleet = fleet
        self._checked_at: float | None = None
        self._written: dict[str, Any] | None = None
        self._written_at = 0.0
        self.failed = 0  # reports that could not be written

    def checked(self, at: float) -> None:
        """Note when the repository was looked at, in Unix seconds."""
        self._checked_at = at

    def write(self, task: Task, told: Told, steps: Steps) -> None:
        """Write the report, if it has changed."""
        try:
            content, now = self.content(task, told, steps), self._now()
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

    def content(self, task: Task, told: Told, steps: Steps) -> dict[str, Any]:
        """Return the report, without its times."""
        serving, fresh, release = steps.serving(), steps.freshness(), task.release
        reason = told.reason or task.failed
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
            "plan": plan_of(task, told),
            "waits": told.waits and told.waits[:_REASON_LENGTH],
            "waits_for_turn": told.waits_for_turn,
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
            "fleet": self._fleet(),
        }


def plan_of(task: Task, told: Told) -> str | None:
    """Return the rollout that brings the release that is under way, or that this device takes; None: there is none."""
    if task.release is not None and task.has_begun and task.release.plan is not None:
        return task.release.plan
    return told.wanted.plan if told.wanted else None
