"""Applies urgent deletions at once to every gallery on the device: active, previous and staged.

Rules this module keeps:
1. It waits for no release and no window. New generations are made beside the old ones; the staged pointer is written
   first, then one write of the active pointer switches the active and the previous gallery together.
2. Then the old generations are removed, and every other one that no pointer names, so that no roll-back brings an item
   back. Lists and graphs of galleries, which hold copies of vectors, are removed from the cache, and so are downloads.
3. Interrupted at any point, the next run goes on; what is done already is not done again.
4. A previous gallery that is damaged, so that nothing can be erased in it, is no longer a place to go back to.
5. A store of another embedding space or history than those of the log is erased by the ids of the items. The latter is
   counted.
6. A log that takes away more than a share of a category is refused, unless the signers of the bundle allow it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edge.bundle.active_pointer import (
    ActivePointer,
    read_staged_pointer,
    rename_active_pointer,
    write_staged_pointer,
)
from edge.bundle.change_lock import changing
from edge.bundle.layout import gallery_folder
from edge.bundle.pairs import read_pointer_or_none
from edge.durable import file_mismatch, make_folder
from edge.errors import GalleryError, SyncError
from edge.gallery.generation import Gallery, read_gallery, write_gallery_index
from edge.gallery.index_cache import CACHE_NAME
from edge.gallery.store import CategoryEntry
from edge.types import Counts
from gallery_sync.device.deliveries import Objects
from gallery_sync.device.erased import Erasure, Receipt, generations_of, read_record, write_record
from gallery_sync.device.fetch import GALLERY_NAME, cache_folder
from gallery_sync.device.galleries import Cap, of_disk
from gallery_sync.device.stage import prune_galleries, take_gallery
from gallery_sync.formats.documents import GalleryLog, Segment
from gallery_sync.fresh_files import copy_new, make_private_folder, remove
from gallery_sync.gallery_log.apply import Applied, erase, erase_items, read_state
from gallery_sync.gallery_log.records import Delete
from gallery_sync.gallery_log.replay import RootError
from gallery_sync.gallery_log.segment_file import read_segment
from gallery_sync.transport.errors import ReleaseError, StorageError

log = logging.getLogger(__name__)

_MAKING_NAME = "erasing"  # in the cache


@dataclass(slots=True)
class _Found:
    """What a run did so far."""

    items: dict[str, set[str]] = field(default_factory=dict)  # ids by category
    sequences: dict[str, int] = field(default_factory=dict)
    generations: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, category: str, sequence: int, generation: str, applied: Applied) -> None:
        self.items.setdefault(category, set()).update(applied.erased)
        self.sequences[category] = max(sequence, self.sequences.get(category, 0))
        if applied.erased:
            self.generations.setdefault(category, []).append(generation)

    def result(self, now: datetime) -> Erasure:
        receipts = [
            Receipt(category, sequence, len(self.items[category]), tuple(self.generations.get(category, ())), _iso(now))
            for category, sequence in sorted(self.sequences.items())
        ]
        return Erasure(tuple(receipts), tuple(self.problems))


@dataclass(frozen=True, slots=True)
class Eraser:
    """Erases on one device.

    Args:
        state_dir: of the device.
        objects: downloads segments.
        now: the time, UTC.
        counts: counts erased items and refusals.
        cap: how much may be erased at once.
    """

    state_dir: Path
    objects: Objects
    now: Callable[[], datetime]
    counts: Counts
    cap: Cap = Cap()  # noqa: RUF009 - frozen

    def run(self, logs: Mapping[str, GalleryLog], big_change_to: int = 0) -> Erasure:
        """Apply every urgent deletion that a gallery on the device does not have yet.

        Args:
            logs: of the categories on the device, from signed metadata that was refreshed.
            big_change_to: gallery sequence up to which the signers of the bundle allow large changes.

        Raises:
            BundleError: another change does not end.
            SyncError: the network failed.
            OSError: the disk failed.
        """
        pending = {category: one for category, one in logs.items() if _urgent(one)}
        if not pending:
            return Erasure()
        with changing(self.state_dir, "erasing deleted items"):
            found = _Found()
            make_private_folder(cache_folder(self.state_dir))
            try:
                self._erase(pending, big_change_to, found)
            finally:
                remove(cache_folder(self.state_dir) / _MAKING_NAME)
        for category, items in found.items.items():
            log.info("category %.80r: %d items are erased", category, len(items))
            self.counts.add("items_erased", len(items))
        for problem in found.problems:
            log.error("%s", problem)
            self.counts.add("erasures_refused")
        return found.result(self.now())

    def _erase(self, logs: Mapping[str, GalleryLog], big_change_to: int, found: _Found) -> None:
        active, _ = read_pointer_or_none(self.state_dir)
        staged, _ = read_pointer_or_none(self.state_dir, read_staged_pointer)
        record = read_record(self.state_dir)
        made: dict[str, str | None] = {}  # the new generation by the old one; None: it cannot be used any more
        known: dict[str, dict[str, int]] = {}
        for generation in generations_of(active, staged):
            made[generation], done = self._erase_generation(
                generation, logs, record.generations.get(generation, {}), big_change_to, found
            )
            known[made[generation] or generation] = done
        changed = any(new != old for old, new in made.items())
        if changed:
            write_record(self.state_dir, record.generations, unfinished=True)
            self._remove_copies(logs)
            self._switch(active, staged, made)
        removed = prune_galleries(self.state_dir)
        if changed or removed or record.unfinished:
            self._remove_copies(logs)  # also what a device wrote that still served the old gallery
        if changed or record.unfinished or record.generations != known:
            write_record(self.state_dir, known)

    def _erase_generation(
        self, generation: str, logs: Mapping[str, GalleryLog], known: dict[str, int], big_change_to: int, found: _Found
    ) -> tuple[str | None, dict[str, int]]:
        """Return the generation that replaces one, and how far its deletions are applied; None: it is damaged."""
        folder = cache_folder(self.state_dir) / _MAKING_NAME / generation
        done = dict(known)
        try:
            gallery = read_gallery(gallery_folder(self.state_dir, generation), verify=False)
            erased = {}
            for category, entry in gallery.categories.items():
                if category not in logs:
                    continue
                try:
                    applied = self._erase_store(gallery, category, entry, logs[category], done, folder)
                except ReleaseError as error:
                    found.problems.append(f"gallery {generation}: category {category[:80]!r}: {error}")
                    continue
                if applied is not None:
                    erased[category] = applied
            self._judge(gallery, erased, logs, big_change_to, found, done)
            if not any(applied.erased for applied in erased.values()):
                return generation, done
            return self._replace(gallery, {name for name, applied in erased.items() if applied.erased}, folder), done
        except GalleryError as error:
            found.problems.append(f"gallery {generation}: {error}")
            return None, {}

    def _erase_store(
        self,
        gallery: Gallery,
        category: str,
        entry: CategoryEntry,
        signed: GalleryLog,
        done: dict[str, int],
        folder: Path,
    ) -> Applied | None:
        """Write the store of a category without what is deleted; None: it lacks no deletion."""
        path, newest = gallery.path(category), max(one.sequence for one in _urgent(signed))
        state = None
        with suppress(GalleryError):
            state = read_state(path)
        after = max(state.sequence, state.erased_to) if state else 0
        if max(done.get(category, 0), after) >= newest:
            return None
        if wrong := file_mismatch(path, entry.size, entry.sha256):
            raise GalleryError(wrong)
        make_folder(folder)
        data = self._segments(signed)
        try:
            return self._erase_in(path, signed, entry, folder / path.name, data, after)
        except SyncError as error:
            kind = StorageError if of_disk(error) else ReleaseError
            raise kind(str(error)) from error

    def _erase_in(
        self, path: Path, signed: GalleryLog, entry: CategoryEntry, out: Path, data: Mapping[str, bytes], after: int
    ) -> Applied:
        """Erase by the log of the store's embedding space or, where that is gone or is another one, by ids alone."""
        if space := signed.space(entry.space_id):
            try:
                applied = erase(path, space, out, lambda ref: data[ref.sha256], category=signed.category)
                if applied is not None:
                    return applied
            except RootError as error:
                self.counts.add("erasure_fallbacks")
                log.warning("%s; its items are erased all the same", error)
        newest = max(one.sequence for one in _urgent(signed))
        return erase_items(path, _deleted_ids(signed, data, after), newest, out)

    def _segments(self, signed: GalleryLog) -> dict[str, bytes]:
        """Return the urgent segments of all embedding spaces by hash.

        Raises:
            ReleaseError: one is damaged.
            SyncError: the network or the disk failed.
        """
        name = f"urgent deletions of {signed.category[:80]!r}"
        return {
            one.object.sha256: self.objects.get_object(one.object, name, urgent=True).read_bytes()
            for one in _urgent(signed)
        }

    def _judge(
        self,
        gallery: Gallery,
        erased: dict[str, Applied],
        logs: Mapping[str, GalleryLog],
        big_change_to: int,
        found: _Found,
        done: dict[str, int],
    ) -> None:
        """Leave out what takes away too much, and note the rest."""
        for category, applied in list(erased.items()):
            newest = max(one.sequence for one in _urgent(logs[category]))
            items = gallery.categories[category].items
            if newest > big_change_to and not self.cap.allows(items, len(applied.erased)):
                found.problems.append(
                    f"gallery {gallery.generation}: category {category[:80]!r}: {len(applied.erased)} of {items} items "
                    f"would be erased, and this device allows {self.cap.share:.0%} at once; if that is on purpose, "
                    "publish a bundle that allows it"
                )
                del erased[category]
                continue
            found.add(category, newest, gallery.generation, applied)
            done[category] = newest

    def _replace(self, gallery: Gallery, erased: set[str], folder: Path) -> str:
        """Make a whole generation of the erased stores and copies of the others, and install it."""
        for category, entry in gallery.categories.items():
            source = gallery.path(category)
            target = folder / source.name
            if category not in erased:
                remove(target)
                copy_new(source, target)
                if wrong := file_mismatch(target, entry.size, entry.sha256):
                    raise GalleryError(wrong)
        return take_gallery(write_gallery_index(folder, gallery.created_at), self.state_dir)

    def _switch(
        self, active: ActivePointer | None, staged: ActivePointer | None, made: Mapping[str, str | None]
    ) -> None:
        if staged is not None and (new := made[staged.gallery]) not in (None, staged.gallery):
            write_staged_pointer(self.state_dir, staged.model_copy(update={"gallery": new}))
        if active is None:
            return
        previous = active.previous
        if previous is not None:
            new = made[previous.gallery]
            previous = previous.model_copy(update={"gallery": new}) if new else None
        changed = active.model_copy(
            update={"gallery": made[active.gallery] or active.gallery, "previous": previous},
        )
        if changed != active:
            rename_active_pointer(self.state_dir, changed)

    def _remove_copies(self, logs: Mapping[str, GalleryLog]) -> None:
        """Remove what else may hold erased vectors: lists and graphs, downloads, and a gallery that is being made."""
        remove(self.state_dir / "cache" / CACHE_NAME)
        cache = cache_folder(self.state_dir)
        remove(cache / GALLERY_NAME)
        for signed in logs.values():
            for space in signed.spaces:
                objects = [base.object for base in space.bases] + [one.object for one in space.segments]
                for ref in objects:
                    for name in (ref.sha256, f"{ref.sha256}.part"):
                        remove(cache / name)


def _urgent(signed: GalleryLog) -> list[Segment]:
    return [segment for space in signed.spaces for segment in space.segments if segment.urgent]


def _deleted_ids(signed: GalleryLog, data: Mapping[str, bytes], after: int) -> set[str]:
    """Return the ids that urgent segments later than a state delete: ids are the same in all embedding spaces.

    Raises:
        SyncError: a segment is damaged.
    """
    return {
        record.item_id
        for one in _urgent(signed)
        if one.sequence > after
        for record in read_segment(data[one.object.sha256], f"segment {one.sequence}").records
        if isinstance(record, Delete)
    }


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
