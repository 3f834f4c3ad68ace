"""Stores uploaded pictures: a picture and its row are both there, or neither is, whenever the power fails.

Rules this module keeps:
1. A picture is written under another name, flushed and linked into place; then its row is committed; then the other
   name goes. What still has the other name when the console starts was interrupted: it is removed.
2. No name from outside becomes a file name as it is.
3. The same bytes are stored once in a set.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from console.sets.file_names import names_with_hash, safe_name
from console.sets.images import keep_thumbnail
from console.sets.pictures import Known, insert_picture
from console.sets.reading import Looked, suffix_of
from console.sets.sets import find_set
from console.settings import Settings
from console.storage.database import Database
from edge.durable import fsync_folder, make_folder
from edge.errors import ConsoleError
from edge.types import Image

INCOMING, _DELETED = ".incoming", ".deleted-"


@dataclass(frozen=True, slots=True)
class Stored:
    """A picture that is stored, now or earlier."""

    picture_id: int
    name: str  # below the folder of its set
    is_new: bool


class FileStore:
    """The folder of uploaded pictures."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._folder, self._database = settings, settings.uploads, database

    def new_folder(self) -> Path:
        """Return a folder for a new set; it does not exist yet."""
        return self._folder / secrets.token_hex(8)

    def store(
        self,
        set_id: int,
        folder: Path,
        name: str,
        data: bytes,
        looked: Looked,
        now_s: float,
        *,
        whole: bool,
        known: Known,
    ) -> Stored:
        """Store a picture that was checked, with its row.

        Args:
            set_id: of its set.
            folder: of its set.
            name: as its sender called it: anything.
            data: the picture.
            looked: its hash and size.
            now_s: Unix time, seconds.
            whole: whether one object fills it.
            known: what is known of it.

        Raises:
            ConsoleError: the set is gone, or the disk is full.
        """
        with self._database.read() as rows:
            if there := _find_same(rows, set_id, looked.sha256):
                return there
        try:
            with self._written(set_id, data) as part:
                final = _link(part, folder, self._free_names(set_id, name, data, looked.sha256))
                stored = None
                try:
                    stored = self._insert(set_id, final, looked, now_s, whole=whole, known=known)
                finally:
                    if stored is None or not stored.is_new:
                        (folder / final).unlink(missing_ok=True)
                return stored
        except OSError as error:
            raise storage_error(error) from error

    def keep_thumbnail(self, sha256: str, image_rgb: Image) -> None:
        """Keep the thumbnail of a picture that is decoded already."""
        keep_thumbnail(self._settings, sha256, image_rgb)

    def owns(self, folder: Path) -> bool:
        """Return whether the files of a folder are uploads, which go with their set."""
        return folder != self._folder and folder.is_relative_to(self._folder)

    def delete_picture(self, folder: Path, name: str) -> None:
        """Delete the file of a picture whose row is gone.

        Raises:
            ConsoleError: it cannot be deleted.
        """
        if self.owns(folder):
            try:
                (folder / name).unlink(missing_ok=True)
                fsync_folder((folder / name).parent)
            except OSError as error:
                raise storage_error(error) from error

    def delete_folder(self, folder: Path) -> None:
        """Delete the files of a set whose rows are gone; what a power cut leaves goes at the next start."""
        if not self.owns(folder):
            return
        with contextlib.suppress(OSError):
            deleted = folder.with_name(f"{_DELETED}{folder.name}")
            folder.rename(deleted)
            shutil.rmtree(deleted, ignore_errors=True)

    def clean_up(self) -> int:
        """Remove what an interrupted upload left; return how many files. Call it before anything is stored."""
        gone = 0
        for deleted in self._folder.glob(f"{_DELETED}*"):
            shutil.rmtree(deleted, ignore_errors=True)
        with contextlib.suppress(OSError):
            for part in list((self._folder / INCOMING).iterdir()):
                about = part.stat()
                set_id = part.name.partition("~")[0]
                if about.st_nlink > 1 and set_id.isdecimal():
                    self._remove_unlisted(int(set_id), about)
                part.unlink()
                gone += 1
        return gone

    def _insert(self, set_id: int, name: str, looked: Looked, now_s: float, *, whole: bool, known: Known) -> Stored:
        with self._database.write() as connection:
            find_set(connection, set_id)  # deleted meanwhile
            if there := _find_same(connection, set_id, looked.sha256):  # sent twice at once
                return there
            picture_id = insert_picture(connection, now_s, set_id, name, looked, whole=whole, known=known)
        if picture_id is None:
            raise ConsoleError("conflict", f"{name}: a row has this name already; upload it again")
        return Stored(picture_id, name, is_new=True)

    def _free_names(self, set_id: int, name: str, data: bytes, sha256: str) -> Iterator[str]:
        """Yield names to try, distinct from those of the set even where upper and lower case are one."""
        wanted = safe_name(name, suffix_of(data))
        for one in (wanted, *names_with_hash(wanted, sha256)):
            with self._database.read() as rows:
                query = "SELECT 1 FROM pictures WHERE set_id = ? AND name = ? COLLATE NOCASE"
                if rows.execute(query, (set_id, one)).fetchone() is None:
                    yield one

    @contextlib.contextmanager
    def _written(self, set_id: int, data: bytes) -> Iterator[Path]:
        """Give a flushed file that goes afterwards."""
        incoming = self._folder / INCOMING
        make_folder(incoming)
        part = incoming / f"{set_id}~{secrets.token_hex(8)}"
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield part
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _remove_unlisted(self, set_id: int, about: os.stat_result) -> None:
        """Remove the other name of a file, if no row has it."""
        with self._database.read() as rows:
            found = rows.execute("SELECT folder FROM sets WHERE id = ?", (set_id,)).fetchone()
            folder = Path(found["folder"]) if found else None
            if folder is None:
                return
            for path in folder.rglob("*"):
                name = path.relative_to(folder).as_posix()
                if os.path.samestat(path.lstat(), about) and not _is_listed(rows, set_id, name):
                    path.unlink()
                    return


def storage_error(error: OSError) -> ConsoleError:
    """Return the error of a disk that takes no more."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ConsoleError("storage", "the disk of the console is full; free some space, and upload the rest again")
    return ConsoleError("storage", f"the console's disk cannot be written: {error.strerror}; see its owner and space")


def _link(part: Path, folder: Path, names: Iterator[str]) -> str:
    """Give a written file its final name, which nobody else has; return that name."""
    for name in names:
        path = folder / name
        make_folder(path.parent)
        try:
            os.link(part, path)
        except FileExistsError:
            continue
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK) or path.exists():
                raise
            part.rename(path)  # a file system without links
        fsync_folder(path.parent)
        return name
    raise ConsoleError("conflict", "other files have this name; give the picture another one")


def _find_same(rows: sqlite3.Connection, set_id: int, sha256: str) -> Stored | None:
    query = "SELECT id, name FROM pictures WHERE set_id = ? AND sha256 = ?"
    row = rows.execute(query, (set_id, sha256)).fetchone()
    return None if row is None else Stored(row["id"], row["name"], is_new=False)


def _is_listed(rows: sqlite3.Connection, set_id: int, name: str) -> bool:
    query = "SELECT 1 FROM pictures WHERE set_id = ? AND name = ?"
    return rows.execute(query, (set_id, name)).fetchone() is not None
