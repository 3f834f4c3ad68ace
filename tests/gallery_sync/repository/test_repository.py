"""Publishing into a repository and checking it."""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from edge.errors import BundleError, SyncError
from gallery_sync.cli import main
from gallery_sync.formats.fields import object_path
from gallery_sync.formats.unsigned import history_path
from gallery_sync.repository.folder import check_repository, read_release, read_releases
from gallery_sync.repository.publish import publish, publish_earlier
from tests.power_cut import IMAGES, PowerCut
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
    assert not (tmp_path / "repo" / "release.json").exists()


def test_damaged_objects_are_named(tmp_path):
    publish_release(tmp_path)
    largest = max((tmp_path / "repo" / "objects").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    whole, problems = check_repository(tmp_path / "repo")
    assert whole == 5
    assert problems == [f"{largest}: found 80999 bytes, expected 81000; it is 'detector.onnx' of release 1"]
    publish_release(tmp_path, items=4)  # publishing again repairs what it still names
    assert check_repository(tmp_path / "repo")[1] == []


def test_folder_without_a_release_is_rejected(tmp_path):
    with pytest.raises(SyncError, match=r"has no release\.json"):
        check_repository(tmp_path)
    (tmp_path / "release.json").write_text("<html>")
    with pytest.raises(
        SyncError, match=r"release\.json: not JSON: .*; delete it, and publish again with a --sequence above"
    ):
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


@pytest.fixture
def repo(tmp_path):
    """A repository with releases 1 (bundle one), 2 and 3 (bundle two)."""
    publish_release(tmp_path)
    publish_release(tmp_path, "two", 2)
    publish_release(tmp_path, "two", 2, items=4)
    return tmp_path / "repo"


def test_history_keeps_every_release(repo, tmp_path):
    releases = read_releases(repo)
    assert [(release.sequence, head.bundle_id) for release, head in releases] == [(1, "one"), (2, "two"), (3, "two")]
    first = (repo / "releases" / "1.json").read_bytes()
    publish_release(tmp_path, "three", 3)
    assert (repo / "releases" / "1.json").read_bytes() == first
    assert (repo / "releases" / "4.json").read_bytes() == (repo / "release.json").read_bytes()


def test_rollback_is_a_new_release_of_an_earlier_pair(repo):
    first = read_releases(repo)[0][0]
    again = publish_earlier(repo, 1, created_at="now")
    assert (again.sequence, again.rollback_to, again.bundle, again.gallery) == (4, 1, first.bundle, first.gallery)
    assert read_release(repo) == again
    assert json.loads((repo / "bundles" / "demo.json").read_text())["bundle_id"] == "one"
    assert check_repository(repo, history=True)[1] == []
    assert publish_earlier(repo, 3, created_at="now").sequence == 5  # and forward again


def test_after_a_rollback_a_bundle_must_be_newer_than_every_published_one(repo, tmp_path):
    publish_earlier(repo, 1, created_at="now")
    with pytest.raises(SyncError, match=r"two was published in release 3; to return to it: .* --rollback-to 3"):
        publish_release(tmp_path, "two", 2)
    with pytest.raises(SyncError, match="bundle late has sequence 2, the published bundle two has 2"):
        publish_release(tmp_path, "late", 2)
    assert publish_release(tmp_path, items=5).sequence == 5  # the bundle that is published now, with a new gallery
    assert publish_release(tmp_path, "three", 3).sequence == 6


@pytest.mark.parametrize("earlier", [0, -1, 4, 99])
def test_rollback_to_a_release_that_is_not_there_names_those_that_are(repo, earlier):
    with pytest.raises(SyncError, match=f"release {earlier} is not here; the newest that are: 1, 2, 3"):
        publish_earlier(repo, earlier, created_at="now")
    assert read_release(repo).sequence == 3


def test_rollback_to_a_release_with_a_missing_object_is_refused(repo):
    read = json.loads((repo / "releases" / "1.json").read_text())["signed"]
    (repo / object_path(read["bundle"]["sha256"])).unlink()
    with pytest.raises(SyncError, match=r"release 1 is not whole: 1 objects are missing or damaged; publish its"):
        publish_earlier(repo, 1, created_at="now")


def test_repository_without_a_history_is_rolled_back_to_what_is_there(repo, tmp_path):
    for file in (repo / "releases").iterdir():  # as an older version wrote it
        file.unlink()
    with pytest.raises(SyncError, match="release 1 is not here; the newest that are: 3; the history begins with"):
        publish_earlier(repo, 1, created_at="now")
    publish_release(tmp_path, "three", 3)
    assert publish_earlier(repo, 3, created_at="now").sequence == 5
    assert [release.sequence for release, _ in read_releases(repo)] == [3, 4, 5]


@pytest.mark.parametrize("data", [b"", b"<html>", b"null", b"\0" * 300, b"[" * 100_000])
def test_damaged_release_is_repaired_by_publishing_an_earlier_one(repo, data, capsys):
    (repo / "release.json").write_bytes(data)
    for command in (["check", str(repo)], ["publish", str(repo), "--bundle", "x", "--gallery", "x"]):
        assert main(command) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(f"publish the newest whole release again: edge-sync publish {repo} --rollback-to 3")
    assert len(lines) == 2
    assert main(["publish", str(repo), "--rollback-to", "3"]) == 0
    assert read_release(repo).sequence == 4
    assert check_repository(repo)[1] == []


def test_check_names_every_missing_or_damaged_object(repo, capsys):
    objects = sorted(path for path in (repo / "objects").rglob("*") if path.is_file())
    for path in objects:
        path.unlink()
    assert main(["check", str(repo), "--history"]) == 1
    told = capsys.readouterr().err
    assert told.count("does not exist") == 4  # the heads of the releases; what they name is not known
    for path in objects[::2]:
        path.write_bytes(b"damaged")
    assert main(["check", str(repo)]) == 1
    assert "publish the same bundle and gallery folders again" in capsys.readouterr().err


def test_publishing_again_repairs_any_missing_object(repo, tmp_path):
    for path in [path for path in (repo / "objects").rglob("*") if path.is_file()]:
        data = path.read_bytes()
        path.unlink()
        publish_release(tmp_path, "two", 2, items=4)
        assert check_repository(repo)[1] == []
        path.write_bytes(data)


def test_interrupted_publishing_leaves_no_release(repo, tmp_path):
    (repo / history_path(4)).write_bytes((repo / "release.json").read_bytes())
    assert [release.sequence for release, _ in read_releases(repo)] == [1, 2, 3]
    assert publish_release(tmp_path, "three", 3).sequence == 4
    assert read_releases(repo)[-1][1].bundle_id == "three"


@pytest.mark.parametrize(("published", "image"), [(0, "torn"), (0, "dropped"), *((1, image) for image in IMAGES)])
def test_power_cut_during_publishing_leaves_a_whole_release(tmp_path, published, image):
    bundles = [make_bundle(tmp_path / name, name, sequence) for sequence, name in enumerate(("one", "two"), 1)]
    gallery, repo = make_gallery(tmp_path / "gallery"), tmp_path / "repo"
    repo.mkdir()
    for bundle in bundles[:published]:
        publish(repo, bundle, gallery, line="demo", created_at="now")

    def publish_cut(at: int) -> tuple[int, Path]:
        copy = tmp_path / f"cut{at}"
        shutil.copytree(repo, copy)
        with PowerCut(at, image) as power, suppress(SyncError, OSError):
            publish(copy, bundles[published], gallery, line="demo", created_at="now")
            (copy / "later").mkdir()  # the last cut is after the end
        return power.calls, copy

    last, _ = publish_cut(10_000)
    assert last > 20
    for at in (*range(1, last, 5), last):
        _, copy = publish_cut(at)
        if release := read_release(copy):
            assert release.sequence in (published, published + 1)
            assert check_repository(copy)[1] == []
        publish(copy, bundles[published], gallery, line="demo", created_at="now")
        assert read_release(copy).sequence == published + 1
        assert check_repository(copy, history=True)[1] == []


def test_lost_release_is_not_begun_again_at_1(repo, tmp_path):
    (repo / "release.json").unlink()
    with pytest.raises(SyncError, match=r"does not exist, but earlier releases do; .* --rollback-to 3"):
        publish_release(tmp_path, "three", 3)
    assert publish_earlier(repo, 3, created_at="now").sequence == 4


@pytest.mark.parametrize(
    ("sequence", "message"),
    [(3, "give a --sequence above it, not 3"), (1_000_004, "devices refuse it"), (2**53, "expected 1 to 900719")],
)
def test_sequence_that_devices_refuse_is_not_published(repo, tmp_path, sequence, message):
    with pytest.raises(SyncError, match=message):
        publish_release(tmp_path, "three", 3, sequence=sequence)
    assert read_release(repo).sequence == 3


def test_releases_and_rollback_commands(repo, capsys):
    assert main(["publish", str(repo), "--rollback-to", "1"]) == 0
    assert capsys.readouterr().out.startswith("line: demo\nrelease: 4\n")
    assert main(["releases", str(repo)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["1", "2", "3", "4"]
    assert lines[3].endswith("(release 1 again)")
    assert main(["releases", str(repo), "--json"]) == 0
    assert [row["rollback_to"] for row in json.loads(capsys.readouterr().out)] == [None, None, None, 1]
    assert main(["releases", str(repo / "nowhere")]) == 1
    assert "nothing was published here" in capsys.readouterr().err
    for wrong in (["--bundle", "x"], ["--rollback-to", "1", "--bundle", "x", "--gallery", "y"], []):
        assert main(["publish", str(repo), *wrong]) == 1
        assert "give --bundle and --gallery, or --rollback-to alone" in capsys.readouterr().err
