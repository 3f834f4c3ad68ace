"""Changes of the signed rollouts: who may make them, and what devices see afterwards."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta

import pytest

from edge.errors import SyncError
from gallery_sync.formats.documents import bundle_target
from gallery_sync.formats.fields import canonical_json
from gallery_sync.formats.rollouts import parse_selector
from gallery_sync.repository.folder import locked
from gallery_sync.repository.keys import KeyRing, RoleKeys
from gallery_sync.repository.metadata import SignedMetadata
from gallery_sync.repository.private_keys import HeldKey
from gallery_sync.repository.publish import publish
from gallery_sync.repository.published import put_rollouts
from gallery_sync.repository.releases import rollback
from gallery_sync.repository.roles.draft import read_draft
from gallery_sync.repository.upkeep.check import check_repository
from gallery_sync.rollouts import audit, changes
from gallery_sync.rollouts.changes import ChangedError, Desk
from gallery_sync.rollouts.plans import Wish, make_draft, write_draft
from tests.gallery_sync.rollouts.samples import APPROVED
from tests.store_samples import make_gallery
from tests.sync_samples import published

LATER = APPROVED + timedelta(hours=1)


def plan_it(repo, **wish):
    draft = make_draft(Wish(by="ann", **wish), published(repo), "cd" * 8, APPROVED).draft
    write_draft(repo, draft)
    return draft


@pytest.fixture
def bob(repo, keys):
    return Desk(repo, keys, "bob", LATER)


def begin(bob, **wish):
    """Approve a rollout, and open all its waves."""
    changes.approve(bob, plan_it(bob.repo, **wish))
    while (plan := published(bob.repo).plan) and plan.open_waves < len(plan.waves):
        changes.open_next(bob)


def is_whole(repo):
    return check_repository(repo, LATER, history=True).problems == []


def history(repo):
    return audit.read_history(repo, published(repo).rollouts)


def test_approval_opens_the_canary(bob):
    done = changes.approve(bob, plan_it(bob.repo))
    found = published(bob.repo)
    assert found.plan is not None
    assert (found.plan.open_waves, found.plan.approved_by, found.plan.planned_by) == (1, "bob", "ann")
    assert (found.release.sequence, found.rollouts.held, found.rollouts.revision) == (1, [], done.revision)
    assert found.plan.deadline == "2026-12-13T13:00:00Z"
    assert is_whole(bob.repo)


@pytest.mark.parametrize("name", ["ann", " Ann "])
def test_who_plans_does_not_approve(bob, name):
    draft = plan_it(bob.repo)
    with pytest.raises(SyncError, match="was planned by ann; another person must approve it"):
        changes.approve(replace(bob, by=name), draft)
    assert published(bob.repo).plan is None
    changes.approve(replace(bob, by=name), draft, alone=True)
    assert history(bob.repo)[0][-1]["alone"] is True


def test_second_rollout_is_refused(bob):
    draft = plan_it(bob.repo)
    changes.approve(bob, draft)
    with pytest.raises(SyncError, match="rollout release-2 was approved before"):
        changes.approve(bob, draft)
    with pytest.raises(SyncError, match="rollout release-2 is under way"):
        changes.approve(bob, draft.model_copy(update={"planned_by": "eve"}))


def test_open_pause_and_resume(bob):
    changes.approve(bob, plan_it(bob.repo))
    changes.pause(bob, "looks bad")
    assert published(bob.repo).plan.reason == "looks bad"
    with pytest.raises(SyncError, match="is paused; edge-sync rollout resume"):
        changes.open_next(bob)
    with pytest.raises(SyncError, match="is paused already: looks bad"):
        changes.pause(bob)
    changes.resume(bob, {"max_failed_percent": 5.0})
    plan = published(bob.repo).plan
    assert (plan.state, plan.reason, plan.gates.max_failed_percent) == ("running", None, 5.0)
    changes.open_next(bob)
    assert published(bob.repo).plan.open_waves == 2


def test_resume_after_the_deadline_needs_another_one(bob):
    changes.approve(bob, plan_it(bob.repo))
    changes.pause(bob)
    late = replace(bob, now=LATER + timedelta(days=15))
    with pytest.raises(SyncError, match="the deadline of rollout release-2 is over"):
        changes.resume(late, {})
    changes.resume(late, {}, 86400.0)
    assert published(bob.repo).plan.deadline == "2026-12-15T13:00:00Z"


def test_change_for_another_revision_is_refused(bob):
    revision = changes.approve(bob, plan_it(bob.repo)).revision
    changes.pause(bob)
    for change in (changes.open_next, changes.pause, changes.complete):
        with pytest.raises(ChangedError, match=f"revision {revision + 1}, not {revision}"):
            change(bob, expected=revision)


def test_complete_rollout_is_the_base(bob):
    begin(bob, exclude=[parse_selector("site=old")])
    before = published(bob.repo).release
    changes.complete(bob)
    found = published(bob.repo)
    assert (found.release.sequence, found.release.bundle_id, found.plan) == (2, "two", None)
    (pin,) = found.rollouts.pins
    assert (str(pin.selector), pin.release, pin.reason) == ("site=old", before, "excluded from rollout release-2")
    assert is_whole(bob.repo)


def test_rollout_for_a_part_leaves_the_base(bob):
    begin(bob, selector=parse_selector("group=lab"))
    changes.complete(bob)
    found = published(bob.repo)
    assert found.release.sequence == 1
    (group,) = found.rollouts.groups
    assert (str(group.selector), group.release.sequence, group.plan) == ("group=lab", 2, "release-2")
    assert is_whole(bob.repo)


def test_group_release_can_be_rolled_out_to_all(bob):
    begin(bob, selector=parse_selector("group=lab"))
    changes.complete(bob)
    begin(bob, release=2)
    changes.complete(bob)
    found = published(bob.repo)
    assert (found.release.sequence, found.rollouts.groups) == (2, [])


def test_complete_needs_all_waves(bob):
    changes.approve(bob, plan_it(bob.repo))
    with pytest.raises(SyncError, match="has opened 1 of 3 waves"):
        changes.complete(bob)


def test_abort_is_a_newer_release_of_the_pair_before(bob):
    begin(bob)
    changes.abort(bob, reason="bad")
    found = published(bob.repo)
    assert (found.release.sequence, found.release.bundle_id, found.release.rollback_to) == (3, "one", 1)
    assert (found.plan, found.rollouts.held) == (None, [])
    assert sorted(found.history) == [1, 2, 3]
    assert is_whole(bob.repo)
    assert rollback(bob.repo, bob.keys, LATER, "demo", 2).release.sequence == 4


def test_abort_keeps_the_releases_of_groups(bob):
    begin(bob, selector=parse_selector("group=lab"))
    changes.complete(bob)
    rollback(bob.repo, bob.keys, LATER, "demo", 2, hold=True)
    begin(bob)
    changes.abort(bob)
    found = published(bob.repo)
    assert (found.release.sequence, found.release.bundle_id) == (4, "one")
    (group,) = found.rollouts.groups
    assert (group.release.sequence, group.release.bundle_id, group.release.rollback_to) == (5, "two", 2)
    assert is_whole(bob.repo)


def test_abort_never_sends_the_candidate_to_all(bob, keys):
    """Also not under another number: all devices would get at once what a canary was to try."""
    begin(bob)
    with pytest.raises(SyncError, match="release 2 is what the rollout brings"):
        changes.abort(bob, 2)
    rollback(bob.repo, keys, LATER, "demo", 2, hold=True)
    with pytest.raises(SyncError, match="release 3 is what the rollout brings"):
        changes.abort(bob, 3)
    changes.abort(bob, 1)
    assert published(bob.repo).release.bundle_id == "one"


def test_plan_that_would_abort_to_its_candidate_is_not_approved(bob):
    with pytest.raises(SyncError, match="name an earlier release"):
        changes.approve(bob, plan_it(bob.repo, abort_to=2))


def test_abort_sends_no_other_held_release_to_all(bob, keys, tmp_path):
    changes.approve(bob, plan_it(bob.repo))
    publish(bob.repo, keys, LATER, gallery_folder=make_gallery(tmp_path / "g5", 5), hold=True)
    with pytest.raises(SyncError, match="release 3 is held back; only a rollout brings it to devices"):
        changes.abort(bob, 3)


def test_abort_to_an_earlier_release(bob):
    begin(bob, abort_to=1)
    with pytest.raises(SyncError, match="release 9 is not here"):
        changes.abort(bob, 9)
    changes.abort(bob, 1)
    assert published(bob.repo).release.rollback_to == 1


def test_candidate_that_forbids_going_back_is_not_approved(bob):
    """Publishing refuses such a bundle, too; here its head was signed some other way."""
    draft, found = plan_it(bob.repo), published(bob.repo)
    head = canonical_json(found.heads["two"].model_copy(update={"security_floor": 2}))
    with locked(bob.repo):
        metadata = SignedMetadata.open(bob.repo, bob.keys, LATER)
        held = found.rollouts.held[0].model_copy(update={"bundle_head": hashlib.sha256(head).hexdigest()})
        metadata.put("models", bundle_target("demo", "two"), head)
        put_rollouts(metadata, found, found.rollouts.model_copy(update={"held": [held]}))
        metadata.commit(LATER)
    with pytest.raises(SyncError, match="a bundle below 2 again, and could not go back to bundle one"):
        changes.approve(bob, draft)


def test_pin_and_unpin(bob):
    select = parse_selector("device=cam-1")
    changes.pin(bob, select, 1, "on show")
    (pin,) = published(bob.repo).rollouts.pins
    assert (pin.by, pin.reason, pin.release.sequence) == ("bob", "on show", 1)
    with pytest.raises(SyncError, match="device=cam-1 is pinned already"):
        changes.pin(bob, select, 1)
    changes.unpin(bob, select)
    with pytest.raises(SyncError, match="found no pin for device=cam-1"):
        changes.unpin(bob, select)
    with pytest.raises(SyncError, match="would stop the line"):
        changes.pin(bob, parse_selector(""), 1)
    with pytest.raises(SyncError, match="release 7 is not here"):
        changes.pin(bob, select, 7)


@pytest.mark.parametrize("change", [changes.open_next, changes.pause, changes.complete, changes.abort])
def test_without_a_rollout_nothing_changes(bob, change):
    with pytest.raises(SyncError, match="no rollout is under way"):
        change(bob)


def test_missing_signature_leaves_one_draft(bob):
    roles = {
        role: RoleKeys(one.threshold, tuple(HeldKey(key.public) for key in one.keys)) if role == "rollout" else one
        for role, one in bob.keys.roles.items()
    }
    without = replace(bob, keys=KeyRing(bob.keys.folder, roles))
    draft = plan_it(bob.repo)
    done = changes.approve(without, draft)
    assert done.draft is not None
    assert done.waits_for
    assert published(bob.repo).plan is None
    assert history(bob.repo)[0][-1]["state"] == "waits"
    lines = len(audit.read_log(bob.repo).entries)
    with pytest.raises(SyncError, match="waits for signatures"):
        changes.approve(without, draft)
    assert len(audit.read_log(bob.repo).entries) == lines
    sign(bob.repo, bob.keys, done.draft)
    assert published(bob.repo).plan.id == draft.id
    assert history(bob.repo)[0][-1]["state"] == "done"


def sign(repo, keys, path):
    """Sign a draft with the keys that are here, and publish it."""
    metadata = SignedMetadata.for_draft(repo, keys, read_draft(path).signed_with(keys))
    assert metadata.commit(LATER).is_published


def test_audit_names_who_did_what(bob):
    begin(bob)
    changes.pause(bob, "look")
    rows, problems = history(bob.repo)
    assert problems == []
    assert [(row["by"], row["what"], row["state"]) for row in rows] == [
        ("bob", "approve", "done"),
        ("bob", "open", "done"),
        ("bob", "open", "done"),
        ("bob", "pause", "done"),
    ]
