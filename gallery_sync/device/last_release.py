"""The releases that a device had, as its pointers say: a further source where the floors are lost."""

from __future__ import annotations

from pathlib import Path

from edge.bundle.active_pointer import ReleaseName, read_active_pointer, read_staged_pointer
from edge.bundle.pairs import read_pointer_or_none


def known_releases(state_dir: Path) -> list[ReleaseName]:
    """Return the releases of the active, the previous and the staged pair, in this order; unreadable ones are left out.

    The floors of gallery_sync.trust know more; these names survive when the folder `trust` is lost.
    """
    pointers = [read_pointer_or_none(state_dir, read)[0] for read in (read_active_pointer, read_staged_pointer)]
    pairs = [one for pointer in pointers if pointer is not None for one in (pointer, pointer.previous)]
    return [one.release for one in pairs if one is not None and one.release is not None]


def newest_sequence(state_dir: Path, line: str) -> int:
    """Return the sequence number of the newest release of a line that a device had; 0: none is known."""
    return max((release.sequence for release in known_releases(state_dir) if release.line == line), default=0)


def active_sequence(state_dir: Path, line: str) -> int:
    """Return the sequence number of the release of a line that is active, also on trial; 0: none is."""
    active, _ = read_pointer_or_none(state_dir)
    release = active.release if active else None
    return release.sequence if release and release.line == line else 0
