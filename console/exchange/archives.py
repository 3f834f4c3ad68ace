"""Unpacks an archive of annotations from outside.

Rules this module keeps:
1. Only text is unpacked; pictures in an archive are not read.
2. Sizes are counted while unpacking: what an archive says of itself is no limit.
3. A name that leads out of the folder, a link, a locked file or an unusual way of packing refuses the whole archive.
"""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path, PurePosixPath

from dataset_formats.zip_files import BAD_ZIP, METHODS, open_zip
from edge.errors import ConsoleError, DataError

MAX_FILES = 100_000
MAX_BYTES = 512 << 20  # of all files
MAX_FILE_BYTES = 64 << 20
_SUFFIXES = (".json", ".xml", ".txt", ".yaml", ".yml", ".data", ".names", ".csv")
_PIECE = 1 << 20
_IGNORED = ("__MACOSX",)


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def unpack(path: Path, folder: Path) -> int:
    """Unpack the annotations of a zip into a new folder; return how many files.

    Raises:
        ConsoleError: the archive is damaged, too large, locked, or has a name that leads elsewhere.
    """
    folder.mkdir(parents=True)
    try:
        with path.open("rb") as file, open_zip(file, MAX_FILES) as archive:
            listed = archive.infolist()
            if len(listed) > MAX_FILES:
                raise ConsoleError("too_large", f"the archive has {len(listed):,} files; send at most {MAX_FILES:,}")
            for one in listed:
                _check(one)
            wanted = [one for one in listed if _is_wanted(one)]
            left = MAX_BYTES
            for one in wanted:
                left -= _unpack_one(archive, one, folder, left)
    except DataError as error:
        raise ConsoleError("too_large", str(error)) from error
    except OSError as error:
        raise ConsoleError("invalid", f"the archive cannot be unpacked: {error.strerror or error}") from error
    except BAD_ZIP as error:
        raise ConsoleError("invalid", f"the archive is damaged or of an unknown kind: {error}") from error
    if not wanted:
        raise ConsoleError("invalid", "the archive holds no annotations: no JSON, XML or text; export it again")
    return len(wanted)


def _check(one: zipfile.ZipInfo) -> None:
    """Refuse an archive with such an entry."""
    name = one.filename.replace("\\", "/")
    shown = ascii(one.filename[:80])
    if not name or name.startswith("/") or ":" in name.split("/")[0] or ".." in name.split("/") or "\0" in name:
        raise ConsoleError("invalid", f"the archive has the name {shown}, which leads out of it; nothing was read")
    if stat.S_ISLNK(one.external_attr >> 16):
        raise ConsoleError("invalid", f"the archive has the link {shown}; pack the file itself; nothing was read")
    if one.flag_bits & 1:
        raise ConsoleError("invalid", "the archive is locked with a password; send it without one")
    if one.compress_type not in METHODS:
        raise ConsoleError("invalid", f"the archive has {shown} packed in another way than deflate; pack it again")


def _is_wanted(one: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(one.filename.replace("\\", "/"))
    hidden = path.name.startswith(".") or any(part in _IGNORED for part in path.parts)
    return not one.is_dir() and not hidden and path.suffix.lower() in _SUFFIXES


def _unpack_one(archive: zipfile.ZipFile, one: zipfile.ZipInfo, folder: Path, left: int) -> int:
    target = folder.joinpath(*PurePosixPath(one.filename.replace("\\", "/")).parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with archive.open(one) as source, target.open("wb") as file:
        while piece := source.read(_PIECE):
            size += len(piece)
            if size > min(left, MAX_FILE_BYTES):
                raise ConsoleError(
                    "too_large",
                    f"the archive unpacks to more than {MAX_BYTES >> 20} MiB, or a file of it to more than "
                    f"{MAX_FILE_BYTES >> 20} MiB; send a part at a time",
                )
            file.write(piece)
    return size
