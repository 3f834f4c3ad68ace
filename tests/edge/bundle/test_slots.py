"""Bundles, slots and the pointer that switches them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.bundle import slots
from edge.bundle.active_pointer import (
    ActivePointer,
    read_active_pointer,
    read_staged_pointer,
    repair_active_pointer,
    write_active_pointer,
)
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.pairs import open_pair, whole_pair
from edge.errors import BundleError, FinesightError, GalleryError
from edge.manifest.embedder import Head
from tests.power_cut import IMAGES, PowerCut
from tests.store_samples import SPACE, compatible_with, make_bundle, make_gallery, trusted


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device whose active bundle is `one`, with a gallery of three items."""
    state_dir = tmp_path / "device"
    slot = install_bundle(make_bundle(tmp_path / "one", "one"), state_dir)
    generation = install_gallery(make_gallery(tmp_path / "three"), state_dir)
    slots.activate(state_dir, slot, generation, prove=trusted)
    return state_dir


def stage_two(device: Path, tmp_path: Path) -> None:
    """Stage bundle `two` and a gallery of four items."""
    slot = install_bundle(make_bundle(tmp_path / "two", "two", 2), device)
    slots.stage(device, slot, install_gallery(make_gallery(tmp_path / "four", 4), device))


def active_on(device: Path) -> tuple[str, int]:
    """The bundle id and item count that the device reads, every hash checked."""
    held, gallery = slots.read_active(device)
    return held.manifest.bundle_id, gallery.items


def serving_on(device: Path) -> tuple[str, int]:
    """The bundle id and item count that the device would serve, every hash checked."""
    held, gallery, _ = open_pair(device, whole_pair(device))
    return held.manifest.bundle_id, gallery.items


def test_first_bundle_is_active_after_activation(device):
    assert active_on(device) == ("one", 3)
    assert read_active_pointer(device).slot == "a"
    assert read_active_pointer(device).previous is None


def test_installing_leaves_the_active_slot_untouched(device, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in (device / "slots" / "a").rglob("*")}
    stage_two(device, tmp_path)
    assert active_on(device) == ("one", 3)
    assert before == {path: path.stat().st_mtime_ns for path in (device / "slots" / "a").rglob("*")}


def test_activation_switches_bundle_and_gallery_together(device, tmp_path):
    stage_two(device, tmp_path)
    now = slots.activate(device, prove=trusted)
    assert active_on(device) == ("two", 4)
    assert (now.slot, now.previous.slot, now.previous.bundle_id) == ("b", "a", "one")
    assert read_staged_pointer(device) is None
    assert slots.activate(device, prove=trusted) == now


def test_rollback_switches_both_back_and_can_be_undone(device, tmp_path):
    stage_two(device, tmp_path)
    slots.activate(device, prove=trusted)
    slots.rollback(device)
    assert active_on(device) == ("one", 3)
    slots.rollback(device)
    assert active_on(device) == ("two", 4)


def test_bundle_is_activated_by_its_id(device, tmp_path):
    stage_two(device, tmp_path)
    assert slots.activate(device, "two", prove=trusted).slot == "b"
    with pytest.raises(BundleError, match="bundle 'three' is not installed"):
        slots.activate(device, "three", prove=trusted)


def test_installed_bundle_is_not_installed_twice(device, tmp_path):
    assert install_bundle(tmp_path / "one", device) == "a"
    assert not (device / "slots" / "b").exists()


def test_unused_galleries_are_deleted(device, tmp_path):
    for n in (4, 5, 6):
        generation = install_gallery(make_gallery(tmp_path / str(n), n), device)
        slots.activate(device, None, generation, prove=trusted)
    assert active_on(device) == ("one", 6)
    assert len(list((device / "gallery").iterdir())) == 2


def test_nothing_to_activate_or_roll_back_to_is_an_error(tmp_path, device):
    with pytest.raises(BundleError, match="nothing is staged"):
        slots.activate(tmp_path / "new", prove=trusted)
    with pytest.raises(BundleError, match="there is no previous bundle"):
        slots.rollback(device)
    with pytest.raises(BundleError, match="no bundle is active"):
        slots.read_active(tmp_path / "new")


def test_error_of_an_empty_device_names_the_two_commands(tmp_path):
    device = tmp_path / "my device"
    with pytest.raises(BundleError) as caught:
        slots.read_active(device)
    assert str(caught.value).endswith(
        f"run: edge bundle install BUNDLE --gallery GALLERY --state-dir '{device}' && "
        f"edge bundle activate --state-dir '{device}'"
    )


