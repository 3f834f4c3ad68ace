"""P2 and P4: a power cut during what the update agent and the repository's tools do.

See test_crash_states.py.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer
from edge.gallery.store import quantise
from gallery_sync.agent import journal as journal_module
from gallery_sync.agent.journal import open_journal
from gallery_sync.agent.machine import State, Target, Task
from gallery_sync.device.security_floor import read_security_floor
from gallery_sync.gallery_log.records import Delete
from gallery_sync.repository.publish import publish_gallery_change
from gallery_sync.repository.upkeep.check import check_repository
from tests.crash import operations
from tests.crash.check import check_all
from tests.crash.test_crash_states import ONE, TWO, device, recovers, served
from tests.store_samples import SPACE, make_bundle, make_gallery, trusted, unit_rows
from tests.sync_samples import keys_of, make_repository, publish_release, pull_folder, time_now


def subscribed(work: Path, *releases: tuple[str, int]) -> Path:
    """A device that pulled these releases of the repository beside it, and activated them."""
    state_dir = work / "device"
    for number, (name, items) in enumerate(releases, start=1):
        publish_release(work, name, number, items)
        pull_folder(work / "repo", state_dir)
        slots.activate(state_dir, prove=trusted)
    return state_dir


def pull_and_activate(state_dir: Path) -> None:
    operations.pull(state_dir)
    slots.activate(state_dir, prove=trusted)


def test_pull_leaves_what_serves_alone(shim, work):
    state_dir = subscribed(work, ONE)
    publish_release(work, "two", 2, 4)
    recover = recovers(ONE, finish=pull_and_activate, end=TWO, every=4)
    assert check_all(shim, state_dir, "pull", recover) > 100


def test_urgent_deletion_leaves_whole_pairs_and_comes_to_its_end(shim, work):
    state_dir = subscribed(work, ONE, TWO)
    deleted = {"tyre": {SPACE: [Delete("i1")]}}
    publish_gallery_change(work / "repo", keys_of(work / "repo"), time_now(), deleted, urgent=True)
    parts = [row.tobytes() for row in quantise(unit_rows(2, seed=1))[0]]

    def recover(crashed: Path) -> None:
        assert served(crashed) in {TWO, ("two", 3)}
        operations.erase(crashed)
        assert served(crashed) == ("two", 3)
        assert slots.rollback(crashed).bundle_id == "one"
        assert served(crashed) == ("one", 2)
        held = [path for path in crashed.rglob("*") if path.is_file() and any(p in path.read_bytes() for p in parts)]
        assert held == []

    assert check_all(shim, state_dir, "erase", recover) > 100


def test_repository_serves_one_release_or_the_next_while_it_is_published(shim, work):
    site, numbers = work / "site", iter(range(10**6))
    make_bundle(work / "sources" / "two", "two", 2)
    make_gallery(work / "sources" / "four", 4)
    publish_release(site, "one", 1, 3)
    before = work / "device"
    pull_folder(site / "repo", before)
    slots.activate(before, prove=trusted)

    def recover(crashed: Path) -> None:
        copy = crashed.with_name("copy")
        shutil.copytree(before, copy)
        try:
            pull_folder(crashed / "repo", copy)
            if next(numbers) % 3 == 0:  # whoever published does it again
                operations.publish(crashed)
                pull_folder(crashed / "repo", copy)
                slots.activate(copy, prove=trusted)
                assert served(copy) == TWO
            assert served(copy) in {ONE, TWO}
        finally:
            shutil.rmtree(copy)

    assert check_all(shim, site, "publish", recover) > 50


def test_repository_stays_whole_while_garbage_is_collected(shim, work):
    site = work / "site"
    make_repository(site / "repo", policy="offline", offline_days=90)
    for number, name in enumerate(("zero", "one", "two"), start=1):
        publish_release(site, name, number, 1 + number)

    def recover(crashed: Path) -> None:
        assert check_repository(crashed / "repo", time_now()).problems == []
        operations.collect_garbage(crashed)
        assert check_repository(crashed / "repo", time_now()).problems == []
        copy = crashed.with_name("copy")
        try:
            pull_folder(crashed / "repo", copy)
            slots.activate(copy, prove=trusted)
            assert served(copy) == TWO
        finally:
            shutil.rmtree(copy)

    assert check_all(shim, site, "collect_garbage", recover) > 20


def test_journal_has_a_task_that_was_stored_and_is_not_damaged(shim, work):
    def recover(state_dir: Path) -> None:
        journal = open_journal(state_dir)
        assert journal.told is None
        assert journal.task().state.value in {"idle", *operations.JOURNAL_STATES}
        journal.close()
        operations.store_steps(state_dir)
        journal = open_journal(state_dir)
        assert journal.task().state.value == operations.JOURNAL_STATES[-1]
        journal.close()

    state_dir = work / "device"
    state_dir.mkdir()
    assert check_all(shim, state_dir, "store_steps", recover) > 50


def write_journal_1(path: Path, task: Task) -> None:
    """Write a journal of version 1 with a task and a quarantine."""
    with closing(sqlite3.connect(path)) as file:
        file.executescript(journal_module._MIGRATIONS[0])
        file.execute("INSERT INTO task VALUES (1, ?)", (journal_module._write_task(task),))
        file.execute("INSERT INTO quarantine VALUES ('shop', 1, 'slow', 1, 7200.0)")
        file.execute("PRAGMA user_version = 1")
        file.commit()


def test_p4_migration_of_the_journal_keeps_everything_in_it(shim, work):
    state_dir = work / "device"
    state_dir.mkdir()
    release = Target("shop", 2, "two", 2, 8)
    write_journal_1(state_dir / "journal.sqlite", Task(State.TRIAL, release, 1.0, stores=9, trial="t-2"))

    def recover(crashed: Path) -> None:
        journal = open_journal(crashed)
        assert journal.told is None
        assert (journal.task().state, journal.task().trial, journal.task().stores) == (State.TRIAL, "t-2", 9)
        assert [(held.sequence, held.reason) for held in journal.all_held()] == [(1, "slow")]
        assert (journal.spent("2026-11-28"), journal.receipts()) == (0, [])
        journal.close()

    assert check_all(shim, state_dir, "migrate_journal", recover) > 5


def test_confirmation_by_the_agent_raises_the_security_floor_last(shim, work):
    def confirm(state_dir: Path) -> None:
        if read_security_floor(state_dir, "shop") == 2:
            assert read_active_pointer(state_dir).trial is None
        operations.agent_confirms(state_dir)
        assert (read_active_pointer(state_dir).trial, read_security_floor(state_dir, "shop")) == (None, 2)

    state_dir = device(work, on_trial=True)
    assert check_all(shim, state_dir, "agent_confirms", recovers(TWO, finish=confirm, end=TWO)) > 5
