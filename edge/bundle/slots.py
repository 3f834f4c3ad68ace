"""Read, stage, activate and roll back the two bundle slots and the gallery generations of a device.

Rules this module keeps:
1. Nothing becomes active before it was verified and proved.
2. One pointer file switches bundle and gallery together. After a power cut it names the old ones or the new ones.
3. Every function that changes something holds the lock of `edge.bundle.change_lock`.
4. A pair on trial is never what a rollback returns to: after it is rolled back there is no previous pair, and a pair
   that is activated during a trial has the one before the trial as its previous pair, where that is still whole.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.bundle.active_pointer import (
    ActivePointer,
    ReleaseName,
    edge_command,
    read_active_pointer,
    read_staged_pointer,
    rename_active_pointer,
    write_active_pointer,
    write_staged_pointer,
)
from edge.bundle.bundle import Bundle, check_compatible, read_bundle
from edge.bundle.change_lock import changing
from edge.bundle.install import map_disk_errors, slot_problem
from edge.bundle.layout import SLOTS, gallery_folder, gallery_generations, slot_folder
from edge.bundle.pairs import Pair, open_pair, open_slot, read_pointer_or_none, whole_pair
from edge.bundle.prove import ProofOptions, Prove, prover
from edge.bundle.starts import Starts
from edge.errors import BundleError, FinesightError
from edge.gallery.generation import Gallery, read_gallery

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slot:
    """The content of a slot."""

    name: str
    bundle_id: str | None  # None: empty or unreadable
    problem: str | None  # None: empty or intact
    serving: bool


def read_bundle_and_gallery(state_dir: Path, slot: str, generation: str) -> tuple[Bundle, Gallery]:
    """Read and verify a slot and a generation, and check that they fit together.

    Raises:
        BundleError: the slot is damaged, or the two are in different embedding spaces.
        GalleryError: the generation is damaged or missing.
    """
    bundle, gallery = read_bundle(slot_folder(state_dir, slot)), read_gallery(gallery_folder(state_dir, generation))
    check_compatible(bundle, gallery)
    return bundle, gallery


def read_active(state_dir: Path) -> tuple[Bundle, Gallery]:
    """Read and verify the active bundle and gallery.

    Raises:
        BundleError: nothing was activated, or the active bundle or gallery is damaged; the message says how to recover.
    """
    active = read_active_pointer(state_dir)
    if active is None:
        raise BundleError(f"{state_dir}: no bundle is active; {how_to_activate(state_dir)}")
    try:
        bundle, gallery, _ = open_pair(state_dir, Pair.of(active))
    except FinesightError as error:
        before = active.previous
        advice = (
            f"return to bundle {before.bundle_id} in slot {before.slot}: {edge_command('bundle rollback', state_dir)}"
            if before
            else f"there is no previous bundle; {how_to_activate(state_dir)}"
        )
        raise BundleError(
            f"bundle {active.bundle_id} in slot {active.slot} cannot be used: {error}; {advice}"
        ) from error
    return bundle, gallery


def how_to_activate(state_dir: Path) -> str:
    """Return the commands that make a bundle active: one if a bundle is staged, else two."""
    activate = edge_command("bundle activate", state_dir)
    try:
        staged = read_staged_pointer(state_dir)
        if staged is not None:
            read_bundle_and_gallery(state_dir, staged.slot, staged.gallery)
            return f"bundle {staged.bundle_id} is staged, so run: {activate}"
    except FinesightError as error:
        log.debug("%s", error)
    install = edge_command("bundle install BUNDLE --gallery GALLERY", state_dir)
    return f"with your folders for BUNDLE and GALLERY, run: {install} && {activate}"


def stage(state_dir: Path, slot: str, generation: str, release: ReleaseName | None = None) -> ActivePointer:
    """Verify a bundle and gallery, and stage them: `activate` switches to them.

    Args:
        state_dir: of the device.
        slot: that holds the bundle.
        generation: of the gallery.
        release: of a repository that they were pulled as.

    Raises:
        BundleError: the slot is damaged, or the disk failed.
        GalleryError: the generation is damaged or missing.
    """
    with changing(state_dir, "staging"):
        pointer = _verified(state_dir, slot, generation).model_copy(update={"release": release})
        with map_disk_errors(f"{state_dir}: staging bundle {pointer.bundle_id}"):
            write_staged_pointer(state_dir, pointer)
    return pointer


def _verified(state_dir: Path, slot: str, generation: str) -> ActivePointer:
    bundle, gallery = read_bundle_and_gallery(state_dir, slot, generation)
    return Pair(slot, bundle.manifest.bundle_id, gallery.generation).pointer()


def slot_of(state_dir: Path, name: str) -> str:
    """Return the slot that a slot or a bundle id names.

    Raises:
        BundleError: no such bundle is installed.
    """
    if name in SLOTS:
        return name
    installed = {slot.name: slot.bundle_id for slot in read_slots(state_dir)}
    for slot, bundle_id in installed.items():
        if bundle_id == name:
            return slot
    held = ", ".join(f"{slot}: {bundle_id or 'nothing'}" for slot, bundle_id in installed.items())
    install = edge_command("bundle install BUNDLE", state_dir)
    raise BundleError(f"{state_dir}: bundle {name!r} is not installed; the slots hold {held}; install it: {install}")


def activate(
    state_dir: Path,
    slot: str | None = None,
    generation: str | None = None,
    prove: Prove | None = None,
    trial: str | None = None,
) -> ActivePointer:
    """Verify and prove a bundle and gallery, and make them active.

    Args:
        state_dir: of the device.
        slot: a slot or a bundle id; None: the staged one, else the active one.
        generation: of the gallery; None: the staged one, else the active one.
        prove: tries the pair on this machine; None: in a child process, and chooses the engines.
        trial: that decides later whether the pair stays, by `confirm` or `rollback`; None: it stays. A pair that is
            active and confirmed already stays so: it only gets the name of the staged release.

    Raises:
        BundleError: nothing is staged, the slot is damaged, the embedding spaces differ, a probe fails, or the disk
            failed.
        GalleryError: the generation is damaged, missing or wrong inside.
        EngineError: a model cannot be loaded or run on this machine.
    """
    with changing(state_dir, "activating"):
        pointer = _to_activate(state_dir, slot, generation)
        prove = prove or prover(ProofOptions(cache=state_dir / "cache"), state_dir)
        prove(slot_folder(state_dir, pointer.slot), gallery_folder(state_dir, pointer.gallery))
        return _switch(state_dir, ActivePointer.model_validate(pointer.model_dump() | {"trial": trial}))


def confirm(state_dir: Path, trial: str) -> ActivePointer:
    """End a trial: the active pair stays. What serves is not loaded again.

    Confirming twice does no harm.

    Args:
        state_dir: of the device.
        trial: as given to `activate`.

    Raises:
        BundleError: nothing is active, another trial is, or the disk failed.
    """
    with changing(state_dir, "confirming"):
        active = read_active_pointer(state_dir)
        if active is None or active.trial not in (None, trial):
            found = "no active bundle" if active is None else f"trial {active.trial}"
            raise BundleError(f"{state_dir}: found {found}, expected trial {trial}; nothing was confirmed")
        if active.trial is None:
            return active
        confirmed = active.model_copy(update={"trial": None})
        with map_disk_errors(f"{state_dir}: confirming bundle {active.bundle_id}"):
            rename_active_pointer(state_dir, confirmed)
    log.info("bundle %s with gallery %s is confirmed by trial %s", confirmed.bundle_id, confirmed.gallery, trial)
    return confirmed


def _to_activate(state_dir: Path, slot: str | None, generation: str | None) -> ActivePointer:
    """Return a verified pointer to the pair that is meant; with both names, damaged pointer files do no harm."""
    if not (slot and generation):
        target = read_staged_pointer(state_dir) or read_active_pointer(state_dir)
        if target is None:
            raise BundleError(f"{state_dir}: nothing is staged; {how_to_activate(state_dir)}")
        if not slot:
            open_slot(state_dir, target.slot, target.bundle_id)
        slot, generation = slot or target.slot, generation or target.gallery
    pointer = _verified(state_dir, slot_of(state_dir, slot), generation)
    for known in _readable_pointers(state_dir):
        if Pair.of(known) == Pair.of(pointer):
            return pointer.model_copy(update={"release": known.release})
    return pointer


def _readable_pointers(state_dir: Path) -> Iterator[ActivePointer]:
    for read in (read_staged_pointer, read_active_pointer):
        try:
            pointer = read(state_dir)
        except BundleError as error:
            log.warning("%s", error)
            continue
        for known in (pointer, pointer and pointer.previous):
            if known is not None:
                yield known


def rollback(state_dir: Path) -> ActivePointer:
    """Verify the previously active bundle and gallery, and make them active again. They were proved before.

    Raises:
        BundleError: there is no previous bundle, its slot now holds another one, or it is damaged.
        GalleryError: its generation is damaged or missing.
    """
    with changing(state_dir, "rolling back"):
        active = read_active_pointer(state_dir)
        if active is None or active.previous is None:
            see = edge_command("bundle list", state_dir)
            raise BundleError(f"{state_dir}: there is no previous bundle to roll back to; see what is installed: {see}")
        before = active.previous
        open_slot(state_dir, before.slot, before.bundle_id)
        pointer = _verified(state_dir, before.slot, before.gallery).model_copy(update={"release": before.release})
        return _switch(state_dir, pointer)


def _switch(state_dir: Path, pointer: ActivePointer) -> ActivePointer:
    """Make a verified pair active; the one before it stays installed."""
    active, _ = read_pointer_or_none(state_dir)
    if active and active.trial is None and Pair.of(active) == Pair.of(pointer):
        pointer = pointer.model_copy(update={"trial": None})
    before = _serving_pointer(state_dir)
    if before and Pair.of(before) == Pair.of(pointer):
        before = before.previous
    elif before and before.trial is not None:
        before = _before_trial(state_dir, before, pointer)
    if before:
        pointer = pointer.model_copy(update={"previous": before.model_copy(update={"previous": None})})
    with map_disk_errors(f"{state_dir}: switching to bundle {pointer.bundle_id}"):
        write_active_pointer(state_dir, pointer)
    Starts(state_dir).end_well(Pair.of(pointer))
    log.info("bundle %s in slot %s is active with gallery %s", pointer.bundle_id, pointer.slot, pointer.gallery)
    try:
        _prune(state_dir, pointer)
    except OSError as error:
        log.warning("%s: cannot delete old galleries: %s", state_dir, error)
    return pointer


def _before_trial(state_dir: Path, tried: ActivePointer, pointer: ActivePointer) -> ActivePointer | None:
    """Return what a pair has as its previous one that replaces a pair on trial."""
    before = tried.previous
    if before is None:
        return tried.model_copy(update={"trial": None})
    if Pair.of(before) == Pair.of(pointer):  # a rollback
        return None
    try:
        open_pair(state_dir, Pair.of(before))
    except FinesightError as error:
        log.warning("%s; going back would lead to the pair that was on trial", error)
        return tried.model_copy(update={"trial": None})
    return before


def _serving_pointer(state_dir: Path) -> ActivePointer | None:
    """Return the pointer to what serves: the active pair or, if that is damaged, the best whole one."""
    active, _ = read_pointer_or_none(state_dir)
    pair = whole_pair(state_dir)
    if pair is None:
        return active
    known = (pointer for pointer in (active, active and active.previous) if pointer and Pair.of(pointer) == pair)
    return next(known, pair.pointer())


def _prune(state_dir: Path, pointer: ActivePointer) -> None:
    kept = {pointer.gallery, pointer.previous.gallery if pointer.previous else pointer.gallery}
    for generation in gallery_generations(state_dir):
        if generation not in kept:
            shutil.rmtree(gallery_folder(state_dir, generation))


def read_slots(state_dir: Path) -> list[Slot]:
    """Verify both slots and return what they hold."""
    active, _ = read_pointer_or_none(state_dir)
    slots = []
    for name in SLOTS:
        folder = slot_folder(state_dir, name)
        problem = slot_problem(folder) if folder.exists() else None
        try:
            bundle_id = read_bundle(folder, verify=False).manifest.bundle_id
        except BundleError:
            bundle_id = None
        slots.append(Slot(name, bundle_id, problem, active is not None and active.slot == name))
    return slots
