"""Open the SQLite file of a store: a file from outside, whose hash may be right and whose content may be anything.

Rules this module keeps:
1. The file is read-only and immutable: no lock, no journal, no write-ahead log, no memory map.
2. It holds exactly the tables of TABLES: no view, trigger, virtual table or further index.
3. No query runs for ever, whatever the pages say.
"""

from __future__ import annotations

import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from edge.errors import GalleryError, one_line

SCHEMA = 1  # version of the format
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE items (item_id TEXT PRIMARY KEY, label TEXT NOT NULL, metadata TEXT NOT NULL, thumbnail BLOB,
                    outline BLOB, deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, item_id TEXT NOT NULL, vector BLOB NOT NULL, scale REAL NOT NULL);
"""
_MAX_RECORD_BYTES = 64 << 20  # of one row
_LIMIT_S, _LIMIT_S_PER_BYTE = 60.0, 1 / (4 << 20)  # of all queries of one connection
_STEPS = 50_000  # of SQLite's machine, between two looks at the clock
_MAGIC, _UTF8 = b"SQLite format 3\0", 1
# page size, versions to write and read, reserved bytes, pages, free pages, encoding: SQLite file format, 1.3
_HEADER = struct.Struct(">16xHBBB7xI4xI16xI")
_PRAGMAS = "trusted_schema=OFF", "query_only=ON", "cell_size_check=ON", "mmap_size=0", "temp_store=MEMORY"
# SQLite's switches; Python has them from 3.12 on.
_SWITCHES = {
    "SQLITE_DBCONFIG_DEFENSIVE": True,
    "SQLITE_DBCONFIG_ENABLE_TRIGGER": False,
    "SQLITE_DBCONFIG_ENABLE_VIEW": False,
    "SQLITE_DBCONFIG_TRUSTED_SCHEMA": False,
}


@contextmanager
def open_store(path: Path, limit_s: float | None = None) -> Iterator[sqlite3.Connection]:
    """Open a store.

    Args:
        path: the file.
        limit_s: after this time a query fails; None: by the size of the file.

    Raises:
        GalleryError: the file is missing, is no store or is damaged, here or in a query; or a query takes too long.
    """
    size = _check_header(path)
    limit_s = _LIMIT_S + size * _LIMIT_S_PER_BYTE if limit_s is None else limit_s
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)) as store:
            _harden(store, limit_s)
            if _schema_of(store) != _expected_schema():
                raise GalleryError(f"{path}: damaged store: its tables are not those of a gallery; make it again")
            yield store
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, OverflowError) as error:
        raise GalleryError(f"{path}: damaged store: {one_line(str(error))}") from error


def check_pages(store: sqlite3.Connection, path: Path) -> None:
    """Check that every page, cell and index entry is sound and used once; takes seconds a GiB.

    Raises:
        GalleryError: one is not.
    """
    found: list[tuple[Any]] = store.execute("PRAGMA integrity_check(1)").fetchall()
    if found != [("ok",)]:
        raise GalleryError(f"{path}: damaged store: {one_line(' '.join(str(found[0][0]).split()) if found else '?')}")


def _check_header(path: Path) -> int:
    """Check what a connection to an immutable file does not; return the size of the file in bytes."""
    try:
        if not path.is_file():
            raise GalleryError(f"{path}: there is no such gallery store")
        with path.open("rb") as file:
            header = file.read(_HEADER.size)
        size = path.stat().st_size
    except OSError as error:
        raise GalleryError(f"{path}: cannot be read: {error.strerror}") from error
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        raise GalleryError(f"{path}: damaged store: not an SQLite file; make it again")
    page_size, write_version, read_version, reserved, pages, free, encoding = _HEADER.unpack(header)
    page_size = 1 << 16 if page_size == 1 else page_size
    if (write_version, read_version) != (1, 1):
        raise GalleryError(f"{path}: damaged store: it has a write-ahead log, and a store has none; make it again")
    if pages * page_size != size or free >= pages or reserved or encoding != _UTF8:
        raise GalleryError(
            f"{path}: damaged store: found {size} bytes, expected {pages} pages of {page_size} bytes, fewer than that "
            "free, in UTF-8; make it again"
        )
    return size


def _harden(store: sqlite3.Connection, limit_s: float) -> None:
    for pragma in _PRAGMAS:
        store.execute(f"PRAGMA {pragma}")
    if hasattr(store, "setlimit"):  # Python 3.11
        store.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_RECORD_BYTES)
        store.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    if hasattr(store, "setconfig"):  # Python 3.12
        for name, is_on in _SWITCHES.items():
            store.setconfig(getattr(sqlite3, name), is_on)
    end_s = time.monotonic() + limit_s
    store.set_progress_handler(lambda: time.monotonic() > end_s, _STEPS)


def _schema_of(store: sqlite3.Connection) -> list[tuple[str, str, str, str]]:
    rows = store.execute("SELECT type, name, tbl_name, sql FROM sqlite_master LIMIT 16").fetchall()
    return sorted((str(kind), str(name), str(table), " ".join(str(sql).split())) for kind, name, table, sql in rows)


@cache
def _expected_schema() -> list[tuple[str, str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as store:
        store.executescript(TABLES)
        return _schema_of(store)
