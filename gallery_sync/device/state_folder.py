"""The state folder of a device, made ready for a pull: one pull at a time, and nothing in the way."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edge.bundle.active_pointer import repair_active_pointer
from edge.bundle.change_lock import NAME as CHANGE_LOCK_NAME
from edge.bundle.change_lock import changing
from edge.bundle.pairs import read_pointer_or_none, whole_pair
from edge.errors import SyncError
from gallery_sync.fresh_files import clear_lock, make_private_folder, one_at_a_time, remove

log = logging.getLogger(__name__)

LOCK_NAME = "sync.lock"


@contextmanager
def one_pull(state_dir: Path) -> Iterator[None]:
    """Let one pull at a time into a state folder, which is created if it does not exist.

    Raises:
        SyncError: another pull is running.
        OSError: the folder cannot be written.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(one_at_a_time(state_dir / LOCK_NAME))
        except BlockingIOError as error:
            raise SyncError(f"{state_dir}: another pull is running; wait until it ends") from error
        yield


def make_ready(state_dir: Path, cache: Path) -> list[str]:
    """Remove what an interrupted or broken change left, give this user access, and return what was repaired.

    Raises:
        BundleError: another change holds the folder.
        OSError: something belongs to another user, or the disk failed.
    """
    repairs = []
    clear_lock(state_dir / CHANGE_LOCK_NAME)
    with changing(state_dir, "preparing a pull"):
        for name in ("slots", "gallery"):
            repairs += _make_folder_of_folders(state_dir / name)
        repairs += _repair_current(state_dir)
    for folder in (cache.parent, cache):
        if make_private_folder(folder):
            repairs.append(f"{folder}: was no folder of this user, and is a new one")
    for repair in repairs:
        log.warning("%s", repair)
    return repairs


def _repair_current(state_dir: Path) -> list[str]:
    """Write a damaged `current` or its copy from the other one; if both are, from the best pair that is whole."""
    _, problem = read_pointer_or_none(state_dir)
    pair = whole_pair(state_dir) if problem else None
    repaired = repair_active_pointer(state_dir, pair.pointer() if pair else None)
    if problem and not repaired:
        return [problem]
    return [f"{path}: was damaged, and is written again" for path in repaired]


def _make_folder_of_folders(folder: Path) -> list[str]:
    """Make `slots` or `gallery` readable; finish or remove installations that did not end, and what is no folder."""
    repairs = []
    if not folder.is_dir() and remove(folder):
        repairs.append(f"{folder}: was no folder, and is removed")
    if not folder.is_dir():
        return repairs
    repairs += _give_access(folder)
    for path in sorted(folder.iterdir()):
        final = path.with_name(path.name.removeprefix(".").removesuffix(".old") or "_")
        if path.name == f".{final.name}.old" and not final.exists():
            path.rename(final)  # the power went between two renames
            repairs.append(f"{final}: is back after an installation that did not end")
        elif path.name.startswith(".") or path.is_symlink() or not path.is_dir():
            remove(path)
            repairs.append(f"{path}: an unfinished installation or no folder, removed")
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            repairs += _give_access(Path(above, name))
    return repairs


def _give_access(path: Path) -> list[str]:
    found = path.lstat()
    needed = stat.S_IRWXU if stat.S_ISDIR(found.st_mode) else stat.S_IRUSR
    if stat.S_ISLNK(found.st_mode) or found.st_mode & needed == needed:
        return []
    path.chmod(stat.S_IMODE(found.st_mode) | needed)
    return [f"{path}: could not be read, and can again"]
