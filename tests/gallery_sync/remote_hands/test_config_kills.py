"""A configuration trial that is killed, or loses power, at every place: the device has the old or the new overlay."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config.overlay import Overlay, overlay_bytes, overlay_path
from edge.errors import SyncError
from gallery_sync.remote_hands.config_files import CANDIDATE, PREVIOUS, TRIAL, ConfigFiles, current
from gallery_sync.transport.errors import StorageError
from tests.gallery_sync.remote_hands.config_samples import DAY, NIGHT, PlayedDevice
from tests.power_cut import IMAGES, Image, PowerCut, PowerCutError

PAIRS = [(None, NIGHT), (DAY, NIGHT), (DAY, None)]
MOST_CALLS = 80


def begin(folder: Path, before: Overlay | None) -> PlayedDevice:
    device = PlayedDevice(folder, seconds=6.0)
    path = overlay_path(folder)
    path.parent.mkdir(parents=True)
    if before is not None:
        path.write_bytes(overlay_bytes(before))
    return device


def overlay_of(device: PlayedDevice) -> Overlay | None:
    files = ConfigFiles(device.state_dir)
    overlay = files.overlay()
    assert (overlay is None) == (files.sha256() is None), "the overlay is damaged"
    assert not files.is_on_trial
    assert not list(files.folder.glob("*.damaged-*"))
    return overlay


def run_cut(device: PlayedDevice, cut: PowerCut, overlay: Overlay | None) -> bool:
    """Take an overlay while the power fails at some place; return whether it did."""

    def end() -> None:
        if cut.happened:
            raise PowerCutError(5, "the power is off")

    device.on_sleep = end
    with cut:
        try:
            device.set(overlay)
        except (OSError, SyncError):
            assert cut.happened
    device.on_sleep = lambda: None
    return cut.happened


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize(("before", "wanted"), PAIRS)
@pytest.mark.parametrize("is_bad", [False, True])
def test_power_cut_at_every_call(tmp_path, image: Image, before, wanted, is_bad):
    for n in range(1, MOST_CALLS):
        device = begin(tmp_path / str(n), before)
        if is_bad:
            device.states = {str(wanted) if wanted else None: {"yard": "reconnecting"}}
            device.states.setdefault(str(before) if before else None, {})
        happened = run_cut(device, PowerCut(n, image), wanted)
        device.reboot()
        device.go_on()
        found = overlay_of(device)
        assert found in ((before,) if is_bad else (before, wanted))
        assert current(device.state_dir) == (None if found is None else str(found))
        if not happened:
            assert found == (before if is_bad else wanted)
            return
    pytest.fail("it never came to an end")


@pytest.mark.parametrize(("before", "wanted"), PAIRS)
def test_agent_killed_at_every_call_goes_on(tmp_path, before, wanted):
    for n in range(1, MOST_CALLS):
        device = begin(tmp_path / str(n), before)
        happened = run_cut(device, PowerCut(n, "kept"), wanted)
        device.go_on()
        assert overlay_of(device) in (before, wanted)
        if not happened:
            return
    pytest.fail("it never came to an end")


@pytest.mark.parametrize(("before", "wanted"), PAIRS)
def test_second_power_cut_while_it_goes_on(tmp_path, before, wanted):
    """A cut after the overlay was taken, then one at each call of the next start."""
    for n in range(1, MOST_CALLS):
        device = begin(tmp_path / str(n), before)
        device.trials().begin(wanted, "1", device.seconds)
        device.states = {str(wanted) if wanted else None: {"yard": "reconnecting"}}
        device.reboot(2)
        cut = PowerCut(n)
        with cut:
            try:
                device.on_sleep = lambda cut=cut: _raise_if(cut)
                device.go_on()
            except OSError:
                assert cut.happened
        device.on_sleep = lambda: None
        device.reboot(3)
        device.go_on()
        assert overlay_of(device) == before
        if not cut.happened:
            return
    pytest.fail("it never came to an end")


def _raise_if(cut: PowerCut) -> None:
    if cut.happened:
        raise PowerCutError(5, "the power is off")


@pytest.mark.parametrize("name", [TRIAL, PREVIOUS, CANDIDATE, "overlay.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "folder", "link"])
@pytest.mark.parametrize(("before", "wanted"), PAIRS)
def test_damaged_files_end_a_trial_with_what_is_whole(tmp_path, name, damage, before, wanted):
    device = begin(tmp_path / "device", before)
    device.trials().begin(wanted, "1", device.seconds)
    path = device.state_dir / "config" / name
    path.unlink(missing_ok=True)
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "folder":
        path.mkdir()
    elif damage == "link":
        path.symlink_to(tmp_path / "elsewhere")
    device.go_on()
    files = ConfigFiles(device.state_dir)
    assert not files.is_on_trial
    assert files.overlay() in (before, wanted, None)
    assert device.set(NIGHT).state == "done"
    assert current(device.state_dir) == "night-mode 3"


@pytest.mark.parametrize("step", ["begin", "note", "take"])
def test_disk_that_fails_at_the_start_changes_nothing(tmp_path, monkeypatch, step):
    device = begin(tmp_path / "device", DAY)
    real = getattr(ConfigFiles, step)

    def fail(files: ConfigFiles, trial: object) -> None:
        if step == "note":
            real(files, trial)  # it is there, and its folder could not be flushed
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ConfigFiles, step, fail)
    if step == "begin":
        with pytest.raises(StorageError, match="No space left"):
            device.set(NIGHT)
    else:
        assert device.set(NIGHT).state == "failed"
    monkeypatch.undo()
    assert overlay_of(device) == DAY


def test_disk_that_fails_is_tried_until_the_trial_ends(tmp_path, monkeypatch):
    device = begin(tmp_path / "device", DAY)
    device.states = {"night-mode 3": {"yard": "reconnecting"}}
    failing = [OSError(28, "No space left on device")] * 3
    real = ConfigFiles.revert

    def revert(files: ConfigFiles, trial: object) -> None:
        if failing:
            raise failing.pop()
        real(files, trial)  # type: ignore[arg-type]

    monkeypatch.setattr(ConfigFiles, "revert", revert)
    assert device.set(NIGHT).state == "failed"
    assert overlay_of(device) == DAY
