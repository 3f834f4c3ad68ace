"""Where a state folder holds bundles and galleries."""

from __future__ import annotations

from pathlib import Path

SLOTS = ("a", "b")
ACTIVE, ACTIVE_COPY, STAGED = ACTIVE_FILES = ("current", "current.copy", "staged")


def slot_folder(state_dir: Path, slot: str) -> Path:
    """Return the folder of a slot."""
    return state_dir / "slots" / slot


def gallery_folder(state_dir: Path, generation: str) -> Path:
    """Return the folder of a gallery generation."""
    return state_dir / "gallery" / generation


def gallery_generations(state_dir: Path) -> list[str]:
    """Return the installed generations, without checking them; a name with a dot is an installation in progress."""
    try:
        return sorted(path.name for path in (state_dir / "gallery").iterdir() if path.name[0] != ".")
    except OSError:  # there is no such folder, or the disk cannot read it
        return []


def state_fingerprint(state_dir: Path) -> tuple[tuple[int, int] | None, ...]:
    """Return what changes when something is installed, staged or activated: inode and time of change of each place."""
    places = ["slots", "gallery", *ACTIVE_FILES]
    return tuple(identity(state_dir / place) for place in places)


def identity(path: Path) -> tuple[int, int] | None:
    """Return the inode and the time of change, in ns, of a file or folder; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
