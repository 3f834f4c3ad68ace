"""Lists the files of an inbox: `<inbox>/<device>/<name>.zip`, or `<name>.jpg`, perhaps with `<name>.json` beside it.

Rules this module keeps:
1. Only regular files count. A link is not followed, whether it is a file or a folder.
2. The name of the folder says which device sent a file. What the file itself says of that counts only without one.
3. Names that begin with a dot or end with `.partial` are files that somebody is still writing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset_formats.notices import printable
from edge.errors import DataError

PICTURE_SUFFIXES = (".jpg", ".jpeg")
RECORD_SUFFIX, PACKED_SUFFIX = ".json", ".zip"
_MOST_FILES = 100_000  # of one run
_UNFINISHED = (".partial", ".part", ".tmp")


@dataclass(frozen=True, slots=True)
class InboxFile:
    """One upload."""

    path: Path  # of the zip file, or of the picture
    device: str  # the folder that it lies in; empty: it lies in none
    record: Path | None = None  # the JSON file beside a picture; None: there is none

    @property
    def is_picture(self) -> bool:
        """Return whether it is a picture that is not packed."""
        return self.path.suffix.lower() in PICTURE_SUFFIXES

    @property
    def name(self) -> str:
        """Return device and file name, for messages."""
        return printable(f"{self.device}/{self.path.name}" if self.device else self.path.name)


def list_inbox(inbox: Path) -> tuple[list[InboxFile], dict[str, str]]:
    """List the uploads of an inbox, by device and name.

    Returns:
        the uploads, and by name why other files are left out.

    Raises:
        DataError: the folder cannot be read, or holds too many files.
    """
    found: list[InboxFile] = []
    left_out: dict[str, str] = {}
    try:
        for entry in _entries(inbox):
            if entry.is_dir(follow_symlinks=False):
                _list_folder(Path(entry.path), printable(entry.name), found, left_out)
        _list_folder(inbox, "", found, left_out)
    except OSError as error:
        raise DataError(f"{inbox}: cannot be read: {error.strerror}") from error
    if len(found) > _MOST_FILES:
        raise DataError(f"{inbox}: found {len(found)} files, expected at most {_MOST_FILES}; move some away")
    return sorted(found, key=lambda one: (one.device, one.path.name)), left_out


def _list_folder(folder: Path, device: str, found: list[InboxFile], left_out: dict[str, str]) -> None:
    files: dict[str, Path] = {}
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            if device:
                left_out[f"{device}/{printable(entry.name)}"] = "a folder inside the folder of a device is not read"
        elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
            name = printable(entry.name)
            left_out[f"{device}/{name}" if device else name] = "not a regular file, such as a link"
        else:
            files[entry.name] = Path(entry.path)
    for path in files.values():
        suffix, record = path.suffix.lower(), files.get(path.stem + RECORD_SUFFIX)
        if suffix == PACKED_SUFFIX:
            found.append(InboxFile(path, device))
        elif suffix in PICTURE_SUFFIXES:
            found.append(InboxFile(path, device, record))
        elif suffix != RECORD_SUFFIX or not any(path.stem + one in files for one in PICTURE_SUFFIXES):
            one = InboxFile(path, device)
            left_out[one.name] = f"{suffix or 'no suffix'}: expected .zip or .jpg"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and not entry.name.endswith(_UNFINISHED):
                yield entry
