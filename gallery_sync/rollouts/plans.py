"""Draft plans: what a rollout will be, before somebody else approves it. No key is needed to write one.

    REPO/rollouts/<id>.json      PlanDraft      not signed; no device reads it

Rules this module keeps:
1. The limit of the first wave is the smallest that gives as many known devices as it must have. Where no devices are
   known, it comes from the percentage alone.
2. The last wave has all devices, and every plan has a deadline.
3. A draft is approved as it was read: its digest changes with every letter.
"""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationError

from edge.errors import SyncError, first_validation_error, one_line
from gallery_sync.formats.documents import Release
from gallery_sync.formats.fields import LARGEST_DOCUMENT_BYTES, Document, Name, Time, canonical_json, parse
from gallery_sync.formats.fields import Sequence as ReleaseNumber
from gallery_sync.formats.reports import DeviceRow
from gallery_sync.formats.rollouts import (
    BUCKETS,
    DEVICE,
    LINE,
    MOST_SELECTORS,
    MOST_WAVES,
    Gates,
    LabelKey,
    Person,
    Plan,
    Seconds,
    Selector,
    Wave,
    bucket_of,
    selects,
)
from gallery_sync.formats.windows import parse_window
from gallery_sync.repository.files import read_file, write_file
from gallery_sync.repository.folder import locked
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.published import Published, read_published
from gallery_sync.rollouts import audit
from gallery_sync.trust.clock import write_time

DEADLINE_S = 14 * 86400.0
FOLDER = "rollouts"


