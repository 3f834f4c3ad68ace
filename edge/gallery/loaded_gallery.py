"""Load a gallery for the embedders of a bundle: search indexes, thresholds and silhouettes.

Rules this module keeps:
1. Serving and the proof before a switch both load through this module, so what was proved is what serves.
2. A large category that is loaded already is taken over. Of one that changed, only the items that differ are indexed.
3. Every store is read and checked, but for one whose hash is that of a store that is loaded.
"""

from __future__ import annotations

import logging
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field

from edge.gallery.attributes import Attributes, read_attributes
from edge.gallery.changes import Changes, Digests, find_changes
from edge.gallery.generation import Gallery
from edge.gallery.index_cache import IndexCache
from edge.gallery.item_vectors import shrink_items_to_centroid
from edge.gallery.search import LISTS_FROM, Index, IndexKind, SpaceIndex, build_index, build_space_index
from edge.gallery.store import CategoryItems, UngroupedError, iterate_category, read_category, read_silhouettes
from edge.manifest.embedder import EmbedderModel, OpenSet
from edge.manifest.manifest import Manifest
from edge.silhouettes.rerank import GallerySilhouettes, silhouettes_for

log = logging.getLogger(__name__)

_MAX_CHANGED = 0.5  # of the rows: with more, a new index takes less memory than a changed one
_NO_SILHOUETTES = (
    "%s: has no silhouettes, and the bundle's thresholds of category %r count them: cosines alone are compared, as for "
    "an item without one; embed the gallery with this bundle"
)


@dataclass(frozen=True, slots=True)
class _Source:
    """What the index of a large category was made of."""

    sha256: str  # of the store
    rows: str  # what else decides on its vectors: embedding space and shrinking
    digests: Digests  # of its items as they are stored

    @property
    def key(self) -> str:
        """Names the vectors and their order."""
        return f"{self.sha256} {self.rows}"


@dataclass(frozen=True, slots=True)
class Update:
    """How the index of a category became that of another store. A changed item counts as removed and added."""

    added: int  # items
    removed: int
    kept: int


@dataclass(frozen=True, slots=True)
class LoadedGallery:
    """What a bundle searches in a gallery; all by category but `spaces`."""

    indexes: dict[str, Index] = field(default_factory=dict)
    open_sets: dict[str, OpenSet] = field(default_factory=dict)
    compatible_categories: set[str] = field(default_factory=set)  # of an older embedding space
    silhouettes: dict[str, GallerySilhouettes] = field(default_factory=dict)  # where they count
    attributes: dict[str, dict[str, Attributes]] = field(default_factory=dict)  # by item id, where there are any
    # Without a classifier: by embedding space, the items of all its categories; a hit's label is its category.
    spaces: dict[str, SpaceIndex] = field(default_factory=dict)
    updates: dict[str, Update] = field(default_factory=dict)  # categories whose index was changed, not built
    sources: dict[str, _Source] = field(default_factory=dict)  # of large categories

    @property
    def needs_lists(self) -> bool:
        """Whether a large index reads all its rows for each search; see `build_lists`."""
        return any(index.needs_lists for index in self._all)

    def build_lists(self) -> None:
        """Build the lists of large indexes, which take over between two searches; takes seconds of CPU time."""
        for index in self._all:
            if index.needs_lists:
                index.build_lists()

    @property
    def _all(self) -> list[Index | SpaceIndex]:
        return [*self.indexes.values(), *self.spaces.values()]


def load_gallery(
    manifest: Manifest,
    gallery: Gallery | None,
    previous: LoadedGallery | None = None,
    cache: IndexCache | None = None,
    kind: IndexKind = "auto",
) -> LoadedGallery:
    """Read and index the categories of a gallery that the embedders of a bundle can search.

    Args:
        manifest: of the bundle.
        gallery: its stores; None: there are none, and only the thresholds of the bundle are returned.
        previous: what is loaded already, of any bundle and gallery; it stays as it is.
        cache: where the lists of large indexes are kept.
        kind: of the indexes of large categories.

    Raises:
        GalleryError: a store is damaged or in another embedding space.
        EngineError: the runtime cannot load the search.
    """
    loader = _Loader(previous or LoadedGallery(), cache, kind, together=manifest.classifier is None)
    for model in manifest.embedders:
        loader.loaded.open_sets.update(model.rules)
        if gallery is not None:
            loader.load(model, gallery)
    return loader.loaded


