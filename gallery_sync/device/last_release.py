"""Which releases a device accepts: of its own line, and neither older nor far newer than the last one.

Rules this module keeps:
1. The last release is the newest that the device had: of `sync.json`, and of the pairs that are active, previous or
   staged. So a lost or damaged file neither stops updates nor lets an old release in.
2. It changes only when a complete and verified release is staged.
3. A number may go up by at most a million at once. One false answer thus cannot put the last release so high that every
   true one looks old: whoever publishes can always go above it. An operator may allow any number.
4. The first release that a device installs sets its line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.bundle.active_pointer import ActivePointer, ReleaseName, read_active_pointer, read_staged_pointer
from edge.durable import write_durably
from edge.errors import BundleError, SyncError
from gallery_sync.formats.fields import LARGEST_SEQUENCE, Name
from gallery_sync.formats.unsigned import Release
from gallery_sync.fresh_files import remove

MOST_AHEAD = 1_000_000
RECORD_NAME = "sync.json"


class _Record(BaseModel):
    """The content of sync.json."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    line: Name | None = None  # None: written by an older version
    sequence: Annotated[int, Field(strict=True, ge=0, le=LARGEST_SEQUENCE)]


@dataclass(frozen=True, slots=True)
class LastRelease:
    """The newest release that a device had."""

    line: str | None  # None: not known
    sequence: int  # 0: none is known
    problem: str | None  # what is wrong with sync.json; None: nothing


def read_last_release(state_dir: Path) -> LastRelease:
    """Read the last release from everything that tells it."""
    record, problem = _read_record(state_dir / RECORD_NAME)
    known = list(_of_pointers(state_dir))
    if record is None and problem is None and known:
        problem = "does not exist"
    line = record.line if record else None
    if line is None and known:
        line = known[0].line
    sequences = [release.sequence for release in known if release.line == line]
    return LastRelease(line, max([record.sequence if record else 0, *sequences]), problem)


def check_follows(release: Release, last: LastRelease, *, line: str | None = None, allow_jump: bool = False) -> None:
    """Check that a device may go from its last release to this one.

    Args:
        release: of the repository.
        last: that the device had.
        line: that the operator wants; None: the line of the last release.
        allow_jump: accept a number that is older or far newer.

    Raises:
        SyncError: it may not; the message says how to allow it.
    """
    wanted = line or last.line
    if wanted is not None and release.line != wanted:
        change = "" if line else f"; if the change is on purpose: edge-sync pull --line {release.line}"
        raise SyncError(f"found a release of line {release.line!r}, expected {wanted!r}{change}")
    if allow_jump or last.sequence == 0 or (last.line is not None and last.line != release.line):
        return
    if release.sequence < last.sequence:
        raise SyncError(
            f"release {release.sequence} is older than release {last.sequence}, which this device had; publish a "
            "newer one, or accept it on purpose: edge-sync pull --allow-jump"
        )
    if release.sequence > last.sequence + MOST_AHEAD:
        raise SyncError(
            f"release {release.sequence} is more than {MOST_AHEAD} above release {last.sequence}, which this device "
            "had; if its number is right, accept it: edge-sync pull --allow-jump"
        )


def write_last_release(state_dir: Path, release: Release) -> None:
    """Record a release that was staged.

    Raises:
        OSError: the disk failed.
    """
    path = state_dir / RECORD_NAME
    for name in (path, path.with_name(f"{path.name}.partial")):
        if name.is_dir() and not name.is_symlink():  # a file cannot replace it
            remove(name)
    write_durably(path, json.dumps({"line": release.line, "sequence": release.sequence}).encode() + b"\n")


def _read_record(path: Path) -> tuple[_Record | None, str | None]:
    try:
        return _Record.model_validate_json(path.read_bytes()), None
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"cannot be read: {error.strerror}"
    except (ValidationError, RecursionError):
        return None, "is damaged"


def _of_pointers(state_dir: Path) -> Iterator[ReleaseName]:
    for read in (read_active_pointer, read_staged_pointer):
        pointer: ActivePointer | None
        try:
            pointer = read(state_dir)
        except BundleError:
            continue
        for one in (pointer, pointer and pointer.previous):
            if one is not None and one.release is not None:
                yield one.release
