"""The journal: transactions, migration from version 1, damage, a full disk."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, replace

import pytest

from edge.errors import SyncError
from gallery_sync.agent import journal as module
from gallery_sync.agent.journal import MOST_ENDED, NAME, VERSION, Receipt, open_journal, read_journal
from gallery_sync.agent.machine import Ended, Held, State, Step, Target, Task
from gallery_sync.transport.errors import StorageError
from gallery_sync.transport.retry_ledger import Failures
from tests.file_damage import DAMAGES

TWO = Target("demo", 2, "bundle-2", 2, 5, 1)
TASK = Task(State.TRIAL, TWO, 17.5, 8, "t1", '{"fps": {}}', "boot-1", 1, None, 2, 99.0)
HELD = Held("demo", 1, "frames failed", 2, 7200.0)


def filled(state_dir):
    journal = open_journal(state_dir)
    journal.store(Step(TASK, hold=HELD, ended=Ended(TWO, "rolled back", "why", "t0")), 5.0)
    journal.add_receipts([Receipt("tyre", 7, 2, 3.0)])
    journal.add("2026-11-28", 1000)
    journal.put_failures("ab", Failures(3, 12.5, "404"))
    return journal


def test_everything_is_read_again(tmp_path):
    filled(tmp_path).close()
    journal = open_journal(tmp_path)
    assert journal.told is None
    assert journal.task() == TASK
    assert journal.held(Target("demo", 1, "any")) == HELD
    assert journal.held(TWO) is None
    (past,) = journal.history()
    assert (past.sequence, past.outcome, past.reason, past.trial, past.at) == (2, "rolled back", "why", "t0", 5.0)
    assert journal.receipts() == [Receipt("tyre", 7, 2, 3.0)]
    assert journal.spent("2026-11-28") == 1000
    assert journal.failures("ab") == Failures(3, 12.5, "404")


def test_store_that_fails_changes_nothing(tmp_path, monkeypatch):
    journal = filled(tmp_path)
    monkeypatch.setattr(journal, "_add_past", lambda *_: journal._run("INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(StorageError, match="cannot read or write the journal"):
        journal.store(Step(Task(), hold=Held("demo", 9, "x", 1, None), ended=Ended(TWO, "kept", None, None)), 6.0)
    assert journal.task() == TASK
    assert journal.all_held() == [HELD]


def test_s1_full_disk_is_an_error_and_changes_nothing(tmp_path):
    journal = filled(tmp_path)
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    journal._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageError, match="full"):
        journal.store(Step(TASK, ended=Ended(TWO, "kept", "x" * 100_000, None)), 6.0)
    assert len(journal.history()) == 1


def test_it_is_flushed_with_each_store(tmp_path):
    connection = filled(tmp_path)._connection
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("version", [1, 2])
def test_f10_journal_of_an_older_version_is_brought_up_to_date(tmp_path, version, monkeypatch):
    connection = sqlite3.connect(tmp_path / NAME)
    for script in module._MIGRATIONS[:version]:
        connection.executescript(script)
    connection.execute("INSERT INTO task VALUES (1, ?)", (module._write_task(TASK),))
    connection.execute("INSERT INTO quarantine VALUES ('demo', 1, 'frames failed', 2, 7200.0)")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    connection.close()
    journal = open_journal(tmp_path)
    assert journal.told is None
    assert journal.task() == TASK
    assert journal.all_held() == [HELD]
    journal.put_failures("ab", Failures(1, 2.0, "404"))
    assert journal._connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_p4_migration_that_is_interrupted_is_done_again(tmp_path, monkeypatch):
    connection = sqlite3.connect(tmp_path / NAME)
    connection.executescript(module._MIGRATIONS[0])
    connection.execute("INSERT INTO task VALUES (1, ?)", (module._write_task(TASK),))
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()
    whole = module._MIGRATIONS
    monkeypatch.setattr(module, "_MIGRATIONS", (whole[0], whole[1], whole[2] + "; FAIL NOW"))
    with pytest.raises(StorageError):
        open_journal(tmp_path)
    monkeypatch.setattr(module, "_MIGRATIONS", whole)
    journal = open_journal(tmp_path)
    assert journal.told is None
    assert journal.task() == TASK


def test_f10_journal_of_a_newer_version_is_set_aside(tmp_path):
    journal = filled(tmp_path)
    journal._connection.execute("PRAGMA user_version = 99")
    journal.close()
    journal = open_journal(tmp_path)
    assert "is of version 99" in (journal.told or "")
    assert journal.task() == Task()
    assert len(list(tmp_path.glob(f"{NAME}.damaged-*"))) == 1


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_p3_damaged_journal_is_set_aside_or_harmless(tmp_path, damage):
    filled(tmp_path).close()
    damage(tmp_path / NAME)
    journal = open_journal(tmp_path)
    assert journal.told is not None or journal.task() in (TASK, Task())
    journal.store(Step(TASK), 6.0)
    journal.close()
    assert open_journal(tmp_path).task() == TASK


@pytest.mark.parametrize("page", [0, 1, 2, 3, 4])
def test_p3_torn_page_is_found(tmp_path, page):
    filled(tmp_path).close()
    data = bytearray((tmp_path / NAME).read_bytes())
    data[page * 4096 : page * 4096 + 4096] = bytes(4096)
    (tmp_path / NAME).write_bytes(data)
    journal = open_journal(tmp_path)
    assert journal.told is not None or journal.task() in (TASK, Task())
    journal.store(Step(TASK), 6.0)


def test_p3_hot_journal_of_a_lost_file_is_not_applied(tmp_path):
    filled(tmp_path).close()
    (tmp_path / NAME).write_bytes(b"no database, but something " * 200)
    (tmp_path / f"{NAME}-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    journal = open_journal(tmp_path)
    assert journal.told is not None
    assert journal.task() == Task()


@pytest.mark.parametrize("content", ["{}", "[]", '{"state": "dancing"}', '{"state": "idle", "since": "now"}', "{"])
def test_task_that_nothing_wrote_is_damage(tmp_path, content):
    journal = filled(tmp_path)
    journal._connection.execute("UPDATE task SET content = ?", (content,))
    journal.close()
    assert open_journal(tmp_path).told is not None


def test_unknown_keys_of_a_task_are_ignored(tmp_path):
    journal = filled(tmp_path)
    content = module._write_task(TASK).replace('{"state"', '{"mood": 1, "state"', 1)
    journal._connection.execute("UPDATE task SET content = ?", (content,))
    assert journal.task() == TASK


def test_history_and_quarantine_are_bounded(tmp_path):
    journal = open_journal(tmp_path)
    journal._connection.execute("PRAGMA synchronous = OFF")
    for n in range(1, 130):
        release = Target("demo", n, f"bundle-{n}")
        journal.store(Step(Task(), hold=Held("demo", n, "x", 1, None), ended=Ended(release, "refused", "x", None)), n)
    assert [past.sequence for past in journal.history()] == list(range(129, 129 - MOST_ENDED, -1))
    assert [held.sequence for held in journal.all_held()] == list(range(30, 130))


def test_confirmed_release_clears_the_quarantine_of_older_ones(tmp_path):
    journal = filled(tmp_path)
    journal.store(Step(Task(), ended=Ended(TWO, "confirmed", None, "t1")), 6.0)
    assert journal.all_held() == []


def test_operator_clears_the_quarantine_and_waits(tmp_path):
    journal = open_journal(tmp_path)
    journal.store(Step(Task(State.IDLE, TWO, failed="x", postponed=4, not_before=1e10), hold=HELD), 1.0)
    assert journal.clear_quarantine() == 1
    assert journal.task().not_before == 0.0
    assert journal.all_held() == []


def test_known_receipt_is_kept_as_it_was(tmp_path):
    journal = filled(tmp_path)
    journal.add_receipts([Receipt("tyre", 7, 0, 99.0), Receipt("rim", 7, 1, 99.0)])
    assert journal.receipts() == [Receipt("rim", 7, 1, 99.0), Receipt("tyre", 7, 2, 3.0)]


def test_bytes_of_a_day_add_up(tmp_path):
    journal = filled(tmp_path)
    journal.add("2026-11-28", 500)
    journal.add("2026-11-29", 1)
    assert (journal.spent("2026-11-28"), journal.spent("2026-11-29"), journal.spent("2026-11-30")) == (1500, 1, 0)


def test_status_reads_beside_a_running_agent(tmp_path):
    journal = filled(tmp_path)
    reading = read_journal(tmp_path)
    assert reading is not None
    assert reading.task() == TASK
    reading.close()
    journal.store(Step(Task()), 6.0)


def test_reading_changes_no_file(tmp_path):
    assert read_journal(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    (tmp_path / NAME).write_bytes(b"no database" * 100)
    with pytest.raises(SyncError, match="cannot be read"):
        read_journal(tmp_path)


PLANNED = replace(TWO, plan="spring", windows=("02:00-03:00",), deadline=5.0, max_unavailable=1, unavailable_by="hall")


def older(state_dir) -> sqlite3.Connection:
    """Return a journal as an agent without rollouts made it."""
    connection = sqlite3.connect(state_dir / NAME)
    for script in module._MIGRATIONS:
        connection.executescript(script)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    return connection


HISTORY = (
    "INSERT INTO history (at, line, sequence, bundle_id, gallery_sequence, outcome) "
    "VALUES (1, 'demo', 1, 'b', 1, 'kept')"
)


def test_what_a_rollout_says_of_a_release_is_read_again(tmp_path):
    journal = open_journal(tmp_path)
    journal.store(Step(Task(State.ARMED, PLANNED), ended=Ended(PLANNED, "confirmed", None, "t1")), 6.0)
    journal.close()
    journal = open_journal(tmp_path)
    found = journal.task().release
    assert found == TWO  # what a rollout says is no part of which release it is
    assert asdict(found) == asdict(PLANNED)  # type: ignore[type-var]
    assert journal.history()[0].plan == "spring"


def test_f10_journal_without_plans_is_read_and_written(tmp_path):
    with older(tmp_path) as connection:
        connection.execute("INSERT INTO task VALUES (1, ?)", (module._write_task(TASK),))
        connection.execute(HISTORY)
    connection.close()
    reading = read_journal(tmp_path)  # `status`, before the agent started
    assert reading is not None
    assert [past.plan for past in reading.history()] == [None]
    reading.close()
    journal = open_journal(tmp_path)
    journal.store(Step(Task(), ended=Ended(PLANNED, "refused", "x", None)), 6.0)
    assert (journal.told, [past.plan for past in journal.history()]) == (None, ["spring", None])


def test_f10_older_agent_goes_on_with_the_journal_and_a_newer_one_after_it(tmp_path):
    """What an older agent does to the file: it knows neither the column nor the fields of a rollout."""
    journal = open_journal(tmp_path)
    journal.store(Step(Task(State.ARMED, PLANNED), ended=Ended(PLANNED, "refused", "x", None)), 6.0)
    journal.close()
    connection = sqlite3.connect(tmp_path / NAME)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    with connection:
        connection.execute(HISTORY)
    (content,) = connection.execute("SELECT content FROM task").fetchone()
    assert json.loads(content)["release"].keys() >= {"line", "sequence", "bundle_id", "gallery_sequence"}
    connection.close()
    assert [past.plan for past in open_journal(tmp_path).history()] == [None, "spring"]


def test_p4_column_that_is_being_added_survives_a_kill(tmp_path, monkeypatch):
    older(tmp_path).close()
    monkeypatch.setattr(module, "_ADDED", (*module._ADDED, ("nowhere", "plan", "TEXT")))
    with pytest.raises(StorageError):
        open_journal(tmp_path)
    monkeypatch.undo()
    journal = open_journal(tmp_path)
    assert (journal.told, journal.history()) == (None, [])


@pytest.mark.parametrize("windows", ["[1]", '"02:00-03:00"', "null", "5"])
def test_windows_that_nothing_wrote_are_damage(tmp_path, windows):
    journal = open_journal(tmp_path)
    journal.store(Step(Task(State.ARMED, PLANNED)), 6.0)
    content = module._write_task(journal.task()).replace('["02:00-03:00"]', windows)
    journal._connection.execute("UPDATE task SET content = ?", (content,))
    journal.close()
    assert open_journal(tmp_path).told is not None
