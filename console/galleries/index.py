"""Reads the newest gallery of the repository into the console's tables, so that pages need no more than an index.

Rules this module keeps:
1. A store that did not change is not read again. A new one becomes visible only when all of it was read.
2. Rows are written some thousand at a time, so that others write in between. Work that was interrupted is thrown away.
3. The items of a store have consecutive ids in the order of their labels: pages go from one id to the next.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from console.background.tasks import Progress
from console.galleries.changes import forget_erased, read_changes
from console.galleries.lookalikes import find_pairs, means_path
from console.galleries.repository import Seen
from console.galleries.store_items import StoredItem, read_items
from console.storage.database import Database
from gallery_sync.formats.documents import GalleryLog, SpaceLog
from gallery_sync.gallery_log.states import newest_root, state_at
from gallery_sync.repository.edited_gallery import edited_sequence
from gallery_sync.repository.galleries import make_store
from gallery_sync.repository.pairs import time_of

FEW_VECTORS = 3  # an item with fewer is hard to recognise; as edge.kiosk.enrolment asks for pictures
_BATCH = 2000  # rows of one transaction
_ITEM = "INSERT INTO gallery_items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def is_current(rows: sqlite3.Connection, seen: Seen) -> bool:
    """Return whether the tables have what the repository has."""
    row = rows.execute("SELECT version FROM gallery_index").fetchone()
    return row is not None and row[0] == seen.version


def read_index(database: Database, seen: Seen, folder: Path, progress: Progress) -> str:
    """Read what changed, and return what was done in one sentence.

    Args:
        database: of the console.
        seen: the repository.
        folder: for stores; owned by the console.
        progress: of the task.

    Raises:
        SyncError: an object of the repository is missing or damaged.
        GalleryError: a store is damaged.
        OSError: the disk failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _throw_away(database)
    kept: list[int] = []
    spaces = [(log, space) for log in seen.published.logs.values() for space in log.spaces]
    spaces = [(log, space) for log, space in spaces if state_at(space, edited_sequence(seen.published)) is not None]
    total = sum(space.bases[-1].items for _, space in spaces)
    done = 0
    for log, space in spaces:
        read_changes(database, seen, log.category, space)
        kept.append(_store(database, seen, log, space, folder, partial(_report, progress, done, total)))
        done += space.bases[-1].items
    with database.write() as connection:
        _show(connection, seen, kept)
    _throw_away(database)
    return f"{len(kept):,} categories are read"


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _store(
    database: Database, seen: Seen, log: GalleryLog, space: SpaceLog, folder: Path, progress: Callable[[int], None]
) -> int:
    """Return the row of a store: the one that there is, or a new one."""
    shown = seen.shown_space(log)
    is_shown, threshold = space is shown or space == shown, seen.threshold(log.category, space.space_id)
    state = _state_name(space, edited_sequence(seen.published))
    with database.write() as connection:
        known = connection.execute(
            "SELECT id, path FROM gallery_stores WHERE category = ? AND space_id = ? AND state = ? AND is_ready = 1",
            (log.category, space.space_id, state),
        ).fetchone()
        if known is not None and Path(known["path"]).is_file():
            connection.execute(
                "UPDATE gallery_stores SET shown = ?, threshold = ? WHERE id = ?", (is_shown, threshold, known["id"])
            )
            return int(known["id"])
        first_id = 1 + max(
            connection.execute("SELECT coalesce(max(id), 0) FROM gallery_items").fetchone()[0],
            connection.execute("SELECT coalesce(max(first_id + items), 0) FROM gallery_stores").fetchone()[0],
        )
        cursor = connection.execute(
            "INSERT INTO gallery_stores(category, space_id, state, path, dim, threshold, shown, first_id) "
            "VALUES (?, ?, ?, '', ?, ?, ?, ?)",
            (log.category, space.space_id, state, sum(h.dim for h in space.heads), threshold, is_shown, first_id),
        )
        store_id = int(cursor.lastrowid or 0)
    path = _own_store(seen, log, space, folder / f"{store_id}.sqlite")
    _fill(database, store_id, first_id, path, log.category, space, edited_sequence(seen.published), progress)
    if is_shown and threshold is not None:
        find_pairs(database, store_id, threshold)
    return store_id


def _state_name(space: SpaceLog, reached: int) -> str:
    state = state_at(space, reached)
    urgent = [one.sequence for one in space.segments if one.urgent and one.sequence > (state or 0)]
    return json.dumps([state, urgent, newest_root(space)])


def _own_store(seen: Seen, log: GalleryLog, space: SpaceLog, path: Path) -> Path:
    """Make the store, or link the object that is it: `edge-sync gc` may remove that one."""
    path.unlink(missing_ok=True)
    made = make_store(seen.published.repo, log.category, space, edited_sequence(seen.published), path)
    if made != path:
        try:
            os.link(made, path)
        except OSError:  # on another disk
            shutil.copyfile(made, path)
    return path


