"""Imports: an uploaded file is read into a plan, people look at it, and it is taken. Plans lie in the data folder.

Rules this module keeps:
1. Reading changes nothing. A plan is taken once, and forgotten after a day.
2. A picture that somebody changed since it was planned stays as it is, and is counted.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from console.access import audit
from console.background.tasks import Progress
from console.boxes.editing import boxes_of, note_edit
from console.exchange.picture_names import SetNames, known_pictures
from console.exchange.plans import Change, Plan, Wishes, make_plan, plan_from_json, plan_to_json
from console.exchange.reading import printable_name, read_upload
from console.sets.crops import NewBox, set_boxes
from console.settings import Settings
from console.storage.database import Database
from edge.durable import write_durably
from edge.errors import ConsoleError

_KEEP_S = 86_400.0
_AT_ONCE = 200  # pictures of a transaction
_UPLOAD, _PLAN, _WORK = "upload", "plan.json", "unpacked"
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Import:
    """A file that was read, and what it would change."""

    id: str
    set_id: int
    file: str  # its name
    by: str
    at: float  # Unix time, seconds
    plan: Plan


def receive(settings: Settings, now_s: float, path: Path) -> str:
    """Keep an uploaded file; return the id of its import. Old ones are deleted.

    Raises:
        ConsoleError: it cannot be kept.
    """
    folder = settings.data / "imports"
    try:
        for old in folder.iterdir() if folder.is_dir() else ():
            if now_s - old.stat().st_mtime > _KEEP_S:
                shutil.rmtree(old, ignore_errors=True)
        import_id = secrets.token_hex(8)
        (folder / import_id).mkdir(parents=True)
        shutil.move(path, folder / import_id / _UPLOAD)
    except OSError as error:
        raise ConsoleError("storage", f"the file cannot be kept: {error.strerror}") from error
    return import_id


def read_import(
    database: Database,
    settings: Settings,
    now_s: float,
    by: str,
    set_id: int,
    import_id: str,
    file: str,
    wishes: Wishes,
) -> str:
    """Read a received file into a plan; return what it found, in one sentence.

    Raises:
        ConsoleError: the file cannot be used.
    """
    folder = _folder(settings, import_id)
    try:
        with database.read() as rows:
            sizes = {
                row[0]: (row[1], row[2])
                for row in rows.execute("SELECT name, width, height FROM pictures WHERE set_id = ?", (set_id,))
            }
            names = SetNames(known_pictures(rows, set_id))

            def size_of(name: str) -> tuple[int, int] | None:
                found = names.match(name)
                return sizes[found[0]] if len(found) == 1 else None

            read = read_upload(folder / _UPLOAD, file, folder / _WORK, size_of)
            plan = make_plan(rows, set_id, read, wishes)
    finally:
        shutil.rmtree(folder / _WORK, ignore_errors=True)
        (folder / _UPLOAD).unlink(missing_ok=True)
    tree = {"set_id": set_id, "file": printable_name(file), "by": by, "at": now_s, "plan": plan_to_json(plan)}
    write_durably(folder / _PLAN, json.dumps(tree).encode("utf-8", "backslashreplace"))
    return f"{len(plan.changes):,} pictures would change"


def find_import(settings: Settings, set_id: int, import_id: str) -> Import | None:
    """Return an import that was read; None: it is still being read, was taken, or failed.

    Raises:
        ConsoleError: there is no such import of this set.
    """
    path = _folder(settings, import_id) / _PLAN
    if not path.is_file():
        return None
    tree = json.loads(path.read_bytes())
    if tree["set_id"] != set_id:
        raise ConsoleError("not_found", "this import is of another set")
    return Import(import_id, set_id, tree["file"], tree["by"], tree["at"], plan_from_json(tree["plan"]))


def take_import(
    database: Database, settings: Settings, now_s: float, by: str, found: Import, progress: Progress
) -> str:
    """Change the set as planned; return what was done, in one sentence."""
    taken = conflicts = 0
    changes = found.plan.changes
    for first in range(0, len(changes), _AT_ONCE):
        progress(first, len(changes))
        with database.write() as connection:
            for one in changes[first : first + _AT_ONCE]:
                try:
                    _take(connection, one)
                    taken += 1
                except ConsoleError as error:
                    if error.reason not in ("conflict", "not_found"):
                        raise
                    conflicts += 1
    with database.write() as connection:
        about = {"file": found.file, "pictures": taken, "conflicts": conflicts}
        audit.record(connection, now_s, by, "boxes.import", f"set {found.set_id}", **about)
    shutil.rmtree(_folder(settings, found.id), ignore_errors=True)
    later = f"; {conflicts:,} were changed meanwhile, and stay as they are" if conflicts else ""
    return f"{found.file}: took the boxes of {taken:,} pictures{later}"


def forget_import(settings: Settings, import_id: str) -> None:
    """Delete an import that nobody wants."""
    shutil.rmtree(_folder(settings, import_id), ignore_errors=True)


def _take(connection: sqlite3.Connection, one: Change) -> None:
    boxes = [
        NewBox(b.id, b.box_px, source=b.source, score=b.score, category=b.category, item=b.item, label=b.label)
        for b in one.boxes
    ]
    before = boxes_of(connection, one.picture_id)
    set_boxes(connection, one.picture_id, one.version, boxes, one.state)
    if one.state == "confirmed":
        note_edit(connection, one.picture_id, before, boxes)
        connection.execute("UPDATE pictures SET why = '' WHERE id = ?", (one.picture_id,))


def _folder(settings: Settings, import_id: str) -> Path:
    if not _ID.fullmatch(import_id) or not (settings.data / "imports" / import_id).is_dir():
        raise ConsoleError("not_found", "there is no such import any more; send the file again")
    return settings.data / "imports" / import_id
