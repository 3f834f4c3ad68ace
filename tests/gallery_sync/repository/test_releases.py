"""Listing, comparing, withdrawing and going back to releases."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.formats.fields import object_path
from gallery_sync.repository.folder import history_path
from gallery_sync.repository.keys import KeyRing, RoleKeys
from gallery_sync.repository.private_keys import HeldKey
from gallery_sync.repository.publish import Demands
from gallery_sync.repository.releases import compare_releases, list_releases, rollback, show_release, withdraw
from gallery_sync.repository.upkeep.check import check_repository
from tests.sync_samples import keys_of, make_repository, newest, publish_release, published, time_now


def go_back(repo, to, keys=None):
    return rollback(repo, keys or keys_of(repo), time_now(), "demo", to).release


def test_rollback_is_a_newer_release_of_an_earlier_pair(repo):
    first = published(repo).history[1]
    again = go_back(repo, 1)
    assert (again.sequence, again.rollback_to) == (4, 1)
    assert (again.bundle_id, again.gallery_sequence) == (first.bundle_id, first.gallery_sequence)
    assert newest(repo)[0] == again
    assert check_repository(repo, time_now(), history=True).problems == []
    assert go_back(repo, 3).sequence == 5  # and forward again


def test_rollback_needs_the_keys_of_rollout_alone(repo):
    keys = keys_of(repo)
    roles = {
        role: one
        if role in ("rollout", "snapshot", "timestamp")
        else RoleKeys(one.threshold, tuple(HeldKey(key.public) for key in one.keys))
        for role, one in keys.roles.items()
    }
    assert go_back(repo, 1, KeyRing(keys.folder, roles)).sequence == 4
    assert newest(repo)[0].bundle_id == "one"


def test_after_a_rollback_a_bundle_must_be_newer_than_all(repo, tmp_path):
    go_back(repo, 1)
    with pytest.raises(SyncError, match=r"two was published in release 3; to return to it: .* rollback demo --to 3"):
        publish_release(tmp_path, "two", 2, 4)
    with pytest.raises(SyncError, match="bundle late has sequence 2, the published bundle two has 2"):
        publish_release(tmp_path, "late", 2, 4)
    release = publish_release(tmp_path, "one", 1, 5)  # the bundle that is published now, with a new gallery
    assert (release.sequence, release.gallery_sequence) == (5, 3)
    assert publish_release(tmp_path, "three", 3, 5).sequence == 6
    assert check_repository(repo, time_now(), history=True).problems == []


def test_rollback_of_another_line_changes_nothing(repo):
    with pytest.raises(SyncError, match="is the repository of line 'demo', not of 'shop'; nothing was changed"):
        rollback(repo, keys_of(repo), time_now(), "shop", 1)
    assert newest(repo)[0].sequence == 3


@pytest.mark.parametrize("earlier", [0, -1, 4, 99])
def test_rollback_to_an_unknown_release_names_the_known(repo, earlier):
    with pytest.raises(SyncError, match=f"release {earlier} is not here; the newest that are: 1, 2, 3"):
        go_back(repo, earlier)


def test_rollback_to_the_pair_that_runs_is_refused(repo):
    with pytest.raises(SyncError, match="release 3 already has the bundle and gallery of release 3"):
        go_back(repo, 3)


def test_rollback_below_the_security_floor_is_refused(repo, tmp_path):
    publish_release(tmp_path, "three", 3, 4, demands=Demands(security_floor=2))
    with pytest.raises(SyncError, match="bundle one has sequence 1, below the security floor 2"):
        go_back(repo, 1)
    assert go_back(repo, 2).bundle_id == "two"


def test_rollback_to_a_release_that_is_not_whole_is_refused(repo):
    head = published(repo).heads["one"]
    (repo / object_path(head.manifest.sha256)).unlink()
    with pytest.raises(SyncError, match="release 1 is not whole: 1 objects are missing or damaged"):
        go_back(repo, 1)


def test_rollback_to_a_gallery_that_is_given_up_is_refused(tmp_path):
    start, repo = time_now(), tmp_path / "repo"
    make_repository(repo, policy="offline", now=start, offline_days=90)
    for day, items in ((0, 10), (1, 3), (100, 4), (200, 5)):
        publish_release(tmp_path, "one", 1, items, now=start + timedelta(days=day))
    assert [base.sequence for base in published(repo).logs["tyre"].spaces[0].bases] == [2]
    late = start + timedelta(days=201)
    with pytest.raises(SyncError, match="from before the promised 90 days"):
        rollback(repo, keys_of(repo), late, "demo", 1)
    assert rollback(repo, keys_of(repo), late, "demo", 3).release.gallery_sequence == 3


def test_withdrawn_bundle_is_never_named_again(repo, tmp_path):
    go_back(repo, 1)
    told = withdraw(repo, keys_of(repo), time_now(), 3)
    assert (told["bundle"], told["releases"]) == ("two", [2, 3])
    assert "two" not in published(repo).heads
    for act in (lambda: go_back(repo, 2), lambda: publish_release(tmp_path, "two", 2, 4)):
        with pytest.raises(SyncError, match="withdrawn"):
            act()
    with pytest.raises(SyncError, match="bundle late has sequence 2, the published bundle two has 2"):
        publish_release(tmp_path, "late", 2, 4)
    with pytest.raises(SyncError, match="was withdrawn before"):
        withdraw(repo, keys_of(repo), time_now(), 2)
    assert check_repository(repo, time_now(), history=True).problems == []


def test_bundle_of_the_newest_release_is_not_withdrawn(repo):
    with pytest.raises(SyncError, match=r"bundle two is that of the newest release 3; .* go back first"):
        withdraw(repo, keys_of(repo), time_now(), 2)


def test_releases_are_listed_shown_and_compared(repo):
    rows = list_releases(published(repo))
    assert [(row["release"], row["bundle"], row["gallery"]) for row in rows] == [
        (1, "one", 1),
        (2, "two", 1),
        (3, "two", 2),
    ]
    shown = show_release(published(repo), 1, time_now())
    assert (shown["can_roll_back_to"], shown["problem"]) == (True, None)
    assert shown["files"] == {"detector.onnx": 81000, "models/tyre.onnx": 8000}
    compared = compare_releases(published(repo), 1, 3)
    assert compared["files"] == {"models/tyre.onnx": "changed"}
    assert compared["categories"]["tyre"]["upserts"] == 1


def test_what_an_interrupted_publishing_left_is_not_listed(repo, tmp_path):
    history_path(repo, 4).write_bytes(history_path(repo, 3).read_bytes())
    assert [row["release"] for row in list_releases(published(repo))] == [1, 2, 3]
    assert publish_release(tmp_path, "three", 3, 4).sequence == 4
    assert list_releases(published(repo))[-1]["bundle"] == "three"


def test_damaged_history_is_told(repo):
    history_path(repo, 1).write_bytes(b"<html>")
    assert list_releases(published(repo))[0] == {"release": 1, "damaged": True}
    with pytest.raises(SyncError, match=r"releases/1\.json is damaged"):
        go_back(repo, 1)


def test_verbs_print_lines_or_json(repo, capsys):
    assert main(["rollback", "demo", "--to", "1", "--repo", str(repo)]) == 0
    assert capsys.readouterr().out.startswith("line: demo\nrelease: 4\nbundle: one\n")
    assert main(["release", "list", str(repo)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["1", "2", "3", "4"]
    assert lines[3].endswith("(release 1 again) (newest)")
    assert main(["release", "list", str(repo), "--json"]) == 0
    assert [row["rollback_to"] for row in json.loads(capsys.readouterr().out)] == [None, None, None, 1]
    assert main(["release", "show", str(repo), "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["can_roll_back_to"] is True
    assert main(["release", "diff", str(repo), "1", "2"]) == 0
    assert "  models/tyre.onnx: changed\n" in capsys.readouterr().out
    assert main(["release", "withdraw", str(repo), "2"]) == 0
    assert "none installs it again" in capsys.readouterr().err
    assert main(["release", "list", str(repo / "nowhere")]) == 1
    assert "is not a repository" in capsys.readouterr().err
    assert main(["rollback", "shop", "--to", "1", "--repo", str(repo)]) == 1
