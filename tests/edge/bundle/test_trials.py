"""Pairs on trial: activated, confirmed, rolled back, and starts that do not stay up."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from edge.bundle import slots
from edge.bundle.active_pointer import (
    ReleaseName,
    read_active_pointer,
    read_staged_pointer,
    repair_active_pointer,
)
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.pairs import candidates
from edge.bundle.starts import TRIAL_LIMIT, Starts
from edge.errors import BundleError
from edge.inference.stages import Stages
from edge.recognition.best_pair import load_best_pair
from edge.recognition.loaded_models import LoadedModels
from tests.file_damage import truncate
from tests.store_samples import make_bundle, make_gallery, trusted

ONE = ReleaseName(line="shop", sequence=1, gallery_sequence=7)
TWO = ReleaseName(line="shop", sequence=2, gallery_sequence=8)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device on which `two` is on trial, and `one` was active before."""
    state_dir = tmp_path / "device"
    for number, (name, release) in enumerate((("one", ONE), ("two", TWO)), start=1):
        slot = install_bundle(make_bundle(tmp_path / name, name, number), state_dir)
        generation = install_gallery(make_gallery(tmp_path / f"items{number}", 2 + number), state_dir)
        slots.stage(state_dir, slot, generation, release)
        slots.activate(state_dir, prove=trusted, trial="t-2" if number == 2 else None)
    return state_dir


def load(bundle, gallery) -> LoadedModels:
    return LoadedModels(bundle.manifest.bundle_id, gallery.generation, Stages(None, None, {}), {}, {})


def start(device: Path):
    return load_best_pair(device, load, trusted, Starts(device))


def test_activation_on_trial_names_release_trial_and_the_pair_before(device):
    active = read_active_pointer(device)
    assert (active.bundle_id, active.release, active.trial) == ("two", TWO, "t-2")
    assert (active.previous.bundle_id, active.previous.release, active.previous.trial) == ("one", ONE, None)
    assert (start(device).release, start(device).trial) == (TWO, "t-2")


def test_confirm_ends_the_trial_and_keeps_what_is_staged(device, tmp_path):
    slots.stage(device, "a", read_active_pointer(device).previous.gallery)
    confirmed = slots.confirm(device, "t-2")
    assert (confirmed.bundle_id, confirmed.trial, confirmed.previous.bundle_id) == ("two", None, "one")
    assert read_active_pointer(device) == slots.confirm(device, "t-2") == confirmed
    assert read_staged_pointer(device).bundle_id == "one"


def test_another_trial_is_not_confirmed(device, tmp_path):
    with pytest.raises(BundleError, match="found trial t-2, expected trial t-3; nothing was confirmed"):
        slots.confirm(device, "t-3")
    with pytest.raises(BundleError, match="found no active bundle, expected trial t-3"):
        slots.confirm(tmp_path / "new", "t-3")
    assert read_active_pointer(device).trial == "t-2"


def test_trial_that_is_rolled_back_is_not_a_previous_pair(device):
    tried = read_active_pointer(device).gallery
    rolled_back = slots.rollback(device)
    assert (rolled_back.bundle_id, rolled_back.release, rolled_back.previous) == ("one", ONE, None)
    assert not (device / "gallery" / tried).exists()
    assert [pair.bundle_id for pair in candidates(device) if pair.proved] == ["one"]
    with pytest.raises(BundleError, match="there is no previous bundle"):
        slots.rollback(device)


def test_damaged_trial_rolls_back(device):
    truncate(device / "slots" / read_active_pointer(device).slot / "detector.onnx")
    assert slots.rollback(device).previous is None


def test_pair_activated_during_a_trial_goes_back_to_the_one_before_it(device, tmp_path):
    generation = install_gallery(make_gallery(tmp_path / "more", 9), device)
    active = slots.activate(device, "two", generation, prove=trusted, trial="t-3")
    assert (active.trial, active.previous.bundle_id, active.previous.release) == ("t-3", "one", ONE)
    assert slots.rollback(device).bundle_id == "one"


def test_pair_on_trial_is_previous_only_if_nothing_else_is_whole(device, tmp_path):
    truncate(device / "slots" / "a" / "detector.onnx")
    generation = install_gallery(make_gallery(tmp_path / "more", 9), device)
    active = slots.activate(device, "two", generation, prove=trusted, trial="t-3")
    assert (active.previous.bundle_id, active.previous.trial) == ("two", None)


def test_pair_that_is_confirmed_needs_no_trial_for_another_name(device):
    slots.confirm(device, "t-2")
    active = read_active_pointer(device)
    slots.stage(device, active.slot, active.gallery, ReleaseName(line="shop", sequence=3))
    renamed = slots.activate(device, prove=trusted, trial="t-3")
    assert (renamed.release.sequence, renamed.trial, renamed.previous.bundle_id) == (3, None, "one")


def test_trial_of_the_same_pair_starts_again(device):
    again = slots.activate(device, prove=trusted, trial="t-2b")
    assert (again.trial, again.previous.bundle_id) == ("t-2b", "one")


def test_person_who_activates_a_pair_on_trial_confirms_it(device):
    assert slots.activate(device, "two", prove=trusted).trial is None


def test_trial_id_is_checked(device):
    with pytest.raises(ValidationError):
        slots.activate(device, prove=trusted, trial="a b\n")


def test_first_pair_on_a_device_is_on_trial_with_nothing_to_go_back_to(tmp_path):
    state_dir = tmp_path / "new"
    slot = install_bundle(make_bundle(tmp_path / "first", "first"), state_dir)
    slots.stage(state_dir, slot, install_gallery(make_gallery(tmp_path / "items"), state_dir), ONE)
    active = slots.activate(state_dir, prove=trusted, trial="t-1")
    assert (active.trial, active.release, active.previous) == ("t-1", ONE, None)
    with pytest.raises(BundleError, match="there is no previous bundle"):
        slots.rollback(state_dir)
    assert slots.confirm(state_dir, "t-1").trial is None


def test_two_starts_of_a_trial_that_do_not_stay_up_are_enough(device):
    for _ in range(TRIAL_LIMIT):
        assert start(device).pair.bundle_id == "two"
    serving = start(device)
    assert (serving.pair.bundle_id, serving.release, serving.trial) == ("one", ONE, None)
    assert "bundle two in slot b" in serving.fallback
    assert "ended the last 2 starts within a minute, on trial; using bundle one" in serving.fallback


def test_confirmed_pair_has_more_starts(device):
    slots.confirm(device, "t-2")
    assert [start(device).pair.bundle_id for _ in range(4)] == ["two"] * 4


def test_copy_of_the_pointer_that_is_out_of_date_is_repaired(device):
    copy = (device / "current.copy").read_bytes()
    slots.confirm(device, "t-2")
    (device / "current.copy").write_bytes(copy)  # a power cut between the two
    assert repair_active_pointer(device, None) == [device / "current.copy"]
    assert (device / "current.copy").read_bytes() == (device / "current").read_bytes()
    assert repair_active_pointer(device, None) == []


def test_pointer_of_an_earlier_version_is_read(device):
    (device / "current").write_text(
        '{"slot":"a","bundle_id":"one","gallery":"0123456789abcdef","release":{"line":"shop","sequence":4}}'
    )
    active = read_active_pointer(device)
    assert (active.trial, active.release.gallery_sequence) == (None, None)
