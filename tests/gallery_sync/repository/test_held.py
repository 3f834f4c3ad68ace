"""Releases that are held back, and what may change while a rollout is under way."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.formats.documents import Release
from gallery_sync.formats.fields import LARGEST_SEQUENCE, object_path, parse
from gallery_sync.formats.rollouts import GroupRelease, Pin, Plan, Wave, parse_selector
from gallery_sync.gallery_log.records import Delete
from gallery_sync.gallery_log.store_records import read_records
from gallery_sync.repository.ceremonies.recover import recover
from gallery_sync.repository.folder import history_path, read_object
from gallery_sync.repository.galleries import make_store
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.pairs import window_releases
from gallery_sync.repository.publish import Demands, publish, publish_gallery_change
from gallery_sync.repository.published import first_rollouts, put_rollouts, read_published
from gallery_sync.repository.releases import drop_held, list_releases, rollback, withdraw
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.repository.upkeep.gc import collect_garbage
from tests.store_samples import SPACE, make_bundle, make_gallery
from tests.sync_samples import keys_of, make_repository, publish_release, published, time_now


def hold(repo, *, bundle=None, gallery=None, **options):
    folder = repo.parent
    return publish(
        repo,
        keys_of(repo),
        time_now(),
        bundle_folder=make_bundle(folder / bundle[0], *bundle) if bundle else None,
        gallery_folder=make_gallery(folder / f"g{gallery}", gallery) if gallery else None,
        **{"hold": True, **options},
    )


def sign(repo, change, now=None):
    """Sign other rollouts."""
    now = now or time_now()
    metadata = SignedMetadata.open(repo, keys_of(repo), now)
    found = read_published(repo, metadata)
    put_rollouts(metadata, found, change(found.rollouts or first_rollouts(found.line)))
    metadata.commit(now)


def a_plan(release):
    return Plan(
        id="r",
        release=release,
        salt="ab" * 8,
        exclude=[],
        waves=[Wave(buckets=10_000)],
        windows=[],
        planned_by="ann",
        planned_at="2026-11-28T12:00:00Z",
        approved_by="bob",
        approved_at="2026-11-28T12:00:00Z",
    )


def under_way(repo):
    """Hold a release of a new bundle and gallery, and begin its rollout."""
    release = hold(repo, bundle=("three", 3), gallery=5).release
    sign(repo, lambda rollouts: rollouts.model_copy(update={"plan": a_plan(release), "held": []}))
    return release


def rename(repo, **options):
    records = {"tyre": {SPACE: [dataclasses.replace(item(repo), label="Other")]}}
    return publish_gallery_change(repo, keys_of(repo), time_now(), records, **options)


def item(repo):
    """Return the first item as it is."""
    space = published(repo).logs["tyre"].spaces[0]
    store = make_store(repo, "tyre", space, LARGEST_SEQUENCE, repo.parent / "whole-store")
    return next(iter(read_records(store)))


def test_held_release_is_for_no_device(repo):
    done = hold(repo, bundle=("three", 3), gallery=5)
    found = published(repo)
    assert (done.held, done.is_new, done.release.sequence) == (True, True, 4)
    assert (found.release.sequence, found.rollouts.held) == (3, [done.release])
    assert "three" in found.heads
    assert check_repository(repo, time_now(), history=True).problems == []


def test_same_folders_are_held_once(repo):
    first = hold(repo, bundle=("three", 3), gallery=5).release
    again = hold(repo, bundle=("three", 3), gallery=5)
    assert (again.release, again.is_new) == (first, False)
    found = published(repo)
    assert (found.release.sequence, found.rollouts.held) == (3, [first])


def test_pair_that_all_devices_run_is_not_held(repo):
    done = hold(repo, bundle=("two", 2))
    assert (done.held, done.is_new) == (False, False)
    assert done.notes == ("nothing is held: release 3 already has this bundle and gallery",)


def test_first_release_cannot_be_held(tmp_path):
    make_repository(tmp_path / "repo")
    with pytest.raises(SyncError, match="publish the first one without --hold"):
        hold(tmp_path / "repo", bundle=("one", 1), gallery=3)


def test_number_is_above_every_release_in_use(repo):
    hold(repo, bundle=("three", 3), gallery=5, sequence=20)
    assert publish_release(repo.parent, "four", 4, 5).sequence == 21
    assert rollback(repo, keys_of(repo), time_now(), "demo", 1, hold=True).release.sequence == 22
    with pytest.raises(SyncError, match="give a --sequence above it, not 22"):
        hold(repo, bundle=("five", 5), gallery=6, sequence=22)


def test_publishing_the_held_pair_ends_the_holding(repo):
    hold(repo, bundle=("three", 3), gallery=5)
    done = publish_release(repo.parent, "three", 3, 5)
    assert (done.sequence, published(repo).rollouts.held) == (5, [])
    assert published(repo).release == done


def test_held_release_older_than_the_base_gets_a_new_number(repo):
    hold(repo, bundle=("three", 3))
    publish_release(repo.parent, "two", 2, 6)
    assert hold(repo, bundle=("three", 3), gallery=6).release.sequence == 6
    assert [one.sequence for one in published(repo).rollouts.held] == [4, 6]


@pytest.mark.parametrize(
    "change",
    [
        lambda repo: publish_release(repo.parent, "four", 4, 5),
        lambda repo: rollback(repo, keys_of(repo), time_now(), "demo", 1),
        rename,
    ],
    ids=["publish", "rollback", "gallery"],
)
def test_during_a_rollout_the_base_stays(repo, change):
    under_way(repo)
    with pytest.raises(SyncError, match="rollout r of release 4 is under way; publish with --hold, wait until"):
        change(repo)
    assert published(repo).release.sequence == 3


def test_during_a_rollout_more_can_be_held(repo):
    under_way(repo)
    assert hold(repo, bundle=("four", 4), gallery=6).release.sequence == 5
    assert rollback(repo, keys_of(repo), time_now(), "demo", 1, hold=True).release.sequence == 6
    assert check_repository(repo, time_now(), history=True).problems == []


def test_urgent_deletion_during_a_rollout_leaves_every_release(repo):
    under_way(repo)
    before = published(repo)
    records = {"tyre": {SPACE: [Delete("i1")]}}
    done = publish_gallery_change(repo, keys_of(repo), time_now(), records, urgent=True)
    found = published(repo)
    assert (done.release, done.is_new) == (before.release, False)
    assert (found.rollouts, found.gallery_sequence) == (before.rollouts, before.gallery_sequence + 1)
    assert check_repository(repo, time_now(), history=True).problems == []


def test_after_an_urgent_deletion_the_gallery_changes_on(repo):
    """The deletion left the release as it was, so its gallery is older than the log; nothing else is in between."""
    hold(repo, bundle=("three", 3))
    publish_gallery_change(repo, keys_of(repo), time_now(), {"tyre": {SPACE: [Delete("i1")]}}, urgent=True)
    assert published(repo).release.sequence == 3
    drop_held(repo, keys_of(repo), time_now(), 4)
    assert rename(repo).release.gallery_sequence == published(repo).gallery_sequence


def test_held_gallery_blocks_single_changes_below_it(repo):
    hold(repo, gallery=6)
    with pytest.raises(SyncError, match="release 4 has gallery 3, which is newer than that of release 3"):
        rename(repo)
    done = rename(repo, hold=True)
    assert (done.held, done.release.sequence, done.release.gallery_sequence) == (True, 5, 4)
    assert publish_release(repo.parent, "two", 2, 7).gallery_sequence == 5  # a whole gallery is no single change


def test_urgent_deletion_is_not_held(repo):
    with pytest.raises(SyncError, match="give --urgent or --hold, not both"):
        publish_gallery_change(repo, keys_of(repo), time_now(), {}, urgent=True, hold=True)


def test_held_bundle_cannot_forbid_going_back(repo):
    with pytest.raises(SyncError, match="could not go back to bundle two, which has sequence 2"):
        hold(repo, bundle=("three", 3), gallery=5, demands=Demands(security_floor=3))


def test_new_head_of_a_bundle_is_named_by_every_release(repo):
    hold(repo, bundle=("three", 3), gallery=5)
    pin = Pin(selector=parse_selector("device=a"), release=published(repo).release, by="a", at="2026-11-28T12:00:00Z")
    sign(repo, lambda rollouts: rollouts.model_copy(update={"pins": [pin]}))
    hold(repo, bundle=("two", 2), gallery=7, demands=Demands(allow_big_change=True))
    found = published(repo)
    heads = {one.bundle_head for one in found.in_use if one.bundle_id == "two"}
    assert heads == {found.head_hashes["two"]}
    assert (found.release.sequence, found.rollouts.pins[0].release.sequence) == (3, 3)
    assert check_repository(repo, time_now(), history=True).problems == []


def group(release, select="group=lab"):
    return GroupRelease(selector=parse_selector(select), exclude=[], release=release, plan="r")


def with_group(repo):
    release = hold(repo, bundle=("three", 3), gallery=5).release
    sign(repo, lambda rollouts: rollouts.model_copy(update={"held": [], "groups": [group(release)]}))
    return release


def test_gallery_change_does_not_take_a_bundle_from_a_group(repo):
    with_group(repo)
    with pytest.raises(SyncError, match="would take bundle three from the devices of group=lab; roll"):
        rename(repo)
    with pytest.raises(SyncError, match="would take bundle three"):
        hold(repo, gallery=6, hold=False)
    done = hold(repo, bundle=("four", 4), gallery=6, hold=False)
    assert done.notes == (
        "the devices of group=lab take it, too: it is newer than release 4, which a rollout brought them",
    )
    assert published(repo).rollouts.groups == []


def test_rollback_takes_a_group_back_to_the_base(repo):
    with_group(repo)
    done = rollback(repo, keys_of(repo), time_now(), "demo", 3)
    assert (done.release.sequence, done.release.bundle_id) == (5, "two")
    assert published(repo).rollouts.groups == []


def test_list_says_what_each_release_is_to_devices(repo, capsys):
    release = hold(repo, bundle=("three", 3), gallery=5).release
    pin = Pin(selector=parse_selector("site=a"), release=published(repo).history[1], by="a", at="2026-11-28T12:00:00Z")
    sign(repo, lambda rollouts: rollouts.model_copy(update={"pins": [pin], "groups": [group(release)]}))
    assert [row["in_use"] for row in list_releases(published(repo))] == [
        ["pinned for site=a"],
        [],
        ["newest"],
        ["held", "for group=lab"],
    ]
    assert main(["release", "list", str(repo)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("bundle three, gallery 3 (held) (for group=lab)")


def test_bundle_in_use_is_not_withdrawn(repo):
    hold(repo, bundle=("three", 3), gallery=5)
    with pytest.raises(SyncError, match=r"bundle three is that of release 4, which is in use \(held\)"):
        withdraw(repo, keys_of(repo), time_now(), 4)
    drop_held(repo, keys_of(repo), time_now(), 4)
    assert hold(repo, bundle=("three", 3), gallery=5).release.sequence == 4  # nobody had it, so it may come again


def test_dropped_release_must_be_held(repo):
    with pytest.raises(SyncError, match="release 3 is not held"):
        drop_held(repo, keys_of(repo), time_now(), 3)


def test_garbage_collection_keeps_what_is_in_use(repo):
    first = published(repo).history[1]
    pin = Pin(selector=parse_selector("site=a"), release=first, by="a", at="2026-11-28T12:00:00Z")
    sign(repo, lambda rollouts: rollouts.model_copy(update={"pins": [pin]}))
    held = hold(repo, bundle=("three", 3), gallery=5).release
    later = time_now() + timedelta(days=400)
    assert {one.sequence for one in window_releases(published(repo), later)} == {1, 3, 4}
    collect_garbage(repo, later, keep_days=7, keep_bundles=1, keys=keys_of(repo))
    found = published(repo)
    assert {"one", "two", "three"} <= set(found.heads)
    assert check_repository(repo, time_now()).problems == []
    assert read_object(repo, found.heads[held.bundle_id].manifest)


def test_check_finds_a_damaged_object_of_a_held_release(repo):
    hold(repo, bundle=("three", 3), gallery=5)
    head = published(repo).heads["three"]
    (repo / object_path(head.manifest.sha256)).write_bytes(b"?")
    assert any("bundle three" in problem for problem in check_repository(repo, time_now()).problems)


def test_held_release_is_in_the_history(repo):
    release = hold(repo, bundle=("three", 3), gallery=5).release
    assert parse(Release, history_path(repo, 4).read_bytes(), "4.json") == release


def test_damaged_rollouts_stop_every_change(repo):
    hold(repo, bundle=("three", 3), gallery=5)
    (document,) = (repo / "targets/rollout").glob("*.demo.rollouts.json")
    document.write_bytes(b"{}")
    with pytest.raises(SyncError, match="the document of the rollouts is damaged; restore targets/ from a copy"):
        drop_held(repo, keys_of(repo), time_now(), 4)


def test_recovered_repository_keeps_its_rollouts(repo, tmp_path):
    under_way(repo)
    before = published(repo).rollouts
    copy = tmp_path / "mirror"
    repo.rename(copy)
    done = recover(repo, keys_of(repo), time_now(), copies=[copy])
    assert done.lost == ()
    assert published(repo).rollouts == before
    sign(repo, lambda rollouts: rollouts.model_copy(update={"plan": None}))
    assert published(repo).rollouts.revision > before.revision + 900


def test_options_of_the_command_line(repo, capsys):
    make_bundle(repo.parent / "three", "three", 3)
    assert main(["publish", str(repo), "--bundle", str(repo.parent / "three"), "--hold", "--json"]) == 0
    assert '"held": true' in capsys.readouterr().out
    assert main(["rollback", "demo", "--to", "1", "--hold", "--repo", str(repo)]) == 0
    assert main(["gallery", "rename", str(repo), "tyre", "i0", "Other", "--hold"]) == 0
    assert main(["release", "drop", str(repo), "5"]) == 0
    assert [one.sequence for one in published(repo).rollouts.held] == [4, 6]
    assert main(["release", "drop", str(repo), "5"]) == 1
