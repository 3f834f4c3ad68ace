"""Install, activate and roll back: the two bundle slots and the gallery generations of a device.

Rules this module keeps:
1. The active slot and generation are never written to. An installation fills the other slot, under a temporary name
   until it is complete.
2. Nothing becomes active before it was verified.
3. One pointer file switches bundle and gallery together. After a power cut it names the old ones or the new ones.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.bundle.active_pointer import (
    ActivePointer,
    edge_command,
    read_active_pointer,
    read_staged_pointer,
    write_active_pointer,
    write_staged_pointer,
)
from edge.bundle.bundle import MANIFEST_NAME, Bundle, check_compatible, read_bundle
from edge.durable import copy_files, replace_folder
from edge.errors import BundleError, FinesightError, GalleryError
from edge.gallery.generation import INDEX_NAME, Gallery, read_gallery

log = logging.getLogger(__name__)

SLOTS = ("a", "b")


@dataclass(frozen=True, slots=True)
class Slot:
    """The content of a slot."""

    name: str
    bundle_id: str | None  # None: empty or unreadable
    problem: str | None  # None: empty or intact
    serving: bool


def slot_folder(state_dir: Path, slot: str) -> Path:
    """Return the folder of a slot."""
    return state_dir / "slots" / slot


def gallery_folder(state_dir: Path, generation: str) -> Path:
    """Return the folder of a gallery generation."""
    return state_dir / "gallery" / generation


def gallery_generations(state_dir: Path) -> list[str]:
    """Return the installed generations, without checking them; a name with a dot is an installation in progress."""
    folder = state_dir / "gallery"
    return sorted(path.name for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def install_bundle(source: Path, state_dir: Path) -> str:
    """Copy a bundle into the inactive slot and return the slot that holds it.

    Raises:
        BundleError: the bundle is damaged or incomplete, or the disk failed; the active slot is untouched.
    """
    manifest = read_bundle(source).manifest
    active = read_active_pointer(state_dir)
    manifest_bytes = (source / MANIFEST_NAME).read_bytes()
    for slot in SLOTS:
        installed = slot_folder(state_dir, slot) / MANIFEST_NAME
        if installed.is_file() and installed.read_bytes() == manifest_bytes and _problem(installed.parent) is None:
            return slot
    slot = "b" if active and active.slot == "a" else "a"
    names = [entry.path for entry in manifest.files] + [MANIFEST_NAME]
    _install(f"bundle {manifest.bundle_id}", source, names, slot_folder(state_dir, slot), read_bundle)
    log.info("installed bundle %s in slot %s", manifest.bundle_id, slot)
    return slot


def install_gallery(source: Path, state_dir: Path) -> str:
    """Copy a gallery generation onto the device and return its id.

    Raises:
        GalleryError: the gallery is damaged or incomplete.
        BundleError: the disk failed.
    """
    gallery = read_gallery(source)
    final = gallery_folder(state_dir, gallery.generation)
    try:
        read_gallery(final)
    except GalleryError:
        log.debug("%s is missing or damaged", final)
    else:
        return gallery.generation
    names = [gallery.path(category).name for category in gallery.categories] + [INDEX_NAME]
    _install(f"gallery {gallery.generation}", source, names, final, read_gallery)
    log.info("installed gallery %s", gallery.generation)
    return gallery.generation


def _install(what: str, source: Path, names: list[str], final: Path, verify: Callable[[Path], object]) -> None:
    """Copy files to a temporary folder, verify the copies, and rename the folder into place."""
    incoming = final.with_name(f".{final.name}.incoming")
    with _map_disk_errors(f"{final}: installing {what}"):
        try:
            copy_files(source, names, incoming)
            verify(incoming)
            replace_folder(incoming, final)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


@contextmanager
def _map_disk_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"{what}: disk error: {error.strerror or error}") from error


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
        raise BundleError(f"{state_dir}: no bundle is active; {_how_to_activate(state_dir)}")
    try:
        return read_bundle_and_gallery(state_dir, active.slot, active.gallery)
    except FinesightError as error:
        before = active.previous
        advice = (
            f"return to bundle {before.bundle_id} in slot {before.slot}: {edge_command('bundle rollback', state_dir)}"
            if before
            else f"there is no previous bundle; {_how_to_activate(state_dir)}"
        )
        raise BundleError(
            f"bundle {active.bundle_id} in slot {active.slot} cannot be used: {error}; {advice}"
        ) from error


def _how_to_activate(state_dir: Path) -> str:
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


def stage(state_dir: Path, slot: str, generation: str) -> ActivePointer:
    """Verify a bundle and gallery, and stage them: `activate` switches to them.

    Raises:
        BundleError: the slot is damaged, or the disk failed.
        GalleryError: the generation is damaged or missing.
    """
    pointer = _verified(state_dir, slot, generation)
    with _map_disk_errors(f"{state_dir}: staging bundle {pointer.bundle_id}"):
        write_staged_pointer(state_dir, pointer)
    return pointer


def _verified(state_dir: Path, slot: str, generation: str) -> ActivePointer:
    bundle, gallery = read_bundle_and_gallery(state_dir, slot, generation)
    pointer = {"slot": slot, "bundle_id": bundle.manifest.bundle_id, "gallery": gallery.generation}
    return ActivePointer.model_validate(pointer)


def _slot_of(state_dir: Path, name: str) -> str:
    if name in SLOTS:
        return name
    installed = {slot.name: slot.bundle_id for slot in read_slots(state_dir)}
    for slot, bundle_id in installed.items():
        if bundle_id == name:
            return slot
    held = ", ".join(f"{slot}: {bundle_id or 'nothing'}" for slot, bundle_id in installed.items())
    install = edge_command("bundle install BUNDLE", state_dir)
    raise BundleError(f"{state_dir}: bundle {name!r} is not installed; the slots hold {held}; install it: {install}")


def _check_slot_holds(state_dir: Path, pointer: ActivePointer) -> None:
    installed = read_bundle(slot_folder(state_dir, pointer.slot), verify=False).manifest.bundle_id
    if installed != pointer.bundle_id:
        raise BundleError(
            f"slot {pointer.slot}: found bundle {installed}, expected {pointer.bundle_id}; install that bundle again"
        )


def activate(state_dir: Path, slot: str | None = None, generation: str | None = None) -> ActivePointer:
    """Verify a bundle and gallery, and make them active.

    Args:
        state_dir: of the device.
        slot: a slot or a bundle id; None: the staged one, else the active one.
        generation: of the gallery; None: the staged one, else the active one.

    Raises:
        BundleError: nothing is staged, the slot is damaged, the embedding spaces differ, or the disk failed.
        GalleryError: the generation is damaged or missing.
    """
    if slot and generation:  # the pointer is not needed, so a damaged one does no harm
        return _switch(state_dir, _slot_of(state_dir, slot), generation, _active_if_readable(state_dir))
    active = read_active_pointer(state_dir)
    target = read_staged_pointer(state_dir) or active
    if target is None:
        raise BundleError(f"{state_dir}: nothing is staged; {_how_to_activate(state_dir)}")
    if not slot:
        _check_slot_holds(state_dir, target)
    return _switch(state_dir, _slot_of(state_dir, slot) if slot else target.slot, generation or target.gallery, active)


def rollback(state_dir: Path) -> ActivePointer:
    """Verify the previously active bundle and gallery, and make them active again.

    Raises:
        BundleError: there is no previous bundle, its slot now holds another one, or it is damaged.
        GalleryError: its generation is damaged or missing.
    """
    active = read_active_pointer(state_dir)
    if active is None or active.previous is None:
        see = edge_command("bundle list", state_dir)
        raise BundleError(f"{state_dir}: there is no previous bundle to roll back to; see what is installed: {see}")
    _check_slot_holds(state_dir, active.previous)
    return _switch(state_dir, active.previous.slot, active.previous.gallery, active)


def _active_if_readable(state_dir: Path) -> ActivePointer | None:
    try:
        return read_active_pointer(state_dir)
    except BundleError as error:
        log.warning("%s", error)
        return None


def _switch(state_dir: Path, slot: str, generation: str, active: ActivePointer | None) -> ActivePointer:
    pointer = _verified(state_dir, slot, generation)
    before = active
    if active and (active.slot, active.gallery) == (slot, generation):
        before = active.previous
    if before:
        pointer = pointer.model_copy(update={"previous": before.model_copy(update={"previous": None})})
    with _map_disk_errors(f"{state_dir}: switching to bundle {pointer.bundle_id}"):
        write_active_pointer(state_dir, pointer)
    log.info("bundle %s in slot %s is active with gallery %s", pointer.bundle_id, slot, generation)
    try:
        _prune(state_dir, pointer)
    except OSError as error:
        log.warning("%s: cannot delete old galleries: %s", state_dir, error)
    return pointer


def _prune(state_dir: Path, pointer: ActivePointer) -> None:
    kept = {pointer.gallery, pointer.previous.gallery if pointer.previous else pointer.gallery}
    for generation in gallery_generations(state_dir):
        if generation not in kept:
            shutil.rmtree(gallery_folder(state_dir, generation))


def _problem(folder: Path) -> str | None:
    try:
        read_bundle(folder)
    except BundleError as error:
        return str(error)
    return None


def read_slots(state_dir: Path) -> list[Slot]:
    """Verify both slots and return what they hold."""
    active = _active_if_readable(state_dir)
    slots = []
    for name in SLOTS:
        folder = slot_folder(state_dir, name)
        problem = _problem(folder) if folder.exists() else None
        try:
            bundle_id = read_bundle(folder, verify=False).manifest.bundle_id
        except BundleError:
            bundle_id = None
        slots.append(Slot(name, bundle_id, problem, active is not None and active.slot == name))
    return slots
