"""Loading a newly activated bundle and gallery beside those that serve."""

from __future__ import annotations

import logging
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import ReleaseName, read_active_pointer
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.starts import Starts
from edge.errors import BundleError
from edge.gallery.loaded_gallery import LoadedGallery, Update
from edge.inference.stages import Stages
from edge.recognition.best_pair import Serving, load_best_pair
from edge.recognition.hot_swap import ActiveModels, ModelReloader, _start_building_lists
from edge.recognition.loaded_models import LoadedModels
from tests.fakes_engine import FakeCounts
from tests.store_samples import make_bundle, make_gallery, trusted
from tests.waiting import DEADLINE_S


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device on which bundle `one` is active, and `two` is staged."""
    state_dir = tmp_path / "device"
    generation = install_gallery(make_gallery(tmp_path / "items"), state_dir)
    slot = install_bundle(make_bundle(tmp_path / "one", "one"), state_dir)
    slots.activate(state_dir, slot, generation, prove=trusted)
    slots.stage(state_dir, install_bundle(make_bundle(tmp_path / "two", "two", 2), state_dir), generation)
    return state_dir


def activate(device: Path, bundle: str | None = None) -> None:
    slots.activate(device, bundle, prove=trusted)


def load(bundle, gallery, *_) -> LoadedModels:
    return LoadedModels(bundle.manifest.bundle_id, gallery.generation, Stages(None, None, {}), {}, {})


def reloader_of(device: Path, load=load, counts: FakeCounts | None = None) -> ModelReloader:
    return ModelReloader(device, load, lambda models: models, counts or FakeCounts())


def wait_for(reloader: ModelReloader) -> Serving | None:
    """The answer of the reloader once its thread has ended."""
    if reloader._thread is not None:
        reloader._thread.join(DEADLINE_S)
    return reloader.poll()


def never(*_: object) -> LoadedModels:
    pytest.fail("loaded")


def test_active_pointer_unchanged_loads_nothing(device):
    reloader = reloader_of(device, never)
    assert reloader.poll() is None
    assert reloader._thread is None


def test_activated_models_load_in_background_and_are_returned_once(device):
    may_end, counts = threading.Event(), FakeCounts()
    reloader = reloader_of(device, lambda *pair: load(*pair) if may_end.wait(DEADLINE_S) else None, counts)
    activate(device)
    assert reloader.poll() is None
    assert reloader.poll() is None  # still loading: the frame loop does not wait
    may_end.set()
    loaded = wait_for(reloader)
    assert (loaded.models.bundle_id, loaded.pair.bundle_id, loaded.fallback) == ("two", "two", None)
    assert reloader.poll() is None
    assert counts.total == {"activations result=serving": 1}


def test_other_engines_for_the_same_pair_are_loaded_once(device):
    engines = {"detector": ("onnxruntime", "ort-u8")}
    counts = FakeCounts()
    reloader = ModelReloader(device, load, lambda models: models, counts, lambda bundle: (bundle.name, dict(engines)))
    assert reloader.poll() is None
    engines["detector"] = ("openvino", "ort-u8")
    assert reloader.poll() is None
    assert wait_for(reloader).pair.bundle_id == "one"
    assert reloader.poll() is None
    assert reloader._thread is None
    assert counts.total == {"activations result=serving": 1}


def test_another_gallery_alone_is_loaded(device, tmp_path):
    reloader = reloader_of(device)
    generation = install_gallery(make_gallery(tmp_path / "more", 5), device)
    slots.activate(device, "one", generation, prove=trusted)
    reloader.poll()
    assert wait_for(reloader).models.gallery_id == generation


@pytest.mark.parametrize("error", [BundleError("slot b: found no bundle"), MemoryError("no room")])
def test_failed_load_is_logged_once_and_not_retried(device, caplog, error):
    calls, counts = [], FakeCounts()

    def fail(*_: object) -> LoadedModels:
        calls.append(1)
        raise error

    reloader = reloader_of(device, fail, counts)
    activate(device)
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            assert wait_for(reloader) is None
    assert len(calls) == 1
    assert [record.message for record in caplog.records] == [f"{error}; what serves stays"]
    assert counts.total == {"activations result=refused": 1}


def test_next_activation_after_a_failed_one_is_loaded(device):
    calls = []

    def fail_once(bundle, gallery) -> LoadedModels:
        calls.append(bundle.manifest.bundle_id)
        if len(calls) == 1:
            raise BundleError("damaged")
        return load(bundle, gallery)

    reloader = reloader_of(device, fail_once)
    activate(device)
    reloader.poll()
    assert wait_for(reloader) is None
    activate(device, "one")
    reloader.poll()
    assert wait_for(reloader).models.bundle_id == "one"
    assert calls == ["two", "one"]


def test_slot_that_holds_another_bundle_is_refused_once(device, tmp_path, caplog):
    reloader = reloader_of(device, never)
    activate(device)
    slot = device / "slots" / read_active_pointer(device).slot
    shutil.rmtree(slot)
    shutil.copytree(tmp_path / "one", slot)
    with caplog.at_level(logging.ERROR):
        for _ in range(4):
            assert wait_for(reloader) is None
    assert ["found bundle one, expected two" in record.message for record in caplog.records] == [True]


def test_repaired_slot_is_loaded_without_an_activation(device, tmp_path):
    activate(device)
    slot = device / "slots" / read_active_pointer(device).slot
    (slot / "bundle.json").unlink()
    counts = FakeCounts()
    active = ActiveModels(
        device, lambda: load_best_pair(device, load, trusted, Starts(device)), load, lambda models: models, counts
    )
    assert (active.models.bundle_id, counts.total) == ("one", {"fallbacks": 1})
    assert "bundle.json" in active.serving.fallback
    assert install_bundle(tmp_path / "two", device) == slot.name
    assert active.swap_if_ready() is False
    active._reloader._thread.join(DEADLINE_S)
    assert active.swap_if_ready() is True
    assert (active.models.bundle_id, active.serving.fallback) == ("two", None)


def test_damaged_pointer_is_logged_once_and_changes_nothing(device, caplog):
    reloader = reloader_of(device, never)
    for name in ("current", "current.copy"):
        (device / name).write_text("{")
    with caplog.at_level(logging.ERROR):
        assert [reloader.poll() for _ in range(3)] == [None] * 3
    assert len(caplog.records) == 1


def test_rollback_during_loading_returns_nothing_of_what_was_loading(device):
    reloader = reloader_of(device)
    activate(device)
    reloader.poll()
    reloader._thread.join(DEADLINE_S)
    slots.rollback(device)
    assert reloader.poll() is None
    assert wait_for(reloader).models.bundle_id == "one"


def test_gallery_that_serves_is_given_to_the_next_load(device):
    served, given, counts = LoadedGallery(), [], FakeCounts()

    def load_with(gallery: LoadedGallery):
        return lambda bundle, stores, *previous: (
            given.extend(previous) or replace(load(bundle, stores), gallery=gallery)
        )

    active = ActiveModels(
        device,
        lambda: load_best_pair(device, load_with(served), trusted, Starts(device)),
        load_with(LoadedGallery(updates={"tyre": Update(added=2, removed=1, kept=9)})),
        lambda models: models,
        counts,
    )
    activate(device)
    assert active.swap_if_ready() is False
    active._reloader._thread.join(DEADLINE_S)
    assert active.swap_if_ready() is True
    assert [one is served for one in given] == [True]
    items = {f"gallery_items change={change}": count for change, count in (("added", 2), ("removed", 1), ("kept", 9))}
    assert counts.total == {"activations result=serving": 1, **items}


def test_lists_are_built_before_the_gallery_is_swapped_in(device):
    may_end, built = threading.Event(), []

    class Large(LoadedGallery):
        needs_lists = True

        def build_lists(self) -> None:
            assert may_end.wait(DEADLINE_S)
            built.append(True)

    active = ActiveModels(
        device,
        lambda: load_best_pair(device, load, trusted, Starts(device)),
        lambda *loaded: replace(load(*loaded), gallery=Large()),
        lambda models: models,
        FakeCounts(),
    )
    activate(device)
    active.swap_if_ready()
    active._reloader._thread.join(0.2)
    assert active.swap_if_ready() is False
    may_end.set()
    active._reloader._thread.join(DEADLINE_S)
    assert active.swap_if_ready() is True
    assert built == [True]


def test_failed_lists_are_counted_and_the_gallery_serves(caplog):
    class Failing(LoadedGallery):
        needs_lists = True

        def build_lists(self) -> None:
            raise MemoryError("no room")

    counts = FakeCounts()
    _start_building_lists(Failing(), counts).join(DEADLINE_S)
    assert counts.total == {"gallery_lists_failed": 1}
    assert "each search reads all of it" in caplog.text


def models_of(device: Path, load=load, counts: FakeCounts | None = None) -> ActiveModels:
    best = lambda: load_best_pair(device, load, trusted, Starts(device))  # noqa: E731
    return ActiveModels(device, best, load, lambda models: models, counts or FakeCounts())


def swapped(active: ActiveModels) -> ActiveModels:
    """Wait until what was activated serves."""
    active.swap_if_ready()
    active._reloader._thread.join(DEADLINE_S)
    assert active.swap_if_ready() is True
    return active


def stage(device: Path, sequence: int) -> None:
    pointer = read_active_pointer(device)
    slots.stage(device, pointer.slot, pointer.gallery, ReleaseName(line="shop", sequence=sequence))


def test_name_of_what_serves_is_taken_over_without_a_load(device):
    counts = FakeCounts()
    active = models_of(device, counts=counts)
    before = active.models
    stage(device, 4)
    activate(device)
    assert active.swap_if_ready() is True
    assert (active.serving.release.sequence, active.models, counts.total) == (4, before, {})
    assert active.swap_if_ready() is False
    assert active._reloader._thread is None


def test_confirmed_trial_is_taken_over_without_a_load(device):
    counts = FakeCounts()
    active = models_of(device, counts=counts)
    slots.activate(device, prove=trusted, trial="t-1")
    swapped(active)
    assert (active.models.bundle_id, active.serving.trial) == ("two", "t-1")
    slots.confirm(device, "t-1")
    assert active.swap_if_ready() is True
    assert (active.models.bundle_id, active.serving.trial, active.swap_if_ready()) == ("two", None, False)
    assert counts.total == {"activations result=serving": 1}


def test_rollback_to_the_pair_that_serves_as_a_fallback_loads_nothing(device):
    """Two starts on trial did not stay up, so the pair before serves when the agent rolls back."""
    slots.activate(device, prove=trusted, trial="t-1")
    for _ in range(2):
        load_best_pair(device, load, trusted, Starts(device))
    loads = []
    active = models_of(device, lambda *pair: loads.append(1) or load(*pair))
    assert (active.models.bundle_id, active.serving.trial) == ("one", None)
    assert "on trial" in active.serving.fallback
    slots.rollback(device)
    assert active.swap_if_ready() is True
    assert (active.serving.fallback, len(loads)) == (None, 1)
    assert active.swap_if_ready() is False


def test_pair_that_cannot_be_loaded_keeps_the_name_of_what_serves(device):
    stage(device, 1)
    activate(device)

    def refuse_two(bundle, *rest):
        if bundle.manifest.bundle_id == "two":
            raise BundleError("damaged")
        return load(bundle, *rest)

    active = models_of(device, refuse_two)
    slots.stage(device, "b", read_active_pointer(device).gallery, ReleaseName(line="shop", sequence=2))
    slots.activate(device, prove=trusted, trial="t-2")
    active.swap_if_ready()
    active._reloader._thread.join(DEADLINE_S)
    assert active.swap_if_ready() is False
    assert (active.serving.release.sequence, active.serving.trial, active.models.bundle_id) == (1, None, "one")


def test_pair_that_is_undone_keeps_its_name_until_another_is_loaded(device):
    active = models_of(device)
    slots.stage(device, "b", read_active_pointer(device).gallery, ReleaseName(line="shop", sequence=2))
    slots.activate(device, prove=trusted, trial="t-2")
    swapped(active)
    assert (active.serving.release.sequence, active.models.bundle_id) == (2, "two")
    slots.rollback(device)
    assert active.swap_if_ready() is False
    assert (active.serving.release.sequence, active.models.bundle_id) == (2, "two")
    swapped(active)
    assert active.models.bundle_id == "one"


def test_pointer_that_does_not_change_is_not_read_again(device, monkeypatch):
    reloader, reads = reloader_of(device, never), []
    monkeypatch.setattr("edge.recognition.hot_swap.read_active_pointer", reads.append)
    assert [reloader.poll() for _ in range(5)] == [None] * 5
    assert reads == []
