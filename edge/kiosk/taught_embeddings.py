"""What the models of a pair make of the pictures of a taught thing, as far as it is not known already.

Rules this module keeps:
1. What is kept is what a model answered to one picture: probabilities, vectors of all views, an outline. What
   thresholds, names or a gallery decide is decided anew.
2. A known answer is used only where the picture, the model, the form that runs and the views are the same: with it and
   without it, the result has the same bits.
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
from edge.imaging.silhouette import SIZE
from edge.inference.stages import Embedder
from edge.kiosk.enrolment import exemplars
from edge.kiosk.taught_store import TaughtItem
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.recognise_image import candidate_categories, categories_to_embed
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image

# Degrees, zoom, gain, mirrored: how else each look is embedded. A few looks are few poses: see benchmarks/openset.py
_VIEWS = (
    (5.0, 1.06, 1.15, False),
    (-5.0, 1.0, 0.85, False),
    (3.0, 0.96, 1.0, False),
    (-3.0, 1.1, 1.0, False),
    (0.0, 1.0, 1.0, True),
)


@dataclass(frozen=True, slots=True)
class Embedded:
    """A taught thing as it is searched."""

    vectors: dict[str, FloatArray]  # by category, (n, dim), rows of unit length, see edge.kiosk.enrolment.exemplars
    outlines: NDArray[np.uint8]  # (n, outline.SIZE) of the looks that show one, where a category asks for them


NOTHING = Embedded({}, np.zeros((0, SIZE), np.uint8))


def embed(models: LoadedModels, item: TaughtItem, looks: Sequence[bytes], known: CachedEmbeddings) -> tuple[Embedded, CachedEmbeddings]:
    """Embed a thing in the categories that the classifier sees in its pictures, and in the one that people named.

    Args:
        models: bundle and gallery.
        item: the thing.
        looks: its pictures, encoded.
        known: what was made of them before, by this pair or any other.

    Returns:
        the thing, and all that its models made for it: what of it was known, is the same object.

    Raises:
        CaptureError: a picture that a model has to see is none.
        EngineError: a model failed.
    """
    stages = models.stages
    vectors: dict[str, list[FloatArray]] = {}
    outlines: list[NDArray[np.uint8]] = []
    made: CachedEmbeddings = {}
    for number, data in enumerate(looks):
        look = _Look(data, f"{item.item_id} look {number}", known)
        names = categories_to_embed(models, candidate_categories(models, look.probabilities(models)), item.category)
        for name in names:
            vectors.setdefault(name, []).append(look.vectors(stages.embedders[name]))
        if any(_asks_for_outline(stages.embedders[name], name) for name in names):
            outline = look.outline(models)
            outlines += [outline] if outline.any() else []
        made |= look.made
    by_category = {name: exemplars(rows) for name, rows in vectors.items()}
    return Embedded(by_category, np.stack(outlines) if outlines else NOTHING.outlines), made


def makers_of(models: LoadedModels) -> frozenset[str]:
    """By what everything is made that `embed` returns for a pair."""
    stages = models.stages
    found = {_views_by(embedder) for embedder in stages.embedders.values()}
    found |= {one.fingerprint for one in (stages.classifier, stages.localiser) if one is not None}
    return frozenset(found - {""})


def embed_views(embedder: Embedder, picture: Image) -> FloatArray:
    """A look as it is, then a little turned, nearer, farther, lighter, darker and mirrored: (6, dim) unit rows.

    Raises:
        EngineError: the model failed.
    """
    box = _whole(picture)
    others = (
        image.augmented(picture, degrees, zoom, gain, mirrored=mirrored)
        for degrees, zoom, gain, mirrored in _VIEWS
    )
    return np.stack([embedder.embed(view, [box], Timings())[0] for view in (picture, *others)])


class _Look:
    """A picture, decoded once a model has to see it."""

    def __init__(self, data: bytes, where: str, known: CachedEmbeddings) -> None:
        self.made: CachedEmbeddings = {}
        self._data, self._where, self._known = data, where, known
        self._digest = hashlib.sha256(data).hexdigest()

    @cached_property
    def _picture(self) -> Image:
        return image.decode_image(self._data, self._where)

    def probabilities(self, models: LoadedModels) -> FloatArray | None:
        """(labels,); None without a classifier."""
        classifier = models.stages.classifier
        if classifier is None:
            return None
        shape = (len(classifier.model.labels),)
        return self._answer(classifier.fingerprint, shape, lambda p: classifier.classify(p, [_whole(p)], Timings())[0])

    def vectors(self, embedder: Embedder) -> FloatArray:
        """(6, dim)."""
        shape = (1 + len(_VIEWS), embedder.model.dim)
        return self._answer(_views_by(embedder), shape, lambda picture: embed_views(embedder, picture))

    def outline(self, models: LoadedModels) -> NDArray[np.uint8]:
        """(outline.SIZE,), empty where the localiser finds nothing."""
        localiser = models.stages.localiser
        if localiser is None:
            return np.zeros(SIZE, np.uint8)

        def find(picture: Image) -> Numbers:
            (found,) = localiser.silhouettes(picture, [_whole(picture)], Timings())
            return np.zeros(SIZE, np.uint8) if found is None else found

        return self._answer(localiser.fingerprint, (SIZE,), find)

    def _answer(self, by: str, shape: tuple[int, ...], ask: Callable[[Image], Numbers]) -> Numbers:
        """What a model answers to the picture, or has answered before."""
        key = (self._digest, by)
        found = self.made.get(key, self._known.get(key))
        if found is None or found.shape != shape:
            found = ask(self._picture)
        if by:
            self.made[key] = found
        return found


def _views_by(embedder: Embedder) -> str:
    """What vectors are made by: the model, and how else a look is seen; empty where that is not known."""
    return hashlib.sha256(f"{embedder.fingerprint} {_VIEWS}".encode()).hexdigest() if embedder.fingerprint else ""


def _asks_for_outline(embedder: Embedder, category: str) -> bool:
    rule = embedder.model.outline.get(category)
    return rule is not None and rule.counts


def _whole(picture: Image) -> Box:
    return (0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))


_MAGIC = b"finesight made 1\n"
_DIGEST = hashlib.sha256().digest_size
_LENGTH = 4  # bytes
_KINDS = {"float32": "<f4", "uint8": "|u1"}

Numbers = NDArray[Any]  # float32 or uint8
CachedEmbeddings = dict[tuple[str, str], Numbers]  # by SHA-256 of the picture, and by what made them


def pack(made: CachedEmbeddings) -> bytes:
    """The bytes of a file; the same numbers, the same bytes."""
    ordered = sorted(made.items())
    header = json.dumps([[*key, numbers.dtype.name, numbers.shape] for key, numbers in ordered]).encode()
    parts = [np.ascontiguousarray(numbers, _KINDS[numbers.dtype.name]).tobytes() for _, numbers in ordered]
    body = b"".join([len(header).to_bytes(_LENGTH, "little"), header, *parts])
    return _MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes, where: str) -> CachedEmbeddings:
    """What a file holds.

    Raises:
        TaughtItemsError: it is damaged, or of another version.
    """
    start = len(_MAGIC) + _DIGEST
    body = data[start:]
    if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
        raise TaughtItemsError(f"{where}: found {len(data)} bytes without their checksum, expected a whole file")
    made: CachedEmbeddings = {}
    try:
        at = _LENGTH + int.from_bytes(body[:_LENGTH], "little")
        for picture, by, kind, shape in json.loads(body[_LENGTH:at]):
            numbers = np.frombuffer(body, _KINDS[kind], math.prod(shape), at).reshape(shape)
            made[picture, by] = numbers
            at += numbers.nbytes
    except (ValueError, TypeError, KeyError) as error:
        raise TaughtItemsError(f"{where}: found a header that does not fit: {error!r}"[:300]) from error
    return made
