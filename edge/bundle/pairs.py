"""The pairs of a bundle and a gallery on a device that it could serve, best first.

Rules this module keeps:
1. The active pair comes first, then the one before it, then every other pair that fits together, newest first.
2. A pair is used only if its slot holds the bundle that the pointer names, and every file that serving reads is whole.
   A damaged probe picture, which serving does not read, is only told.
3. A pair that did not stay up comes after those that did: see `edge.bundle.starts`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge.bundle.active_pointer import ActivePointer, read_active_pointer
from edge.bundle.bundle import Bundle, check_compatible, damaged_files, read_bundle
from edge.bundle.layout import SLOTS, gallery_folder, gallery_generations, slot_folder
from edge.errors import BundleError, FinesightError
from edge.gallery.generation import Gallery, read_gallery

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A bundle slot and a gallery generation."""

    slot: str
    bundle_id: str
    gallery: str  # generation
    proved: bool = field(default=False, compare=False)  # it was active on this device before

    def __str__(self) -> str:
        return f"bundle {self.bundle_id} in slot {self.slot} with gallery {self.gallery}"

    @classmethod
    def of(cls, pointer: ActivePointer) -> Pair:
        """Return the pair that a pointer names."""
        return cls(pointer.slot, pointer.bundle_id, pointer.gallery, proved=True)

    def pointer(self) -> ActivePointer:
        """Return a pointer to this pair."""
        names = {"slot": self.slot, "bundle_id": self.bundle_id, "gallery": self.gallery}
        return ActivePointer.model_validate(names)


def read_pointer_or_none(
    state_dir: Path, read: Callable[[Path], ActivePointer | None] = read_active_pointer
) -> tuple[ActivePointer | None, str | None]:
    """Return the pointer to the active (or, by another `read`, the staged) pair, and what is wrong with its file."""
    try:
        return read(state_dir), None
    except BundleError as error:
        return None, str(error)


def candidates(state_dir: Path) -> Iterator[Pair]:
    """Yield the pairs that a device could serve, best first; their files are not checked yet."""
    active, _ = read_pointer_or_none(state_dir)
    first = [Pair.of(pointer) for pointer in (active, active and active.previous) if pointer is not None]
    yield from first
    for pair in _others(state_dir):
        if pair not in first:
            yield pair


def open_slot(state_dir: Path, slot: str, bundle_id: str) -> Bundle:
    """Open the bundle in a slot, without verifying its files.

    Raises:
        BundleError: it is another one, or cannot be read.
    """
    bundle = read_bundle(slot_folder(state_dir, slot), verify=False)
    if (found := bundle.manifest.bundle_id) != bundle_id:
        raise BundleError(f"slot {slot}: found bundle {found}, expected {bundle_id}; install that bundle again")
    return bundle


def open_pair(state_dir: Path, pair: Pair) -> tuple[Bundle, Gallery, list[str]]:
    """Verify a pair and open it.

    Returns:
        the bundle, the gallery, and what is wrong with files that serving does not read.

    Raises:
        BundleError: the slot holds another bundle or is damaged, or the two do not fit together.
        GalleryError: the generation is damaged or missing.
    """
    bundle = open_slot(state_dir, pair.slot, pair.bundle_id)
    manifest = bundle.manifest
    unread = {probe.path for probe in manifest.probes} | {probe.path for probe in manifest.scene_probes}
    wrong_unread = []
    for path, wrong in damaged_files(bundle):
        if path not in unread:
            raise BundleError(wrong)
        wrong_unread.append(wrong)
    gallery = read_gallery(gallery_folder(state_dir, pair.gallery))
    check_compatible(bundle, gallery)
    return bundle, gallery, wrong_unread


def whole_pair(state_dir: Path) -> Pair | None:
    """Return the best pair whose files are whole; None if there is none."""
    for pair in candidates(state_dir):
        try:
            open_pair(state_dir, pair)
        except FinesightError as error:
            log.debug("%s: %s", pair, error)
        else:
            return pair
    return None


def _others(state_dir: Path) -> list[Pair]:
    """Return every pair of a readable slot and generation, the newest first."""
    bundles = {}
    galleries = {}
    for slot in SLOTS:
        try:
            bundles[slot] = read_bundle(slot_folder(state_dir, slot), verify=False).manifest
        except FinesightError as error:
            log.debug("%s", error)
    for generation in gallery_generations(state_dir):
        try:
            galleries[generation] = read_gallery(gallery_folder(state_dir, generation), verify=False).created_at
        except FinesightError as error:
            log.debug("%s", error)
    newest = sorted(bundles, key=lambda slot: (-bundles[slot].sequence, slot))
    return [
        Pair(slot, bundles[slot].bundle_id, generation)
        for slot in newest
        for generation in sorted(galleries, key=lambda name: galleries[name], reverse=True)
    ]
