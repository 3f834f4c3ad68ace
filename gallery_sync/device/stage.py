"""Installs a fetched release beside what serves, and stages it.

Rules this module keeps:
1. What serves never changes: a bundle goes into the slot that is free, a gallery into a folder of its own.
2. A gallery that was verified in the cache is renamed into place, on the same file system: its bytes are read and
   written once. A bundle is copied, and the copy is verified.
3. The pointer is written last. A pair that is active already gets the name of the release, and nothing is staged.
4. Galleries that no pointer names are removed, so that no deleted item stays in one.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass
from pathlib import Path

from edge.bundle.active_pointer import (
    ActivePointer,
    ReleaseName,
    read_staged_pointer,
    rename_active_pointer,
    write_staged_pointer,
)
from edge.bundle.bundle import MANIFEST_NAME, Bundle
from edge.bundle.change_lock import changing
from edge.bundle.install import install_bundle, install_gallery, map_disk_errors
from edge.bundle.layout import SLOTS, STAGED, gallery_folder, gallery_generations, slot_folder
from edge.bundle.pairs import Pair, read_pointer_or_none
from edge.durable import fsync_tree, make_folder, replace_folder
from edge.errors import BundleError, GalleryError
from edge.gallery.generation import Gallery, read_gallery
from gallery_sync.device.wanted import Wanted
from gallery_sync.fresh_files import remove

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A release on this device, verified as a whole."""

    wanted: Wanted
    bundle: Bundle  # in a slot, or in the cache
    gallery: Gallery  # installed, or in the cache


@dataclass(frozen=True, slots=True)
class Staged:
    """A release that is installed."""

    pointer: ActivePointer
    serving: bool  # it is active already; else it is staged


def stage(fetched: Fetched, state_dir: Path) -> Staged:
    """Install and stage a release. What is installed already is not written again.

    Raises:
        BundleError: another change does not end, or the disk failed.
        GalleryError: the gallery changed since it was verified.
    """
    release = fetched.wanted.release
    name = ReleaseName(line=release.line, sequence=release.sequence, gallery_sequence=release.gallery_sequence)
    with changing(state_dir, f"installing {fetched.wanted.what}"):
        generation = take_gallery(fetched.gallery, state_dir)
        slot = _slot_of(fetched, state_dir) or install_bundle(fetched.bundle.folder, state_dir)
        with map_disk_errors(f"{state_dir}: staging {fetched.wanted.what}"):
            staged = _point(state_dir, Pair(slot, fetched.wanted.manifest.bundle_id, generation), name)
            prune_galleries(state_dir)
    log.info("%s is ready: bundle %s, gallery %s", fetched.wanted.what, staged.pointer.bundle_id, generation)
    return staged


def _slot_of(fetched: Fetched, state_dir: Path) -> str | None:
    """Return the slot that a bundle was verified in, if it still holds the bundle."""
    for slot in SLOTS:
        folder = slot_folder(state_dir, slot)
        if fetched.bundle.folder == folder:
            try:
                same = (folder / MANIFEST_NAME).read_bytes() == fetched.wanted.manifest_json
            except OSError:
                same = False
            if not same:
                raise BundleError(f"slot {slot}: was filled with another bundle meanwhile; pull again")
            return slot
    return None


def take_gallery(gallery: Gallery, state_dir: Path) -> str:
    """Move a verified gallery from the cache into its place, and return its generation.

    Raises:
        BundleError: the disk failed.
        GalleryError: it is gone, or the index is another one.
    """
    final = gallery_folder(state_dir, gallery.generation)
    if gallery.folder == final:
        read_gallery(final, verify=False)
        return gallery.generation
    if final.exists():
        try:
            return read_gallery(final).generation  # what may serve stays where it is
        except GalleryError as error:
            log.warning("%s; it is installed again", error)
    with map_disk_errors(f"{final}: installing gallery {gallery.generation}"):
        try:
            _rename(gallery, final)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return install_gallery(gallery.folder, state_dir)
    log.info("installed gallery %s", gallery.generation)
    return gallery.generation


def _rename(gallery: Gallery, final: Path) -> None:
    if read_gallery(gallery.folder, verify=False).generation != gallery.generation:
        raise GalleryError(f"{gallery.folder}: changed since it was verified; pull again")
    make_folder(final.parent)
    for path in gallery.folder.iterdir():
        path.chmod(0o444)
    gallery.folder.chmod(0o755)
    fsync_tree(gallery.folder)
    replace_folder(gallery.folder, final)


def _point(state_dir: Path, pair: Pair, name: ReleaseName) -> Staged:
    """Stage a pair, or name the release of the active one; write only what differs."""
    active, _ = read_pointer_or_none(state_dir)
    staged, wrong = read_pointer_or_none(state_dir, read_staged_pointer)
    if active is not None and Pair.of(active) == pair:
        if active.release != name:
            active = active.model_copy(update={"release": name})
            rename_active_pointer(state_dir, active)
        if staged is not None or wrong:
            remove(state_dir / STAGED)
        return Staged(active, serving=True)
    pointer = pair.pointer().model_copy(update={"release": name})
    if staged != pointer:
        write_staged_pointer(state_dir, pointer)
    return Staged(pointer, serving=False)


def prune_galleries(state_dir: Path) -> list[str]:
    """Remove the galleries that no pointer names, and return them; none if a pointer cannot be read.

    Raises:
        OSError: one cannot be removed.
    """
    active, wrong = read_pointer_or_none(state_dir)
    staged, also_wrong = read_pointer_or_none(state_dir, read_staged_pointer)
    if wrong or also_wrong or (active is None and staged is None):
        return []
    named = {one.gallery for one in (active, active and active.previous, staged) if one is not None}
    removed = [generation for generation in gallery_generations(state_dir) if generation not in named]
    for generation in removed:
        remove(gallery_folder(state_dir, generation))
    return removed
