"""Hostile releases: each is one error, nothing that is installed changes, and a good release is pulled afterwards."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_staged_pointer
from edge.bundle.layout import gallery_folder
from edge.errors import FinesightError, SyncError
from edge.gallery.generation import read_gallery
from edge.gallery.store import read_category
from gallery_sync.device.pull import pull_source
from gallery_sync.gallery_log.live_root import of_store
from gallery_sync.repository.publish import publish
from tests.hostile_galleries import HOSTILE, first_store, make_hostile
from tests.hostile_releases import KINDS, Forge, forge_release
from tests.sample_models import external_model
from tests.store_samples import make_bundle, make_gallery, trusted
from tests.sync_samples import active, keys_of, publish_release, pull_folder, time_now, tree_hashes

MOST_LEFT_BYTES = 1 << 20


def installed(state_dir: Path) -> dict[str, str]:
    return tree_hashes(state_dir / "slots", state_dir / "gallery")


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A device with release 1 active and release 2 staged, a repository at release 2, and `next` at release 3."""
    folder = tmp_path_factory.mktemp("hostile")
    publish_release(folder, "one", 1, 3)
    pull_folder(folder / "repo", folder / "device")
    slots.activate(folder / "device", prove=trusted)
    publish_release(folder, "two", 2, 4)
    pull_folder(folder / "repo", folder / "device")
    shutil.copytree(folder / "repo", folder / "next")
    publish(
        *(folder / "next", keys_of(folder / "next"), time_now()),
        bundle_folder=make_bundle(folder / "three", "three", 3),
        gallery_folder=make_gallery(folder / "g5", 5),
    )
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_release_is_one_error_and_changes_nothing(kind, sample):
    assert refused(forge_release(kind, sample / "repo"), sample / "device")


def refused(forge: Forge, device: Path) -> str:
    """Return the error of a pull that takes everything for signed; what is installed stays as it is."""
    before = installed(device)
    with pytest.raises(SyncError) as caught:
        pull_source(lambda: forge.source(device), device)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert installed(device) == before
    assert sum(path.stat().st_size for path in (device / "cache").rglob("*") if path.is_file()) < MOST_LEFT_BYTES
    assert active(device) == ("one", 3)
    assert read_staged_pointer(device).bundle_id == "two"
    return str(caught.value)


SIGNED = ["T3 mix of a release and a newer head", "G9 base that is a model", "path twice", "sequence two million above"]


@pytest.mark.parametrize("kind", SIGNED)
def test_true_release_is_pulled_after_a_hostile_one_that_is_signed(kind, sample, tmp_path):
    repo, device = tmp_path / "repo", tmp_path / "device"
    shutil.copytree(sample / "repo", repo)
    shutil.copytree(sample / "device", device)
    forge_release(kind, repo).sign()
    with pytest.raises(SyncError):
        pull_folder(repo, device)
    assert active(device) == ("one", 3)
    true = Forge(sample / "next")
    shutil.copytree(sample / "next/objects", repo / "objects", dirs_exist_ok=True)
    true.repo = repo
    true.sign()
    pull_folder(repo, device)
    slots.activate(device, prove=trusted)
    assert active(device) == ("three", 5)


@pytest.mark.parametrize("location", ["../../../etc/passwd", "/etc/shadow", "detector.onnx", "x" * 5000])
def test_m1_model_that_reads_other_files_is_refused_before_it_is_installed(location, sample):
    forge = Forge(sample / "repo")
    forge.file("models/extra.onnx", external_model(location))
    assert "models/extra.onnx: keeps weights in other files" in refused(forge, sample / "device")


# no index and no link comes from a repository
STORES = [kind for kind in HOSTILE if not kind.startswith(("index_", "store_"))][::6]


@pytest.mark.parametrize("kind", STORES)
def test_g11_hostile_store_is_refused_or_made_harmless(kind, sample, tmp_path):
    """Also where its root is signed. A store is written again, row by row, so odd pages do not arrive on the device."""
    device = shutil.copytree(sample / "device", tmp_path / "device")
    store = first_store(make_hostile(make_gallery(tmp_path / "good", 4), tmp_path / "hostile", kind))
    claims, forge = {}, Forge(sample / "repo")
    with suppress(FinesightError, OSError):
        claims["live_root"] = of_store(store)
    forge.base(store.read_bytes(), **claims)
    with suppress(SyncError):
        pulled = pull_source(lambda: forge.source(device), device)
        gallery = read_gallery(gallery_folder(device, pulled.gallery))
        entry = gallery.categories["tyre"]
        read_category(gallery.path("tyre"), entry.space_id, entry.dim, entry)
    assert active(device) == ("one", 3)
