"""What a device reports to its fleet: the fields of `Reported` but its numbers, which the mailbox adds.

Rules this module keeps:
1. What runs is what the vital signs of the running device say. The pointer counts where the device does not run, and
   where its vital signs are older than a change of the pointer; a pair on trial waits for newer ones. A pair that
   serves in place of the active one is reported as what it is.
2. A try is reported as the journal has it. A release that is refused from its documents is reported as a refused try
   for as long as it is.
3. Every list is bounded, the newest first, and every text is cut: a report that is valid today is valid tomorrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.telemetry.vital_signs import VitalSigns
from gallery_sync.agent.doors import Active, Steps
from gallery_sync.agent.journal import Journal, Past
from gallery_sync.agent.machine import AT_REST, Held, Task
from gallery_sync.agent.report import Told, plan_of
from gallery_sync.formats.reports import MOST_CAMERAS, MOST_HELD, MOST_TRIES
from gallery_sync.formats.rollouts import MOST_LABELS, RESERVED_LABELS

_TEXT, _SHORT = 400, 120


@dataclass(frozen=True, slots=True)
class About:
    """What a device reports of itself, each time."""

    device: str
    line: str
    labels: Mapping[str, str]  # with device, group and line
    version: str  # of finesight, of the agent
    allowed: tuple[str, ...] = ()  # commands
    confirmed_config: Callable[[], str | None] = lambda: None  # the configuration fragment that is not on trial


class FleetReport:
    """Makes the reports of one device."""

    def __init__(self, about: About, journal: Journal, now: Callable[[], float], told: str | None = None) -> None:
        """Make none yet.

        Args:
            about: the device.
            journal: gives tries and quarantine.
            now: returns Unix seconds.
            told: what was wrong with the journal; None: nothing.
        """
        self._about, self._journal, self._now, self._problem = about, journal, now, told
        self._pair: tuple[str, str, str] | None = None  # that the pointer named at the last report
        self._outdated_s: float | None = None  # monotonic: newer vital signs know that pair; None: all do

    def content(self, task: Task, told: Told, steps: Steps) -> dict[str, Any]:
        """Return the fields of `Reported`, but epoch and revision.

        Args:
            task: what the agent does.
            told: what it knows beside it.
            steps: doors to the device.

        Raises:
            StorageError: the journal cannot be read.
        """
        signs, active, fresh = steps.signs(), steps.active(), steps.freshness()
        release = task.release if task.has_begun else None
        return {
            "device": self._about.device,
            "line": self._about.line,
            "labels": _bounded(self._about.labels),
            "site": signs and _cut(signs.site, _SHORT),
            "at": self._now(),
            "state": "idle" if task.state in AT_REST else task.state.value,
            "since": max(task.since, 0.0),
            "reason": _cut(told.reason or task.failed),
            "target": release.sequence if release and release.sequence > 0 else None,
            "plan": _cut(plan_of(task, told), _SHORT),
            "waits_for_turn": told.waits_for_turn,
            "running": _running(None if self._are_outdated(signs, active) else signs, active),
            "serves": signs is not None,
            "tries": self._tries(told),
            "quarantine": [_held(one) for one in reversed(self._journal.all_held()[-MOST_HELD:]) if one.sequence > 0],
            "engine": signs and _cut(signs.engine),
            "cameras": _cameras(signs),
            "fps": round(signs.fps, 1) if signs else None,
            "versions": self._versions(signs),
            "config": _cut(_config(signs, self._about.confirmed_config())),
            "expires_at": fresh and fresh.expires_at,
            "allowed": list(self._about.allowed),
            "problem": _cut(self._problem or _problem_of(signs)),
        }

    def _are_outdated(self, signs: VitalSigns | None, active: Active | None) -> bool:
        """Return whether vital signs were written before the pointer changed, as those after a rollback."""
        pair = None if active is None else (active.slot, active.bundle_id, active.gallery)
        if pair != self._pair:
            has_changed, self._pair = self._pair is not None, pair
            self._outdated_s = signs.written_monotonic_s if signs is not None and has_changed else None
        if signs is None or active is None or self._outdated_s is None or signs.written_monotonic_s > self._outdated_s:
            return False
        return active.trial is None and signs.fallback is None

    def _versions(self, signs: VitalSigns | None) -> dict[str, str]:
        running = {"edge": signs.version[:_SHORT]} if signs and signs.version else {}
        return {"agent": self._about.version[:_SHORT], **running}

    def _tries(self, told: Told) -> list[dict[str, Any]]:
        past = self._journal.history(MOST_TRIES)
        tries = [_try(one) for one in past if one.line == self._about.line and one.sequence > 0]
        refusal = told.refusal
        if refusal is None or refusal.release is None:
            return tries
        release = refusal.release
        refused = Past(
            refusal.at,
            release.line,
            release.sequence,
            release.bundle_id,
            release.gallery_sequence,
            "refused",
            refusal.reason,
            None,
            release.plan,
        )
        return [_try(refused), *tries][:MOST_TRIES]


def _config(signs: VitalSigns | None, confirmed: str | None) -> str | None:
    used = signs.config.overlay if signs is not None and signs.config is not None else None
    return used if used in (None, confirmed) else f"{used}, on trial"


def _running(signs: VitalSigns | None, active: Active | None) -> dict[str, Any] | None:
    """Return the pair that serves or, where the device does not run, the active one."""
    if signs is not None and (active is None or _pair(signs) != (active.slot, active.bundle_id, active.gallery)):
        release = signs.release
        return {
            "line": release and _cut(release.line, _SHORT),
            "release": release.sequence if release and release.sequence > 0 else None,
            "bundle_id": signs.pair.bundle_id[:_SHORT],
            "gallery_sequence": release.gallery_sequence if release else None,
            "gallery": signs.pair.gallery[:_SHORT],
            "slot": signs.pair.slot[:_SHORT],
            "trial": _cut(signs.trial, _SHORT),
        }
    if active is None:
        return None
    return {  # of what serves, the pointer has the newest name
        "line": _cut(active.line, _SHORT),
        "release": active.sequence or None,
        "bundle_id": active.bundle_id[:_SHORT],
        "gallery_sequence": active.gallery_sequence,
        "gallery": active.gallery,
        "slot": active.slot,
        "trial": active.trial,
    }


def _pair(signs: VitalSigns) -> tuple[str, str, str]:
    return signs.pair.slot, signs.pair.bundle_id, signs.pair.gallery


def _try(past: Past) -> dict[str, Any]:
    return {
        "release": past.sequence,
        "bundle_id": past.bundle_id[:_SHORT],
        "gallery_sequence": past.gallery_sequence,
        "outcome": past.outcome,
        "trial": _cut(past.trial, _SHORT),
        "plan": _cut(past.plan, _SHORT),
        "reason": _cut(past.reason),
        "at": max(past.at, 0.0),
    }


def _held(held: Held) -> dict[str, Any]:
    return {"release": held.sequence, "reason": held.reason[:_TEXT], "until": held.until}


def _cameras(signs: VitalSigns | None) -> dict[str, str]:
    cameras = sorted(signs.cameras.items()) if signs else []
    return {name[:_SHORT]: camera.state[:_SHORT] for name, camera in cameras[:MOST_CAMERAS]}


def _problem_of(signs: VitalSigns | None) -> str | None:
    config = signs.config if signs else None
    return (config.error or config.refused) if config else None


def _bounded(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels that a report holds: those of the enrolment's identity first."""
    names = sorted(labels, key=lambda name: (name not in RESERVED_LABELS, name))
    return {name: labels[name] for name in names[:MOST_LABELS]}


def _cut(text: str | None, most: int = _TEXT) -> str | None:
    return text and text[:most]
