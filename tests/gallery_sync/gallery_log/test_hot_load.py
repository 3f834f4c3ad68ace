"""A store that followed a log is loaded beside the one that serves: only what differs is indexed."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from edge.bundle.bundle import read_bundle
from edge.gallery import loaded_gallery, search
from edge.gallery.generation import read_gallery, write_gallery_index
from edge.gallery.loaded_gallery import Update, load_gallery
from edge.gallery.store import quantise
from gallery_sync.gallery_log.records import Upsert
from tests.gallery_sync.gallery_log.log_samples import DIM, Device, Publisher, delete, upsert
from tests.store_samples import make_bundle, unit_rows

LARGE = 600


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    for module in (search, loaded_gallery):
        monkeypatch.setattr(module, "LISTS_FROM", LARGE)
    vectors, scales = quantise(unit_rows(LARGE, DIM))
    items = [
        Upsert(f"i{n:04d}", f"Item {n}", "{}", None, None, vectors[n : n + 1], scales[n : n + 1]) for n in range(LARGE)
    ]
    return Publisher(tmp_path / "server", items)


def generation(device):
    write_gallery_index(device.store.parent, "2026-01-01T00:00:00Z")
    return read_gallery(device.store.parent)


def best(loaded, record):
    query = record.vectors_i8[0] * record.scales[0]
    return loaded.indexes["tyre"].search(query[None].astype(np.float32), 1)[0][0].item_id


def test_g8_only_the_difference_is_indexed_while_queries_run(tmp_path, publisher):
    manifest = read_bundle(make_bundle(tmp_path / "b", "b-1")).manifest
    device = Device(tmp_path / "device", publisher)
    device.go_to(1)
    old = load_gallery(manifest, generation(device))
    publisher.change(upsert("new"), upsert("i0005", "Renamed"), *delete("i0007", "i0008"))
    found, stop = [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            found.append(best(old, publisher.items["i0100"]))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        device.go_to(2)
        new = load_gallery(manifest, generation(device), old)
    finally:
        stop.set()
        asking.join()
    assert new.updates == {"tyre": Update(added=2, removed=3, kept=LARGE - 3)}
    assert best(new, upsert("new")) == "new"
    assert best(new, publisher.items["i0100"]) == "i0100"
    assert set(found) == {"i0100"}


def test_same_items_in_another_file_are_taken_over(tmp_path, publisher):
    """A state that says something else of the log alone, such as the next one after a change that was taken back."""
    manifest = read_bundle(make_bundle(tmp_path / "b", "b-1")).manifest
    device = Device(tmp_path / "device", publisher)
    device.go_to(1)
    first = generation(device)
    old = load_gallery(manifest, first)
    publisher.change(*delete("nobody"))
    device.go_to(2)
    second = generation(device)
    assert second.generation == first.generation
    assert second.categories["tyre"].sha256 != first.categories["tyre"].sha256
    assert load_gallery(manifest, second, old).updates == {"tyre": Update(added=0, removed=0, kept=LARGE)}
