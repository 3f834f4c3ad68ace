"""Looks for new, changed and vanished pictures of a set whose folder others write to. It can be stopped and resumed.

Rules this module keeps:
1. Files are read outside of transactions; rows are committed in batches, so that nobody waits for a scan.
2. A picture that is unchanged, by its size and times, is not read again.
3. A bad file is noted with what is wrong, and stops nothing.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from console.background.tasks import Progress
from console.sets.crops import NewBox, fit_box, insert_crop
from console.sets.images import CHANGED
from console.sets.listings import FolderListing, Listed
from console.sets.pictures import insert_picture, note_problem
from console.sets.reading import Looked, look_at, read_file
from console.sets.sets import PictureSet
from console.storage.database import Database
from edge.errors import ConsoleError, PictureError
from edge.types import Box

_BATCH = 200  # pictures of one transaction
_READERS = 2
GONE = "the file is gone; put it back, or delete the picture from the set"


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    sha256: str
    size: int
    added_at: float


@dataclass(slots=True)
class _Found:
    """One file that was read, or why it could not be."""

    listed: Listed
    row: _Row | None
    looked: Looked | None = None
    problem: str = ""


@dataclass(slots=True)
class Report:
    """What one look found."""

    added: int = 0
    changed: int = 0
    gone: int = 0
    refused: int = 0
    unchanged: int = 0
    left_out: list[str] = field(default_factory=list)

    def sentence(self) -> str:
        """Return the result in one sentence."""
        counts = [
            (self.added, "new"), (self.unchanged, "as before"), (self.changed, "changed"), (self.gone, "gone"),
            (self.refused, "no pictures or damaged"),
        ]  # fmt: skip
        parts = [f"{count:,} {what}" for count, what in counts if count]
        more = (
            f"; {len(self.left_out)} note{'s' * (len(self.left_out) != 1)} on what was left out"
            if self.left_out
            else ""
        )
        return (", ".join(parts) or "no picture found") + more


class Looker:
    """Compares the folder of a set with its rows."""

    def __init__(self, database: Database, picture_set: PictureSet, clock: Callable[[], float]) -> None:
        self._database, self._set, self._clock = database, picture_set, clock
        self._rows: dict[str, _Row] = {}
        self._problems: dict[str, float] = {}

    def look(self, listing: FolderListing, progress: Progress) -> Report:
        """Add what is new, and note what changed, vanished or cannot be read.

        Raises:
            ConsoleError: the database cannot be written, or the set was deleted.
            StoppedError: somebody stopped the task.
        """
        report = Report(left_out=listing.left_out)
        self._read_rows()
        total = len(listing.pictures)
        progress(0, total)
        done = 0
        with ThreadPoolExecutor(_READERS) as readers:
            for batch in _batches(listing.pictures.values(), _BATCH):
                self._write(list(readers.map(self._read, batch)), report)
                done += len(batch)
                progress(done, total)
        self._note_gone(listing, report)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE set_details SET looked_at = ?, left_out = ? WHERE set_id = ?",
                (self._clock(), json.dumps(report.left_out, ensure_ascii=False), self._set.id),
            )
        return report

    def _read_rows(self) -> None:
        with self._database.read() as rows:
            query = "SELECT id, name, sha256, size, added_at FROM pictures WHERE set_id = ?"
            self._rows = {
                row["name"]: _Row(row["id"], row["sha256"], row["size"], row["added_at"])
                for row in rows.execute(query, (self._set.id,))
            }
            query = "SELECT name, noticed_at FROM picture_problems WHERE set_id = ?"
            self._problems = {row["name"]: row["noticed_at"] for row in rows.execute(query, (self._set.id,))}

    def _read(self, listed: Listed) -> _Found | None:
        """Read one file; None: it is as it was."""
        path, row = self._set.folder / listed.name, self._rows.get(listed.name)
        noticed_at = self._problems.get(listed.name)
        if row is not None and noticed_at is None and _is_unchanged(path, row):
            return None
        if row is None and noticed_at is not None and _changed_at(path) < noticed_at:
            return None  # as bad as it was, or removed from the set
        try:
            return _Found(listed, row, look_at(read_file(path)))
        except PictureError as error:
            return _Found(listed, row, problem=str(error))

    def _write(self, found: list[_Found | None], report: Report) -> None:
        report.unchanged += sum(one is None for one in found)
        if not any(found):
            return
        with self._database.write() as connection:
            if connection.execute("SELECT 1 FROM sets WHERE id = ?", (self._set.id,)).fetchone() is None:
                raise ConsoleError("not_found", "somebody deleted the set meanwhile")
            for one in found:
                if one is not None:
                    self._take(connection, one, report)

    def _take(self, connection: sqlite3.Connection, one: _Found, report: Report) -> None:
        if one.looked is None:
            report.refused += 1
            self._note(connection, one, one.problem)
        elif one.row is None:
            self._add(connection, one.listed, one.looked, report)
        elif one.looked.sha256 != one.row.sha256:
            report.changed += 1
            self._note(connection, one, CHANGED)
        else:
            report.unchanged += 1
            query = "DELETE FROM picture_problems WHERE set_id = ? AND name = ?"
            connection.execute(query, (self._set.id, one.listed.name))

    def _note(self, connection: sqlite3.Connection, one: _Found, says: str) -> None:
        picture_id = one.row.id if one.row else None
        note_problem(connection, self._clock(), self._set.id, one.listed.name, says, picture_id)

    def _add(self, connection: sqlite3.Connection, listed: Listed, looked: Looked, report: Report) -> None:
        now_s, whole = self._clock(), self._set.shows == "objects" and listed.boxes is None
        known = listed.known
        if not whole and known.item is not None:  # of a scene, names are only a hint
            known = replace(known, source={"category": known.category, "item": known.item})
        picture_id = insert_picture(connection, now_s, self._set.id, listed.name, looked, whole=whole, known=known)
        if picture_id is None:
            return
        report.added += 1
        if listed.boxes is not None:
            for box_px, new in _fitting(listed.boxes, looked, listed.name, report):
                insert_crop(connection, self._set.id, picture_id, box_px, new, now_s=now_s)
            state = "confirmed" if listed.are_drawn else "proposed"
            connection.execute("UPDATE pictures SET boxes = ? WHERE id = ?", (state, picture_id))

    def _note_gone(self, listing: FolderListing, report: Report) -> None:
        """Note the pictures that are not there any more; forget notes on files that are not there either."""
        gone = [name for name in self._rows if name not in listing.pictures and not _is_file(self._set.folder / name)]
        forgotten = [
            name
            for name in self._problems
            if name not in self._rows and name not in listing.pictures and not _is_file(self._set.folder / name)
        ]
        report.gone = len(gone)
        if not gone and not forgotten:
            return
        with self._database.write() as connection:
            for name in gone:
                row = connection.execute(
                    "SELECT id FROM pictures WHERE set_id = ? AND name = ?", (self._set.id, name)
                ).fetchone()
                if row is not None:
                    note_problem(connection, self._clock(), self._set.id, name, GONE, row["id"])
            query = "DELETE FROM picture_problems WHERE set_id = ? AND name = ?"
            connection.executemany(query, [(self._set.id, name) for name in forgotten])


def _fitting(boxes: Iterable[NewBox], looked: Looked, name: str, report: Report) -> Iterator[tuple[Box, NewBox]]:
    """Yield boxes cut to their picture; name those that lie outside."""
    for new in boxes:
        try:
            yield fit_box(new.box_px, (looked.width, looked.height)), new
        except ConsoleError as error:
            report.left_out.append(f"{name}: {error}")


def _is_unchanged(path: Path, row: _Row) -> bool:
    try:
        about = path.stat()
    except (OSError, ValueError):
        return False
    return about.st_size == row.size and max(about.st_mtime, about.st_ctime) < row.added_at


def _changed_at(path: Path) -> float:
    try:
        about = path.stat()
    except (OSError, ValueError):
        return 0.0
    return max(about.st_mtime, about.st_ctime)


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _batches(items: Iterable[Listed], size: int) -> Iterator[list[Listed]]:
    all_items = iter(items)
    while batch := list(itertools.islice(all_items, size)):
        yield batch
