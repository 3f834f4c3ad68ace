"""A release goes through an OCI image layout and comes back as a repository, byte by byte."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import SyncError
from gallery_sync.adapters.oci import ARTIFACT_TYPE, export_release, import_release
from gallery_sync.adapters.oci_layout import ref_of
from gallery_sync.adapters.repository_paths import is_repository_path
from gallery_sync.cli import main as sync
from gallery_sync.repository.items.edit import plan_delete
from gallery_sync.repository.publish import publish_gallery_change
from tests.store_samples import make_bundle
from tests.sync_samples import keys_of, publish_release, published, pull_folder, time_now, tree_hashes


@pytest.fixture
def repo(tmp_path, two_releases) -> Path:
    """A repository at release 2."""
    shutil.copytree(two_releases / "second", tmp_path / "origin")
    return tmp_path / "origin/repo"


@pytest.fixture
def layout(tmp_path, repo) -> Path:
    export_release(repo, 2, tmp_path / "layout")
    return tmp_path / "layout"


def manifest_of(layout):
    (shown,) = json.loads((layout / "index.json").read_text())["manifests"]
    return shown, json.loads((layout / "blobs" / shown["digest"].replace(":", "/")).read_text())


def rewrite(layout, change):
    """Replace the manifest by one that somebody changed, with right hashes."""
    shown, manifest = manifest_of(layout)
    change(manifest)
    data = json.dumps(manifest).encode()
    ref = ref_of(data)
    (layout / "blobs/sha256" / ref.sha256).write_bytes(data)
    index = {"schemaVersion": 2, "manifests": [{**shown, "digest": f"sha256:{ref.sha256}", "size": ref.size}]}
    (layout / "index.json").write_text(json.dumps(index))


def test_device_pulls_what_was_exported_and_imported(tmp_path, layout, repo):
    done = import_release(layout, tmp_path / "back")
    assert (done.line, done.release) == ("demo", 2)
    assert pull_folder(tmp_path / "back", tmp_path / "device").sequence == 2
    for path in (path for path in (tmp_path / "back").rglob("*") if path.is_file()):
        assert path.read_bytes() == (repo / path.relative_to(tmp_path / "back")).read_bytes()


def test_device_at_an_earlier_release_finds_its_way(tmp_path, layout, two_releases):
    import_release(layout, tmp_path / "back")
    shutil.copytree(two_releases / "device", tmp_path / "device")
    assert pull_folder(tmp_path / "back", tmp_path / "device").sequence == 2


def test_urgent_deletion_after_the_release_is_carried(tmp_path, repo):
    plan = plan_delete(published(repo), "tyre", ["i1"], urgent=True)
    release = publish_gallery_change(repo, keys_of(repo), time_now(), plan.changes, urgent=plan.urgent).release
    export_release(repo, release.sequence, tmp_path / "layout")
    import_release(tmp_path / "layout", tmp_path / "back")
    assert pull_folder(tmp_path / "back", tmp_path / "device").sequence == release.sequence


def test_export_is_the_same_each_time(tmp_path, layout, repo):
    export_release(repo, 2, tmp_path / "other")
    assert [*tree_hashes(layout).values()] == [*tree_hashes(tmp_path / "other").values()]
    before = tree_hashes(layout)
    assert export_release(repo, 2, layout).copied == 0
    assert tree_hashes(layout) == before


def test_layout_is_as_the_image_specification_says(layout):
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    shown, manifest = manifest_of(layout)
    assert shown["annotations"]["org.opencontainers.image.ref.name"] == "demo-2"
    assert (manifest["schemaVersion"], manifest["artifactType"]) == (2, ARTIFACT_TYPE)
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    named = [manifest["config"], *manifest["layers"], shown]
    for one in named:
        data = (layout / "blobs" / one["digest"].replace(":", "/")).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (one["size"], one["digest"][7:])
    assert len({one["digest"] for one in named}) == len(list((layout / "blobs/sha256").iterdir()))
    assert manifest["annotations"]["vnd.finesight.bundle"] == "two"


def test_layout_keeps_other_artifacts(tmp_path, layout, repo):
    publish_release(tmp_path / "origin", "three", 3, 5)
    export_release(repo, 3, layout)
    with pytest.raises(SyncError, match="demo-2, demo-3"):
        import_release(layout, tmp_path / "back")
    import_release(layout, tmp_path / "back", "demo-2")
    assert pull_folder(tmp_path / "back", tmp_path / "device").sequence == 2
    import_release(layout, tmp_path / "back", "demo-3")
    assert pull_folder(tmp_path / "back", tmp_path / "device").sequence == 3


def test_release_that_devices_cannot_take_now_is_not_exported(tmp_path, repo):
    with pytest.raises(SyncError, match=r"what can be exported: 2; .* edge-sync rollback demo --to 1"):
        export_release(repo, 1, tmp_path / "layout")


def test_damaged_object_is_not_exported(tmp_path, repo):
    path = next(path for path in (repo / "objects").rglob("*") if path.is_file() and path.stat().st_size > 10_000)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(SyncError, match="damaged"):
        export_release(repo, 2, tmp_path / "layout")
    assert not (tmp_path / "layout/index.json").exists()


def test_damaged_blob_is_found_before_a_device_sees_the_release(tmp_path, layout):
    path = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(SyncError, match="is damaged"):
        import_release(layout, tmp_path / "back")
    assert not (tmp_path / "back/metadata/timestamp.json").exists()


@pytest.mark.parametrize("verb", ["export", "import"])
def test_full_disk_is_named_where_it_is(tmp_path, layout, repo, verb, monkeypatch):
    def no_room(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    monkeypatch.setattr("gallery_sync.adapters.oci_layout.shutil.copyfile", no_room)
    with pytest.raises(SyncError, match=rf"^{tmp_path}/small/.*No space left on device; free some space"):
        export_release(repo, 2, tmp_path / "small") if verb == "export" else import_release(layout, tmp_path / "small")


def test_timestamp_is_written_last(tmp_path, layout):
    _, manifest = manifest_of(layout)
    title = "org.opencontainers.image.title"
    (snapshot,) = [one for one in manifest["layers"] if one["annotations"][title].endswith(".snapshot.json")]
    (layout / "blobs" / snapshot["digest"].replace(":", "/")).unlink()
    with pytest.raises(SyncError, match="is missing"):
        import_release(layout, tmp_path / "back")
    assert not (tmp_path / "back/metadata/timestamp.json").exists()


def test_missing_blob_is_told(tmp_path, layout):
    max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(SyncError, match="is missing"):
        import_release(layout, tmp_path / "back")


@pytest.mark.parametrize(
    "title", ["../x.json", "/etc/passwd", "metadata/../../x.json", "keys/root.pem", "", "objects/00/" + "0" * 64, "x\n"]
)
def test_artifact_writes_files_of_a_repository_alone(tmp_path, layout, title):
    rewrite(layout, lambda tree: tree["layers"][3]["annotations"].update({"org.opencontainers.image.title": title}))
    with pytest.raises(SyncError, match="expected files of a repository alone"):
        import_release(layout, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_other_artifact_is_refused(tmp_path, layout):
    rewrite(layout, lambda tree: tree.update({"artifactType": "application/vnd.example+json"}))
    with pytest.raises(SyncError, match="found an artifact of type"):
        import_release(layout, tmp_path / "back")


def test_changed_manifest_is_refused(tmp_path, layout):
    shown, _ = manifest_of(layout)
    path = layout / "blobs" / shown["digest"].replace(":", "/")
    path.write_bytes(path.read_bytes().replace(b"demo-2", b"demo-3").replace(b'"2"', b'"3"'))
    with pytest.raises(SyncError, match="SHA-256"):
        import_release(layout, tmp_path / "back")


def test_import_never_goes_back(tmp_path, layout, repo):
    publish_release(tmp_path / "origin", "three", 3, 5)
    export_release(repo, 3, tmp_path / "newer")
    import_release(tmp_path / "newer", tmp_path / "back")
    with pytest.raises(SyncError, match="which is newer than"):
        import_release(layout, tmp_path / "back")


def test_repository_that_publishes_is_not_written(layout, repo):
    before = tree_hashes(repo)
    with pytest.raises(SyncError, match="publishes releases itself"):
        import_release(layout, repo)
    assert tree_hashes(repo) == before


@pytest.mark.parametrize("name", ["notes.txt", "index.json"])
def test_folder_with_something_else_is_not_written(tmp_path, repo, layout, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("{}")
    with pytest.raises(SyncError, match="choose a new folder"):
        export_release(repo, 2, tmp_path / "mine")
    with pytest.raises(SyncError, match="something else than a repository"):
        import_release(layout, tmp_path / "mine")


@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"manifests":3}', b"\xff", b'{"imageLayoutVersion":"9"}'])
def test_damaged_layout_is_one_error(tmp_path, layout, name, data):
    (layout / name).write_bytes(data)
    with pytest.raises(SyncError) as error:
        import_release(layout, tmp_path / "back")
    assert "\n" not in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from("metadata/targets/objects/.json.._0a~\n"), max_size=60))
def test_path_of_a_repository_never_leads_out(path):
    if is_repository_path(path):
        assert Path("/repo", path).resolve().is_relative_to("/repo")
        assert path.partition("/")[0] in ("repository.json", "metadata", "targets", "objects")


def test_release_of_some_devices_is_carried_with_that_of_the_others(tmp_path, repo):
    bundle = make_bundle(tmp_path / "three", "three", 3)
    assert sync(["publish", str(repo), "--bundle", str(bundle), "--hold"]) == 0
    with pytest.raises(SyncError, match="cannot take release 3 now"):
        export_release(repo, 3, tmp_path / "layout")
    before = export_release(repo, 2, tmp_path / "layout").files
    pin = ["rollout", "pin", str(repo), "--select", "device=cam-001", "--release", "3", "--by", "bob"]
    assert sync(pin) == 0
    for number in (2, 3):
        done = export_release(repo, number, tmp_path / "layout")
        assert (done.release, done.reference) == (number, f"demo-{number}")
        assert done.files > before + 2
    _, both = json.loads((tmp_path / "layout/index.json").read_text())["manifests"]
    import_release(tmp_path / "layout", tmp_path / "back", both["annotations"]["org.opencontainers.image.ref.name"])
    assert pull_folder(tmp_path / "back", tmp_path / "device").sequence == 2
