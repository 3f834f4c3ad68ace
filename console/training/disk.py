"""How much room jobs take on the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_MOST_FILES = 20_000  # that are counted: more are said to be at least so many bytes


def folder_bytes(folder: Path) -> int:
    """Return the bytes of the files below a folder; links are not followed."""
    total, seen, waiting = 0, 0, [str(folder)]
    while waiting and seen < _MOST_FILES:
        try:
            entries = os.scandir(waiting.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
                        seen += 1
                except OSError:  # deleted meanwhile
                    continue
    return total


def free_bytes(folder: Path) -> int:
    """Return the bytes that are free where a folder is."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
