"""Garbage collection."""

from __future__ import annotations

import os
import shutil
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.repository.keys import KeyRing, RoleKeys
from gallery_sync.repository.private_keys import HeldKey
from gallery_sync.repository.publish import publish
from gallery_sync.repository.releases import rollback, withdraw
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.repository.upkeep.gc import collect_garbage
from tests.power_cut import PowerCut
from tests.store_samples import make_bundle, make_gallery
from tests.sync_samples import keys_of, make_repository, newest, publish_release, published, time_now


def at(day: int) -> datetime:
    return time_now() + timedelta(days=day)


def age(repo: Path, days: int) -> None:
    """Make every file so many days old."""
    for path in repo.rglob("*"):
        if path.is_file():
            changed = path.stat().st_mtime - days * 86400
            os.utime(path, (changed, changed))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A repository that promises 90 days: two old releases, and from today on a third one."""
    repo = tmp_path / "repo"
    make_repository(repo, policy="offline", now=at(-200), offline_days=90)
    publish_release(tmp_path, "one", 1, 10, now=at(-199))
    publish_release(tmp_path, "two", 2, 3, now=at(-198))
    age(repo, 198)
    publish_release(tmp_path, "three", 3, 4, now=at(-2))
    age(repo, 2)
    return repo


def files_of(repo: Path) -> set[str]:
    return {str(path.relative_to(repo)) for path in repo.rglob("*") if path.is_file()}


def test_nothing_is_deleted_within_the_window(repo):
    before = files_of(repo)
    collected = collect_garbage(repo, time_now())
    assert (collected.files, collected.freed_bytes) == (0, 0)
    assert files_of(repo) == before


def test_old_metadata_is_deleted_and_the_repository_stays_whole(old):
    collected = collect_garbage(old, time_now())
    gone = {"metadata/1.snapshot.json", "metadata/2.models.json", "metadata/1.gallery.json"}
    assert not gone & files_of(old)
    assert "metadata/1.root.json" in files_of(old)
    assert collected.freed_bytes > 0
    assert check_repository(old, time_now(), history=True).problems == []
    assert rollback(old, keys_of(old), time_now(), "demo", 2).release.sequence == 4


def test_sealed_enrolments_are_left_alone(old):
    """They are objects of no release: devices that wait in boxes fetch them."""
    sealed = old / "enrolments/abc/def.sealed"
    sealed.parent.mkdir(parents=True)
    sealed.write_bytes(b"sealed")
    age(old, 400)
    before = check_repository(old, time_now())
    collect_garbage(old, time_now())
    assert sealed.read_bytes() == b"sealed"
    assert not [said for said in (*before.problems, *before.warnings) if "enrolments" in said]


def test_dry_run_says_the_same_and_deletes_nothing(old):
    before = files_of(old)
    planned = collect_garbage(old, time_now(), dry_run=True)
    assert files_of(old) == before
    assert collect_garbage(old, time_now()) == planned


def test_withdrawn_bundle_goes_after_the_window(old):
    withdraw(old, keys_of(old), time_now(), 1)
    objects = len([name for name in files_of(old) if name.startswith("objects/")])
    collect_garbage(old, time_now())
    assert len([name for name in files_of(old) if name.startswith("objects/")]) == objects
    age(old, 100)
    collect_garbage(old, time_now())
    assert len([name for name in files_of(old) if name.startswith("objects/")]) < objects
    assert check_repository(old, time_now(), history=True).problems == []


def test_old_bundles_are_given_up_on_demand(old):
    collected = collect_garbage(old, time_now(), keep_bundles=1, keys=keys_of(old))
    assert collected.retired == ["one"]  # two was the newest one within the window
    assert sorted(published(old).heads) == ["three", "two"]
    with pytest.raises(SyncError, match="withdrawn"):
        rollback(old, keys_of(old), time_now(), "demo", 1)


def test_objects_of_a_draft_are_kept(repo, tmp_path):
    keys = keys_of(repo)
    here = {
        role: RoleKeys(one.threshold, tuple(HeldKey(key.public) for key in one.keys)) if role == "models" else one
        for role, one in keys.roles.items()
    }
    bundle, gallery = make_bundle(tmp_path / "b", "three", 3), make_gallery(tmp_path / "g", 7)
    publish(repo, KeyRing(keys.folder, here), time_now(), bundle_folder=bundle, gallery_folder=gallery)
    before = files_of(repo)
    collect_garbage(repo, time_now())
    assert files_of(repo) == before


def test_damaged_current_document_stops_it(old):
    for path in (old / "targets" / "models").rglob("*.three.json"):
        path.write_bytes(b"damaged")
    before = files_of(old)
    with pytest.raises(SyncError, match="is damaged; nothing was deleted"):
        collect_garbage(old, time_now())
    assert files_of(old) == before


def test_crash_at_any_deletion_leaves_a_whole_repository(old, tmp_path):
    n, happened = 0, True
    while happened:
        n += 5
        copy = tmp_path / f"cut{n}" / "repo"
        shutil.copytree(old, copy)
        with PowerCut(n, "kept") as power, suppress(SyncError, OSError):
            collect_garbage(copy, time_now())
        happened = power.happened
        assert check_repository(copy, time_now(), history=True).problems == []
        collect_garbage(copy, time_now())
        assert check_repository(copy, time_now(), history=True).problems == []
        shutil.rmtree(copy.parent)


def test_it_waits_for_a_publishing_to_end(old, tmp_path):
    gallery = make_gallery(tmp_path / "other", 7)
    publishing = threading.Thread(
        target=publish, args=(old, keys_of(old), time_now()), kwargs={"gallery_folder": gallery}
    )
    publishing.start()
    collect_garbage(old, time_now())
    publishing.join()
    assert newest(old)[0].sequence == 4
    assert check_repository(old, time_now(), history=True).problems == []


def test_short_window_is_refused(repo):
    with pytest.raises(SyncError, match="expected at least 7"):
        collect_garbage(repo, time_now(), keep_days=1)


def test_verb_says_what_it_freed(old, capsys):
    assert main(["gc", str(old), "--dry-run"]) == 0
    assert capsys.readouterr().out.startswith("would_free_bytes: ")
    assert main(["gc", str(old)]) == 0
    assert capsys.readouterr().out.startswith("freed_bytes: ")
