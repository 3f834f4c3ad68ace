"""The payload of a Mender artifact, read from the pipes that Mender offers one after the other.

    release.json       {"line": "shop", "sequence": 3}: the release that is to be installed
    repository.tar     optional: the files of a repository, as `edge-sync oci import` writes them

Rules this module keeps:
1. Each pipe is read once, in the order of `stream-next`, and to its end: else Mender waits for ever.
2. Nothing but these two files is taken, and of an archive nothing but files of a repository below its folder.
3. Sizes are checked before anything is written, where Mender tells them, and while it is written, where not. Nothing is
   left of an archive that is not whole, or has no room.
"""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from edge.durable import make_folder, write_durably
from edge.errors import SyncError, one_line
from gallery_sync.adapters.device_view import Named
from gallery_sync.adapters.repository_paths import is_repository_path
from gallery_sync.formats.fields import LARGEST_RELEASE_BYTES, parse
from gallery_sync.fresh_files import remove

RELEASE_NAME, ARCHIVE_NAME = "release.json", "repository.tar"
LARGEST_NAME_BYTES = 64 << 10
_STREAM = re.compile(r"streams/([A-Za-z0-9._-]{1,100})(?: ([0-9]{1,15}))?")
_PIECE_BYTES = 1 << 20


def read_streams(
    folder: Path, release: Path, repository: Path, as_owner: Callable[[], AbstractContextManager[None]]
) -> None:
    """Read all streams.

    Args:
        folder: that Mender prepared.
        release: the file to write for `release.json`.
        repository: the folder to write for `repository.tar`; what is in its place is removed.
        as_owner: enters the account that owns the state folder, in which `repository` is.

    Raises:
        SyncError: the artifact holds something else, or too much.
        OSError: the disk failed.
    """
    with as_owner():
        remove(repository)
    make_folder(release.parent)
    while line := _next_stream(folder):
        match = _STREAM.fullmatch(line)
        name = match[1] if match else ""
        if match is None or name not in (RELEASE_NAME, ARCHIVE_NAME):
            raise SyncError(f"found {one_line(line)!r} in the artifact, expected {RELEASE_NAME} or {ARCHIVE_NAME}")
        size = int(match[2]) if match[2] else 0
        with (folder / "streams" / name).open("rb") as stream:
            if name == RELEASE_NAME:
                _check_size(name, size, LARGEST_NAME_BYTES, release.parent)
                _put_named(release, stream.read(LARGEST_NAME_BYTES + 1))
            else:
                with as_owner():
                    make_folder(repository)
                    _check_size(name, size, LARGEST_RELEASE_BYTES, repository)
                    _unpack_whole(stream, repository)
            while stream.read(_PIECE_BYTES):
                pass


def _next_stream(folder: Path) -> str:
    with (folder / "stream-next").open("rb") as pipe:
        return pipe.read(4096).decode("utf-8", "replace").strip()


def _check_size(name: str, size: int, most: int, folder: Path) -> None:
    if size > most:
        raise SyncError(f"{name}: found {size} bytes, expected at most {most}")
    if (free := shutil.disk_usage(folder).free) < size:
        raise SyncError(f"{name}: needs {size} bytes, and {free} are free in {folder}; free some space")


def _put_named(path: Path, data: bytes) -> None:
    if len(data) > LARGEST_NAME_BYTES:
        raise SyncError(f"{RELEASE_NAME}: found more than {LARGEST_NAME_BYTES} bytes")
    parse(Named, data, RELEASE_NAME)
    write_durably(path, data)


def _unpack_whole(stream: IO[bytes], folder: Path) -> None:
    """Unpack an archive; what is left of one that fails is removed, so that it does not keep the disk full."""
    try:
        _unpack(stream, folder)
    except SyncError:
        remove(folder)
        raise


def _unpack(stream: IO[bytes], folder: Path) -> None:
    left = LARGEST_RELEASE_BYTES
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if member.isdir():
                    continue
                path, left = member.name.removeprefix("./"), left - member.size
                if not member.isreg() or not is_repository_path(path) or left < 0:
                    raise SyncError(
                        f"{ARCHIVE_NAME}: found {one_line(member.name)!r}, expected files of a repository of at most "
                        f"{LARGEST_RELEASE_BYTES} bytes; make it of what `edge-sync oci import` writes"
                    )
                content = archive.extractfile(member)
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with (folder / path).open("xb") as file:
                    shutil.copyfileobj(content, file, _PIECE_BYTES)  # type: ignore[arg-type]  # a regular file has one
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise SyncError(f"{ARCHIVE_NAME}: is no archive of a repository: {one_line(str(error))}") from error
    except OSError as error:
        raise SyncError(
            f"{folder}: cannot unpack {ARCHIVE_NAME}: {error.strerror or error}; free some space"
        ) from error
