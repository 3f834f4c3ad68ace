"""Recognise one image of one object: the same models, gallery and decision as for a camera, without tracks."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import PictureError
from edge.imaging import image
from edge.imaging.formats import unread_format
from edge.imaging.header import detect_format, read_header
from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import LoadedModels
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Decision, FloatArray, Image, Silhouette

MAX_PIXELS = 25_000_000  # 75 MB once decoded


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """The categories and embeddings of one image."""

    categories: list[Category]  # to search, best first
    vectors: dict[str, FloatArray]  # by category, (dim,) of unit length
    silhouette: Silhouette | None = None  # where it counts for one of the categories


def decode_upload(data: bytes) -> Image:
    """Decode an uploaded JPEG, PNG or WebP: rotated by its EXIF tag, 8 bits, the first frame of an animation.

    Raises:
        PictureError: empty, another format, more than MAX_PIXELS by its header, truncated, or damaged.
    """
    if not data:
        raise PictureError("empty", "the picture is empty; send a JPEG, PNG or WebP")
    kind = detect_format(data)
    if kind is None:
        what = unread_format(data) or f"the {len(data)} bytes"
        raise PictureError("not_a_picture", f"{what} cannot be read here; send a JPEG, PNG or WebP")
    header = read_header(data, kind)
    if header.pixels > MAX_PIXELS:
        size = f"{header.width}x{header.height}"
        raise PictureError("too_large", f"the picture has {size} pixels; send at most {MAX_PIXELS}")
    return image.decode_image(data, "picture")


def extract_features(
    models: LoadedModels, image_rgb: Image, timings: Timings, also: str | None = None
) -> ImageFeatures:
    """Classify and embed an image that one object fills.

    Args:
        models: bundle and gallery.
        image_rgb: the image.
        timings: of the stages.
        also: a category to embed for, even if unlikely.

    Raises:
        EngineError: a model failed.
    """
    box: Box = (0.0, 0.0, float(image_rgb.shape[1]), float(image_rgb.shape[0]))
    classifier, embedders = models.stages.classifier, models.stages.embedders
    output = classifier.classify_with_features(image_rgb, [box], timings) if classifier else None
    categories = candidate_categories(models, output.probabilities[0] if output else None)
    wanted = categories_to_embed(models, categories, also)
    descriptors = output.descriptors if output else None
    needed = {embedders[name] for name in wanted}
    vectors = {embedder: embedder.embed(image_rgb, [box], timings, descriptors)[0] for embedder in needed}
    silhouette = None
    if models.wants_silhouette(wanted) and models.stages.localiser is not None:
        (silhouette,) = models.stages.localiser.silhouettes(image_rgb, [box], timings)
    return ImageFeatures(categories, {name: vectors[embedders[name]] for name in wanted}, silhouette)


def candidate_categories(models: LoadedModels, probabilities: FloatArray | None) -> list[Category]:
    """Return the categories to search for an image, best first.

    Args:
        models: bundle and gallery.
        probabilities: (labels,) of the classifier; None: there is none, and every category is searched.
    """
    classifier, embedders = models.stages.classifier, models.stages.embedders
    if classifier is None or probabilities is None:
        return [Category(name, 1.0) for name in embedders]
    return categories_to_search(classifier.rank_categories(probabilities), models.category_threshold, embedders)


def categories_to_embed(models: LoadedModels, categories: list[Category], also: str | None) -> list[str]:
    """Return the names of the categories that have an embedder, and `also` even if unlikely."""
    embedders = models.stages.embedders
    wanted = [category.name for category in categories if category.name in embedders]
    return [*wanted, also] if also in embedders and also not in wanted else wanted


def recognise_image(models: LoadedModels, image_rgb: Image, min_object_px: int, timings: Timings) -> Decision:
    """Decide what fills an image, or why it is unknown.

    Raises:
        EngineError: a model failed.
    """
    if min(image_rgb.shape[:2]) < min_object_px:
        return Decision(None, None, "too_small")
    features = extract_features(models, image_rgb, timings)
    with timings.stage("search"):
        hits = models.search(features.vectors, features.silhouette)
    with timings.stage("decide"):
        return models.decide(features.categories, hits)