class _Loader:
    """Loads a gallery, embedder by embedder."""

    def __init__(self, previous: LoadedGallery, cache: IndexCache | None, kind: IndexKind, *, together: bool) -> None:
        self.loaded = LoadedGallery()
        self._previous, self._cache, self._kind = previous, cache, kind
        self._together = together  # all categories of an embedder are also searched at once

    def load(self, model: EmbedderModel, gallery: Gallery) -> None:
        """Add the categories of an embedder."""
        loaded = self.loaded
        small: dict[str, CategoryItems] = {}
        large: dict[str, Index] = {}
        for category in model.categories:
            if category not in gallery.categories:
                continue
            entry, space_id = gallery.categories[category], model.space_id
            if declared := model.compatible_gallery(category, entry.space_id):
                space_id = declared.space_id
                loaded.open_sets[category] = declared.open_set
                loaded.compatible_categories.add(category)
            if entry.vectors >= LISTS_FROM:
                large[category] = loaded.indexes[category] = self._large(model, gallery, category, space_id)
            else:
                small[category] = _read(model, gallery, category, space_id)
                loaded.indexes[category] = build_index(small[category])
            if of_items := self._attributes(gallery, category):
                loaded.attributes[category] = of_items
            # thresholds for an older space were fitted without silhouettes
            rule = None if declared else model.outline.get(category)
            if rule is not None and rule.counts and entry.vectors:
                if by_item := read_silhouettes(gallery.path(category)):
                    loaded.silhouettes[category] = silhouettes_for(rule, by_item)
                else:
                    log.warning(_NO_SILHOUETTES, gallery.path(category), category)
        if self._together and (small or large):
            loaded.spaces[model.space_id] = build_space_index(small, large, self._kind)

    def _large(self, model: EmbedderModel, gallery: Gallery, category: str, space_id: str) -> Index:
        """Return the index of a large category: the previous one, that one changed, or a new one."""
        sha256, rows = gallery.categories[category].sha256, f"{space_id} {model.gathering}"
        old = self._previous.sources.get(category)
        if old is not None and (old.sha256, old.rows) == (sha256, rows):
            self.loaded.sources[category] = old
            return self._previous.indexes[category]
        path, entry = gallery.path(category), gallery.categories[category]
        if old is not None and old.rows == rows:
            with suppress(UngroupedError), closing(iterate_category(path, space_id, model.dim, entry)) as batches:
                if found := find_changes(old.digests, batches, int(_MAX_CHANGED * entry.vectors)):
                    self.loaded.sources[category] = _Source(sha256, rows, found.digests)
                    return self._changed(category, found, model.gathering)
        items = read_category(path, space_id, model.dim, entry)
        source = self.loaded.sources[category] = _Source(sha256, rows, Digests.of(items))
        items = shrink_items_to_centroid(items, model.gathering, in_place=True)
        cache = self._cache.of(path) if self._cache is not None else None
        return build_index(items, self._kind, cache=cache, key=source.key)

    def _attributes(self, gallery: Gallery, category: str) -> dict[str, Attributes]:
        """Return the attributes of a category's items: the previous ones if its store is large and the same."""
        old, new = self._previous.sources.get(category), self.loaded.sources.get(category)
        if old is not None and new is not None and old.sha256 == new.sha256:
            return self._previous.attributes.get(category, {})
        return read_attributes(gallery.path(category))

    def _changed(self, category: str, found: Changes, gathering: float) -> Index:
        started = time.monotonic()
        added = shrink_items_to_centroid(found.added, gathering, in_place=True)
        index = self._previous.indexes[category].changed(found.removed, added)
        update = Update(len(found.added.item_ids), len(found.removed), found.kept)
        self.loaded.updates[category] = update
        log.info(
            "gallery of %s: %d added, %d removed, %d kept; index updated in %.2f s",
            *(category, update.added, update.removed, update.kept, time.monotonic() - started),
        )
        return index


def _read(model: EmbedderModel, gallery: Gallery, category: str, space_id: str) -> CategoryItems:
    items = read_category(gallery.path(category), space_id, model.dim, gallery.categories[category])
    return shrink_items_to_centroid(items, model.gathering, in_place=True)
