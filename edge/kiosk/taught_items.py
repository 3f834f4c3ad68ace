"""The taught items of a device, searched beside the gallery that was sent to it.

Rules this module keeps:
1. An item is searched in the categories that are likely for its pictures, and in the one people named.
2. Each bundle embeds the stored pictures itself, unchanged and in augmented views: a vector is never compared with one
   of another embedding space. Model outputs are cached on disk for the next start, for this bundle and one other: the
   one before, or the one being prepared. Entries that are missing, damaged or not writable are computed again; they
   never cause a failure.
3. An item retires from search when the gallery has it: an item of any category has its id, or once had it; or its
   nearest item in those categories scores above the threshold and has the same name. This is decided separately for
   every bundle and gallery. So an item stays until a gallery that has it serves, and a rollback brings it back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from edge.errors import FinesightError, NotLoadedError, TaughtItemsError
from edge.finder.taught_search import TaughtQuery, make_taught_query
from edge.imaging import image
from edge.kiosk.enrolment import mean_vector
from edge.kiosk.taught_embeddings import (
    NO_EMBEDDINGS,
    CachedEmbeddings,
    ItemEmbeddings,
    embed_item,
    fingerprints_of,
    pack_cache,
    unpack_cache,
)
from edge.kiosk.taught_index import WithTaught, with_taught
from edge.kiosk.taught_store import TaughtItem, TaughtStore
from edge.manifest.embedder import OpenSet
from edge.recognition.loaded_models import LoadedModels, Search
from edge.silhouettes.rerank import GallerySilhouettes, silhouettes_for
from edge.telemetry.health_report import TaughtCounts
from edge.telemetry.timing import Timings
from edge.types import Box, Counts, Image

log = logging.getLogger(__name__)

# gallery generation, category, item ids -> those that items of the gallery have or had
Held = Callable[[str, str, Collection[str]], frozenset[str]]
_Key = tuple[str, str, int]  # bundle, item, revision


class TaughtItems:
    """Adds the taught items to loaded models; usable from any thread."""

    def __init__(self, store: TaughtStore, held: Held, counts: Counts, search_pictures: int = 2) -> None:
        """Start without embeddings; the first call of `add_to` computes them.

        Args:
            store: the taught items on disk.
            held: which items a gallery has in a category.
            counts: `taught_retired` by reason, `taught_unusable`, `taught_made_lost` by reason: the cache of an item is
                damaged, or could not be written.
            search_pictures: how many pictures of an item the finder searches by, if the bundle has one.
        """
        self._search_pictures = search_pictures
        self._store = store
        self._held = held
        self._counts = counts
        self._lock = threading.Lock()
        self._embeddings: dict[_Key, ItemEmbeddings] = {}
        self._queries: dict[_Key, TaughtQuery | None] = {}
        self._fingerprints: dict[str, frozenset[str]] = {}  # of the models, by bundle; newest first
        self._disk_refuses = False
        self._waiting = self._unusable = 0  # items that the newest models do not search yet, or cannot
        self._retired: dict[str, str] = {}  # why, by item id, for the newest models

    def add_to(self, models: LoadedModels) -> LoadedModels:
        """Return the models with the taught items added. Items that were added before are replaced."""
        base = replace(models, indexes=_without_taught(models.indexes), spaces=_without_taught(models.spaces))
        with self._lock:
            self._note_bundle(base)
            self._waiting = self._unusable = 0
            embedded = {item: self._embeddings_of(item, base) for item in self._store.items()}
            self._note_bundle(base)  # with the models that were loaded meanwhile
            held = self._held_by(base, [item.item_id for item in embedded])
            retired = {
                item.item_id: why for item, one in embedded.items() if (why := _why_retired(item, one, base, held))
            }
            for item_id in retired.keys() - self._retired.keys():
                self._counts.add("taught_retired", reason=retired[item_id])
                log.info(
                    "%s is not searched beside gallery %s, which has an item of the %s",
                    item_id,
                    base.gallery_id,
                    retired[item_id].replace("_", " "),
                )
            self._retired = retired
            self._prune({(item.item_id, item.revision) for item in embedded})
            live = {item: one for item, one in embedded.items() if item.item_id not in retired}
            queries = tuple(query for item in live if (query := self._query_of(item, base)) is not None)
            out = self._waiting + self._unusable
            taught = TaughtCounts(len(embedded), len(live) - out, len(retired), self._waiting, self._unusable)
        silhouettes = {c: _with_taught(c, of_gallery, live) for c, of_gallery in base.silhouettes.items()}
        added = with_taught(base, live)
        return replace(
            added, silhouettes=silhouettes, taught_queries=queries, taught=taught, taught_retired=dict(retired)
        )

    def _note_bundle(self, base: LoadedModels) -> None:
        """Keep caches for this bundle and one other, which may still be active while this one is loaded."""
        others = [(bundle, found) for bundle, found in self._fingerprints.items() if bundle != base.bundle_id]
        self._fingerprints = dict([(base.bundle_id, fingerprints_of(base)), *others][:2])

    def _prune(self, current: set[tuple[str, int]]) -> None:
        bundles = self._fingerprints
        self._embeddings = {k: one for k, one in self._embeddings.items() if k[0] in bundles and k[1:] in current}
        self._queries = {k: one for k, one in self._queries.items() if k[0] in bundles and k[1:] in current}

    def _embeddings_of(self, item: TaughtItem, models: LoadedModels) -> ItemEmbeddings:
        """Return the embeddings of an item; none if its pictures cannot be used."""
        key = (models.bundle_id, item.item_id, item.revision)
        if key not in self._embeddings:
            try:
                self._embeddings[key] = self._embed(item, models)
            except FinesightError as error:
                self._counts.add("taught_unusable")
                log.warning("%s cannot be searched: %s", item.item_id, error)
                if isinstance(error, NotLoadedError):  # the next time may succeed
                    self._waiting += 1
                    return NO_EMBEDDINGS
                self._embeddings[key] = NO_EMBEDDINGS
        self._unusable += self._embeddings[key] is NO_EMBEDDINGS
        return self._embeddings[key]

    def _embed(self, item: TaughtItem, models: LoadedModels) -> ItemEmbeddings:
        pictures = [self._store.picture(item, number) for number in range(item.looks)]
        cached = self._read_cache(item)
        embeddings, outputs = embed_item(models, item, pictures, cached)
        fingerprints, digests = frozenset().union(*self._fingerprints.values()), {digest for digest, _ in outputs}
        cache = {key: array for key, array in cached.items() if key[0] in digests and key[1] in fingerprints} | outputs
        if cache.keys() != cached.keys() or any(cached[key] is not array for key, array in cache.items()):
            self._write_cache(item, cache)
        return embeddings

    def _read_cache(self, item: TaughtItem) -> CachedEmbeddings:
        try:
            data = self._store.cache(item)
            return {} if data is None else unpack_cache(data, f"cached embeddings of {item.item_id}")
        except TaughtItemsError as error:
            self._counts.add("taught_made_lost", reason="damaged")
            log.warning("%s; they are computed again", error)
            return {}

    def _write_cache(self, item: TaughtItem, cache: CachedEmbeddings) -> None:
        try:
            self._store.save_cache(item, pack_cache(cache))
        except TaughtItemsError as error:
            self._counts.add("taught_made_lost", reason="not_written")
            level = logging.DEBUG if self._disk_refuses else logging.WARNING
            log.log(level, "%s; the next start computes its embeddings again", error)
            self._disk_refuses = True
        else:
            self._disk_refuses = False

    def _query_of(self, item: TaughtItem, models: LoadedModels) -> TaughtQuery | None:
        """Return the finder's query for an item; None without a finder or a usable picture."""
        if models.finder is None:
            return None
        key = (models.bundle_id, item.item_id, item.revision)
        if key not in self._queries:
            try:
                pictures = self._boxed_pictures(item, models)
                self._queries[key] = make_taught_query(models.finder, item.item_id, pictures)
            except FinesightError as error:
                self._counts.add("taught_unusable")
                log.warning("%s cannot be searched for by the finder: %s", item.item_id, error)
                self._queries[key] = None
        return self._queries[key]

    def _boxed_pictures(self, item: TaughtItem, models: LoadedModels) -> Iterator[tuple[Image, Box | None]]:
        """Yield the newest pictures of an item, each with the detector's box around its centre, if there is one."""
        for number in range(max(0, item.looks - self._search_pictures), item.looks):
            picture = image.decode_image(self._store.picture(item, number), f"{item.item_id} picture {number}")
            yield picture, _centre_box(models, picture)

    def _held_by(self, base: LoadedModels, item_ids: Collection[str]) -> set[str]:
        """Return the ids that the gallery has, in any category: an operator may know better than the models."""
        held: set[str] = set()
        for category in base.indexes if item_ids else ():
            held |= self._held(base.gallery_id, category, item_ids)
        return held


