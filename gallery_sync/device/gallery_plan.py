"""Plans how the gallery of a release comes to be, by the shortest path from the stores that the device has.

Rules this module keeps:
1. It reads indexes and states; it downloads and writes nothing.
2. Of the stores on the device, the one with the fewest bytes to download is taken. One whose items are those of the
   release already needs nothing, whatever its state in the gallery log.
3. Where the planned way fails, the newest base is the next one, then older ones.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge.bundle.layout import gallery_folder, gallery_generations
from edge.errors import FinesightError, GalleryError, SyncError
from edge.gallery.generation import Gallery, read_gallery
from edge.gallery.store import CategoryEntry
from gallery_sync.device.resources import gallery_memory
from gallery_sync.device.wanted import RefusedError, Wanted
from gallery_sync.formats.documents import SpaceLog
from gallery_sync.gallery_log.apply import read_state
from gallery_sync.gallery_log.states import Steps, path_to

log = logging.getLogger(__name__)


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


def attempts(change: Change) -> Iterator[tuple[str, LocalStore | None, Steps]]:
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
