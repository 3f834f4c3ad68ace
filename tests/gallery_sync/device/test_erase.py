"""Urgent deletions: gone from every gallery on the device at once, and never back, also after a power cut."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer, read_staged_pointer
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.layout import gallery_folder, gallery_generations
from edge.durable import file_mismatch
from edge.errors import BundleError, SyncError
from edge.gallery.generation import read_gallery
from edge.gallery.store import quantise, read_category
from edge.telemetry.counters import Counters
from gallery_sync.device.erased import Erasure, erased_to
from gallery_sync.device.fetch import Options, plan
from gallery_sync.device.galleries import Cap
from gallery_sync.device.pull import erase, known
from gallery_sync.device.source import open_source
from gallery_sync.device.wanted import RefusedError, read_wanted
from gallery_sync.gallery_log.records import Delete
from gallery_sync.gallery_log.segment_file import write_segment
from gallery_sync.repository.publish import publish, publish_gallery_change
from gallery_sync.transport.repository_files import FolderTransport
from tests.hostile_releases import Forge
from tests.power_cut import IMAGES, PowerCut
from tests.store_samples import SPACE, make_bundle, make_gallery, trusted, unit_rows
from tests.sync_samples import active, keys_of, make_repository, publish_release, pull_folder, time_now


def delete_urgently(repo: Path, *item_ids: str) -> None:
    records = {"tyre": {SPACE: [Delete(item_id) for item_id in item_ids]}}
    publish_gallery_change(repo, keys_of(repo), time_now(), records, urgent=True)


def vectors_of(item: int) -> list[bytes]:
    """The bytes of the vectors of an item, as a store holds them."""
    return [row.tobytes() for row in quantise(unit_rows(2, seed=item))[0]]


def files_with(folder: Path, item: int) -> list[Path]:
    """The files below a folder that hold a vector of an item."""
    parts = vectors_of(item)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(part in path.read_bytes() for part in parts)]


def items_of(device: Path, generation: str) -> list[str]:
    gallery = read_gallery(gallery_folder(device, generation))
    entry = gallery.categories["tyre"]
    return list(read_category(gallery.path("tyre"), entry.space_id, entry.dim, entry).item_ids)


def run(repo: Path, device: Path, cap: Cap = Cap(), counts: Counters | None = None) -> Erasure:  # noqa: B008 - frozen
    """Refresh and erase, as an agent does in its first step."""
    source = open_source(FolderTransport(repo), device)
    source.client.refresh()
    return erase(source, device, Options(cap=cap, counts=counts or Counters()), time_now, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A device with release 2 active (four items), 1 before it (three), 3 staged (five); i1 is deleted urgently."""
    folder = tmp_path_factory.mktemp("erase")
    for number, name in enumerate(("one", "two", "three"), 1):
        publish_release(folder, name, number, 2 + number)
        pull_folder(folder / "repo", folder / "device")
        if number < 3:
            slots.activate(folder / "device", prove=trusted)
        if number == 2:
            shutil.copytree(folder / "device", folder / "nothing staged")
    delete_urgently(folder / "repo", "i1")
    return folder


@pytest.fixture
def sample(made, tmp_path) -> Path:
    shutil.copytree(made / "device", tmp_path / "device")
    (tmp_path / "repo").symlink_to(made / "repo")
    return tmp_path


