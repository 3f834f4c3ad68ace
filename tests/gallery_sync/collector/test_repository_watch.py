"""The repository as the fleet's server sees it: a version, a line and a plan."""

from __future__ import annotations

import hashlib
import json

import pytest

from edge.errors import SyncError
from gallery_sync.collector.repository_watch import RepositoryWatch
from gallery_sync.formats.fields import canonical_json
from gallery_sync.formats.rollouts import Rollouts
from tests.gallery_sync.collector.collector_samples import a_plan
from tests.signing_samples import development


def write(repo, path, tree):
    (repo / path).parent.mkdir(parents=True, exist_ok=True)
    (repo / path).write_bytes(tree if isinstance(tree, bytes) else json.dumps(tree).encode())


def make(repo, version=5, plan=None, rollouts=True):
    """Write what is read of a repository; nothing verifies its signatures here."""
    document = canonical_json(Rollouts(line="shop", revision=1, plan=plan))
    sha256 = hashlib.sha256(document).hexdigest()
    targets = {"rollout/shop.rollouts.json": {"hashes": {"sha256": sha256}}} if rollouts else {}
    write(repo, "repository.json", {"schema": 2, "line": "shop", "policy": "online"})
    write(repo, "metadata/timestamp.json", {"signed": {"version": version, "meta": {"snapshot.json": {"version": 3}}}})
    write(repo, "metadata/3.snapshot.json", {"signed": {"version": 3, "meta": {"rollout.json": {"version": 2}}}})
    write(repo, "metadata/2.rollout.json", {"signed": {"version": 2, "targets": targets}})
    write(repo, f"targets/rollout/{sha256}.shop.rollouts.json", document)
    return RepositoryWatch(str(repo))


def test_real_repository_is_read(tmp_path):
    repo, _ = development(tmp_path)
    watch = RepositoryWatch(str(repo))
    assert (watch.line, watch.plan()) == ("demo", None)
    assert watch.version() >= 1
    assert RepositoryWatch(f"file://{repo}").version() == watch.version()


def test_plan_and_version_follow_the_repository(tmp_path):
    watch = make(tmp_path, plan=a_plan())
    assert (watch.version(), watch.plan()) == (5, a_plan())
    make(tmp_path, version=6)
    assert (watch.version(), watch.plan()) == (6, None)
    make(tmp_path, version=7, plan=a_plan())
    assert (watch.version(), watch.plan()) == (7, a_plan())
    make(tmp_path, version=8, rollouts=False)
    assert (watch.version(), watch.plan()) == (8, None)


def test_plan_is_read_once_for_a_version(tmp_path, monkeypatch):
    watch = make(tmp_path, plan=a_plan())
    read, paths = watch._read, []
    monkeypatch.setattr(watch, "_read", lambda path, most: paths.append(path) or read(path, most))
    for _ in range(2):
        assert (watch.version(), watch.plan()) == (5, a_plan())
    assert paths.count("metadata/timestamp.json") == paths.count("metadata/3.snapshot.json") == 1


def test_timestamp_that_became_damaged_stays_an_error(tmp_path):
    watch = make(tmp_path)
    assert watch.version() == 5
    write(tmp_path, "metadata/timestamp.json", b"{")
    for _ in range(2):
        with pytest.raises(SyncError):
            watch.version()
    make(tmp_path, version=6)
    assert watch.version() == 6


@pytest.mark.parametrize(
    "tree",
    [b"", b"[]", b"{", {"signed": {}}, {"signed": {"version": True}}, {"signed": {"version": -1}}, b" " * 20_000],
)
def test_timestamp_that_is_none_is_one_error(tmp_path, tree):
    watch = make(tmp_path)
    write(tmp_path, "metadata/timestamp.json", tree)
    with pytest.raises(SyncError):
        watch.version()
    with pytest.raises(SyncError):
        watch.plan()


@pytest.mark.parametrize("path", ["metadata/3.snapshot.json", "metadata/2.rollout.json"])
@pytest.mark.parametrize("tree", [{}, {"signed": {"meta": 1, "targets": {"rollout/shop.rollouts.json": 2}}}])
def test_metadata_that_is_none_is_one_error(tmp_path, path, tree):
    watch = make(tmp_path)
    write(tmp_path, path, tree)
    with pytest.raises(SyncError):
        watch.plan()


def test_missing_repository_and_wrong_target_are_errors(tmp_path):
    with pytest.raises(SyncError, match="cannot read"):
        RepositoryWatch(str(tmp_path / "none")).version()
    watch = make(tmp_path, plan=a_plan())
    (target,) = (tmp_path / "targets/rollout").iterdir()
    target.write_bytes(b"{}")
    with pytest.raises(SyncError, match="not what the metadata names"):
        watch.plan()
