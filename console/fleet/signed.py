"""What the signed repository says: releases, the rollout that is under way, drafts, history and fragments. Reads only.

Rules this module keeps:
1. Nothing here needs a key. Signed documents are read again when they changed, and kept otherwise.
2. A repository that is not given, missing or damaged is an error that says what to do.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from console.fleet.texts import clean
from console.settings import Settings
from edge.errors import ConsoleError, SyncError
from gallery_sync.formats.config import ConfigFragment
from gallery_sync.formats.documents import Release
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.published import Published, read_published
from gallery_sync.rollouts import audit
from gallery_sync.rollouts.changes import approved_digests
from gallery_sync.rollouts.fragments import list_fragments
from gallery_sync.rollouts.heartbeat import read_seen
from gallery_sync.rollouts.plans import PlanDraft, drafts, read_draft
from gallery_sync.trust.clock import read_time

_NOT_GIVEN = "no repository is given; start the console with --repo REPO to see rollouts"
_SHOWN = frozenset({"at", "by", "what", "state", "revision", "rollout", "release", "reason"})
_Found = TypeVar("_Found")
_Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """Who did what to the rollouts."""

    number: int  # from 1, the oldest first
    at: float | None
    by: str
    what: str
    rollout: str
    release: str
    reason: str
    state: str  # done, waits, interrupted or given up
    details: str


@dataclass(frozen=True, slots=True)
class History:
    """The audit log of the rollouts, the newest row first."""

    rows: tuple[HistoryRow, ...]
    problems: tuple[str, ...]  # torn or changed lines
    approved: frozenset[str]  # digests of plans that were approved


class SignedRepository:
    """Reads the repository of a console; from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[_Stamp, Any]] = {}

    @property
    def is_given(self) -> bool:
        """Whether a repository was named."""
        return self._settings.repository is not None

    @property
    def folder(self) -> Path:
        """The folder of the repository.

        Raises:
            ConsoleError: none is given.
        """
        if self._settings.repository is None:
            raise ConsoleError("missing", _NOT_GIVEN)
        return self._settings.repository

    def published(self) -> Published:
        """Return the signed documents.

        Raises:
            ConsoleError: none is given, or it cannot be read.
        """
        return self._read("published", lambda repo: read_published(repo, SignedMetadata.open(repo)))

    def history(self) -> History:
        """Return who did what.

        Raises:
            ConsoleError: as `published`.
        """
        published = self.published()
        return self._read("history", lambda repo: _history(*audit.read_history(repo, published.rollouts)))

    def drafts(self) -> list[PlanDraft]:
        """Return the plans that nobody approved yet, the newest first.

        Raises:
            ConsoleError: as `published`.
        """
        approved = self.history().approved
        found = [one for one in drafts(self.folder) if one.digest() not in approved]
        return sorted(found, key=lambda one: one.planned_at, reverse=True)

    def draft(self, plan_id: str) -> PlanDraft:
        """Return a draft of a plan.

        Raises:
            ConsoleError: there is none, or it is damaged.
        """
        try:
            return read_draft(self.folder, plan_id)
        except SyncError as error:
            raise ConsoleError("not_found", str(error)) from error

    def fragments(self) -> list[ConfigFragment | str]:
        """Return the configuration fragments by name; of a damaged one, what is wrong with it.

        Raises:
            ConsoleError: as `published`.
        """
        return self._read("fragments", list_fragments)

    def controller_lives(self, now: datetime) -> bool:
        """Return whether a controller looks at the rollouts: `edge-sync rollout run` on this repository.

        Raises:
            ConsoleError: no repository is given.
        """
        seen = read_seen(self.folder)
        return seen is not None and seen.is_alive(now.timestamp())

    def _read(self, name: str, read: Callable[[Path], _Found]) -> _Found:
        """Return what was read of the repository as it is now."""
        repo = self.folder
        stamp = _stamp(repo)
        with self._lock:
            known = self._kept.get(name)
            if known is not None and known[0] == stamp:
                found: _Found = known[1]
                return found
            try:
                found = read(repo)
            except SyncError as error:
                raise ConsoleError("missing", f"{error}; or start the console with another --repo") from error
            self._kept[name] = (stamp, found)
            return found


def _stamp(repo: Path) -> _Stamp:
    """Return what changes with every change of the signed documents and of the audit log."""
    return tuple(_stamp_of(repo / name) for name in ("metadata/timestamp.json", "rollouts/audit.jsonl"))


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _history(rows: list[dict[str, Any]], problems: list[str]) -> History:
    shown = [_row(number, one) for number, one in enumerate(rows, 1)]
    return History(tuple(reversed(shown)), tuple(map(clean, problems)), frozenset(approved_digests(rows)))


def _row(number: int, found: dict[str, Any]) -> HistoryRow:
    rest = sorted(found.keys() - _SHOWN)
    details = ", ".join(
        key if found[key] is True else f"{key} {found[key]}" for key in rest if found[key] not in ("", None)
    )
    release = found.get("release")
    return HistoryRow(
        number=number,
        at=unix(found.get("at")),
        by=clean(found.get("by"), 80),
        what=clean(found.get("what"), 40),
        rollout=clean(found.get("rollout"), 80),
        release=clean(release, 20),
        reason=clean(found.get("reason")),
        state=clean(found.get("state"), 20),
        details=clean(details),
    )


def unix(text: object) -> float | None:
    """Return a time of a signed document in Unix seconds; None where there is none."""
    found = read_time(text)
    return None if found is None else found.timestamp()


def releases_to_plan(published: Published) -> list[Release]:
    """Return the releases that a rollout may bring, the newest first: held ones, and those of groups."""
    rollouts = published.rollouts
    found = [*rollouts.held, *(one.release for one in rollouts.groups)] if rollouts else []
    return sorted({one.sequence: one for one in found}.values(), key=lambda one: one.sequence, reverse=True)


def releases_to_go_back(published: Published, most: int = 30) -> list[Release]:
    """Return the releases whose pair devices may get again, the newest first."""
    unproved = [one.sequence for one in published.rollouts.held] if published.rollouts else []
    unproved += [published.plan.release.sequence] if published.plan else []
    found = [one for one in published.history.values() if one is not None and one.sequence not in unproved]
    usable = [one for one in found if one.bundle_id in published.heads]
    return sorted(usable, key=lambda one: one.sequence, reverse=True)[:most]
