"""P2: after a power cut at any moment, whatever the disk kept, a device serves a whole pair and comes to its end.

Each operation is recorded in a process of its own. Every image that a power cut may leave is made, a device starts from
it, and the operation is done again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from edge.bundle import slots
from edge.bundle.active_pointer import read_active_pointer
from edge.bundle.install import install_bundle, install_gallery
from edge.bundle.starts import Starts
from tests.crash import operations
from tests.crash.check import Recover, check_all
from tests.crash.operations import TRIAL
from tests.store_samples import make_bundle, make_gallery, trusted

ONE, TWO = ("one", 3), ("two", 4)  # bundle, and items of its gallery


def device(work: Path, *, staged: bool = False, on_trial: bool = False) -> Path:
    """A device on which `one` is active, and `two` is staged or on trial."""
    state_dir, sources = work / "device", work / "sources"
    slot = install_bundle(make_bundle(sources / "one", "one"), state_dir)
    slots.activate(state_dir, slot, install_gallery(make_gallery(sources / "three"), state_dir), prove=trusted)
    make_bundle(sources / "two", "two", 2)
    make_gallery(sources / "four", 4)
    make_gallery(sources / "five", 5)
    if staged or on_trial:
        operations.stage(state_dir)
    if on_trial:
        operations.activate(state_dir)
    return state_dir


def served(state_dir: Path) -> tuple[str, int]:
    """What the device serves after a start that stays up: whole, and active before."""
    serving = operations.start(state_dir)
    Starts(state_dir).end_well(serving.pair)
    return serving.models.bundle_id, int(serving.models.gallery_id)


def recovers(
    *allowed: tuple[str, int], finish: Callable[[Path], None], end: tuple[str, int], every: int = 1
) -> Recover:
    """Return a check: one of the pairs serves after a start, and the operation comes to its end.

    Args:
        allowed: what may serve after the power cut.
        finish: does the operation again.
        end: what serves then.
        every: how many images there are for each that is finished, where that is slow.
    """
    numbers = itertools.count()

    def recover(state_dir: Path) -> None:
        found = served(state_dir)
        assert found in allowed, f"{found} serves"
        if next(numbers) % every:
            return
        finish(state_dir)
        assert served(state_dir) == end
        assert (state_dir / "current").read_bytes() == (state_dir / "current.copy").read_bytes()
        assert not [path.name for path in (state_dir / "gallery").iterdir() if path.name.endswith(".old")]

    return recover


def test_install_leaves_what_serves_alone(shim, work):
    recover = recovers(ONE, finish=operations.converge, end=TWO)
    assert check_all(shim, device(work), "install", recover) > 30


def test_stage_leaves_what_serves_alone(shim, work):
    recover = recovers(ONE, finish=operations.converge, end=TWO)
    assert check_all(shim, device(work), "stage", recover) > 30


def test_activation_serves_the_old_pair_or_the_new_one(shim, work):
    recover = recovers(ONE, TWO, finish=operations.converge, end=TWO)
    assert check_all(shim, device(work, staged=True), "activate", recover) > 5


def test_confirmation_serves_the_new_pair(shim, work):
    def confirm(state_dir: Path) -> None:
        operations.confirm(state_dir)
        assert read_active_pointer(state_dir).trial is None

    recover = recovers(TWO, finish=confirm, end=TWO)
    assert check_all(shim, device(work, on_trial=True), "confirm", recover) > 5


def test_rollback_serves_the_pair_on_trial_or_the_one_before(shim, work):
    def roll_back(state_dir: Path) -> None:
        if read_active_pointer(state_dir).trial == TRIAL:
            operations.rollback(state_dir)
        assert read_active_pointer(state_dir).previous is None

    recover = recovers(ONE, TWO, finish=roll_back, end=ONE)
    assert check_all(shim, device(work, on_trial=True), "rollback", recover) > 5


def test_switch_of_the_gallery_deletes_the_oldest_one_alone(shim, work):
    state_dir = device(work, on_trial=True)
    operations.confirm(state_dir)
    recover = recovers(TWO, ("two", 5), finish=operations.switch_gallery, end=("two", 5))
    assert check_all(shim, state_dir, "switch_gallery", recover) > 30


def test_start_that_repairs_the_pointer_serves_the_same_pair(shim, work):
    state_dir = device(work, on_trial=True)
    (state_dir / "current").write_text("{")
    recover = recovers(TWO, finish=operations.confirm, end=TWO)
    assert check_all(shim, state_dir, "start", recover) > 5
