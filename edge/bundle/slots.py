"""The device's two bundle slots and its gallery generations, and the pointer that says which pair serves.

Rules this module keeps:
1. The serving slot and generation are never written to. Installing fills the other, under another name until whole.
2. Nothing serves that was not verified.
3. One small file switches both at once; after a power cut it is the old one or the new one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.bundle.active_pointer import Current, current, staged, write_current, write_staged
from edge.bundle.bundle import MANIFEST_NAME, Bundle, check_pair, read_bundle
from edge.durable import copy_files, replace_folder
from edge.errors import BundleError, FinesightError, GalleryError
from edge.gallery.generation import INDEX_NAME, Gallery, read_gallery
from edge.gallery.store import store_name

log = logging.getLogger(__name__)

SLOTS = ("a", "b")


@dataclass(frozen=True, slots=True)
class Slot:
    """What lies in a slot."""

    name: str
    bundle_id: str | None  # None: empty or unreadable
    problem: str | None  # None: empty or whole
    serving: bool


def slot_folder(state_dir: Path, slot: str) -> Path:
    """The folder of a slot."""
    return state_dir / "slots" / slot


def gallery_folder(state_dir: Path, generation: str) -> Path:
    """The folder of a gallery generation."""
    return state_dir / "gallery" / generation


def install_bundle(source: Path, state_dir: Path) -> str:
    """Copy a bundle into the slot that does not serve, and say which slot holds it.

    Raises:
        BundleError: the bundle is not whole, or the disk refused; the serving slot is untouched.
    """
    manifest = read_bundle(source).manifest
    serving = current(state_dir)
    same = (source / MANIFEST_NAME).read_bytes()
    for slot in SLOTS:
        held = slot_folder(state_dir, slot) / MANIFEST_NAME
        if held.is_file() and held.read_bytes() == same and _problem(held.parent) is None:
            return slot
    slot = "b" if serving and serving.slot == "a" else "a"
    names = [entry.path for entry in manifest.files] + [MANIFEST_NAME]
    _install(f"bundle {manifest.bundle_id}", source, names, slot_folder(state_dir, slot), read_bundle)
    log.info("installed bundle %s in slot %s", manifest.bundle_id, slot)
    return slot


def install_gallery(source: Path, state_dir: Path) -> str:
    """Copy a gallery generation beside the others, and say its id.

    Raises:
        GalleryError: the gallery is not whole.
        BundleError: the disk refused.
    """
    gallery = read_gallery(source)
    final = gallery_folder(state_dir, gallery.generation)
    try:
        read_gallery(final)
    except GalleryError:
        log.debug("%s is not there or not whole", final)
    else:
        return gallery.generation
    names = [store_name(category) for category in gallery.categories] + [INDEX_NAME]
    _install(f"gallery {gallery.generation}", source, names, final, read_gallery)
    log.info("installed gallery %s", gallery.generation)
    return gallery.generation


def _install(what: str, source: Path, names: list[str], final: Path, verify: Callable[[Path], object]) -> None:
    """Copy the files beside their folder, verify the copies, and put them in its place."""
    incoming = final.with_name(f".{final.name}.incoming")
    with _mapped(f"{final}: installing {what}"):
        try:
            copy_files(source, names, incoming)
            verify(incoming)
            replace_folder(incoming, final)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"{what}: the disk refused: {error.strerror or error}") from error


def read_pair(state_dir: Path, slot: str, generation: str) -> tuple[Bundle, Gallery]:
    """Read and verify a slot and a generation, together.

    Raises:
        BundleError: the slot is damaged, or the two live in different embedding spaces.
        GalleryError: the generation is damaged or missing.
    """
    bundle, gallery = read_bundle(slot_folder(state_dir, slot)), read_gallery(gallery_folder(state_dir, generation))
    check_pair(bundle, gallery)
    return bundle, gallery


def read_serving(state_dir: Path) -> tuple[Bundle, Gallery]:
    """Read and verify the pair that serves.

    Raises:
        BundleError: nothing was activated, or the pair is damaged; the message names the previous one.
    """
    serving = current(state_dir)
    if serving is None:
        raise BundleError(f"{state_dir}: found no activated bundle, expected a pointer file 'current'")
    try:
        return read_pair(state_dir, serving.slot, serving.gallery)
    except FinesightError as error:
        before = serving.previous
        raise BundleError(
            f"bundle {serving.bundle_id} in slot {serving.slot} cannot serve: {error}; "
            + (f"previous is bundle {before.bundle_id} in slot {before.slot}" if before else "there is no previous")
        ) from error


def stage(state_dir: Path, slot: str, generation: str) -> Current:
    """Note a verified pair as the one that `activate` switches to.

    Raises:
        BundleError: the pair is damaged, or the disk refused.
        GalleryError: the generation is damaged or missing.
    """
    pointer = _verified(state_dir, slot, generation)
    with _mapped(f"{state_dir}: staging bundle {pointer.bundle_id}"):
        write_staged(state_dir, pointer)
    return pointer


def _verified(state_dir: Path, slot: str, generation: str) -> Current:
    bundle, gallery = read_pair(state_dir, slot, generation)
    found = {"slot": slot, "bundle_id": bundle.manifest.bundle_id, "gallery": gallery.generation}
    return Current.model_validate(found)


def _slot_of(state_dir: Path, name: str) -> str:
    if name in SLOTS:
        return name
    held = {slot.name: slot.bundle_id for slot in read_slots(state_dir)}
    for slot, bundle_id in held.items():
        if bundle_id == name:
            return slot
    raise BundleError(f"{state_dir}: found bundles {held}, expected {name!r} among them")


def _check_still_held(state_dir: Path, pointer: Current) -> None:
    held = read_bundle(slot_folder(state_dir, pointer.slot), verify=False).manifest.bundle_id
    if held != pointer.bundle_id:
        raise BundleError(f"slot {pointer.slot}: found bundle {held}, expected {pointer.bundle_id}")


def activate(state_dir: Path, slot: str | None = None, generation: str | None = None) -> Current:
    """Switch to a pair, after verifying it.

    Args:
        state_dir: of the device.
        slot: a slot or a bundle id; None: the staged one, else the one that serves.
        generation: of the gallery; None likewise.

    Raises:
        BundleError: nothing to switch to, a damaged slot, different embedding spaces, or the disk refused.
        GalleryError: the generation is damaged or missing.
    """
    if slot and generation:  # all is said: even a damaged pointer is no obstacle
        return _switch(state_dir, _slot_of(state_dir, slot), generation, _current_if_readable(state_dir))
    serving = current(state_dir)
    waiting = staged(state_dir) or serving
    if waiting is None:
        raise BundleError(f"{state_dir}: found nothing staged, expected a slot and a gallery generation")
    if not slot:
        _check_still_held(state_dir, waiting)
    return _switch(
        state_dir, _slot_of(state_dir, slot) if slot else waiting.slot, generation or waiting.gallery, serving
    )


def rollback(state_dir: Path) -> Current:
    """Switch back to the pair before this one, after verifying it.

    Raises:
        BundleError: there is none, its slot was filled anew, or it is damaged.
        GalleryError: its generation is damaged or missing.
    """
    serving = current(state_dir)
    if serving is None or serving.previous is None:
        raise BundleError(f"{state_dir}: found no previous bundle, expected one to roll back to")
    _check_still_held(state_dir, serving.previous)
    return _switch(state_dir, serving.previous.slot, serving.previous.gallery, serving)


def _current_if_readable(state_dir: Path) -> Current | None:
    try:
        return current(state_dir)
    except BundleError as error:
        log.warning("%s", error)
        return None


def _switch(state_dir: Path, slot: str, generation: str, serving: Current | None) -> Current:
    pointer = _verified(state_dir, slot, generation)
    before = serving
    if serving and (serving.slot, serving.gallery) == (slot, generation):
        before = serving.previous
    if before:
        pointer = pointer.model_copy(update={"previous": before.model_copy(update={"previous": None})})
    with _mapped(f"{state_dir}: switching to bundle {pointer.bundle_id}"):
        write_current(state_dir, pointer)
    log.info("serving bundle %s of slot %s with gallery %s", pointer.bundle_id, slot, generation)
    try:
        _prune(state_dir, pointer)
    except OSError as error:
        log.warning("%s: old galleries stay: %s", state_dir, error)
    return pointer


def _prune(state_dir: Path, pointer: Current) -> None:
    kept = {pointer.gallery, pointer.previous.gallery if pointer.previous else pointer.gallery}
    for folder in (state_dir / "gallery").iterdir():
        if folder.name not in kept and not folder.name.startswith("."):  # those are just being installed
            shutil.rmtree(folder)


def _problem(folder: Path) -> str | None:
    try:
        read_bundle(folder)
    except BundleError as error:
        return str(error)
    return None


def read_slots(state_dir: Path) -> list[Slot]:
    """Say what lies in each slot, verified."""
    serving = _current_if_readable(state_dir)
    found = []
    for name in SLOTS:
        folder = slot_folder(state_dir, name)
        problem = _problem(folder) if folder.exists() else None
        try:
            bundle_id = read_bundle(folder, verify=False).manifest.bundle_id
        except BundleError:
            bundle_id = None
        found.append(Slot(name, bundle_id, problem, serving is not None and serving.slot == name))
    return found