def test_erased_item_is_in_no_gallery_and_no_file(sample):
    device = sample / "device"
    lists = device / "cache/gallery_lists/old.hnsw"
    lists.parent.mkdir(parents=True)
    lists.write_bytes(b"".join(vectors_of(1)))
    assert len(files_with(device, 1)) == 4  # three galleries and a graph
    before = read_active_pointer(device)
    erasure = run(sample / "repo", device)
    assert files_with(device, 1) == []
    assert len(files_with(device, 0)) == 3
    now, staged = read_active_pointer(device), read_staged_pointer(device)
    assert [items_of(device, one) for one in (now.gallery, now.previous.gallery, staged.gallery)] == [
        ["i0", "i2", "i3"],
        ["i0", "i2"],
        ["i0", "i2", "i3", "i4"],
    ]
    assert (now.release, now.bundle_id, now.previous.release) == (before.release, "two", before.previous.release)
    assert sorted(gallery_generations(device)) == sorted({now.gallery, now.previous.gallery, staged.gallery})
    (receipt,) = erasure.receipts
    assert (receipt.category, receipt.items, len(receipt.generations)) == ("tyre", 1, 3)
    assert receipt.erased_at.endswith("Z")
    assert erasure.problems == ()
    assert erased_to(device) == {"tyre": receipt.sequence}


def test_rollback_after_an_erasure_does_not_bring_the_item_back(made, tmp_path):
    device = shutil.copytree(made / "nothing staged", tmp_path / "device")
    run(made / "repo", device)
    slots.rollback(device)
    assert active(device) == ("one", 2)
    assert files_with(device, 1) == []


def test_erasing_twice_does_nothing_more(sample):
    run(sample / "repo", sample / "device")
    before = read_active_pointer(sample / "device"), read_staged_pointer(sample / "device")
    again = run(sample / "repo", sample / "device")
    assert again == Erasure()
    assert (read_active_pointer(sample / "device"), read_staged_pointer(sample / "device")) == before


def test_pull_after_an_erasure_has_the_item_neither(sample):
    pulled = pull_folder(sample / "repo", sample / "device")
    assert pulled.erased == 1
    assert files_with(sample / "device", 1) == []
    slots.activate(sample / "device", prove=trusted)
    assert active(sample / "device") == ("three", 4)
    assert pull_folder(sample / "repo", sample / "device").erased == 0


def test_gallery_that_an_erasure_made_equal_to_the_release_is_used(sample):
    """A staged gallery at an older state has, after the erasure, the items of the newest one: nothing is downloaded."""
    run(sample / "repo", sample / "device")
    source = open_source(FolderTransport(sample / "repo"), sample / "device")
    source.client.refresh()
    wanted = read_wanted(source.client, source.objects, known(sample / "device", "demo"))
    todo = plan(wanted, sample / "device")
    staged = read_staged_pointer(sample / "device").gallery
    assert (todo.gallery.generation, todo.download_bytes) == (staged, 0)
    assert pull_folder(sample / "repo", sample / "device").gallery == staged


def test_release_of_an_older_gallery_lacks_what_was_erased_later(sample, tmp_path):
    """A device that never had the galleries gets an old one without the items that were erased since."""
    forge = Forge(shutil.copytree(sample / "repo", tmp_path / "copy/repo"))
    forge.release["gallery_sequence"] = 3
    forge.sign()
    pulled = pull_folder(tmp_path / "copy/repo", tmp_path / "new")
    assert items_of(tmp_path / "new", pulled.gallery) == ["i0", "i2", "i3", "i4"]
    assert files_with(tmp_path / "new", 1) == []


def test_item_that_is_not_there_is_a_receipt_of_none(sample, tmp_path):
    repo = shutil.copytree(sample / "repo", tmp_path / "copy/repo")
    run(repo, sample / "device")
    delete_urgently(repo, "i77")
    before = read_active_pointer(sample / "device")
    (receipt,) = run(repo, sample / "device").receipts
    assert (receipt.items, receipt.generations) == (0, ())
    assert read_active_pointer(sample / "device") == before
    assert run(repo, sample / "device") == Erasure()
    assert erased_to(sample / "device")["tyre"] == receipt.sequence


def test_erasure_happens_also_when_the_release_is_refused(sample, tmp_path):
    forge = Forge(shutil.copytree(sample / "repo", tmp_path / "copy/repo"))
    forge.head["needs"] = "99.0"
    forge.sign()
    with pytest.raises(RefusedError, match="update the package"):
        pull_folder(tmp_path / "copy/repo", sample / "device")
    assert files_with(sample / "device", 1) == []


