"""Backups of the database, and what a restore refuses."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing

import pytest

from console.access.audit import record
from console.storage.backup import back_up, restore
from console.storage.database import FILE, VERSION, open_database
from console.storage.folder_lock import locked_folder
from console.tables import TABLES
from edge.errors import ConsoleError


@pytest.fixture
def folder(tmp_path):
    """A data folder with one row in its audit log."""
    folder = tmp_path / "data"
    note(folder, "first")
    return folder


def note(folder, action):
    with closing(open_database(folder, TABLES)) as database, database.write() as connection:
        record(connection, 1.0, "ann", action, "x")


def actions(folder):
    with closing(open_database(folder, TABLES)) as database, database.read() as rows:
        return [row["action"] for row in rows.execute("SELECT action FROM audit ORDER BY id")]


def test_backup_of_a_running_console_holds_what_is_committed(folder, tmp_path):
    target = tmp_path / "backup.sqlite"
    with locked_folder(folder), closing(open_database(folder, TABLES)) as database:
        with database.write() as connection:
            record(connection, 2.0, "ann", "second", "x")
        with database.write() as connection:
            record(connection, 3.0, "ann", "third", "x")
            assert back_up(folder, target) == target.stat().st_size
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with closing(sqlite3.connect(target)) as rows:
        assert [one[0] for one in rows.execute("SELECT action FROM audit")] == ["first", "second"]
    assert {one.name for one in tmp_path.iterdir()} == {"data", "backup.sqlite"}


def test_backup_overwrites_nothing(folder, tmp_path):
    target = tmp_path / "backup.sqlite"
    target.write_text("mine")
    with pytest.raises(ConsoleError, match="is there already") as caught:
        back_up(folder, target)
    assert (caught.value.reason, target.read_text()) == ("conflict", "mine")


def test_backup_of_no_console_is_refused(tmp_path):
    with pytest.raises(ConsoleError, match="no console's database"):
        back_up(tmp_path, tmp_path / "backup")


def test_restore_brings_the_state_back_and_keeps_the_other(folder, tmp_path):
    back_up(folder, tmp_path / "backup")
    with closing(open_database(folder, TABLES)) as database, database.write() as connection:
        connection.execute("INSERT INTO sessions VALUES (1, 'h', NULL, 1, 1, '', '')")
    note(folder, "later")
    kept = restore(folder, tmp_path / "backup")
    assert actions(folder) == ["first"]
    kept.rename(tmp_path / FILE)
    assert actions(tmp_path) == ["first", "later"]
    assert sorted(one.name for one in folder.iterdir()) == ["console.lock", FILE]


def test_restore_ends_all_sessions(folder, tmp_path):
    with closing(open_database(folder, TABLES)) as database, database.write() as connection:
        connection.execute("INSERT INTO sessions VALUES (1, 'h', NULL, 1, 1, '', '')")
    back_up(folder, tmp_path / "backup")
    restore(folder, tmp_path / "backup")
    with closing(open_database(folder, TABLES)) as database, database.read() as rows:
        assert rows.execute("SELECT count(*) FROM sessions").fetchone()[0] == 0


def test_restore_into_a_new_folder(folder, tmp_path):
    back_up(folder, tmp_path / "backup")
    assert restore(tmp_path / "new", tmp_path / "backup") is None
    assert actions(tmp_path / "new") == ["first"]


def test_restore_while_a_console_runs_is_refused(folder, tmp_path):
    back_up(folder, tmp_path / "backup")
    with locked_folder(folder), pytest.raises(ConsoleError, match="a console runs on it"):
        restore(folder, tmp_path / "backup")
    with locked_folder(folder), pytest.raises(ConsoleError, match="stop that one first"), locked_folder(folder):
        pass


def damaged(path):
    data = bytearray(path.read_bytes())
    data[4096 : len(data) - 4096] = os.urandom(len(data) - 8192)
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-4096])


def newer(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")


def foreign(path):
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE users(x)")


@pytest.mark.parametrize(
    "harm",
    [damaged, cut, newer, foreign, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(b"x" * 9000)],
)
def test_unusable_backup_changes_nothing(folder, tmp_path, harm):
    backup = tmp_path / "backup"
    back_up(folder, backup)
    harm(backup)
    with pytest.raises(ConsoleError):
        restore(folder, backup)
    assert actions(folder) == ["first"]


def test_damaged_database_is_replaced_and_kept(folder, tmp_path):
    back_up(folder, tmp_path / "backup")
    (folder / FILE).write_bytes(b"x" * 9000)
    kept = restore(folder, tmp_path / "backup")
    assert (actions(folder), kept.read_bytes()) == (["first"], b"x" * 9000)
