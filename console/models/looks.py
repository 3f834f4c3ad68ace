"""What the models see in one picture that one object fills: for the review, which orders and names crops by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.imaging.pyramid import Pyramid
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.recognise_image import extract_features
from edge.telemetry.timing import Timings
from edge.types import Category, FloatArray, Hit, Image


@dataclass(frozen=True, slots=True)
class Look:
    """What the models see in one picture."""

    # of the classifier, best first; (): none is likely, the category was known, or there is no classifier
    categories: tuple[Category, ...]
    vectors: Mapping[str, FloatArray]  # by category, (dim,) of unit length; never empty
    spaces: Mapping[str, str]  # embedding space of each vector
    # nearest items by category, best first; categories without a gallery are absent
    hits: Mapping[str, tuple[Hit, ...]]


def look_at(models: LoadedModels, image_rgb: Image, category: str | None, general: str) -> Look:
    """Look at a picture that one object fills.

    Args:
        models: bundle and gallery.
        image_rgb: the picture.
        category: of the object, if it is known: only its embedder runs.
        general: category whose embedder stands in for a category that the bundle lacks; its items are no hits then.

    Raises:
        EngineError: a model failed.
    """
    if category is not None:
        known = category in models.stages.embedders
        return _look_as(models, image_rgb, category if known else general, search=known)
    features = extract_features(models, image_rgb, Timings())
    categories = tuple(features.categories) if models.stages.classifier else ()
    if not features.vectors:  # no category is likely enough
        look = _look_as(models, image_rgb, general, search=True)
        return Look(categories, look.vectors, look.spaces, look.hits)
    hits = models.search(features.vectors, features.silhouette)
    return Look(categories, features.vectors, _spaces(models, features.vectors), _without_negatives(hits))


def _look_as(models: LoadedModels, image_rgb: Image, category: str, *, search: bool) -> Look:
    pyramid = Pyramid(image_rgb)
    box = (0.0, 0.0, float(pyramid.width), float(pyramid.height))
    vectors = {category: models.stages.embedders[category].embed(pyramid, [box], Timings())[0]}
    silhouette = None
    if search and models.wants_silhouette([category]) and models.stages.localiser is not None:
        (silhouette,) = models.stages.localiser.silhouettes(pyramid, [box], Timings())
    hits = models.search(vectors, silhouette) if search else {}
    return Look((), vectors, _spaces(models, vectors), _without_negatives(hits))


def _spaces(models: LoadedModels, vectors: Mapping[str, FloatArray]) -> dict[str, str]:
    ids = models.space_ids
    return {name: ids[name] for name in vectors}


def _without_negatives(hits: Mapping[str, list[Hit]]) -> dict[str, tuple[Hit, ...]]:
    return {category: tuple(hit for hit in found if not hit.negative) for category, found in hits.items()}