def test_gallery_from_folders_is_erased_too(made, tmp_path):
    device = tmp_path / "device"
    slot = install_bundle(make_bundle(tmp_path / "b", "by-hand", 1), device)
    generation = install_gallery(make_gallery(tmp_path / "g", 4), device)
    slots.activate(device, slot, generation, prove=trusted)
    (device / "trust").mkdir()
    (device / "trust/root").write_bytes((made / "repo/metadata/1.root.json").read_bytes())
    assert run(made / "repo", device).receipts[0].items == 1
    assert active(device) == ("by-hand", 3)
    assert files_with(device, 1) == []
    assert run(made / "repo", device) == Erasure()


def test_gallery_in_a_space_that_the_log_dropped_is_erased_too(sample, tmp_path):
    forge = Forge(shutil.copytree(sample / "repo", tmp_path / "copy/repo"))
    data = write_segment([Delete("i1")], "b" * 64, 12)
    for segment in forge.space["segments"]:
        segment["object"] = forge.put(data)
        segment.update(upserts=0, deletes=1)
    forge.space["space_id"] = "b" * 64
    forge.sign()
    erasure = run(tmp_path / "copy/repo", sample / "device")
    assert erasure.problems == ()
    assert files_with(sample / "device", 1) == []


def test_gallery_of_another_history_is_erased_too(sample, tmp_path):
    """The signed log gives the states of the device other roots: a fork, or a repository that was made anew."""
    forge = Forge(shutil.copytree(sample / "repo", tmp_path / "copy/repo"))
    for state in (*forge.space["bases"], *forge.space["segments"]):
        state["live_root"] = "1" * 64
    forge.sign()
    counts = Counters()
    erasure = run(tmp_path / "copy/repo", sample / "device", counts=counts)
    assert (erasure.problems, erasure.receipts[0].items) == ((), 1)
    assert counts.total("erasure_fallbacks") == 3
    assert files_with(sample / "device", 1) == []


def many(tmp_path: Path, count: int) -> tuple[Path, Path]:
    repo, device = tmp_path / "many/repo", tmp_path / "many/device"
    keys = make_repository(repo)
    bundle, gallery = make_bundle(tmp_path / "many/b", "one", 1), make_gallery(tmp_path / "many/g", count)
    publish(repo, keys, time_now(), bundle_folder=bundle, gallery_folder=gallery)
    pull_folder(repo, device)
    slots.activate(device, prove=trusted)
    return repo, device


def test_t6_mass_deletion_by_the_gallery_key_is_refused(tmp_path):
    repo, device = many(tmp_path, 100)
    delete_urgently(repo, *(f"i{n}" for n in range(60)))
    counts = Counters()
    erasure = run(repo, device, counts=counts)
    assert erasure.receipts == ()
    assert "60 of 100 items would be erased, and this device allows 50%" in erasure.problems[0]
    assert active(device) == ("one", 100)
    assert counts.total("erasures_refused") == 1
    with pytest.raises(RefusedError, match="60 of 100 items would be deleted or changed") as caught:
        pull_folder(repo, device)
    assert caught.value.reason == "change"
    assert active(device) == ("one", 100)


def test_mass_deletion_that_the_bundle_allows_is_applied(tmp_path):
    repo, device = many(tmp_path, 100)
    delete_urgently(repo, *(f"i{n}" for n in range(60)))
    forge = Forge(repo)
    forge.head["big_change_to"] = forge.release["gallery_sequence"]
    forge.sign()
    assert pull_folder(repo, device).erased == 60
    assert active(device) == ("one", 40)


