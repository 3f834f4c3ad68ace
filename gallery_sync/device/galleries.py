"""Makes the gallery of a release in the cache, by the shortest path from the stores that the device has.

Rules this module keeps:
1. Of the stores on the device, the one with the fewest bytes to download is taken, and only if its hash is right.
2. Where segments do not lead to the signed live root, the newest base is taken, then older ones. Each of these
   fallbacks is counted.
3. A store that serves is read and copied, never written or linked.
4. A step that deletes or changes more than a share of what serves is refused, unless the signers of the bundle allow
   it: whoever has the gallery's key alone cannot empty or replace a gallery.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge.bundle.layout import gallery_folder, gallery_generations
from edge.durable import file_mismatch
from edge.errors import FinesightError, GalleryError, SyncError
from edge.file_names import distinct_file_names
from edge.gallery.generation import Gallery, read_gallery, write_gallery_index
from edge.gallery.store import SUFFIX, CategoryEntry
from edge.gallery.store_file import open_store
from edge.types import Counts
from gallery_sync.device.deliveries import Objects, is_missing
from gallery_sync.device.resources import gallery_memory
from gallery_sync.device.wanted import RefusedError, Wanted
from gallery_sync.formats.documents import SpaceLog
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.fresh_files import copy_new, remove
from gallery_sync.gallery_log.apply import Applied, apply_steps, read_state
from gallery_sync.gallery_log.records import digest
from gallery_sync.gallery_log.states import Steps, path_to
from gallery_sync.gallery_log.store_records import read_records
from gallery_sync.transport.errors import BackOffError, BudgetError, ReleaseError, StorageError, TransferError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cap:
    """How much of a category may be deleted or changed at once."""

    share: float = 0.5  # of the items that serve
    from_items: int = 100  # smaller categories may change as they like

    def allows(self, items: int, changed: int) -> bool:
        """Return whether so many of so many items may be deleted or changed."""
        return items < self.from_items or changed <= self.share * items


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A store on the device."""

    path: Path
    entry: CategoryEntry
    generation: str
    sequence: int | None  # of its state in the gallery log; None: it came from no log
    erased_to: int


@dataclass(frozen=True, slots=True)
class Change:
    """How the store of one category comes to be."""

    category: str
    space: SpaceLog
    source: LocalStore | None  # to begin with; None: a base
    steps: Steps
    serving: LocalStore | None  # what the device searches now, in any space

    @property
    def disk_bytes(self) -> int:
        """What is written: downloads, and the store."""
        first = self.source.entry.size if self.source else self.steps.base.object.size if self.steps.base else 0
        return self.steps.size + first + sum(segment.object.size for segment in self.steps.segments)

    @property
    def memory_bytes(self) -> int:
        """What the category needs in memory when it is searched, and its segments when they are applied; 0: no more."""
        if not self.steps.are_needed:
            return 0
        first = self.source.entry if self.source else self.steps.base
        items, vectors = (first.items, first.vectors) if first else (0, 0)
        added = sum(segment.upserts for segment in self.steps.segments)
        dim = sum(head.dim for head in self.space.heads)
        rows = max(1, round(vectors / max(1, items)))
        segments = sum(segment.object.size for segment in (*self.steps.segments, *self.steps.urgent))
        return gallery_memory(items + added, vectors + rows * added, dim) + segments


def local_stores(state_dir: Path, first: str | None) -> dict[str, list[LocalStore]]:
    """Return the stores on the device by category, those of the generation that serves first.

    Args:
        state_dir: of the device.
        first: the generation that serves.
    """
    found: dict[str, list[LocalStore]] = {}
    for generation in sorted(gallery_generations(state_dir), key=lambda name: name != first):
        with suppress(FinesightError, OSError):
            gallery = read_gallery(gallery_folder(state_dir, generation), verify=False)
            for category, entry in gallery.categories.items():
                found.setdefault(category, []).append(_local_store(gallery, category, entry))
    return found


def _local_store(gallery: Gallery, category: str, entry: CategoryEntry) -> LocalStore:
    path = gallery.path(category)
    state = None
    with suppress(FinesightError):
        state = read_state(path)
    sequence, erased_to = (state.sequence, state.erased_to) if state else (None, 0)
    return LocalStore(path, entry, gallery.generation, sequence, erased_to)


def plan_changes(wanted: Wanted, local: dict[str, list[LocalStore]], serving: str | None) -> list[Change]:
    """Return how each category of a release comes to be, with the fewest bytes.

    Args:
        wanted: the release.
        local: the stores on the device, by category.
        serving: the generation that serves; None: nothing does.

    Raises:
        RefusedError: a gallery log does not lead to the release.
    """
    changes = []
    for category, space in wanted.spaces().items():
        stores = local.get(category, [])
        active = next((store for store in stores if store.generation == serving), None)
        try:
            ways = [*_local_ways(wanted, space, stores), (None, path_to(space, None, wanted.release.gallery_sequence))]
        except SyncError as error:
            raise RefusedError("gallery", f"{wanted.what}: category {category[:80]!r}: {error}") from error
        source, steps = min(ways, key=lambda way: way[1].size)
        changes.append(Change(category, space, source, steps, active))
    return changes


def _local_ways(wanted: Wanted, space: SpaceLog, stores: list[LocalStore]) -> Iterator[tuple[LocalStore | None, Steps]]:
    for store in stores:
        if store.sequence is not None and store.entry.space_id == space.space_id:
            steps = path_to(
                *(space, store.sequence, wanted.release.gallery_sequence, store.erased_to),
                live_root=store.entry.live_root,
            )
            if steps.base is None:
                yield store, steps


