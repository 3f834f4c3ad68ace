"""The overlay: what was taught on this device, searched beside the gallery that was sent to it.

Rules this module keeps:
1. A thing is searched in the categories that the classifier sees in its pictures, and in the one people named.
2. A bundle embeds the kept pictures itself, each as it is and slightly changed: a vector is never compared with one
   of another embedding space. What it made is kept beside them for the next start, for this bundle and the one before
   or the one that is prepared; what is missing, damaged or cannot be written is made anew and stops nothing.
3. A thing retires from search when the gallery brings it: an item of its id in one of those categories, or its nearest
   item there scores above the category's threshold and has its name. This is judged anew for each pair of bundle and
   gallery: a roll-back brings the thing back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edge.errors import FinesightError, TaughtItemsError
from edge.finder.taught_search import TaughtQuery, make_taught_query
from edge.gallery.rerank import GallerySilhouettes, silhouettes_for
from edge.gallery.search import ExactIndex
from edge.gallery.store import NEGATIVE, CategoryItems, quantise
from edge.imaging import image
from edge.inference.postprocess import unit_rows
from edge.kiosk.taught_embeddings import NOTHING, CachedEmbeddings, Embedded, embed, makers_of, pack, unpack
from edge.kiosk.taught_store import TaughtItem, TaughtStore
from edge.manifest import OpenSet
from edge.recognition.loaded_models import LoadedModels, Search
from edge.telemetry.timing import Timings
from edge.types import Box, Counts, FloatArray, Hit, Image

log = logging.getLogger(__name__)

HasItem = Callable[[str, str, str], bool]  # gallery generation, category, item id
_Key = tuple[str, str, int]  # bundle, item, revision


@dataclass(frozen=True, slots=True)
class WithTaught:
    """The gallery of one category with what was taught: the nearest of both, best first."""

    base: Search | None  # None: the gallery has no such category
    taught: Search

    def search(self, queries: FloatArray, k: int) -> list[list[Hit]]:
        """The k nearest items of each (n, dim) unit row, best first."""
        base = self.base.search(queries, k) if self.base else [[] for _ in queries]
        both = zip(base, self.taught.search(queries, k), strict=True)
        return [sorted([*a, *b], key=lambda hit: -hit.score)[:k] for a, b in both]


class TaughtItems:
    """Puts what was taught over a pair of bundle and gallery; from any thread."""

    def __init__(self, store: TaughtStore, has_item: HasItem, counts: Counts, seek_looks: int = 2) -> None:
        """Start empty; nothing is embedded before the first pair.

        Args:
            store: what was taught.
            has_item: whether a gallery has an item in a category.
            counts: `taught_retired` by reason, `taught_unusable`, `taught_made_lost` by reason: what was kept of a
                thing is damaged, or could not be written.
            seek_looks: pictures of a thing that it is looked for by, where the pair has a finder.
        """
        self._seek_looks = seek_looks
        self._store = store
        self._has_item = has_item
        self._counts = counts
        self._lock = threading.Lock()
        self._embeddings: dict[_Key, Embedded] = {}
        self._queries: dict[_Key, TaughtQuery | None] = {}
        self._makers: dict[str, frozenset[str]] = {}  # by bundle, what its vectors are made by; newest first
        self._disk_refuses = False
        self._retired: dict[str, str] = {}  # by item id, why, for the pair that was dressed last

    def over(self, models: LoadedModels) -> LoadedModels:
        """The same pair, searching what was taught, too; a pair that was dressed before is dressed anew."""
        bare = {n: s.base if isinstance(s, WithTaught) else s for n, s in models.indexes.items()}
        base = replace(models, indexes={name: search for name, search in bare.items() if search is not None})
        with self._lock:
            self._serve(base)
            found = {item: self._embedded(item, base) for item in self._store.items()}
            retired = {item.item_id: why for item, one in found.items() if (why := self._why_retired(item, one, base))}
            for item_id in retired.keys() - self._retired.keys():
                self._counts.add("taught_retired", reason=retired[item_id])
                log.info("%s retires: the gallery has the %s", item_id, retired[item_id].replace("_", " "))
            self._retired = retired
            self._prune({(item.item_id, item.revision) for item in found})
            live = {item: one for item, one in found.items() if item.item_id not in retired}
            taught_queries = tuple(one for item in live if (one := self._taught_query(item, base)) is not None)
        categories = {category for one in live.values() for category in one.vectors}
        dressed = {c: WithTaught(base.indexes.get(c), _index_of(c, live)) for c in categories}
        outlines = {c: _with_taught(c, of_gallery, live) for c, of_gallery in base.silhouettes.items()}
        return replace(base, indexes={**base.indexes, **dressed}, silhouettes=outlines, taught_queries=taught_queries)

    @property
    def retired(self) -> dict[str, str]:
        """By item id, why a thing is not searched any more."""
        with self._lock:
            return dict(self._retired)

    def _serve(self, base: LoadedModels) -> None:
        """What is made is kept for this bundle and the one before, which may still serve while this one is loaded."""
        others = [(bundle, makers) for bundle, makers in self._makers.items() if bundle != base.bundle_id]
        self._makers = dict([(base.bundle_id, makers_of(base)), *others][:2])

    def _prune(self, current: set[tuple[str, int]]) -> None:
        self._embeddings = {k: one for k, one in self._embeddings.items() if k[0] in self._makers and k[1:] in current}
        self._queries = {k: one for k, one in self._queries.items() if k[0] in self._makers and k[1:] in current}

    def _embedded(self, item: TaughtItem, models: LoadedModels) -> Embedded:
        """A thing by its pictures; nothing where those cannot be used."""
        key = (models.bundle_id, item.item_id, item.revision)
        if key not in self._embeddings:
            try:
                self._embeddings[key] = self._embed(item, models)
            except FinesightError as error:
                self._counts.add("taught_unusable")
                log.warning("%s cannot be searched: %s", item.item_id, error)
                self._embeddings[key] = NOTHING
        return self._embeddings[key]

    def _embed(self, item: TaughtItem, models: LoadedModels) -> Embedded:
        looks = [self._store.look(item, number) for number in range(item.looks)]
        known = self._known(item)
        found, made = embed(models, item, looks, known)
        makers, pictures = frozenset().union(*self._makers.values()), {picture for picture, _ in made}
        kept = {key: numbers for key, numbers in known.items() if key[0] in pictures and key[1] in makers} | made
        if kept.keys() != known.keys() or any(known[key] is not numbers for key, numbers in kept.items()):
            self._keep(item, kept)
        return found

    def _known(self, item: TaughtItem) -> CachedEmbeddings:
        try:
            data = self._store.made(item)
            return {} if data is None else unpack(data, f"what was made of {item.item_id}")
        except TaughtItemsError as error:
            self._counts.add("taught_made_lost", reason="damaged")
            log.warning("%s; it is made anew", error)
            return {}

    def _keep(self, item: TaughtItem, made: CachedEmbeddings) -> None:
        try:
            self._store.keep_made(item, pack(made))
        except TaughtItemsError as error:
            self._counts.add("taught_made_lost", reason="not_written")
            log.log(logging.DEBUG if self._disk_refuses else logging.WARNING, "%s; the next start makes it anew", error)
            self._disk_refuses = True
        else:
            self._disk_refuses = False

    def _taught_query(self, item: TaughtItem, models: LoadedModels) -> TaughtQuery | None:
        """What a thing is looked for by in the frames of cameras; None without a finder."""
        if models.finder is None:
            return None
        key = (models.bundle_id, item.item_id, item.revision)
        if key not in self._queries:
            try:
                self._queries[key] = TaughtQuery(item.item_id, self._queries_of(item, models, models.finder))
            except FinesightError as error:
                self._counts.add("taught_unusable")
                log.warning("%s cannot be looked for: %s", item.item_id, error)
                self._queries[key] = None
        return self._queries[key]

    def _queries_of(self, item: TaughtItem, models: LoadedModels, finder: Finder) -> tuple[Query, ...]:
        """By its newest pictures, each cut to the box of what is in their middle, where the detector has one."""
        queries = []
        for number in range(max(0, item.looks - self._seek_looks), item.looks):
            picture = image.decode_image(self._store.look(item, number), f"{item.item_id} look {number}")
            box = _middle_box(models, picture)
            queries.append(finder.make_query(picture, object_mask(picture, box), Timings()))
        return tuple(queries)

    def _why_retired(self, item: TaughtItem, embedded: Embedded, base: LoadedModels) -> str | None:
        for category, rows in embedded.vectors.items():
            if category not in base.indexes:
                continue
            if self._has_item(base.gallery_id, category, item.item_id):
                return "same_id"
            nearest = base.indexes[category].search(unit_rows(rows.sum(axis=0))[None], 1)[0]
            threshold = base.open_sets.get(category, OpenSet()).threshold
            if item.negative:
                continue  # what must not be named, no gallery brings
            if nearest and nearest[0].score >= threshold and nearest[0].label.casefold() == item.label.casefold():
                return "same_name"
        return None


def _middle_box(models: LoadedModels, picture: Image) -> Box | None:
    """The detector's best box around the middle of a picture; None: it has none there."""
    detector = models.stages.detector
    if detector is None:
        return None
    middle_x, middle_y = picture.shape[1] / 2, picture.shape[0] / 2
    for one in detector.detect([picture], Timings())[0]:
        x0, y0, x1, y1 = one.box_px
        if x0 < middle_x < x1 and y0 < middle_y < y1:
            return one.box_px
    return None


def _index_of(category: str, live: dict[TaughtItem, Embedded]) -> Search:
    items = [item for item, one in live.items() if category in one.vectors]
    rows = [live[item].vectors[category] for item in items]
    vectors_i8, scales = quantise(np.concatenate(rows))
    return ExactIndex(  # however many rows: a graph takes seconds to build, and each lesson builds anew
        CategoryItems(
            item_ids=tuple(item.item_id for item in items),
            labels=tuple(item.label for item in items),
            metadata=tuple({NEGATIVE: item.negative} for item in items),
            vectors_i8=vectors_i8,
            scales=scales,
            row_item=np.repeat(np.arange(len(items), dtype=np.int32), [len(found) for found in rows]),
            heads=(),
        )
    )


def _with_taught(category: str, of_gallery: GallerySilhouettes, live: dict[TaughtItem, Embedded]) -> GallerySilhouettes:
    """The outlines of a category's gallery, and of what was taught in it."""
    shown = {item.item_id: one.outlines for item, one in live.items() if category in one.vectors and len(one.outlines)}
    return replace(of_gallery, taught=silhouettes_for(of_gallery.rule, shown).by_item)
