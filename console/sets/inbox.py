"""Takes what devices uploaded to an inbox: taught items and unknown objects. All of it is hostile.

Rules this module keeps:
1. Uploads are read and checked by trainer.inbox; the inbox itself is only read.
2. A picture out of a zip file is stored with the uploads of the console, once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from console.background.tasks import Progress
from console.sets.file_store import FileStore
from console.sets.looking import Report
from console.sets.pictures import Known, note_problem
from console.sets.reading import look_at
from console.sets.sets import PictureSet
from console.storage.database import Database
from edge.errors import ConsoleError, DataError, PictureError, one_line
from edge.kiosk.taught_store import TaughtItem
from edge.unknowns.record import UnknownObject
from trainer.inbox.listing import InboxFile, list_inbox
from trainer.inbox.submission import Submission, read_submission


class InboxReader:
    """Reads an inbox into a set."""

    def __init__(self, database: Database, store: FileStore, clock: Callable[[], float]) -> None:
        self._database, self._store, self._clock = database, store, clock

    def look(self, inbox: Path, picture_set: PictureSet, progress: Progress) -> Report:
        """Take everything new; what cannot be used is noted, and the rest goes on.

        Raises:
            ConsoleError: the inbox cannot be read, or the disk is full.
            StoppedError: somebody stopped the task.
        """
        try:
            files, left_out = list_inbox(inbox)
        except DataError as error:
            raise ConsoleError("missing", str(error)) from error
        report = Report(left_out=[f"{name}: {why}" for name, why in left_out.items()][:200])
        stamps = self._stamps(picture_set.id)
        progress(0, len(files))
        for done, file in enumerate(files, 1):
            stamp = _stamp(file)
            if stamps.get(file.name) == stamp:
                report.unchanged += 1
            else:
                is_good = self._take(file, picture_set, report)
                self._remember(picture_set.id, file.name, stamp, is_good=is_good)
            progress(done, len(files))
        with self._database.write() as connection:
            connection.execute(
                "UPDATE set_details SET looked_at = ?, left_out = ? WHERE set_id = ?",
                (self._clock(), json.dumps(report.left_out, ensure_ascii=False), picture_set.id),
            )
        return report

    def _take(self, file: InboxFile, picture_set: PictureSet, report: Report) -> bool:
        try:
            submission = read_submission(file)
        except DataError as error:
            report.refused += 1
            with self._database.write() as connection:
                note_problem(connection, self._clock(), picture_set.id, file.name, one_line(str(error)))
            return False
        if submission is None:
            return True
        report.left_out += [one_line(f"{file.name}: {why}") for why in submission.left_out]
        known = _known(file, submission, picture_set.category)
        for number, picture in enumerate(submission.pictures):
            name = f"{file.device or 'inbox'}/{file.path.stem}-{number}{picture.suffix}"
            try:
                looked = look_at(picture.data)
            except PictureError as error:
                report.left_out.append(f"{name}: {error}")
                continue
            stored = self._store.store(
                picture_set.id, picture_set.folder, name, picture.data, looked, self._clock(), whole=True, known=known
            )
            report.added += stored.is_new
        return True

    def _stamps(self, set_id: int) -> dict[str, str]:
        with self._database.read() as rows:
            query = "SELECT name, stamp FROM inbox_files WHERE set_id = ?"
            return {row["name"]: row["stamp"] for row in rows.execute(query, (set_id,))}

    def _remember(self, set_id: int, name: str, stamp: str, *, is_good: bool) -> None:
        query = "INSERT INTO inbox_files(set_id, name, stamp) VALUES (?, ?, ?) ON CONFLICT(set_id, name) DO UPDATE "
        with self._database.write() as connection:
            connection.execute(f"{query}SET stamp = excluded.stamp", (set_id, name, stamp))
            if is_good:
                connection.execute("DELETE FROM picture_problems WHERE set_id = ? AND name = ?", (set_id, name))


def _stamp(file: InboxFile) -> str:
    stamps = []
    for path in (file.path, file.record):
        try:
            about = path.stat() if path is not None else None
        except OSError:
            about = None
        stamps.append(f"{about.st_size}-{about.st_mtime_ns}" if about else "")
    return " ".join(stamps)


def _known(file: InboxFile, submission: Submission, category: str | None) -> Known:
    """Return what a device says of its pictures: it is expected, never decided."""
    record = submission.record
    source = {"device": file.device, "upload": file.name, "kind": submission.kind}
    if isinstance(record, TaughtItem):
        label = " ".join(record.label.split())
        source |= {"time": one_line(record.taught_at[:40]), "label": label}
        if record.negative:
            source["reason"] = "must not be named"
        return Known(source, record.category or category, record.item_id, label)
    if isinstance(record, UnknownObject):
        source |= {
            "device": file.device or one_line(record.device[:80]), "camera": one_line(record.camera[:80]),
            "time": one_line(record.captured_at[:40]), "reason": one_line(record.reason[:40]),
        }  # fmt: skip
        return Known(source, record.category or category)
    return Known(source, category)
