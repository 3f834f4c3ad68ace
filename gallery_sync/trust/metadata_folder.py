"""The folder of cached metadata, made ready for python-tuf: nothing in it can stop a refresh.

Rules this module keeps:
1. What is no regular file of this user, or too large to be metadata, is removed. It is fetched again.
2. What is damaged inside is left to python-tuf: it reads, refuses and fetches it again.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from gallery_sync.fresh_files import make_private_folder, remove

log = logging.getLogger(__name__)

HISTORY = "root_history"
_LARGEST_BYTES = 8 << 20


def prepare(folder: Path) -> list[str]:
    """Make sure that the folder can be used; return what was removed.

    Raises:
        OSError: the disk failed, or something belongs to another user.
    """
    removed = [str(path) for path in (folder, folder / HISTORY) if make_private_folder(path)]
    found = sorted([*folder.iterdir(), *(folder / HISTORY).iterdir()])
    useless = [path for path in found if path != folder / HISTORY and not _is_usable(path, folder)]
    removed += [str(path) for path in useless if remove(path)]
    for name in removed:
        log.warning("%s: was no file of metadata, and is removed; it is fetched again", name)
    return removed


def _is_usable(path: Path, folder: Path) -> bool:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        return path == folder / "root.json"
    is_left_over = path.suffix == ".partial"
    return (
        stat.S_ISREG(found.st_mode)
        and not is_left_over
        and found.st_size <= _LARGEST_BYTES
        and os.access(path, os.R_OK | os.W_OK)
    )
