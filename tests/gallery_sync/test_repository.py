"""Publishing into a repository and checking it."""

from __future__ import annotations

import hashlib
import json

import pytest

from edge.errors import BundleError, SyncError
from gallery_sync.publish import publish
from gallery_sync.repository import check_repository, object_path, read_release
from tests.store_samples import make_bundle, make_gallery


def publish_release(
    tmp_path, bundle_id="one", bundle_sequence=1, items=3, line="demo", sequence=None, categories=("tyre",)
):
    return publish(
        tmp_path / "repo",
        make_bundle(tmp_path / bundle_id, bundle_id, bundle_sequence),
        make_gallery(tmp_path / f"gallery{items}", items, categories=categories),
        line=line,
        created_at="2026-01-02T00:00:00Z",
        sequence=sequence,
    )


def test_published_release_is_complete(tmp_path):
    release = publish_release(tmp_path)
    assert (release.sequence, release.line) == (1, "demo")
    assert read_release(tmp_path / "repo") == release
    assert check_repository(tmp_path / "repo") == (6, [])
    head = json.loads((tmp_path / "repo" / "galleries" / "demo" / "tyre.json").read_text())
    assert (head["items"], head["sequence"]) == (3, 1)
    assert json.loads((tmp_path / "repo" / "bundles" / "demo.json").read_text())["bundle_id"] == "one"
    assert list(json.loads((tmp_path / "repo" / "release.json").read_text())) == ["signed"]


def test_publishing_again_changes_nothing(tmp_path):
    publish_release(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "repo").rglob("*")}
    publish_release(tmp_path)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "repo").rglob("*")}


def test_only_a_changed_category_gets_a_new_head(tmp_path):
    first = publish_release(tmp_path, categories=("tyre", "car"))
    (tmp_path / "gallery4").mkdir()
    (tmp_path / "gallery4" / "car.sqlite").write_bytes((tmp_path / "gallery3" / "car.sqlite").read_bytes())
    second = publish_release(tmp_path, items=4)
    assert second.sequence == 2
    assert first.gallery.heads["car"] == second.gallery.heads["car"]
    assert first.gallery.heads["tyre"] != second.gallery.heads["tyre"]
    assert json.loads((tmp_path / "repo" / "galleries" / "demo" / "tyre.json").read_text())["sequence"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence": 1, "items": 4}, "release 1 is published; give a --sequence above it, not 1"),
        (
            {"bundle_id": "two", "bundle_sequence": 1},
            "bundle two has sequence 1, the published bundle one has 1; pack it with a larger",
        ),
        (
            {"bundle_id": "two", "bundle_sequence": 0},
            "bundle two has sequence 0, the published bundle one has 1; pack it with a larger",
        ),
        ({"line": "other", "items": 4}, "found line 'demo', expected 'other'"),
    ],
)
def test_decreasing_sequence_is_rejected_and_the_release_stays(tmp_path, change, message):
    release = publish_release(tmp_path)
    with pytest.raises(SyncError, match=message):
        publish_release(tmp_path, **change)
    assert read_release(tmp_path / "repo") == release
    assert check_repository(tmp_path / "repo")[1] == []


def test_bundle_and_gallery_of_different_spaces_are_not_published(tmp_path):
    bundle, gallery = make_bundle(tmp_path / "b", "one"), make_gallery(tmp_path / "g", space_id="b" * 64)
    with pytest.raises(BundleError, match="'tyre': found gallery"):
        publish(tmp_path / "repo", bundle, gallery, line="demo", created_at="now")
    assert not (tmp_path / "repo").exists()


def test_damaged_objects_are_named(tmp_path):
    publish_release(tmp_path)
    largest = max((tmp_path / "repo" / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    whole, problems = check_repository(tmp_path / "repo")
    assert whole == 5
    assert problems == [f"{largest}: found 80999 bytes, expected 81000"]
    publish_release(tmp_path, items=4)  # publishing again repairs what it still names
    assert check_repository(tmp_path / "repo")[1] == []


def test_folder_without_a_release_is_rejected(tmp_path):
    with pytest.raises(SyncError, match=r"has no release\.json"):
        check_repository(tmp_path)
    (tmp_path / "release.json").write_text("<html>")
    with pytest.raises(SyncError, match=r"release\.json: not a valid release\.json"):
        check_repository(tmp_path)


def add_retired_fields(repo):
    """Rewrite a repository as older versions wrote it, with `segments` in gallery heads and `signatures`."""
    envelope = json.loads((repo / "release.json").read_text())
    for ref in envelope["signed"]["gallery"]["heads"].values():
        head = json.loads((repo / object_path(ref["sha256"])).read_text()) | {"segments": []}
        data = json.dumps(head).encode()
        ref |= {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        (repo / object_path(ref["sha256"])).parent.mkdir(exist_ok=True)
        (repo / object_path(ref["sha256"])).write_bytes(data)
    (repo / "release.json").write_text(json.dumps(envelope | {"signatures": []}))


def test_repository_with_retired_fields_is_read_and_published_to(tmp_path):
    publish_release(tmp_path)
    add_retired_fields(tmp_path / "repo")
    assert check_repository(tmp_path / "repo") == (6, [])
    assert publish_release(tmp_path).sequence == 1
    assert publish_release(tmp_path, items=4).sequence == 2
    assert b"segments" not in (tmp_path / "repo" / "galleries" / "demo" / "tyre.json").read_bytes()
