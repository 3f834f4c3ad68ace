"""What each segment of the gallery's log changed, by item: the history that pages show.

Rules this module keeps:
1. A segment is read once. One that cannot be read is left out: its state is shown without its changes.
2. The label of an item that was deleted urgently is forgotten, as devices forget the item.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from console.galleries.repository import Seen
from console.storage.database import Database
from edge.errors import SyncError
from edge.gallery.limits import NEGATIVE, parse_metadata
from gallery_sync.formats.documents import Segment, SpaceLog
from gallery_sync.gallery_log.records import Delete, Record
from gallery_sync.gallery_log.segment_file import read_segment
from gallery_sync.repository.folder import read_object

log = logging.getLogger(__name__)

ERASED = "(erased)"
_ROW = "INSERT OR REPLACE INTO gallery_changes VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of an item, as the log has it."""

    gallery: int  # sequence
    label: str | None  # None: it was deleted
    vectors: int | None
    negative: bool
    urgent: bool
    release: int | None  # the first one that has it
    at: float | None  # of that release, Unix time
    space_id: str


def read_changes(database: Database, seen: Seen, category: str, space: SpaceLog) -> None:
    """Read the segments of a space that were not read yet."""
    with database.read() as rows:
        query = "SELECT sequence, sha256 FROM gallery_segments WHERE category = ? AND space_id = ?"
        known = {row[0]: row[1] for row in rows.execute(query, (category, space.space_id))}
    for segment in space.segments:
        if known.get(segment.sequence) == segment.object.sha256:
            continue
        try:
            records = read_segment(read_object(seen.published.repo, segment.object)).records
        except SyncError as error:
            log.warning("category %r: %s; the history of its items lacks gallery %s", category, error, segment.sequence)
            continue
        with database.write() as connection:
            connection.executemany(_ROW, (_row(category, space.space_id, segment, one) for one in records))
            connection.execute(
                "INSERT OR REPLACE INTO gallery_segments VALUES (?, ?, ?, ?)",
                (category, space.space_id, segment.sequence, segment.object.sha256),
            )


def forget_erased(connection: sqlite3.Connection) -> None:
    """Forget the labels of items before they were deleted urgently."""
    for row in connection.execute("SELECT category, item, sequence FROM gallery_changes WHERE urgent = 1").fetchall():
        connection.execute(
            "UPDATE gallery_changes SET label = ? WHERE category = ? AND item = ? AND sequence < ? "
            "AND label IS NOT NULL",
            (ERASED, row["category"], row["item"], row["sequence"]),
        )


def history(rows: sqlite3.Connection, category: str, item: str, space_id: str, limit: int = 100) -> list[Change]:
    """Return the changes of an item in a space, the newest first; what the first base had is no change."""
    query = (
        "SELECT c.*, (SELECT min(release) FROM gallery_releases r WHERE r.gallery = c.sequence) AS release, "
        "(SELECT min(at) FROM gallery_releases r WHERE r.gallery = c.sequence) AS at FROM gallery_changes c "
        "WHERE category = ? AND item = ? AND space_id = ? ORDER BY sequence DESC LIMIT ?"
    )
    return [
        Change(
            row["sequence"], row["label"], row["vectors"], bool(row["negative"]), bool(row["urgent"]), row["release"],
            row["at"], row["space_id"],
        )
        for row in rows.execute(query, (category, item, space_id, limit))
    ]  # fmt: skip


def was_erased(rows: sqlite3.Connection, category: str, item: str, gallery: int) -> bool:
    """Return whether an item was deleted urgently at a gallery sequence, or later."""
    query = "SELECT 1 FROM gallery_changes WHERE category = ? AND item = ? AND urgent = 1 AND sequence >= ? LIMIT 1"
    return rows.execute(query, (category, item, gallery)).fetchone() is not None


def segments_before(space: SpaceLog, gallery: int) -> Iterator[Segment]:
    """Yield the segments before a gallery sequence, the newest first, down to the newest base."""
    base = max((one.sequence for one in space.bases if one.sequence < gallery), default=0)
    for segment in reversed(space.segments):
        if base < segment.sequence < gallery:
            yield segment


def _row(category: str, space_id: str, segment: Segment, record: Record) -> tuple[object, ...]:
    place = (category, space_id, record.item_id, segment.sequence)
    if isinstance(record, Delete):
        return (*place, None, None, 0, segment.urgent)
    negative = bool(parse_metadata(record.metadata).get(NEGATIVE))
    return (*place, record.label, len(record.scales), negative, False)