class PlanDraft(Document):
    """A plan that waits for its approval; see `Plan` for what the fields mean."""

    kind: ClassVar[str] = "draft of a rollout"

    schema_version: Literal[1] = Field(default=1, alias="schema")
    id: Name
    line: Name
    release: ReleaseNumber  # a held one, or that of a group
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
    selector: Selector
    exclude: Annotated[list[Selector], Field(default_factory=list, max_length=MOST_SELECTORS)]
    waves: Annotated[list[Wave], Field(min_length=1, max_length=MOST_WAVES)]
    gates: Gates
    windows: Annotated[list[str], Field(default_factory=list, max_length=50)]
    max_unavailable: Annotated[int, Field(strict=True, ge=1, le=10**6)] | None = None
    unavailable_by: LabelKey = "site"
    deadline_s: Seconds = DEADLINE_S  # from its approval
    abort_to: ReleaseNumber | None = None
    planned_by: Person
    planned_at: Time

    def digest(self) -> str:
        """Return a hash that changes with every letter of this draft."""
        return hashlib.sha256(canonical_json(self)).hexdigest()[:16]

    def approved(self, release: Release, by: str, now: datetime) -> Plan:
        """Return the plan that it becomes, with no wave open."""
        return Plan(
            id=self.id,
            release=release,
            salt=self.salt,
            selector=self.selector,
            exclude=self.exclude,
            waves=self.waves,
            gates=self.gates,
            windows=self.windows,
            max_unavailable=self.max_unavailable,
            unavailable_by=self.unavailable_by,
            deadline=write_time(now + timedelta(seconds=self.deadline_s)),
            abort_to=self.abort_to,
            planned_by=self.planned_by,
            planned_at=self.planned_at,
            approved_by=by,
            approved_at=write_time(now),
        )


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator wants of a rollout."""

    by: str
    release: int | None = None  # None: the newest one that is held
    id: str | None = None  # None: made of the release's number
    selector: Selector = field(default_factory=lambda: Selector(terms=[]))
    exclude: Sequence[Selector] = ()
    canary_percent: float = 5.0
    canary_at_least: int = 1  # known devices
    wave_percents: Sequence[float] = (25.0,)
    soak_s: float = 3600.0
    min_confirmed: int | None = None  # None: half of the known devices of the open waves
    gates: Gates = field(default_factory=Gates)
    windows: Sequence[str] = ()
    max_unavailable: int | None = None
    unavailable_by: str = "site"
    deadline_s: float = DEADLINE_S
    abort_to: int | None = None


@dataclass(frozen=True, slots=True)
class Drafted:
    """A draft, and what it would mean for the devices that are known."""

    draft: PlanDraft
    known: tuple[int, ...] | None  # devices that each wave adds; None: no devices are known
    notes: tuple[str, ...] = ()


def labels_of(row: DeviceRow) -> dict[str, str]:
    """Return the labels of a device, with its id and line as the server knows them."""
    return {**row.labels, DEVICE: row.device, LINE: row.line}


def make_draft(
    wish: Wish, published: Published, salt: str, now: datetime, rows: Iterable[DeviceRow] | None = None
) -> Drafted:
    """Make a draft.

    Args:
        wish: what the operator wants.
        published: what the repository has.
        salt: 16 random hexadecimal digits or more.
        now: the time, in UTC.
        rows: the devices that are known; None: none are.

    Raises:
        SyncError: there is no such release, or a value is wrong.
    """
    release = candidate(published, wish.release)
    _check(wish, published)
    buckets = None if rows is None else _buckets(rows, salt, published.line, wish.selector, wish.exclude)
    limits = wave_limits([wish.canary_percent, *wish.wave_percents], wish.canary_at_least, buckets)
    known = None if buckets is None else _known(limits, buckets)
    try:
        draft = PlanDraft(
            id=wish.id or _free_id(published.repo, release.sequence),
            line=published.line,
            release=release.sequence,
            salt=salt,
            selector=wish.selector,
            exclude=list(wish.exclude),
            waves=[
                Wave(buckets=one, min_confirmed=least, soak_s=wish.soak_s)
                for one, least in zip(limits, _min_confirmed(wish, known, len(limits)), strict=True)
            ],
            gates=wish.gates,
            windows=list(wish.windows),
            max_unavailable=wish.max_unavailable,
            unavailable_by=wish.unavailable_by,
            deadline_s=wish.deadline_s,
            abort_to=wish.abort_to,
            planned_by=wish.by,
            planned_at=write_time(now),
        )
    except ValidationError as error:
        raise SyncError(f"the rollout cannot be planned: {first_validation_error(error)}") from error
    return Drafted(draft, known, tuple(_notes(wish, limits, buckets)))


def _min_confirmed(wish: Wish, known: Sequence[int] | None, count: int) -> list[int]:
    """Return for each wave how many devices must confirm before the next one opens: half of those that are known."""
    if wish.min_confirmed is not None:
        return [wish.min_confirmed] * count
    if known is None:
        return [max(wish.canary_at_least, 1)] * count
    least = max(min(wish.canary_at_least, sum(known)), 1)
    return [max(least, (devices + 1) // 2) for devices in accumulate(known)]


def candidate(published: Published, number: int | None) -> Release:
    """Return the release of a rollout: one that is held, or that a rollout brought to a part of the devices.

    Raises:
        SyncError: there is no such release, or it is not newer than what devices have.
    """
    rollouts, line, repo = published.rollouts, published.line, shlex.quote(str(published.repo))
    held = rollouts.held if rollouts else []
    of_groups = [one.release for one in rollouts.groups] if rollouts else []
    if number is None and not held:
        raise SyncError(f"{published.repo}: no release is held; publish one with edge-sync publish --hold")
    found = held[-1] if number is None else next((one for one in [*held, *of_groups] if one.sequence == number), None)
    if found is None:
        raise SyncError(
            f"{published.repo}: release {number} is not held; publish it with edge-sync publish --hold, or hold an "
            f"earlier pair: edge-sync rollback {line} --to {number} --repo {repo} --hold"
        )
    others = [published.release, *of_groups]
    newest = max((one.sequence for one in others if one is not None and one.sequence != found.sequence), default=0)
    if published.release is None or found.sequence < newest:
        raise SyncError(
            f"{published.repo}: release {found.sequence} is older than release {newest}, which devices have; give its "
            f"pair a new number: edge-sync rollback {line} --to {found.sequence} --repo {repo} --hold"
        )
    return found


def wave_limits(percents: Sequence[float], at_least: int, buckets: Sequence[int] | None) -> list[int]:
    """Return the bucket limit of each wave, growing, with a last one that has all devices.

    Args:
        percents: of the devices, for the canary and the waves after it.
        at_least: known devices that the canary has, if there are as many.
        buckets: of the devices that are known, in order; None: none are.
    """
    limits: list[int] = []
    for number, percent in enumerate(percents):
        limit = min(max(math.ceil(percent * BUCKETS / 100), 1), BUCKETS)
        if number == 0 and buckets:
            count = min(max(math.ceil(percent * len(buckets) / 100), at_least, 1), len(buckets))
            limit = buckets[count - 1] + 1
        if not limits or limit > limits[-1]:
            limits.append(limit)
    return limits if limits and limits[-1] == BUCKETS else [*limits, BUCKETS]


def draft_path(repo: Path, plan_id: str) -> Path:
    """Return where the draft of a plan is.

    Raises:
        SyncError: the id is no name.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}", plan_id):
        raise SyncError(f"found the rollout {one_line(plan_id)!r}, expected letters, digits, '.', '_' and '-'")
    return repo / FOLDER / f"{plan_id}.json"


def read_draft(repo: Path, plan_id: str) -> PlanDraft:
    """Read the draft of a plan.

    Raises:
        SyncError: there is none, or it is damaged.
    """
    path = draft_path(repo, plan_id)
    advice = "see edge-sync rollout status, or make one: edge-sync rollout create"
    draft = parse(PlanDraft, read_file(path, LARGEST_DOCUMENT_BYTES, advice), str(path))
    if draft.id != plan_id:
        raise SyncError(f"{path}: found the draft of rollout {draft.id}, expected {plan_id}")
    return draft


