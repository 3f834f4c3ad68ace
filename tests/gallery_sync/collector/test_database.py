"""The database file: damage, other files, readers beside the writer."""

from __future__ import annotations

import sqlite3

import pytest

from edge.errors import SyncError
from gallery_sync.collector.database import Database
from gallery_sync.collector.messages import Arrived
from tests.gallery_sync.collector.collector_samples import Desk, message, report


def test_all_is_there_after_opening_it_again(tmp_path):
    with Desk(tmp_path) as desk:
        desk.take(message(report()))
    with Desk(tmp_path) as desk:
        assert [row["device"] for row in desk.rows()] == ["cam-1"]


@pytest.mark.parametrize("damage", ["not a database", "page"])
def test_damaged_file_is_moved_aside(tmp_path, damage, caplog):
    path = tmp_path / "fleet.sqlite"
    with Desk(tmp_path) as desk:
        for number in range(30):
            desk.take(message(report(f"cam-{number}")))
    whole = path.read_bytes()
    path.write_bytes(b"x" * 5000 if damage == "not a database" else whole[:4096] + b"\xff" * (len(whole) - 4096))
    with Desk(tmp_path) as desk:
        assert desk.rows() == []
        desk.take(message(report()))
        assert len(desk.rows()) == 1
    assert len([one for one in tmp_path.iterdir() if ".damaged-" in one.name]) == 1
    assert "starts with an empty database" in caplog.text


def test_database_damaged_while_it_runs_is_replaced(desk):
    desk.take(message(report()))
    desk.database.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with desk.database.path.open("r+b") as file:
        file.write(b"\xff" * desk.database.path.stat().st_size)
    desk.database.writer.close()
    desk.database.writer = desk.database._connect(desk.database.path)
    desk.take(message(report("cam-2")), message(report("cam-3")))
    assert [row["device"] for row in desk.rows()] == ["cam-2", "cam-3"]
    assert desk.link.reconnects == 1
    assert desk.count("store_failures", reason="damaged") == 1


def test_database_of_a_newer_finesight_or_another_program_is_left_alone(tmp_path):
    path = tmp_path / "fleet.sqlite"
    Database(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(SyncError, match=r"format 2, and finesight .* reads up to format 1"):
        Database(path)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    with pytest.raises(SyncError, match="another program; choose another"):
        Database(other)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["fleet.sqlite", "other.sqlite"]


def test_folder_that_is_none_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SyncError, match="cannot open the database"):
        Database(tmp_path / "file/fleet.sqlite")


def test_reader_sees_one_state_and_writes_nothing(desk):
    desk.take(message(report()))
    with desk.database.reading() as db:
        assert db.execute("SELECT count(*) FROM device").fetchone() == (1,)
        desk.take(message(report("cam-2")))
        assert db.execute("SELECT count(*) FROM device").fetchone() == (1,)
    with pytest.raises(SyncError, match="cannot read"), desk.database.reading() as db:
        db.execute("DELETE FROM device")
    assert len(desk.rows()) == 2


def test_job_of_another_thread_that_fails_changes_nothing(desk):
    def fail(db):
        db.execute("DELETE FROM device")
        raise SyncError("no")

    desk.take(message(report()))
    with pytest.raises(SyncError, match="busy"):
        desk.writer.call(fail, wait_s=0.0)
    desk.take(Arrived("cam-1", "available", b"online", desk.now))
    assert len(desk.rows()) == 1
