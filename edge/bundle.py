"""The device's bundles: two slots, gallery generations, and the pointer that says which pair serves.

Rules this module keeps:
1. The serving slot and generation are never written to. Installing fills the other, under another name until whole.
2. Nothing serves that was not verified: size and SHA-256 of every listed file, regular files only, inside the folder.
3. A bundle and a gallery serve together only when they name the same embedding spaces, or the bundle declares the
   gallery's compatible (ADR 0006).
4. One small file switches both at once; after a power cut it is the old one or the new one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.digest import mismatch
from edge.durable import copy_files, replace_folder
from edge.errors import BundleError, FinesightError, GalleryError
from edge.gallery import INDEX_NAME, Gallery, read_gallery
from edge.gallery_store import store_name
from edge.manifest import Manifest, parse_manifest
from edge.pointer import Current, current, staged, write_current, write_staged

log = logging.getLogger(__name__)

MANIFEST_NAME = "bundle.json"
SLOTS = ("a", "b")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle folder and what it holds."""

    manifest: Manifest
    folder: Path

    def path(self, relative: str) -> Path:
        """Where a file of the manifest lies."""
        return self.folder / relative


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


def read_bundle(folder: Path, *, verify: bool = True) -> Bundle:
    """Read a bundle folder.

    Args:
        folder: of the bundle.
        verify: also check every listed file.

    Raises:
        BundleError: no manifest, a manifest this version refuses, or a file that is not the one it lists.
    """
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{folder}: found no {MANIFEST_NAME}, expected a bundle folder")
    try:
        manifest = parse_manifest(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from error
    for entry in manifest.files if verify else []:
        file = folder / entry.path
        if not file.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{file}: found a link out of the bundle folder, expected a regular file in it")
        if wrong := mismatch(file, entry.size, entry.sha256):
            raise BundleError(wrong)
    return Bundle(manifest, folder)


def check_pair(bundle: Bundle, gallery: Gallery) -> None:
    """Check that queries of the bundle may be searched among the vectors of the gallery.

    Raises:
        BundleError: a category's spaces differ, and the bundle does not declare them compatible.
    """
    for category, entry in gallery.categories.items():
        embedder = bundle.manifest.embedder_of(category)
        if embedder is None:
            log.warning("gallery %s: no embedder of the bundle serves category %s", gallery.generation, category)
        elif embedder.dim == entry.dim and embedder.searches(category, entry.space_id):
            log.warning(
                "gallery %s: category %s is of an older embedding space, which bundle %s declares compatible",
                gallery.generation,
                category,
                bundle.manifest.bundle_id,
            )
        elif (embedder.space_id, embedder.dim) != (entry.space_id, entry.dim):
            raise BundleError(
                f"category {category!r}: found gallery {gallery.generation} in embedding space {entry.space_id} "
                f"of {entry.dim} numbers, expected space {embedder.space_id} of {embedder.dim} "
                f"of bundle {bundle.manifest.bundle_id}"
            )


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(f"{what}: the disk refused: {error.strerror or error}") from error


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
    final = slot_folder(state_dir, slot)
    incoming = final.with_name(f".{slot}.incoming")
    with _mapped(f"{final}: installing bundle {manifest.bundle_id}"):
        try:
            copy_files(source, [entry.path for entry in manifest.files] + [MANIFEST_NAME], incoming)
            read_bundle(incoming)
            replace_folder(incoming, final)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
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
    incoming = final.with_name(f".{gallery.generation}.incoming")
    with _mapped(f"{final}: installing gallery {gallery.generation}"):
        try:
            copy_files(source, [store_name(category) for category in gallery.categories] + [INDEX_NAME], incoming)
            read_gallery(incoming)
            replace_folder(incoming, final)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    log.info("installed gallery %s", gallery.generation)
    return gallery.generation


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
    bundle, gallery = read_pair(state_dir, slot, generation)
    pointer = Current.model_validate(
        {"slot": slot, "bundle_id": bundle.manifest.bundle_id, "gallery": gallery.generation}
    )
    with _mapped(f"{state_dir}: staging bundle {pointer.bundle_id}"):
        write_staged(state_dir, pointer)
    return pointer


def _slot_of(state_dir: Path, name: str) -> str:
    if name in SLOTS:
        return name
    held = {slot.name: slot.bundle_id for slot in slots(state_dir)}
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
    bundle, gallery = read_pair(state_dir, slot, generation)
    before = serving
    if serving and (serving.slot, serving.gallery) == (slot, generation):
        before = serving.previous
    found = {"slot": slot, "bundle_id": bundle.manifest.bundle_id, "gallery": gallery.generation}
    pointer = Current.model_validate(found | {"previous": before and before.model_copy(update={"previous": None})})
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


def slots(state_dir: Path) -> list[Slot]:
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
