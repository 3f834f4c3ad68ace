"""Plans of rollouts: from what a person fills in, over a preview in words, to a draft beside the repository.

Rules this module keeps:
1. A preview and the draft that follows it have the same salt, so that the waves are those that were shown.
2. No key is needed, and no device sees a draft: another person approves it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from console.fleet.fleet import Fleet
from edge.errors import ConsoleError, SyncError, first_validation_error
from gallery_sync.command_line import parse_duration
from gallery_sync.fleet_client.client import Rows
from gallery_sync.formats.rollouts import Gates, Selector, parse_selector
from gallery_sync.repository.folder import locked
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.published import read_published
from gallery_sync.rollouts import audit
from gallery_sync.rollouts.plans import Drafted, PlanDraft, Wish, draft_path, labels_of, make_draft, write_draft
from gallery_sync.trust.clock import write_time

_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0))


@dataclass(frozen=True, slots=True)
class Filled:
    """What a person filled in; texts are as `edge-sync rollout create` takes them."""

    release: int | None = None
    name: str = ""
    select: str = ""
    exclude: Sequence[str] = ()
    canary: float = 5.0  # percent
    canary_at_least: int = 1
    waves: str = "25"  # percentages with commas
    soak: str = "1h"
    min_confirmed: int | None = None
    max_failed: float = 0.0  # percent
    max_silent: float = 10.0  # percent
    silent_after: str = "1h"
    windows: Sequence[str] = ()
    max_unavailable: int | None = None
    unavailable_by: str = "site"
    deadline: str = "14d"
    abort_to: int | None = None


def make_wish(filled: Filled, by: str) -> Wish:
    """Return what an operator wants.

    Raises:
        ConsoleError: a value is not written as it should be; the message names the field.
    """
    windows = [line.strip() for text in filled.windows for line in text.splitlines() if line.strip()]
    try:
        return Wish(
            by=by[:80],
            release=filled.release,
            id=filled.name or None,
            selector=read_selector(filled.select, "devices"),
            exclude=[
                read_selector(line, "left out") for text in filled.exclude for line in text.splitlines() if line.strip()
            ],
            canary_percent=filled.canary,
            canary_at_least=filled.canary_at_least,
            wave_percents=_percents(filled.waves),
            soak_s=seconds(filled.soak, "soak"),
            min_confirmed=filled.min_confirmed,
            gates=Gates(
                max_failed_percent=filled.max_failed,
                max_silent_percent=filled.max_silent,
                silent_after_s=seconds(filled.silent_after, "silent after"),
            ),
            windows=windows,
            max_unavailable=filled.max_unavailable,
            unavailable_by=filled.unavailable_by or "site",
            deadline_s=seconds(filled.deadline, "deadline"),
            abort_to=filled.abort_to,
        )
    except ValidationError as error:
        raise ConsoleError("invalid", first_validation_error(error)) from error


def read_selector(text: str, field: str) -> Selector:
    """Parse a selector.

    Raises:
        ConsoleError: it is none.
    """
    try:
        return parse_selector(text)
    except ValidationError as error:
        raise ConsoleError("invalid", f"{field}: {first_validation_error(error)}") from error
    except ValueError as error:
        raise ConsoleError("invalid", f"{field}: {error}") from error


def seconds(text: str, field: str) -> float:
    """Parse a time such as 1h.

    Raises:
        ConsoleError: it is none.
    """
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ConsoleError("invalid", f"{field}: {error}") from error


def _percents(text: str) -> list[float]:
    found = [part.strip().removesuffix("%").strip() for part in text.split(",") if part.strip()]
    if len(found) > 18 or not all(part.replace(".", "", 1).isdecimal() and part.isascii() for part in found):
        raise ConsoleError("invalid", f"waves: found {text[:60]!r}, expected percentages such as 25, 50")
    return [float(part) for part in found]


def preview(fleet: Fleet, filled: Filled, salt: str, by: str, now: datetime, rows: Rows | None) -> Drafted:
    """Return the draft that would be written.

    Raises:
        ConsoleError: a value is wrong, no release can be brought, or the repository cannot be read.
    """
    try:
        return make_draft(make_wish(filled, by), fleet.signed.published(), salt, now, rows.rows if rows else None)
    except SyncError as error:
        raise ConsoleError("invalid", str(error)) from error


def create(fleet: Fleet, filled: Filled, salt: str, by: str, now: datetime, rows: Rows | None) -> PlanDraft:
    """Write a draft, and log it; see gallery_sync.rollouts.

    Raises:
        ConsoleError: as `preview`, or there is a draft of this name.
    """
    repo, wish = fleet.signed.folder, make_wish(filled, by)
    try:
        with locked(repo):
            published = read_published(repo, SignedMetadata.open(repo))
            draft = make_draft(wish, published, salt, now, rows.rows if rows else None).draft
            if draft_path(repo, draft.id).exists():
                raise ConsoleError("conflict", f"there is a plan with the name {draft.id} already; choose another name")
            write_draft(repo, draft)
            details = {"rollout": draft.id, "release": draft.release, "digest": draft.digest()}
            row = {"at": write_time(now), "by": draft.planned_by, "what": "create", "state": "done", **details}
            audit.append(repo, row)
    except SyncError as error:
        raise ConsoleError("invalid", str(error)) from error
    return draft


def in_words(draft: PlanDraft, known: Sequence[int] | None) -> list[str]:
    """Return what a plan does, in sentences."""
    who = f"devices with {draft.selector}" if draft.selector.terms else "all devices"
    without = f", but never to devices with {' or '.join(map(str, draft.exclude))}" if draft.exclude else ""
    found = [f"Release {draft.release} goes to {who} of line {draft.line}{without}."]
    for number, wave in enumerate(draft.waves, 1):
        opens = "It opens with the approval."
        if number > 1:
            before = draft.waves[number - 2]
            opens = f"It opens {_after(before.soak_s)}when {before.min_confirmed} devices have confirmed."
        adds = f"adds {count_of(known[number - 1])}, and " if known is not None else ""
        found.append(f"Wave {number} {adds}reaches {wave.buckets / 100:g} % of them. {opens}")
    gates = draft.gates
    found.append(
        f"It pauses by itself when more than {gates.max_failed_percent:g} % of the devices fail, or more than "
        f"{gates.max_silent_percent:g} % of those that began send no report for {duration(gates.silent_after_s)}."
    )
    if draft.windows:
        found.append(f"Devices begin only in {'; '.join(draft.windows)}, in their local time.")
    if draft.max_unavailable is not None:
        found.append(f"At most {draft.max_unavailable} devices of the same {draft.unavailable_by} switch at a time.")
    back = f"the pair of release {draft.abort_to}" if draft.abort_to else "the pair that all other devices run"
    found.append(f"If it is aborted, devices that took it go back to {back}.")
    found.append(f"{duration(draft.deadline_s).capitalize()} after its approval it is complete, or it pauses.")
    return found


def _after(soak_s: float) -> str:
    return f"after {duration(soak_s)}, " if soak_s else ""


def count_of(devices: int) -> str:
    """Return a number of known devices for people."""
    return f"{devices:,} known device{'' if devices == 1 else 's'}"


def duration(time_s: float) -> str:
    """Return a time for people, such as `2 hours`."""
    for unit, length_s in _UNITS:
        if time_s >= length_s:
            number = round(time_s / length_s, 1)
            return f"{number:g} {unit}{'' if number == 1 else 's'}"
    return f"{time_s:g} seconds"


def count_selected(rows: Rows | None, line: str, selector: Selector) -> int | None:
    """Return how many known devices of a line a selector selects; None: nothing is known."""
    if rows is None:
        return None
    return sum(row.line == line and selector.matches(labels_of(row)) for row in rows.rows)