def test_error_of_a_staged_device_names_the_command_that_is_left(tmp_path):
    device = tmp_path / "new"
    slot = install_bundle(make_bundle(tmp_path / "bundle", "one"), device)
    slots.stage(device, slot, install_gallery(make_gallery(tmp_path / "gallery"), device))
    with pytest.raises(BundleError, match=f"one is staged, so run: edge bundle activate --state-dir {device}$"):
        slots.read_active(device)


def test_gallery_of_another_space_is_rejected_naming_both(device, tmp_path):
    other = make_gallery(tmp_path / "other", 2, space_id="b" * 64)
    generation = install_gallery(other, device)
    with pytest.raises(
        BundleError, match=f"'tyre': found gallery {generation} in embedding space {'b' * 64}"
    ) as caught:
        slots.activate(device, None, generation, prove=trusted)
    assert f"expected space {SPACE} of 12 of bundle one" in str(caught.value)
    assert active_on(device) == ("one", 3)


def test_compatible_older_gallery_is_used_until_a_native_one_arrives(device, tmp_path):
    slot = install_bundle(make_bundle(tmp_path / "new", "new", 2, "b" * 64, compatible=(SPACE,)), device)
    slots.activate(device, slot, prove=trusted)
    assert active_on(device) == ("new", 3)  # the gallery of the previous bundle
    own = install_gallery(make_gallery(tmp_path / "own", 4, space_id="b" * 64), device)
    slots.activate(device, None, own, prove=trusted)
    assert active_on(device) == ("new", 4)
    slots.rollback(device)
    assert active_on(device) == ("new", 3)


def test_compatibility_needs_the_same_category_and_length(device, tmp_path):
    folder = make_bundle(tmp_path / "new", "new", 2, "b" * 64, compatible=("c" * 64,))
    manifest = json.loads((folder / "bundle.json").read_text())
    manifest["embedders"][0]["compatible"].append(compatible_with(SPACE, "wheel"))
    (folder / "bundle.json").write_text(json.dumps(manifest))
    slot = install_bundle(folder, device)
    with pytest.raises(BundleError, match=f"in embedding space {SPACE}"):
        slots.activate(device, slot, prove=trusted)
    manifest["embedders"][0]["compatible"].append(compatible_with(SPACE))
    manifest["embedders"][0]["heads"] = [Head(name="class", dim=6).model_dump()]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    slot = install_bundle(folder, device)
    with pytest.raises(BundleError, match=f"of 12 numbers, expected space {'b' * 64} of 6"):
        slots.activate(device, slot, prove=trusted)


def damage_truncate(folder: Path) -> None:
    path = folder / "models" / "tyre.onnx"
    path.write_bytes(path.read_bytes()[:100])


def damage_flip(folder: Path) -> None:
    path = folder / "models" / "tyre.onnx"
    path.write_bytes(b"X" + path.read_bytes()[1:])


def damage_missing(folder: Path) -> None:
    (folder / "detector.onnx").unlink()


def damage_link(folder: Path) -> None:
    (folder / "detector.onnx").rename(folder.parent / "outside.onnx")
    (folder / "detector.onnx").symlink_to(folder.parent / "outside.onnx")


def damage_linked_folder(folder: Path) -> None:
    shutil.move(folder / "models", folder.parent / "elsewhere")
    (folder / "models").symlink_to(folder.parent / "elsewhere")


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    manifest = json.loads((folder / "bundle.json").read_text())
    change(manifest)
    (folder / "bundle.json").write_text(json.dumps(manifest))


def damage_wrong_hash(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["files"][0].update(sha256="0" * 64))


def damage_path_outside(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["files"][0].update(path="../../etc/evil.onnx"))


def damage_absolute_path(folder: Path) -> None:
    edit(folder, lambda manifest: manifest["files"][0].update(path="/etc/evil.onnx"))


def damage_not_json(folder: Path) -> None:
    (folder / "bundle.json").write_text("{")