def same_gallery(changes: list[Change], state_dir: Path) -> Gallery | None:
    """Return the installed gallery that is the wanted one already, if there is one and it is whole."""
    generations = {change.source.generation if change.source else None for change in changes}
    if any(change.steps.are_needed for change in changes) or len(generations) != 1:
        return None
    generation = generations.pop()
    try:
        gallery = read_gallery(gallery_folder(state_dir, generation)) if generation else None
    except GalleryError as error:
        log.debug("%s", error)
        return None
    wanted = {change.category for change in changes}
    return gallery if gallery is not None and set(gallery.categories) == wanted else None


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes stores.

    Args:
        objects: downloads segments and bases.
        counts: counts how stores are made, and fallbacks.
        cap: limit of a change; None: there is none.
        may_fetch_whole: whether the byte policy allows so many bytes where segments failed.
    """

    objects: Objects
    counts: Counts
    cap: Cap | None
    may_fetch_whole: Callable[[int], bool]

    def make(self, folder: Path, changes: list[Change], created_at: str) -> Gallery:
        """Make a gallery generation in a folder, which is removed first.

        Raises:
            RefusedError: a change is too large.
            ReleaseError: what is signed does not give a gallery.
            SyncError: the network or the disk failed.
            OSError: the disk failed.
        """
        remove(folder)
        folder.mkdir(parents=True)
        names = distinct_file_names(change.category for change in changes)
        for change in changes:
            self._make_store(change, folder / f"{names[change.category]}{SUFFIX}")
        return write_gallery_index(folder, created_at)

    def _make_store(self, change: Change, out: Path) -> None:
        failure = ""
        for kind, source, steps in _attempts(change):
            if failure and not self.may_fetch_whole(steps.size):
                raise BudgetError(
                    f"category {change.category[:80]!r}: {failure}; the byte policy does not allow a base of "
                    f"{steps.size} bytes now; allow more bytes"
                )
            made = self._try(kind, change, source, steps, out)
            if not isinstance(made, str):
                self.counts.add("stores_made", way=kind)
                self._check_change(change, source, made, out)
                return
            failure = made
            self.counts.add("gallery_fallbacks", way=kind)
            log.warning("category %.80r: the way by %s failed: %s", change.category, kind, failure)
        raise ReleaseError(f"category {change.category[:80]!r}: {failure}")

    def _try(
        self, kind: str, change: Change, source: LocalStore | None, steps: Steps, out: Path
    ) -> Applied | str | None:
        """Return what changed (None: nothing), or why this way fails."""
        remove(out)
        if source is not None and (wrong := file_mismatch(source.path, source.entry.size, source.entry.sha256)):
            return wrong
        if source is not None and not steps.are_needed:
            copy_new(source.path, out)
            return file_mismatch(out, source.entry.size, source.entry.sha256)
        try:
            paths = {ref.sha256: self._get(ref, change.category, kind) for ref in dict.fromkeys(steps.objects)}
        except (TransferError, BackOffError) as error:
            if not is_missing(error):
                raise
            return str(error)
        except ReleaseError as error:
            return str(error)
        first = source.path if source else paths[steps.base.object.sha256] if steps.base else out
        try:
            return apply_steps(
                *(first, change.space, steps, out, lambda ref: paths[ref.sha256].read_bytes()), category=change.category
            )
        except (SyncError, GalleryError) as error:
            if of_disk(error):
                raise StorageError(str(error)) from error
            return str(error)

    def _get(self, ref: ObjectRef, category: str, kind: str) -> Path:
        return self.objects.get_object(ref, f"gallery of {category[:80]!r} ({kind})")

    def _check_change(self, change: Change, source: LocalStore | None, made: Applied | None, out: Path) -> None:
        """Refuse a change that is too large for one step."""
        serving = change.serving
        if self.cap is None or serving is None or serving.entry.items < self.cap.from_items:
            return
        if source is not None and source.generation == serving.generation:
            changed = made.replaced + made.deleted + len(made.erased) if made else 0
        else:
            changed = changed_items(serving, out, change.space.space_id)
        if not self.cap.allows(serving.entry.items, changed):
            raise RefusedError(
                "change",
                f"category {change.category[:80]!r}: {changed} of {serving.entry.items} items would be deleted or "
                f"changed, and this device allows {self.cap.share:.0%} at once; if that is on purpose, publish a "
                "bundle that allows it",
            )


def of_disk(error: Exception) -> bool:
    """Return whether the disk is the cause of an error, so that another way to the same cannot help."""
    cause = error.__cause__
    return isinstance(cause, OSError) or (isinstance(cause, sqlite3.OperationalError) and "disk" in str(cause))


def _attempts(change: Change) -> Iterator[tuple[str, LocalStore | None, Steps]]:
    """Yield the ways to a store: the planned one, then by each base, the newest first."""
    if change.source is not None:
        yield "segments" if change.steps.are_needed else "copy", change.source, change.steps
    bases = change.space.bases
    kind = "base"
    for count in range(len(bases), 0, -1):
        older = change.space.model_copy(update={"bases": bases[:count]})
        with suppress(SyncError):
            steps = path_to(older, None, change.steps.sequence)
            if steps.base == bases[count - 1]:
                yield kind, None, steps
                kind = "older base"


def changed_items(before: LocalStore, after: Path, space_id: str) -> int:
    """Return how many items of a store are gone or different in another one; in another space, how many are gone.

    Raises:
        GalleryError: a store is damaged.
    """
    if before.entry.space_id != space_id:
        return len(_ids(before.path) - _ids(after))
    held = {record.item_id: digest(record) for record in read_records(before.path)}
    same = sum(held.get(record.item_id) == digest(record) for record in read_records(after))
    return len(held) - same


def _ids(path: Path) -> set[str]:
    with open_store(path) as store:
        return {str(item_id) for (item_id,) in store.execute("SELECT item_id FROM items WHERE deleted = 0")}