def test_damaged_previous_gallery_is_no_longer_a_way_back(sample):
    device = sample / "device"
    previous = read_active_pointer(device).previous.gallery
    store = gallery_folder(device, previous) / "tyre.sqlite"
    store.chmod(0o644)
    store.write_bytes(store.read_bytes()[:-1] + b"?")
    erasure = run(sample / "repo", device)
    assert previous in erasure.problems[0]
    assert read_active_pointer(device).previous is None
    assert not gallery_folder(device, previous).exists()
    with pytest.raises(BundleError, match="no previous bundle"):
        slots.rollback(device)
    assert active(device) == ("two", 3)


def test_damaged_segment_erases_nothing_and_is_told(sample, tmp_path):
    forge = Forge(shutil.copytree(sample / "repo", tmp_path / "copy/repo"))
    forge.space["segments"][-1]["object"] = forge.put(b"not a segment")
    forge.sign()
    before = read_active_pointer(sample / "device")
    erasure = run(tmp_path / "copy/repo", sample / "device")
    assert erasure.receipts == ()
    assert len(erasure.problems) == 3
    assert read_active_pointer(sample / "device") == before


def write_lists(device: Path) -> None:
    """Write what a device does that serves a gallery with the item."""
    (device / "cache/gallery_lists").mkdir(parents=True, exist_ok=True)
    (device / "cache/gallery_lists/old.hnsw").write_bytes(b"".join(vectors_of(1)))


@pytest.mark.parametrize("image", IMAGES)
def test_power_cut_while_erasing_leaves_whole_pairs_and_converges(sample, image):
    device, n = sample / "device", IMAGES.index(image) * 4 - 20  # each image cuts at other changes
    old = read_active_pointer(device).gallery
    while True:
        n += 29
        write_lists(device)
        with PowerCut(n, image) as power, suppress(SyncError, BundleError, OSError):
            run(sample / "repo", device)
        assert active(device) in {("two", 4), ("two", 3)}, n
        if not power.happened:
            break
        if gallery_folder(device, old).exists():
            write_lists(device)  # it served the old gallery until the power was cut
        run(sample / "repo", device)
        assert files_with(device, 1) == [], n
        shutil.rmtree(device)
        shutil.copytree((sample / "repo").resolve().parent / "device", device)
    assert n > 60
    assert files_with(device, 1) == []


def test_other_categories_are_copied_whole(tmp_path):
    repo, device = tmp_path / "repo", tmp_path / "device"
    bundle = make_bundle(tmp_path / "b", "one", 1)
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["embedders"][0]["categories"] = ["tyre", "Wheel", "wheel"]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    gallery = make_gallery(tmp_path / "g", 4, categories=("tyre", "Wheel", "wheel"))
    publish(repo, make_repository(repo), time_now(), bundle_folder=bundle, gallery_folder=gallery)
    pull_folder(repo, device)
    slots.activate(device, prove=trusted)
    delete_urgently(repo, "i1")
    run(repo, device)
    found = slots.read_active(device)[1]
    assert {name: entry.items for name, entry in found.categories.items()} == {"tyre": 3, "Wheel": 4, "wheel": 4}
    for name, entry in found.categories.items():
        assert file_mismatch(found.path(name), entry.size, entry.sha256) is None


def test_all_items_of_a_small_category_can_be_erased(sample, tmp_path):
    repo = shutil.copytree(sample / "repo", tmp_path / "copy/repo")
    delete_urgently(repo, "i0", "i2", "i3", "i4")
    pull_folder(repo, sample / "device")
    assert active(sample / "device") == ("two", 0)
    gallery = slots.read_active(sample / "device")[1]
    entry = gallery.categories["tyre"]
    items = read_category(gallery.path("tyre"), entry.space_id, entry.dim, entry)
    assert items.vectors_i8.shape == (0, 12)
    assert items.vectors_i8.dtype == np.int8


def test_erased_pair_keeps_the_name_of_its_release(made, sample):
    before = read_active_pointer(sample / "device").release
    run(made / "repo", sample / "device")
    assert read_active_pointer(sample / "device").release == before
