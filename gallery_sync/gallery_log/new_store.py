"""Write a store from another one: without some of its items, and with new ones.

Rules this module keeps:
1. The file is written under another name, in one transaction, and renamed once it is whole. Otherwise nothing is left.
2. What leaves never enters the new file: no vector, picture, label or id of it, in no unused page.
3. Items that stay keep their order, and new ones follow, each with its vectors: readers take a store item by item.
4. The other store is opened read-only. Its tables were checked when its properties were read.
"""

from __future__ import annotations

import errno
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from edge.durable import replace_file
from edge.errors import SyncError, one_line
from edge.gallery.store_file import TABLES
from edge.gallery.writer import clear_file_counters
from gallery_sync.gallery_log.records import Upsert

_COPY_ITEMS = """
INSERT INTO main.items (item_id, label, metadata, thumbnail, outline)
    SELECT item_id, label, metadata, thumbnail, outline FROM old.items
    WHERE deleted = 0 AND item_id NOT IN (SELECT item_id FROM temp.leaves) ORDER BY rowid
"""
_COPY_VECTORS = """
INSERT INTO main.vectors (item_id, vector, scale)
    SELECT item_id, vector, scale FROM old.vectors
    WHERE item_id NOT IN (SELECT item_id FROM temp.leaves) ORDER BY row
"""
_ADD_ITEM = "INSERT INTO main.items (item_id, label, metadata, thumbnail, outline) VALUES (?, ?, ?, ?, ?)"
_ADD_VECTOR = "INSERT INTO main.vectors (item_id, vector, scale) VALUES (?, ?, ?)"
_DISK_ERRORS = "disk is full", "disk I/O error", "unable to open database file"
_LIMIT_S, _LIMIT_S_PER_BYTE, _PROGRESS_STEPS = 120.0, 1 / (1 << 20), 50_000
_PRAGMAS = (
    *("page_size=4096", "journal_mode=OFF", "synchronous=OFF", "temp_store=MEMORY", "mmap_size=0"),
    *("trusted_schema=OFF", "cell_size_check=ON"),
)


def write_store(
    old: Path, out: Path, properties: Mapping[str, str], leave: Sequence[str], enter: Sequence[Upsert]
) -> None:
    """Write a store.

    Args:
        old: the other store.
        out: the file to write.
        properties: all that the new store says of itself.
        leave: ids of items that are not copied.
        enter: items to add; those that are in the other store leave it, too.

    Raises:
        SyncError: the other store is damaged, or the disk failed; in this case it is raised from an OSError.
    """
    partial = out.with_name(out.name + ".partial")
    try:
        partial.unlink(missing_ok=True)
        with _open_new(partial, old) as new:
            _copy_others(new, leave)
            _insert(new, enter)
            new.executemany("INSERT INTO meta VALUES (?, ?)", sorted(properties.items()))
        clear_file_counters(partial)
        replace_file(partial, out)
    except (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeError) as error:
        failed = any(text in str(error) for text in _DISK_ERRORS)
        cause = OSError(errno.ENOSPC, str(error)) if failed else error
        raise SyncError(f"{out}: cannot be made from {old}: {one_line(str(error))}") from cause
    except OSError as error:
        raise SyncError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def _open_new(path: Path, old: Path) -> Iterator[sqlite3.Connection]:
    """Open a new store in a transaction, the old one attached as `old`: read-only, with tables that were checked."""
    with closing(sqlite3.connect(path.resolve().as_uri(), uri=True, isolation_level=None)) as new:
        for pragma in _PRAGMAS:
            new.execute(f"PRAGMA {pragma}")
        new.executescript(TABLES)
        new.execute("ATTACH ? AS old", (f"{old.resolve().as_uri()}?mode=ro&immutable=1",))
        end_s = time.monotonic() + _LIMIT_S + old.stat().st_size * _LIMIT_S_PER_BYTE
        new.set_progress_handler(lambda: time.monotonic() > end_s, _PROGRESS_STEPS)
        new.execute("CREATE TEMP TABLE leaves (item_id TEXT PRIMARY KEY) WITHOUT ROWID")
        new.execute("BEGIN")
        yield new
        new.execute("COMMIT")


def _copy_others(new: sqlite3.Connection, leave: Sequence[str]) -> None:
    """Copy the live items but some, in their order, with their vectors in the order of items."""
    new.executemany("INSERT INTO temp.leaves VALUES (?)", ((item_id,) for item_id in leave))
    new.execute(_COPY_ITEMS)
    new.execute(_COPY_VECTORS)


def _insert(new: sqlite3.Connection, records: Sequence[Upsert]) -> None:
    """Add items and their vectors after all others."""
    new.executemany(
        _ADD_ITEM,
        ((one.item_id, one.label, one.metadata, one.thumbnail, one.silhouettes) for one in records),
    )
    rows = (
        (one.item_id, vector.tobytes(), scale)
        for one in records
        for vector, scale in zip(one.vectors_i8, one.scales.tolist(), strict=True)
    )
    new.executemany(_ADD_VECTOR, rows)