def _fill(
    database: Database, store_id: int, first_id: int, path: Path, category: str, space: SpaceLog, reached: int,
    progress: Callable[[int], None],
) -> None:  # fmt: skip
    """Write the rows of a store."""
    changed = _changed(database, category, space, reached)
    items, means = read_items(path, space, changed, progress)
    items.sort(key=lambda one: (one.key, one.item))
    order = [one.place for one in items]
    np.save(means_path(path), means[order] if items else means)
    rows = iter(enumerate(items, first_id))
    while some := list(islice(rows, _BATCH)):
        with database.write() as connection:
            connection.executemany(
                _ITEM,
                [
                    (number, store_id, one.item, one.label, one.vectors, one.negative, one.thumbnail, one.changed,
                     *one.rows)
                    for number, one in some
                ],
            )  # fmt: skip
            connection.executemany(
                "INSERT INTO gallery_text(rowid, item, label) VALUES (?, ?, ?)",
                [(number, one.item, one.label) for number, one in some],
            )
    with database.write() as connection:
        connection.executemany(
            "INSERT INTO gallery_letters VALUES (?, ?, ?)",
            [(store_id, first_id + place, letter) for letter, place in _letters(items)],
        )
        connection.execute(
            "UPDATE gallery_stores SET path = ?, items = ?, vectors = ?, few = ?, faceless = ?, negative = ?, "
            "changed = ? WHERE id = ?",
            (
                str(path),
                len(items),
                sum(one.vectors for one in items),
                sum(one.vectors < FEW_VECTORS for one in items),
                sum(not one.thumbnail for one in items),
                sum(one.negative for one in items),
                max((one.changed for one in items), default=0),
                store_id,
            ),
        )


def _changed(database: Database, category: str, space: SpaceLog, reached: int) -> Mapping[str, int]:
    """Return the gallery sequence of the newest change of each item that changed since the first base."""
    query = (
        "SELECT item, max(sequence) FROM gallery_changes WHERE category = ? AND space_id = ? AND sequence <= ? "
        "GROUP BY item"
    )
    with database.read() as rows:
        return {row[0]: row[1] for row in rows.execute(query, (category, space.space_id, reached))}


def _letters(items: Sequence[StoredItem]) -> Iterator[tuple[str, int]]:
    """Yield each first letter of a label, and the place of the first item with it."""
    last = None
    for place, one in enumerate(items):
        letter = one.key[:1].upper()
        letter = letter if letter.isalpha() else "0" if letter.isdigit() else "#"
        if letter != last:
            yield letter, place
        last = letter


def _show(connection: sqlite3.Connection, seen: Seen, kept: Sequence[int]) -> None:
    """Make the stores that were read the visible ones."""
    connection.execute("UPDATE gallery_stores SET is_ready = 0")
    connection.executemany("UPDATE gallery_stores SET is_ready = 1 WHERE id = ?", [(one,) for one in kept])
    forget_erased(connection)
    connection.execute("DELETE FROM gallery_releases")
    for release in seen.published.history.values():
        if release is not None:
            moment = time_of(release.created_at)
            connection.execute(
                "INSERT OR IGNORE INTO gallery_releases VALUES (?, ?, ?)",
                (release.gallery_sequence, release.sequence, moment.timestamp() if moment else None),
            )
    connection.execute("DELETE FROM gallery_index")
    connection.execute("INSERT INTO gallery_index VALUES (?, ?)", (seen.version, str(seen.published.repo)))


def _throw_away(database: Database) -> None:
    """Delete the rows and files of stores that are not visible."""
    with database.read() as rows:
        old = [(row["id"], row["path"]) for row in rows.execute("SELECT * FROM gallery_stores WHERE is_ready = 0")]
    for store_id, path in old:
        while True:
            with database.write() as connection:
                query = "SELECT id FROM gallery_items WHERE store_id = ? LIMIT ?"
                ids = [(row[0],) for row in connection.execute(query, (store_id, _BATCH))]
                connection.executemany("DELETE FROM gallery_text WHERE rowid = ?", ids)
                connection.executemany("DELETE FROM gallery_items WHERE id = ?", ids)
            if not ids:
                break
        with database.write() as connection:
            connection.execute("DELETE FROM gallery_letters WHERE store_id = ?", (store_id,))
            connection.execute("DELETE FROM gallery_pairs WHERE store_id = ?", (store_id,))
            connection.execute("DELETE FROM gallery_stores WHERE id = ?", (store_id,))
        if path:
            Path(path).unlink(missing_ok=True)
            means_path(Path(path)).unlink(missing_ok=True)
