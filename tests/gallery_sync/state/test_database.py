"""Databases in the state folder: what is damage, what becomes of it, and what is none."""

from __future__ import annotations

import os
import sqlite3

import pytest

from edge.errors import SyncError
from gallery_sync.state.database import DamagedError, StateDatabase, open_or_replace, open_read_only, transaction
from gallery_sync.transport.errors import StorageError


def prepare(connection):
    with transaction(connection):
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (number INTEGER)")
    if connection.execute("SELECT COUNT(*) FROM numbers WHERE number < 0").fetchone()[0]:
        raise DamagedError("has a number that nothing wrote")


def opened(path):
    return open_or_replace(path, "list of numbers", prepare)


def numbers(connection):
    return [row[0] for row in connection.execute("SELECT number FROM numbers")]


def write(path, value):
    connection, damage = opened(path)
    with transaction(connection):
        connection.execute("INSERT INTO numbers VALUES (?)", (value,))
    connection.close()
    return damage


def test_what_is_written_is_there_again(tmp_path):
    path = tmp_path / "new" / "numbers.sqlite"
    assert write(path, 1) is None
    connection, damage = opened(path)
    assert (numbers(connection), damage) == ([1], None)
    connection.close()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b"no database, and longer than a header of SQLite is. " * 8), "is damaged"),
        (lambda path: os.truncate(path, 3000), "is damaged"),
        (lambda path: os.truncate(path, 65 << 20), "is larger than"),
        (lambda path: write(path, -1), "nothing wrote"),
        (lambda path: path.unlink() or path.mkdir(), "was no file"),
    ],
    ids=["text", "cut", "huge", "content", "folder"],
)
def test_damaged_file_is_set_aside_and_an_empty_one_begins(tmp_path, damage, words):
    path = tmp_path / "numbers.sqlite"
    write(path, 1)
    path.with_name("numbers.sqlite-journal").write_bytes(b"")
    damage(path)
    connection, told = opened(path)
    assert words in told
    assert numbers(connection) == []
    connection.close()


def test_few_damaged_files_are_kept(tmp_path):
    path = tmp_path / "numbers.sqlite"
    for _ in range(6):
        path.write_bytes(b"no database, and longer than a header of SQLite is. " * 8)
        opened(path)[0].close()
    assert len(list(tmp_path.glob("numbers.sqlite.damaged-*"))) == 3


def test_lock_is_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr("gallery_sync.state.database._TIMEOUT_S", 0.01)
    path = tmp_path / "numbers.sqlite"
    write(path, 1)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="cannot open the list of numbers: database is locked"):
        opened(path)
    other.execute("ROLLBACK")
    other.close()
    connection, damage = opened(path)
    assert (numbers(connection), damage) == ([1], None)
    connection.close()


def test_failed_change_leaves_nothing_of_it(tmp_path):
    connection, _ = opened(tmp_path / "numbers.sqlite")
    store = StateDatabase(tmp_path / "numbers.sqlite", connection)

    def change():
        with store._transaction():
            store._run("INSERT INTO numbers VALUES (1)")
            store._run("INSERT INTO elsewhere VALUES (2)")

    with pytest.raises(StorageError, match="cannot read or write the database"):
        change()
    assert store._all("SELECT number FROM numbers") == []
    store.close()


def test_reading_makes_no_file(tmp_path):
    path = tmp_path / "numbers.sqlite"
    assert open_read_only(path, "start the agent") is None
    assert not path.exists()
    path.write_bytes(b"no database, and longer than a header of SQLite is. " * 8)
    with pytest.raises(SyncError, match=r"cannot be read: .*; start the agent"):
        open_read_only(path, "start the agent")
