"""Embed the pictures of a taught item, and cache what each model returned for each picture.

Rules this module keeps:
1. The cache holds model outputs for one picture: probabilities, the vectors of all views, a silhouette. Everything that
   depends on thresholds, names or a gallery is computed again.
2. A cached output is used only if the picture, the model, its form and the views are the same. The result has the same
   bits with the cache and without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import TaughtItemsError
from edge.imaging import image
from edge.inference.stages import Classifier, Embedder
from edge.kiosk.enrolment import exemplars
from edge.kiosk.taught_store import TaughtItem
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.recognise_image import categories_to_embed, likely_categories
from edge.silhouettes.silhouette import SIZE
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image, Silhouette

ModelOutput = NDArray[Any]  # float32 or uint8
CachedEmbeddings = dict[tuple[str, str], ModelOutput]  # by SHA-256 of the picture, and fingerprint of the model

# Degrees, zoom, gain, mirrored: the augmented views that each picture is embedded in, because few pictures show few
# poses (benchmarks/openset.py)
_VIEWS = (
    (5.0, 1.06, 1.15, False),
    (-5.0, 1.0, 0.85, False),
    (3.0, 0.96, 1.0, False),
    (-3.0, 1.1, 1.0, False),
    (0.0, 1.0, 1.0, True),
)
_MAGIC = b"finesight made 1\n"
_DIGEST_BYTES = hashlib.sha256().digest_size
_LENGTH_BYTES = 4
_DTYPES = {"float32": "<f4", "uint8": "|u1"}


@dataclass(frozen=True, slots=True)
class ItemEmbeddings:
    """The vectors and silhouettes that a taught item is searched by."""

    vectors: dict[str, FloatArray]  # by category, (n, dim), rows of unit length, see edge.kiosk.enrolment.exemplars
    silhouettes: NDArray[np.uint8]  # (n, silhouette.SIZE), one of each picture that has one, if a category uses them
    views: dict[str, FloatArray]  # by embedding space, (pictures, views, dim), rows of unit length


NO_EMBEDDINGS = ItemEmbeddings({}, np.zeros((0, SIZE), np.uint8), {})


def embed_item(
    models: LoadedModels, item: TaughtItem, pictures: Sequence[bytes], cached: CachedEmbeddings
) -> tuple[ItemEmbeddings, CachedEmbeddings]:
    """Embed an item in the categories that are likely for its pictures, and in the one that people named.

    Without a classifier, the likely category of a picture is that of the nearest item of each embedding space.

    Args:
        models: bundle and gallery.
        item: the item.
        pictures: its pictures, encoded.
        cached: earlier outputs for these pictures, of these models or others.

    Returns:
        The embeddings, and all model outputs behind them. An output that was cached is the same object as in `cached`.

    Raises:
        CaptureError: a picture cannot be decoded.
        EngineError: a model failed.
    """
    stages = models.stages
    vectors: dict[str, list[FloatArray]] = {}
    views: dict[str, list[FloatArray]] = {}
    silhouettes: list[NDArray[np.uint8]] = []
    outputs: CachedEmbeddings = {}
    for number, data in enumerate(pictures):
        picture = _TaughtPicture(data, f"{item.item_id} picture {number}", cached)
        names = picture.categories(models, item.category)
        for name in names:
            vectors.setdefault(name, []).append(picture.vectors(stages.embedders[name]))
        for embedder in {stages.embedders[name] for name in names}:
            views.setdefault(embedder.model.space_id, []).append(picture.vectors(embedder))
        if any(_uses_silhouettes(stages.embedders[name], name) for name in names):
            silhouette = picture.silhouette(models)
            silhouettes += [silhouette] if silhouette.any() else []
        outputs |= picture.outputs
    by_category = {name: exemplars(rows) for name, rows in vectors.items()}
    found = np.stack(silhouettes) if silhouettes else NO_EMBEDDINGS.silhouettes
    return ItemEmbeddings(by_category, found, {space: np.stack(rows) for space, rows in views.items()}), outputs


def fingerprints_of(models: LoadedModels) -> frozenset[str]:
    """Return the fingerprints under which `embed_item` caches the outputs of these models, if they were loaded."""
    stages = models.stages
    found = {_views_fingerprint(embedder) for embedder in set(stages.embedders.values()) if embedder.was_loaded}
    found |= {one.fingerprint for one in (stages.classifier, stages.localiser) if one is not None}
    return frozenset(found - {""})


def embed_views(embedder: Embedder, picture: Image) -> FloatArray:
    """Embed a picture unchanged, then slightly rotated, nearer, farther, lighter, darker and mirrored: (6, dim).

    Raises:
        EngineError: the model failed.
    """
    box = _whole(picture)
    views = (
        image.augmented(picture, degrees, zoom, gain, mirrored=mirrored) for degrees, zoom, gain, mirrored in _VIEWS
    )
    return np.stack([embedder.embed(view, [box], Timings())[0] for view in (picture, *views)])


class _TaughtPicture:
    """One picture, with the model outputs for it. It is decoded only if a model has to run."""

    def __init__(self, data: bytes, where: str, cached: CachedEmbeddings) -> None:
        self.outputs: CachedEmbeddings = {}
        self._vectors: dict[Embedder, FloatArray] = {}
        self._data, self._where, self._cached = data, where, cached
        self._digest = hashlib.sha256(data).hexdigest()

    @cached_property
    def _picture(self) -> Image:
        return image.decode_image(self._data, self._where)

    def categories(self, models: LoadedModels, named: str | None) -> list[str]:
        """The names of the likely categories that have an embedder, and of the one that a person named."""
        classifier, embedders = models.stages.classifier, models.stages.embedders
        if classifier is not None:
            likely = likely_categories(models, classifier, self._probabilities(classifier))
            return categories_to_embed(models, likely, named)
        if named in embedders:
            return [named]
        return [self._nearest_category(models, embedder) for embedder in dict.fromkeys(embedders.values())]

    def _nearest_category(self, models: LoadedModels, embedder: Embedder) -> str:
        nearest = models.nearest_categories({embedder.model.space_id: self.vectors(embedder)[0]})
        return next(c.name for c in nearest if models.stages.embedders[c.name] is embedder)

    def _probabilities(self, classifier: Classifier) -> FloatArray:
        shape = (len(classifier.model.labels),)
        return self._output(classifier.fingerprint, shape, lambda p: classifier.classify(p, [_whole(p)], Timings())[0])

    def vectors(self, embedder: Embedder) -> FloatArray:
        """The vectors of all views, (6, dim)."""
        if embedder not in self._vectors:
            shape = (1 + len(_VIEWS), embedder.model.dim)
            self._vectors[embedder] = self._output(
                _views_fingerprint(embedder), shape, lambda picture: embed_views(embedder, picture)
            )
        return self._vectors[embedder]

    def silhouette(self, models: LoadedModels) -> Silhouette:
        """The silhouette, (silhouette.SIZE,); all zero if the localiser finds nothing."""
        localiser = models.stages.localiser
        if localiser is None:
            return np.zeros(SIZE, np.uint8)

        def find(picture: Image) -> ModelOutput:
            (found,) = localiser.silhouettes(picture, [_whole(picture)], Timings())
            return np.zeros(SIZE, np.uint8) if found is None else found

        return self._output(localiser.fingerprint, (SIZE,), find)

    def _output(self, fingerprint: str, shape: tuple[int, ...], run: Callable[[Image], ModelOutput]) -> ModelOutput:
        """Return the output of a model for the picture, from the cache if it is there."""
        key = (self._digest, fingerprint)
        output = self.outputs.get(key, self._cached.get(key))
        if output is None or output.shape != shape:
            output = run(self._picture)
        if fingerprint:
            self.outputs[key] = output
        return output


def _views_fingerprint(embedder: Embedder) -> str:
    """Return the fingerprint of an embedder with its views; empty if the embedder has none."""
    return hashlib.sha256(f"{embedder.fingerprint} {_VIEWS}".encode()).hexdigest() if embedder.fingerprint else ""


def _uses_silhouettes(embedder: Embedder, category: str) -> bool:
    rule = embedder.model.outline.get(category)
    return rule is not None and rule.counts


def _whole(picture: Image) -> Box:
    return (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))


def pack_cache(cache: CachedEmbeddings) -> bytes:
    """Serialise a cache. Equal arrays give equal bytes, in any order."""
    ordered = sorted(cache.items())
    header = json.dumps([[*key, array.dtype.name, array.shape] for key, array in ordered]).encode()
    parts = [np.ascontiguousarray(array, _DTYPES[array.dtype.name]).tobytes() for _, array in ordered]
    body = b"".join([len(header).to_bytes(_LENGTH_BYTES, "little"), header, *parts])
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack_cache(data: bytes, where: str) -> CachedEmbeddings:
    """Read a serialised cache.

    Raises:
        TaughtItemsError: it is damaged, or of another version.
    """
    start = len(_MAGIC) + _DIGEST_BYTES
    body = data[start:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise TaughtItemsError(
            f"{where}: damaged, or of another version: the checksum of its {len(data)} bytes is wrong"
        )
    cache: CachedEmbeddings = {}
    try:
        at = _LENGTH_BYTES + int.from_bytes(body[:_LENGTH_BYTES], "little")
        for picture, fingerprint, dtype, shape in json.loads(body[_LENGTH_BYTES:at]):
            array = np.frombuffer(body, _DTYPES[dtype], math.prod(shape), at).reshape(shape)
            cache[picture, fingerprint] = array
            at += array.nbytes
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise TaughtItemsError(f"{where}: its header does not fit its content: {error!r}"[:300]) from error
    return cache