def _why_retired(item: TaughtItem, embeddings: ItemEmbeddings, base: LoadedModels, held: Collection[str]) -> str | None:
    """Return why an item retires beside a gallery that holds these ids; None: it is searched."""
    if item.item_id in held:
        return "same_id"
    if item.negative:  # a gallery item of the same name does not replace a negative item
        return None
    for category, rows in embeddings.vectors.items():
        if category not in base.indexes:
            continue
        nearest = base.indexes[category].search(mean_vector(rows)[None], 1)[0]
        threshold = base.open_sets.get(category, OpenSet()).threshold
        if nearest and nearest[0].score >= threshold and nearest[0].label.casefold() == item.label.casefold():
            return "same_name"
    return None


def _centre_box(models: LoadedModels, picture: Image) -> Box | None:
    """Return the detector's best box around the centre of a picture; None if it has none there."""
    detector = models.stages.detector
    if detector is None:
        return None
    centre_x, centre_y = picture.shape[1] / 2, picture.shape[0] / 2
    for one in detector.detect([picture], Timings())[0]:
        x0, y0, x1, y1 = one.box_px
        if x0 < centre_x < x1 and y0 < centre_y < y1:
            return one.box_px
    return None


def _without_taught(indexes: dict[str, Search]) -> dict[str, Search]:
    bare = {name: one.base if isinstance(one, WithTaught) else one for name, one in indexes.items()}
    return {name: one for name, one in bare.items() if one is not None}


def _with_taught(
    category: str, of_gallery: GallerySilhouettes, live: dict[TaughtItem, ItemEmbeddings]
) -> GallerySilhouettes:
    """Add the silhouettes of the taught items of a category to those of its gallery."""
    by_item = {
        item.item_id: one.silhouettes for item, one in live.items() if category in one.vectors and len(one.silhouettes)
    }
    return replace(of_gallery, taught=silhouettes_for(of_gallery.rule, by_item).by_item)
