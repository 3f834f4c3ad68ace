"""What a device serves when it starts, whatever is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.pairs import candidates
from edge.bundle.starts import LIMIT, NAME, Starts
from edge.errors import BundleError, EngineError
from edge.inference.stages import Stages
from edge.recognition.best_pair import Serving, load_best_pair
from edge.recognition.loaded_models import LoadedModels
from tests.file_damage import DAMAGES, make_folder, remove, replace, truncate
from tests.store_samples import make_bundle, make_gallery, trusted


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A device on which `two` with four items is active, and `one` with three was before."""
    state_dir = tmp_path / "device"
    for number, name in enumerate(("one", "two"), start=1):
        slot = install_bundle(make_bundle(tmp_path / name, name, number), state_dir)
        generation = install_gallery(make_gallery(tmp_path / f"items{number}", 2 + number), state_dir)
        slots.activate(state_dir, slot, generation, prove=trusted)
    return state_dir


def load(bundle, gallery) -> LoadedModels:
    return LoadedModels(bundle.manifest.bundle_id, gallery.generation, Stages(None, None, {}), {}, {})


def refuse(*_: object) -> list[str]:
    raise BundleError("a probe failed")


def start(device: Path, prove=trusted, load=load) -> Serving:
    return load_best_pair(device, load, prove, Starts(device))


def test_active_pair_serves_without_a_proof(device):
    serving = start(device, prove=refuse)
    assert (serving.models.bundle_id, serving.fallback, serving.damaged) == ("two", None, ())


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_single_damaged_file_leaves_a_pair_that_serves(device, damage, tmp_path):
    files = sorted(path.relative_to(device) for path in device.rglob("*") if path.is_file())
    assert len(files) > 10
    generation = read_active_pointer(device).gallery
    in_active_pair = (f"slots/{read_active_pointer(device).slot}/", f"gallery/{generation}/")
    for number, file in enumerate(files):
        copy = tmp_path / f"copy{number}"
        copy.mkdir()
        for path in files:
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            (copy / path).write_bytes((device / path).read_bytes())
        damage(copy / file)
        serving = start(copy, prove=refuse)
        falls_back = str(file).startswith(in_active_pair)
        assert serving.models.bundle_id == ("one" if falls_back else "two"), file
        assert (serving.fallback is not None) == falls_back
        if falls_back:
            assert file.name in serving.fallback or damage in (remove, make_folder)


def test_damaged_probe_picture_is_told_and_does_not_change_the_pair(tmp_path):
    state_dir = tmp_path / "device"
    bundle = make_bundle(tmp_path / "one", "one", probe=True)
    slot = install_bundle(bundle, state_dir)
    slots.activate(state_dir, slot, install_gallery(make_gallery(tmp_path / "items"), state_dir), prove=trusted)
    truncate(state_dir / "slots" / slot / "probe.png")
    serving = start(state_dir)
    assert serving.fallback is None
    assert "probe.png: found" in serving.damaged[0]


def test_pair_that_was_never_active_is_proved_first(device):
    for name in ("current", "current.copy"):
        (device / name).write_text("{")
    proved = []
    serving = start(device, prove=lambda *folders: proved.append(folders) or [])
    assert (serving.models.bundle_id, len(proved)) == ("two", 1)
    assert "damaged pointer file" in serving.fallback
    assert read_active_pointer(device).bundle_id == "two"  # repaired
    assert start(device, prove=refuse).fallback is None


def test_unproved_pair_that_fails_its_probes_does_not_serve(device):
    for name in ("current", "current.copy"):
        (device / name).unlink()
    with pytest.raises(BundleError, match=r"no bundle is active; .*a probe failed.*edge bundle activate"):
        start(device, prove=refuse)


def test_slot_that_holds_another_bundle_does_not_serve(device, tmp_path):
    active = read_active_pointer(device)
    manifest = device / "slots" / active.slot / "bundle.json"
    replace(manifest, make_bundle(tmp_path / "other", "other", 9).joinpath("bundle.json").read_bytes())
    serving = start(device)
    assert serving.models.bundle_id == "one"
    assert "found bundle other, expected two" in serving.fallback


def test_active_slot_filled_with_another_bundle_serves_it_once_proved(tmp_path):
    """A damaged device without another pair pulled a new bundle for its gallery, and restarted before it switched."""
    state_dir = tmp_path / "device"
    slot = slots.SLOTS[0]
    generation = install_gallery(make_gallery(tmp_path / "items"), state_dir)
    slots.activate(
        state_dir, install_bundle(make_bundle(tmp_path / "one", "one"), state_dir), generation, prove=trusted
    )
    truncate(state_dir / "slots" / slot / "detector.onnx")
    assert install_bundle(make_bundle(tmp_path / "new", "new", 2), state_dir) == slot
    proved = []
    serving = start(state_dir, prove=lambda *folders: proved.append(folders) or [])
    assert (serving.models.bundle_id, len(proved)) == ("new", 1)
    assert "found bundle new, expected one" in serving.fallback


@pytest.mark.parametrize("error", [EngineError("no GPU"), MemoryError("no room")])
def test_pair_that_cannot_be_loaded_is_passed_over(device, error):
    def load_one(bundle, gallery) -> LoadedModels:
        if bundle.manifest.bundle_id == "two":
            raise error
        return load(bundle, gallery)

    serving = start(device, load=load_one)
    assert serving.models.bundle_id == "one"
    assert str(error) in serving.fallback


def test_pair_that_ends_the_process_at_each_start_gives_way(device):
    def crash(*_: object) -> LoadedModels:
        raise KeyboardInterrupt  # stands for the end of the process: nothing is cleaned up

    tried = []
    for _ in range(2 * LIMIT + 2):
        with pytest.raises(KeyboardInterrupt):
            start(device, load=lambda bundle, gallery: tried.append(bundle.manifest.bundle_id) or crash())
    assert tried == ["two"] * LIMIT + ["one"] * LIMIT + ["two"] * 2  # they take turns: the pair is not the cause
    slots.activate(device, "two", prove=trusted)  # a person wants it: it is tried again
    assert start(device).models.bundle_id == "two"


def test_starts_that_stayed_up_are_struck_out(device):
    pair = next(candidates(device))
    for _ in range(3):
        Starts(device).begin(pair)
    assert Starts(device).of(pair) == 3
    Starts(device).end_well(pair)
    assert Starts(device).of(pair) == 0


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": "x"}', b'{"a": 1e999}', b"[" * 100_000, b"\xff"])
def test_damaged_count_of_starts_counts_none(device, content):
    (device / NAME).write_bytes(content)
    assert start(device).fallback is None


def test_disk_that_cannot_be_written_counts_nothing_and_serves(device, monkeypatch):
    monkeypatch.setattr("edge.bundle.starts.write_durably", lambda *_: (_ for _ in ()).throw(OSError(30, "read-only")))
    assert start(device).fallback is None