DAMAGES = [
    (damage_truncate, r"tyre\.onnx: found 100 bytes, expected \d+"),
    (damage_flip, r"tyre\.onnx: found SHA-256 .*, expected"),
    (damage_missing, r"detector\.onnx: does not exist; it must be a regular file"),
    (damage_link, r"detector\.onnx: is a link that leaves the bundle folder"),
    (damage_linked_folder, r"tyre\.onnx: is a link that leaves the bundle folder"),
    (damage_wrong_hash, rf"detector\.onnx: found SHA-256 .*, expected {'0' * 64}"),
    (damage_path_outside, r"files\.0\.path: .*'../../etc/evil\.onnx' leaves the bundle folder"),
    (damage_absolute_path, r"files\.0\.path: .*'/etc/evil\.onnx' leaves the bundle folder"),
    (damage_not_json, r"bundle\.json: \(top\): Invalid JSON"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_damaged_bundle_is_not_installed(device, tmp_path, damage, message):
    damage(make_bundle(tmp_path / "bad", "bad", 2))
    with pytest.raises(BundleError, match=message):
        install_bundle(tmp_path / "bad", device)
    assert active_on(device) == ("one", 3)
    assert not (device / "slots" / "b").exists()


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_slot_damaged_after_installing_is_not_activated(device, tmp_path, damage, message):
    stage_two(device, tmp_path)
    damage(device / "slots" / "b")
    with pytest.raises(BundleError, match=message):
        slots.activate(device, prove=trusted)
    assert active_on(device) == ("one", 3)


def test_damaged_gallery_is_not_installed(device, tmp_path):
    store = make_gallery(tmp_path / "bad", 9) / "tyre.sqlite"
    store.write_bytes(store.read_bytes()[:-1])
    with pytest.raises(GalleryError, match=r"tyre\.sqlite: found \d+ bytes, expected"):
        install_gallery(tmp_path / "bad", device)
    assert active_on(device) == ("one", 3)


def test_damaged_active_slot_can_be_rolled_back(device, tmp_path):
    stage_two(device, tmp_path)
    slots.activate(device, prove=trusted)
    damage_flip(device / "slots" / "b")
    with pytest.raises(
        BundleError,
        match=r"bundle two in slot b cannot .*return to bundle one in slot a: edge bundle rollback",
    ):
        slots.read_active(device)
    slots.rollback(device)
    assert active_on(device) == ("one", 3)
    assert install_bundle(tmp_path / "two", device) == "b"
    assert slots.read_slots(device)[1].problem is None


def test_rollback_rejects_a_slot_with_another_bundle(device, tmp_path):
    stage_two(device, tmp_path)
    slots.activate(device, prove=trusted)
    install_bundle(make_bundle(tmp_path / "new", "new", 3), device)
    with pytest.raises(BundleError, match="slot a: found bundle new, expected one"):
        slots.rollback(device)
    assert active_on(device) == ("two", 4)


@pytest.mark.parametrize("damage", [lambda path: path.write_text('{"slot": "../c"}'), Path.unlink])
def test_damaged_pointer_is_read_from_its_copy(device, damage):
    damage(device / "current")
    assert active_on(device) == ("one", 3)
    repair_active_pointer(device, read_active_pointer(device))
    (device / "current.copy").write_text("")
    assert active_on(device) == ("one", 3)


def test_both_pointers_damaged_are_repaired_by_naming_the_pair(device):
    generation = read_active_pointer(device).gallery
    for name in ("current", "current.copy"):
        (device / name).write_text('{"slot": "../c"}')
    with pytest.raises(BundleError, match="current: damaged pointer file"):
        slots.read_active(device)
    slots.activate(device, "a", generation, prove=trusted)
    assert active_on(device) == ("one", 3)


def test_nothing_is_repaired_where_nothing_was_active(tmp_path):
    pointer = ActivePointer(slot="a", bundle_id="one", gallery="0" * 16)
    repair_active_pointer(tmp_path, pointer)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "current").mkdir()
    repair_active_pointer(tmp_path, pointer)
    assert read_active_pointer(tmp_path) == pointer


def test_read_slots_describes_both(device, tmp_path):
    stage_two(device, tmp_path)
    assert read_staged_pointer(device).bundle_id == "two"
    damage_flip(device / "slots" / "b")
    first, second = slots.read_slots(device)
    assert first == slots.Slot("a", "one", None, serving=True)
    assert (second.bundle_id, second.serving) == ("two", False)
    assert "found SHA-256" in second.problem


def cut_everywhere(
    device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> set[tuple[str, int]]:
    """Act on copies of the device, cut the power at every n-th change; return what served afterwards, in any image."""
    active = set()
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the model of the disk needs only the calls
    for image in IMAGES:
        problems = []
        for n in count(1):
            copy = tmp_path / "cut"
            shutil.copytree(device, copy)
            with PowerCut(n, image) as power:
                try:
                    act(copy)
                except FinesightError as error:
                    problems.append(str(error))
            serving = serving_on(copy)
            assert serving[0] == read_active_pointer(copy).bundle_id  # it needs no fall-back
            active.add(serving)
            act(copy)  # after the power is back
            assert slots.read_slots(copy)[0].problem is None
            shutil.rmtree(copy)
            if not power.happened:
                assert n > 5
                assert all("power cut" in problem for problem in problems)
                break
    return active


def test_power_cut_while_installing_keeps_the_active_pair(device, tmp_path, monkeypatch):
    make_bundle(tmp_path / "two", "two", 2)
    make_gallery(tmp_path / "four", 4)

    def install(copy: Path) -> None:
        slot = install_bundle(tmp_path / "two", copy)
        slots.stage(copy, slot, install_gallery(tmp_path / "four", copy))

    assert cut_everywhere(device, tmp_path, monkeypatch, install) == {("one", 3)}


def test_power_cut_while_overwriting_a_slot_keeps_the_active_pair(device, tmp_path, monkeypatch):
    stage_two(device, tmp_path)
    make_bundle(tmp_path / "new", "new", 3)
    assert cut_everywhere(device, tmp_path, monkeypatch, lambda copy: install_bundle(tmp_path / "new", copy)) == {
        ("one", 3)
    }


def test_power_cut_while_activating_leaves_old_or_new_pair(device, tmp_path, monkeypatch):
    stage_two(device, tmp_path)
    assert cut_everywhere(device, tmp_path, monkeypatch, lambda copy: slots.activate(copy, prove=trusted)) == {
        ("one", 3),
        ("two", 4),
    }


@pytest.mark.parametrize("image", IMAGES)
def test_pair_that_was_just_installed_is_on_disk_once_it_is_active(device, tmp_path, image):
    make_bundle(tmp_path / "two", "two", 2)
    make_gallery(tmp_path / "four", 4)

    def install_and_activate(at: int) -> tuple[int, Path]:
        copy = tmp_path / f"cut{at}"
        shutil.copytree(device, copy)
        with PowerCut(at, image) as power, suppress(FinesightError):
            slot = install_bundle(tmp_path / "two", copy)
            slots.activate(copy, slot, install_gallery(tmp_path / "four", copy), prove=trusted)
        return power.calls, copy

    last, _ = install_and_activate(10_000)
    for at in range(last - 5, last + 1):
        _, copy = install_and_activate(at)
        assert serving_on(copy)[0] == read_active_pointer(copy).bundle_id


def test_power_cut_while_rolling_back_leaves_old_or_new_pair(device, tmp_path, monkeypatch):
    stage_two(device, tmp_path)
    slots.activate(device, prove=trusted)

    def roll_back(copy: Path) -> None:
        if read_active_pointer(copy).bundle_id == "two":
            slots.rollback(copy)

    assert cut_everywhere(device, tmp_path, monkeypatch, roll_back) == {("two", 4), ("one", 3)}


def test_power_cut_tears_unflushed_files(tmp_path):
    with PowerCut(2) as power:
        (tmp_path / "file").write_bytes(b"12345678")
        with pytest.raises(OSError, match="power cut"):
            (tmp_path / "file").rename(tmp_path / "other")
    assert power.happened
    assert (tmp_path / "file").read_bytes() == b"1234"


VALUES = st.none() | st.integers() | st.text(max_size=20) | st.sampled_from(["a", "b", "c", "0" * 16])
ANY_KEYS = st.dictionaries(st.sampled_from(["slot", "bundle_id", "gallery", "previous"]), VALUES)


def pointers_before(previous: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.fixed_dictionaries(
        {
            "slot": st.sampled_from("ab"),
            "bundle_id": st.text(max_size=5),
            "gallery": st.just("0" * 16),
            "previous": previous,
        }
    )


POINTERS = ANY_KEYS | pointers_before(ANY_KEYS) | pointers_before(pointers_before(ANY_KEYS))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(content=st.binary(max_size=40) | POINTERS.map(lambda tree: json.dumps(tree).encode()))
def test_any_pointer_file_gives_a_pointer_or_a_bundle_error(tmp_path_factory, content):
    state_dir = tmp_path_factory.mktemp("pointer")
    (state_dir / "current").write_bytes(content)
    try:
        pointer = read_active_pointer(state_dir)
    except BundleError:
        return
    assert pointer.slot in slots.SLOTS
    write_active_pointer(state_dir, pointer)
    assert read_active_pointer(state_dir) == pointer