def write_plan(
    repo: Path, wish: Wish, salt: str, now: datetime, rows: Iterable[DeviceRow] | None = None
) -> tuple[Drafted, Path]:
    """Make a draft, write it, and log it. Return it, and where it is.

    Raises:
        SyncError: as `make_draft` and `write_draft`, or the disk failed.
    """
    with locked(repo):
        done = make_draft(wish, read_published(repo, SignedMetadata.open(repo)), salt, now, rows)
        path = write_draft(repo, done.draft)
        details = {"rollout": done.draft.id, "release": done.draft.release, "digest": done.draft.digest()}
        audit.append(repo, {"at": write_time(now), "by": wish.by, "what": "create", "state": "done", **details})
    return done, path


def write_draft(repo: Path, draft: PlanDraft) -> Path:
    """Write the draft of a plan, which is not there yet, and return where it is.

    Raises:
        SyncError: it is there, or the disk failed.
    """
    path = draft_path(repo, draft.id)
    if path.exists():
        raise SyncError(f"{path}: is there already; give another --id")
    write_file(path, canonical_json(draft) + b"\n")
    return path


def drafts(repo: Path) -> list[PlanDraft]:
    """Return the drafts that can be read."""
    found = []
    for path in sorted((repo / FOLDER).glob("*.json")):
        try:
            found.append(read_draft(repo, path.stem))
        except SyncError:
            continue
    return found


def _check(wish: Wish, published: Published) -> None:
    if wish.abort_to is not None and wish.abort_to not in published.history:
        raise SyncError(f"{published.repo}: release {wish.abort_to} is not here; give another --abort-to")
    for percent in (wish.canary_percent, *wish.wave_percents):
        if not 0 < percent <= 100:
            raise SyncError(f"found a wave of {percent:g} %, expected more than 0 and at most 100")
    for window in wish.windows:
        try:
            parse_window(window)
        except ValueError as error:
            raise SyncError(str(error)) from error
    if not wish.deadline_s > 0:
        raise SyncError("found a deadline of 0, expected a time such as 14d")


def known_by_wave(draft: PlanDraft, rows: Iterable[DeviceRow]) -> tuple[int, ...]:
    """Return how many known devices each wave of a draft adds."""
    buckets = _buckets(rows, draft.salt, draft.line, draft.selector, draft.exclude)
    return _known([wave.buckets for wave in draft.waves], buckets)


def _buckets(
    rows: Iterable[DeviceRow], salt: str, line: str, selector: Selector, exclude: Iterable[Selector]
) -> list[int]:
    """Return the buckets of the devices that a plan selects, in order."""
    selected = {row.device for row in rows if row.line == line and selects(selector, exclude, labels_of(row))}
    return sorted(bucket_of(salt, device) for device in selected)


def _known(limits: Sequence[int], buckets: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        sum(first <= bucket < last for bucket in buckets) for first, last in zip([0, *limits], limits, strict=False)
    )


def _notes(wish: Wish, limits: Sequence[int], buckets: Sequence[int] | None) -> Iterable[str]:
    if buckets is not None and not buckets:
        yield "no known device is selected, so check --select; the waves come from the percentages alone"
    elif buckets is not None and len(buckets) < wish.canary_at_least:
        yield f"only {len(buckets)} known devices are selected, and all are in the first wave"
    wanted = {wish.canary_percent, *wish.wave_percents, 100.0}
    if len(limits) < len(wanted):
        yield f"waves that would add nothing are left out: found {len(wanted)}, kept {len(limits)}"
    if buckets is None and wish.canary_at_least > 1:
        yield "no devices are known without --fleet, so --canary-at-least only sets how many must confirm"


def _free_id(repo: Path, number: int) -> str:
    taken = {path.stem for path in (repo / FOLDER).glob("*.json")}
    names = (f"release-{number}" + (f"-{again}" if again > 1 else "") for again in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def describe(draft: PlanDraft) -> Mapping[str, object]:
    """Return what is in a draft, for people and programs."""
    return {
        "rollout": draft.id,
        "release": draft.release,
        "digest": draft.digest(),
        "select": str(draft.selector) or "all devices",
        "exclude": [str(one) for one in draft.exclude],
        "waves": [f"{wave.buckets / 100:g} %" for wave in draft.waves],
        "min_confirmed": [wave.min_confirmed for wave in draft.waves],
        "soak_s": draft.waves[0].soak_s,
        "max_failed_percent": draft.gates.max_failed_percent,
        "max_silent_percent": draft.gates.max_silent_percent,
        "silent_after_s": draft.gates.silent_after_s,
        "windows": draft.windows,
        "max_unavailable": draft.max_unavailable,
        "deadline_days": round(draft.deadline_s / 86400, 2),
        "abort_to": draft.abort_to,
        "planned_by": draft.planned_by,
        "planned_at": draft.planned_at,
    }
