"""Prove a gallery with the bundle that will search it, before it becomes active.

Rules this module keeps:
1. A gallery is loaded by the code that serves, `edge.gallery.loaded_gallery`.
2. Stored vectors and random ones are searched: each stored one must find its item, and each answer must be one that an
   event can carry.
3. Parts that this bundle does not search are read all the same: a kiosk shows them.
"""

from __future__ import annotations

import json

import numpy as np

from edge.bundle.bundle import Bundle
from edge.errors import CaptureError, GalleryError
from edge.gallery.generation import Gallery
from edge.gallery.index_cache import IndexCache
from edge.gallery.loaded_gallery import LoadedGallery, load_gallery
from edge.gallery.search import Index, SpaceIndex
from edge.gallery.store import read_category, read_silhouettes, read_thumbnails
from edge.imaging.image import decode_image
from edge.types import FloatArray, Hit

_SAMPLED = 1000  # stored vectors of each index to search
_RANDOM = 64  # random vectors of each index to search
_DECODED = 1000  # thumbnails of each category to decode
_CHANGE_SHARE = 64  # of as many samples for a change of a gallery that was proved
_DEPTH = 20  # nearest items to find: at least as many as recognition asks for
_MIN_OWN_COSINE = 0.999  # of a stored vector with the nearest one, which is itself
_MIN_RECALL = {"lists": 0.95, "exact": 1.0}  # share of stored vectors that find their own
_MAX_ANSWER_BYTES = 1 << 20  # of the texts of the items near one vector, as JSON; events shorten them
_SEED = 1


def prove_gallery(
    bundle: Bundle, gallery: Gallery, cache: IndexCache | None = None, previous: LoadedGallery | None = None
) -> None:
    """Load a gallery as serving does, search it, and read what else it holds. No model runs.

    Args:
        bundle: its embedders and rules are used.
        gallery: as `edge.gallery.generation.read_gallery` returns it.
        cache: keeps the lists of large categories, so that whoever serves the gallery need not build them.
        previous: the gallery that serves and was proved, loaded, if this one is a change of it: fewer samples will do.

    Raises:
        GalleryError: a store is damaged or in another space, or a search gives a wrong answer.
        EngineError: the runtime cannot load the search.
    """
    loaded = load_gallery(bundle.manifest, gallery, previous, cache)
    loaded.build_lists()
    share = 1 if previous is None else _CHANGE_SHARE
    for category, index in loaded.indexes.items():
        _prove_search(str(gallery.path(category)), index, share)
    for space_id, space in loaded.spaces.items():
        _prove_search(f"{gallery.folder}: embedding space {space_id}", space, share)
    for category, entry in gallery.categories.items():
        path = gallery.path(category)
        if category not in loaded.indexes:
            read_category(path, entry.space_id, entry.dim, entry)
        read_silhouettes(path)
        every = max(1, share * entry.items // _DECODED)
        if previous is not None:
            for item_id, thumbnail in read_thumbnails(path, every):
                _decode(f"{path}: item {item_id!r}", thumbnail)
            continue
        for number, (item_id, thumbnail) in enumerate(read_thumbnails(path)):
            if number % every == 0:
                _decode(f"{path}: item {item_id!r}", thumbnail)


def _decode(where: str, thumbnail: bytes) -> None:
    try:
        decode_image(thumbnail, "thumbnail")
    except CaptureError as error:
        raise GalleryError(f"{where}: {error}") from error


def _prove_search(where: str, index: Index | SpaceIndex, share: int) -> None:
    """Search sampled rows of an index, and random vectors; of a change, a share of as many."""
    own, item_ids = index.sample(_SAMPLED // share)
    random: FloatArray = np.random.default_rng(_SEED).normal(size=(_RANDOM // share, index.dim)).astype(np.float32)
    found = index.search(np.concatenate([own, random]), _DEPTH)
    for hits in found:
        _check_answer(where, hits)
    missed = [
        item_id
        for item_id, hits in zip(item_ids, found, strict=False)
        if not hits or hits[0].score < _MIN_OWN_COSINE or not _finds(item_id, hits)
    ]
    if len(item_ids) - len(missed) < _MIN_RECALL[index.method] * len(item_ids):
        raise GalleryError(
            f"{where}: {len(missed)} of {len(item_ids)} stored vectors do not find their own item, first {missed[0]!r}"
        )


def _finds(item_id: str, hits: list[Hit]) -> bool:
    """Return whether the item is among the nearest, or so many others are as near that it need not be."""
    return item_id in {hit.item_id for hit in hits} or (
        len(hits) == _DEPTH and hits[-1].score >= hits[0].score - (1.0 - _MIN_OWN_COSINE)
    )


def _check_answer(where: str, hits: list[Hit]) -> None:
    """Check that an event can carry an answer."""
    if not all(np.isfinite(hit.score) for hit in hits):
        raise GalleryError(f"{where}: a search gives the scores {[hit.score for hit in hits]}; make the gallery again")
    try:
        size = len(json.dumps([(hit.item_id, hit.label, hit.score) for hit in hits], allow_nan=False).encode())
    except ValueError as error:
        raise GalleryError(f"{where}: a search gives an answer that is not JSON: {error}") from error
    if size > _MAX_ANSWER_BYTES:
        raise GalleryError(f"{where}: the items near one vector have texts of {size} bytes, which no event can carry")
