"""Copy bundles and galleries onto a device.

Rules this module keeps:
1. What serves is never written to. An installation fills another slot, under a temporary name until it is complete.
2. Installed files are read-only.
3. An installation holds the lock of `edge.bundle.change_lock`.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, read_bundle
from edge.bundle.change_lock import changing
from edge.bundle.layout import SLOTS, gallery_folder, slot_folder
from edge.bundle.pairs import read_pointer_or_none, whole_pair
from edge.durable import copy_files, replace_folder
from edge.errors import BundleError, GalleryError
from edge.gallery.generation import INDEX_NAME, read_gallery

log = logging.getLogger(__name__)


def install_bundle(source: Path, state_dir: Path) -> str:
    """Copy a bundle into a slot that does not serve, and return the slot that holds it.

    Raises:
        BundleError: the bundle is damaged or incomplete, or the disk failed; what serves is untouched.
    """
    manifest = read_bundle(source).manifest
    manifest_bytes = (source / MANIFEST_NAME).read_bytes()
    with changing(state_dir, f"installing bundle {manifest.bundle_id}"):
        for slot in SLOTS:
            installed = slot_folder(state_dir, slot) / MANIFEST_NAME
            if (
                installed.is_file()
                and installed.read_bytes() == manifest_bytes
                and slot_problem(installed.parent) is None
            ):
                return slot
        slot = _slot_to_fill(state_dir)
        names = [entry.path for entry in manifest.files] + [MANIFEST_NAME]
        _install(f"bundle {manifest.bundle_id}", source, names, slot_folder(state_dir, slot), read_bundle)
    log.info("installed bundle %s in slot %s", manifest.bundle_id, slot)
    return slot


def _slot_to_fill(state_dir: Path) -> str:
    """Return a slot that does not serve: a damaged one, else an empty one, else one that is not active.

    To fill the damaged slot of the active pair repairs the device without an activation, if the bundle is the same.
    """
    serving = whole_pair(state_dir)
    active, _ = read_pointer_or_none(state_dir)

    def rank(slot: str) -> tuple[bool, bool, bool]:
        exists = slot_folder(state_dir, slot).exists()
        whole = exists and slot_problem(slot_folder(state_dir, slot)) is None
        return whole, active is None or slot != active.slot, not exists

    free = [slot for slot in SLOTS if serving is None or slot != serving.slot]
    return free[0] if len(free) == 1 else min(free, key=rank)


def install_gallery(source: Path, state_dir: Path) -> str:
    """Copy a gallery generation onto the device and return its id.

    Raises:
        GalleryError: the gallery is damaged or incomplete.
        BundleError: the disk failed.
    """
    gallery = read_gallery(source)
    final = gallery_folder(state_dir, gallery.generation)
    with changing(state_dir, f"installing gallery {gallery.generation}"):
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
    with map_disk_errors(f"{final}: installing {what}"):
        try:
            copy_files(source, names, incoming)
            verify(incoming)
            replace_folder(incoming, final)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


@contextmanager
def map_disk_errors(what: str) -> Iterator[None]:
    """Raise a disk error as a BundleError that names what was done."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{what}: disk error: {error.strerror or error}") from error


def slot_problem(folder: Path) -> str | None:
    """Return what is wrong with a bundle folder, every hash checked; None if nothing is."""
    try:
        read_bundle(folder)
    except BundleError as error:
        return str(error)
    return None
