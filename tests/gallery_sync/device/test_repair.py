"""A pull repairs a damaged state folder: afterwards a whole pair is installed, and staged or active."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.slots import read_bundle_and_gallery
from edge.errors import SyncError
from gallery_sync.cli import main
from gallery_sync.device.state_folder import one_pull
from tests.file_damage import DAMAGES
from tests.store_samples import trusted
from tests.sync_samples import active, publish_release, pull_folder, tree_hashes


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A repository at release 2, a device with release 1 active and 2 staged, and one with release 2 active."""
    folder = tmp_path_factory.mktemp("repair")
    publish_release(folder, "one", 1, 3)
    pull_folder(folder / "repo", folder / "staged")
    slots.activate(folder / "staged", prove=trusted)
    publish_release(folder, "two", 2, 4)
    pull_folder(folder / "repo", folder / "staged")
    shutil.copytree(folder / "staged", folder / "serving")
    slots.activate(folder / "serving", prove=trusted)
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("state", ["staged", "serving"])
def test_pull_repairs_every_single_damage(sample, tmp_path, state, damage):
    files = sorted(path.relative_to(sample / state) for path in (sample / state).rglob("*") if path.is_file())
    assert len(files) >= 20  # pointers, record, locks, trust, two slots of three files and two galleries of two
    if (state, damage.__name__) not in (("staged", "flip"), ("staged", "make_folder")):
        files = [file for file in files if file.parts[:2] not in (("trust", "metadata"), ("trust", "targets"))]
    device = tmp_path / "device"
    for file in files:
        if state == "staged" or not (device / file).is_file():  # one that serves is whole again after each pull
            shutil.rmtree(device, ignore_errors=True)
            shutil.copytree(sample / state, device)
        damage(device / file)
        pulled = pull_folder(sample / "repo", device)
        bundle, gallery = read_bundle_and_gallery(device, pulled.slot, pulled.gallery)
        assert (bundle.manifest.bundle_id, gallery.items) == ("two", 4), file
        if not pulled.serving:
            slots.activate(device, pulled.slot, pulled.gallery, prove=trusted)
        assert active(device) == ("two", 4), file
        assert json.loads((device / "pulled.json").read_text())["sequence"] == 2, file


def test_both_copies_of_the_root_damaged_one_after_the_other(sample, tmp_path):
    """Also where nothing else is to be done, a pull writes the damaged copy again, from the other one."""
    device = shutil.copytree(sample / "serving", tmp_path / "device")
    whole = (device / "trust/root").read_bytes()
    for name in ("root", "root.copy"):
        (device / "trust" / name).write_bytes(b"damaged")
        assert pull_folder(sample / "repo", device).sequence == 2
        assert [(device / "trust" / one).read_bytes() for one in ("root", "root.copy")] == [whole, whole]


FOLDERS = ["slots", "slots/a", "slots/b", "slots/a/models", "gallery", "cache"]


@pytest.mark.parametrize("name", FOLDERS)
def test_pull_repairs_a_missing_folder_and_a_file_in_its_place(sample, tmp_path, name):
    for in_its_place in (None, b"x"):
        device = tmp_path / "device"
        shutil.copytree(sample / "serving", device)
        shutil.rmtree(device / name)
        if in_its_place:
            (device / name).write_bytes(in_its_place)
        pulled = pull_folder(sample / "repo", device)
        slots.activate(device, pulled.slot, pulled.gallery, prove=trusted)
        assert active(device) == ("two", 4)
        shutil.rmtree(device)


def test_pull_finishes_what_a_power_cut_left(sample, tmp_path):
    device = tmp_path / "device"
    shutil.copytree(sample / "staged", device)
    (device / "slots/a").rename(device / "slots/.a.old")  # between two renames
    (device / "slots/.b.incoming").symlink_to(tmp_path)
    (device / "gallery/.0123456789abcdef.incoming").mkdir()
    pulled = pull_folder(sample / "repo", device)
    assert pulled.repaired == 3
    assert pull_folder(sample / "repo", device).repaired == 0
    assert active(device) == ("one", 3)
    assert sorted(path.name for path in (device / "slots").iterdir()) == ["a", "b"]
    assert tmp_path.is_dir()


def test_links_in_the_cache_are_never_followed(sample, tmp_path):
    device, precious = tmp_path / "device", tmp_path / "precious"
    shutil.copytree(sample / "staged", device)
    shutil.rmtree(device / "slots/b")
    precious.mkdir()
    (precious / "file").write_bytes(b"precious")
    shutil.rmtree(device / "cache")
    before = tree_hashes(precious)
    for link in ("cache", "cache/sync", "cache/sync/incoming", "sync.lock", "pulled.json", "pulled.json.partial"):
        (device / link).parent.mkdir(exist_ok=True)
        if (device / link).is_dir():
            shutil.rmtree(device / link)
        (device / link).unlink(missing_ok=True)
        (device / link).symlink_to(precious / ("file" if "json" in link or "lock" in link else ""))
        assert pull_folder(sample / "repo", device).bundle_id == "two"
        assert tree_hashes(precious) == before
        shutil.rmtree(device / "slots/b")


def test_part_that_is_a_link_to_a_serving_file_is_removed(sample, tmp_path):
    device = tmp_path / "device"
    shutil.copytree(sample / "staged", device)
    embedder = (device / "slots/b/models/tyre.onnx").read_bytes()
    sha256 = next(
        entry["sha256"]
        for entry in json.loads((device / "slots/b/bundle.json").read_text())["files"]
        if entry["path"] == "models/tyre.onnx"
    )
    shutil.rmtree(device / "slots/b")
    part = device / "cache/sync" / f"{sha256}.part"
    for link in (os.symlink, os.link):
        part.parent.mkdir(parents=True, exist_ok=True)
        link(device / "slots/a/models/tyre.onnx", part)
        pull_folder(sample / "repo", device)
        assert active(device) == ("one", 3)
        assert (device / "slots/b/models/tyre.onnx").read_bytes() == embedder
        shutil.rmtree(device / "slots/b")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_file_of_another_user_is_one_error_that_says_what_to_do(sample, tmp_path, capfd):
    device = tmp_path / "device"
    shutil.copytree(sample / "staged", device)
    shutil.rmtree(device / "slots/b")
    for path in (device, *device.rglob("*")):
        os.chown(path, 65534, 65534)
    (device / "slots/a").chmod(0o700)
    os.chown(device / "slots", 0, 0)
    (device / "slots").chmod(0o700)
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        folder.chmod(0o755)
    shutil.copytree(sample / "repo", tmp_path / "repo")
    if (child := os.fork()) == 0:  # a new interpreter could not read its modules below a private folder
        status = 99
        try:
            os.setgid(65534)
            os.setuid(65534)
            status = main(["pull", (tmp_path / "repo").as_uri(), "--state-dir", str(device)])
        finally:  # never go on with the tests
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    told = capfd.readouterr().err.strip()
    assert "slots" in told
    assert "chown -R" in told
    assert "\n" not in told


def test_second_pull_is_refused_while_one_runs(sample, tmp_path):
    with one_pull(tmp_path / "device"), pytest.raises(SyncError, match="another pull is running; wait until it ends"):
        pull_folder(sample / "repo", tmp_path / "device")
    assert read_active_pointer(tmp_path / "device") is None
