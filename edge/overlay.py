"""The overlay: what was taught on this device, searched beside the gallery that was sent to it.

Rules this module keeps:
1. A thing is searched in the categories that the classifier sees in its pictures, and in the one people named.
2. A bundle embeds the kept pictures itself, each as it is and slightly changed: a vector is never compared with one
   of another embedding space.
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

from edge import image
from edge.correlate import Query
from edge.decode import unit_rows
from edge.errors import FinesightError
from edge.finder import Finder
from edge.gallery import NEGATIVE, CategoryItems, quantise
from edge.lookup import look_at
from edge.manifest import OpenSet
from edge.overlay_store import OverlayStore, Taught
from edge.query import mask_of
from edge.search import build_index
from edge.seek import Sought
from edge.serving import Search, Serving
from edge.timing import Timings
from edge.types import Box, Counts, FloatArray, Hit, Image

log = logging.getLogger(__name__)

HasItem = Callable[[str, str, str], bool]  # gallery generation, category, item id
_Key = tuple[str, str, int]  # bundle, item, revision
# Degrees, zoom, gain, mirrored: how else each look is embedded. A few looks are few poses: see benchmarks/openset.py
_VIEWS = (
    (5.0, 1.06, 1.15, False),
    (-5.0, 1.0, 0.85, False),
    (3.0, 0.96, 1.0, False),
    (-3.0, 1.1, 1.0, False),
    (0.0, 1.0, 1.0, True),
)


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


class Overlay:
    """Puts what was taught over a pair of bundle and gallery; from any thread."""

    def __init__(self, store: OverlayStore, has_item: HasItem, counts: Counts, seek_looks: int = 2) -> None:
        """Start empty; nothing is embedded before the first pair.

        Args:
            store: what was taught.
            has_item: whether a gallery has an item in a category.
            counts: `taught_retired` by reason, `taught_unusable`.
            seek_looks: pictures of a thing that it is looked for by, where the pair has a finder.
        """
        self._seek_looks = seek_looks
        self._store = store
        self._has_item = has_item
        self._counts = counts
        self._lock = threading.Lock()
        self._vectors: dict[_Key, dict[str, FloatArray]] = {}  # by category, (looks, dim)
        self._queries: dict[_Key, Sought | None] = {}
        self._bundles: list[str] = []  # whose vectors are kept, newest first
        self._retired: dict[str, str] = {}  # by item id, why, for the pair that was dressed last

    def over(self, serving: Serving) -> Serving:
        """The same pair, searching what was taught, too; a pair that was dressed before is dressed anew."""
        bare = {n: s.base if isinstance(s, WithTaught) else s for n, s in serving.indexes.items()}
        base = replace(serving, indexes={name: search for name, search in bare.items() if search is not None})
        with self._lock:
            vectors = {item: self._embedded(item, base) for item in self._store.items()}
            retired = {item.item_id: why for item, by in vectors.items() if (why := self._why_retired(item, by, base))}
            for item_id in retired.keys() - self._retired.keys():
                self._counts.add("taught_retired", reason=retired[item_id])
                log.info("%s retires: the gallery has the %s", item_id, retired[item_id].replace("_", " "))
            self._retired = retired
            self._prune(base.bundle_id, {(item.item_id, item.revision) for item in vectors})
            live = {item: by for item, by in vectors.items() if item.item_id not in retired}
            sought = tuple(one for item in live if (one := self._sought(item, base)) is not None)
        categories = {category for by in live.values() for category in by}
        dressed = {c: WithTaught(base.indexes.get(c), _index_of(c, live)) for c in categories}
        return replace(base, indexes={**base.indexes, **dressed}, sought=sought)

    @property
    def retired(self) -> dict[str, str]:
        """By item id, why a thing is not searched any more."""
        with self._lock:
            return dict(self._retired)

    def _prune(self, bundle: str, current: set[tuple[str, int]]) -> None:
        """Keep the vectors of this bundle and the one before, which may still serve while this one is loaded."""
        self._bundles = [bundle, *(other for other in self._bundles if other != bundle)][:2]
        self._vectors = {k: by for k, by in self._vectors.items() if k[0] in self._bundles and k[1:] in current}
        self._queries = {k: one for k, one in self._queries.items() if k[0] in self._bundles and k[1:] in current}

    def _embedded(self, item: Taught, serving: Serving) -> dict[str, FloatArray]:
        """The vectors of a thing by category; none where its pictures cannot be used."""
        key = (serving.bundle_id, item.item_id, item.revision)
        if key not in self._vectors:
            try:
                self._vectors[key] = self._embed(item, serving)
            except FinesightError as error:
                self._counts.add("taught_unusable")
                log.warning("%s cannot be searched: %s", item.item_id, error)
                self._vectors[key] = {}
        return self._vectors[key]

    def _embed(self, item: Taught, serving: Serving) -> dict[str, FloatArray]:
        rows: dict[str, list[FloatArray]] = {}
        for number in range(item.looks):
            picture = image.decode_image(self._store.look(item, number), f"{item.item_id} look {number}")
            for category, vector in look_at(serving, picture, Timings(), also=item.category).vectors.items():
                rows.setdefault(category, []).extend([vector, *other_views(serving, picture, category)])
        return {category: np.stack(found) for category, found in rows.items()}

    def _sought(self, item: Taught, serving: Serving) -> Sought | None:
        """What a thing is looked for by in the frames of cameras; None without a finder."""
        if serving.finder is None:
            return None
        key = (serving.bundle_id, item.item_id, item.revision)
        if key not in self._queries:
            try:
                self._queries[key] = Sought(item.item_id, self._queries_of(item, serving, serving.finder))
            except FinesightError as error:
                self._counts.add("taught_unusable")
                log.warning("%s cannot be looked for: %s", item.item_id, error)
                self._queries[key] = None
        return self._queries[key]

    def _queries_of(self, item: Taught, serving: Serving, finder: Finder) -> tuple[Query, ...]:
        """By its newest pictures, each cut to the box of what is in their middle, where the detector has one."""
        queries = []
        for number in range(max(0, item.looks - self._seek_looks), item.looks):
            picture = image.decode_image(self._store.look(item, number), f"{item.item_id} look {number}")
            box = _middle_box(serving, picture)
            queries.append(finder.query(picture, mask_of(picture, box), Timings()))
        return tuple(queries)

    def _why_retired(self, item: Taught, vectors: dict[str, FloatArray], base: Serving) -> str | None:
        for category, rows in vectors.items():
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


def other_views(serving: Serving, picture: Image, category: str) -> list[FloatArray]:
    """The vectors of a look as it would be a little turned, nearer, farther, lighter, darker and mirrored.

    Raises:
        EngineError: the model failed.
    """
    embedder = serving.stages.embedders[category]
    box: Box = (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))
    return [
        embedder.embed(image.seen_otherwise(picture, degrees, zoom, gain, mirrored=mirrored), [box], Timings())[0]
        for degrees, zoom, gain, mirrored in _VIEWS
    ]


def _middle_box(serving: Serving, picture: Image) -> Box | None:
    """The detector's best box around the middle of a picture; None: it has none there."""
    detector = serving.stages.detector
    if detector is None:
        return None
    middle_x, middle_y = picture.shape[1] / 2, picture.shape[0] / 2
    for one in detector.detect([picture], Timings())[0]:
        x0, y0, x1, y1 = one.box_px
        if x0 < middle_x < x1 and y0 < middle_y < y1:
            return one.box_px
    return None


def _index_of(category: str, live: dict[Taught, dict[str, FloatArray]]) -> Search:
    items = [item for item, by in live.items() if category in by]
    rows = [live[item][category] for item in items]
    vectors_i8, scales = quantise(np.concatenate(rows))
    return build_index(
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
