"""Publishing into a repository and checking it."""

from __future__ import annotations

import json

import pytest

from edge.errors import BundleError, SyncError
from gallery_sync.publish import publish
from gallery_sync.repository import check, read_release
from tests.store_samples import make_bundle, make_gallery


def put(tmp_path, bundle_id="one", bundle_sequence=1, items=3, line="demo", sequence=None, categories=("tyre",)):
    return publish(
        tmp_path / "repo",
        make_bundle(tmp_path / bundle_id, bundle_id, bundle_sequence),
        make_gallery(tmp_path / f"gallery{items}", items, categories=categories),
        line=line,
        created_at="2026-01-02T00:00:00Z",
        sequence=sequence,
    )


def test_a_published_pair_is_whole_and_named(tmp_path):
    release = put(tmp_path)
    assert (release.sequence, release.line) == (1, "demo")
    assert read_release(tmp_path / "repo") == release
    assert check(tmp_path / "repo") == (6, [])
    head = json.loads((tmp_path / "repo" / "galleries" / "demo" / "tyre.json").read_text())
    assert (head["items"], head["segments"], head["sequence"]) == (3, [], 1)
    assert json.loads((tmp_path / "repo" / "bundles" / "demo.json").read_text())["bundle_id"] == "one"
    assert json.loads((tmp_path / "repo" / "release.json").read_text())["signatures"] == []


def test_the_same_pair_again_changes_nothing(tmp_path):
    put(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "repo").rglob("*")}
    put(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "repo").rglob("*")}


def test_only_a_changed_category_gets_a_new_head(tmp_path):
    first = put(tmp_path, categories=("tyre", "car"))
    (tmp_path / "gallery4").mkdir()
    (tmp_path / "gallery4" / "car.sqlite").write_bytes((tmp_path / "gallery3" / "car.sqlite").read_bytes())
    second = put(tmp_path, items=4)
    assert second.sequence == 2
    assert first.gallery.heads["car"] == second.gallery.heads["car"]
    assert first.gallery.heads["tyre"] != second.gallery.heads["tyre"]
    assert json.loads((tmp_path / "repo" / "galleries" / "demo" / "tyre.json").read_text())["sequence"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence": 1, "items": 4}, "found sequence 1 for the release, expected more than 1"),
        ({"bundle_id": "two", "bundle_sequence": 1}, "bundle two: found sequence 1, expected more than 1 of the pub"),
        ({"bundle_id": "two", "bundle_sequence": 0}, "bundle two: found sequence 0, expected more than 1 of the pub"),
        ({"line": "other", "items": 4}, "found line 'demo', expected 'other'"),
    ],
)
def test_what_goes_back_is_refused_and_the_release_stays(tmp_path, change, message):
    release = put(tmp_path)
    with pytest.raises(SyncError, match=message):
        put(tmp_path, **change)
    assert read_release(tmp_path / "repo") == release
    assert check(tmp_path / "repo")[1] == []


def test_a_pair_of_different_spaces_is_not_published(tmp_path):
    bundle, gallery = make_bundle(tmp_path / "b", "one"), make_gallery(tmp_path / "g", space_id="b" * 64)
    with pytest.raises(BundleError, match="'tyre': found gallery"):
        publish(tmp_path / "repo", bundle, gallery, line="demo", created_at="now")
    assert not (tmp_path / "repo").exists()


def test_damaged_objects_are_found_and_named(tmp_path):
    put(tmp_path)
    largest = max((tmp_path / "repo" / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    whole, problems = check(tmp_path / "repo")
    assert whole == 5
    assert problems == [f"{largest}: found 80999 bytes, expected 81000"]
    put(tmp_path, items=4)  # publishing again heals what it still names
    assert check(tmp_path / "repo")[1] == []


def test_a_folder_without_a_release_is_no_repository(tmp_path):
    with pytest.raises(SyncError, match=r"found no release\.json"):
        check(tmp_path)
    (tmp_path / "release.json").write_text("<html>")
    with pytest.raises(SyncError, match="found no Envelope"):
        check(tmp_path)
