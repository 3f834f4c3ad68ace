"""Recognise one picture of one thing: the same models, gallery and decision as the cameras', without their tracks."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import CaptureError, PictureError
from edge.imaging import image
from edge.imaging.header import kind_of, read_header
from edge.imaging.silhouette import Silhouette
from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import LoadedModels
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Decision, FloatArray, Image

MAX_PIXELS = 25_000_000  # 75 MB once decoded


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """What the models see in one picture."""

    categories: list[Category]  # worth a search, best first
    vectors: dict[str, FloatArray]  # by category, (dim,) of unit length
    outline: Silhouette | None = None  # where one of the categories asks for it


def decode_upload(data: bytes) -> Image:
    """Decode an uploaded JPEG, PNG or WebP: upright by its EXIF tag, 8 bits, the first picture of an animation.

    Raises:
        PictureError: empty, something else, more than MAX_PIXELS by its header, cut short, or broken.
    """
    if not data:
        raise PictureError("empty", "picture: found 0 bytes, expected a JPEG, PNG or WebP")
    kind = kind_of(data)
    if kind is None:
        raise PictureError("not_a_picture", f"picture: found {len(data)} bytes, expected a JPEG, PNG or WebP")
    header = read_header(data, kind)
    if header.pixels > MAX_PIXELS:
        size = f"{header.width}x{header.height}"
        raise PictureError("too_large", f"picture: found {size} pixels, expected at most {MAX_PIXELS}")
    if not header.is_whole:
        raise PictureError("truncated", f"picture: found {len(data)} bytes of a {kind}, expected it to its end")
    try:
        return image.decode_image(data, "picture")
    except CaptureError as error:
        raise PictureError("broken", str(error)) from error


def extract_features(models: LoadedModels, image_rgb: Image, timings: Timings, also: str | None = None) -> ImageFeatures:
    """Classify and embed a picture that one thing fills.

    Args:
        models: bundle and gallery.
        image_rgb: the picture.
        timings: of the stages.
        also: a category to embed for, however unlikely.

    Raises:
        EngineError: a model failed.
    """
    box: Box = (0.0, 0.0, float(image_rgb.shape[1]), float(image_rgb.shape[0]))
    classifier, embedders = models.stages.classifier, models.stages.embedders
    seen = classifier.classify_with_features(image_rgb, [box], timings) if classifier else None
    categories = candidate_categories(models, seen.probabilities[0] if seen else None)
    wanted = categories_to_embed(models, categories, also)
    described = seen.descriptors if seen else None
    asked = {embedders[name] for name in wanted}
    made = {embedder: embedder.embed(image_rgb, [box], timings, described)[0] for embedder in asked}
    outline = None
    if models.wants_silhouette(wanted) and models.stages.localiser is not None:
        (outline,) = models.stages.localiser.silhouettes(image_rgb, [box], timings)
    return ImageFeatures(categories, {name: made[embedders[name]] for name in wanted}, outline)


def candidate_categories(models: LoadedModels, probabilities: FloatArray | None) -> list[Category]:
    """The categories that a picture is worth a search in, best first.

    Args:
        models: bundle and gallery.
        probabilities: (labels,) of its classifier; None: it has none, and every category is.
    """
    classifier, embedders = models.stages.classifier, models.stages.embedders
    if classifier is None or probabilities is None:
        return [Category(name, 1.0) for name in embedders]
    return categories_to_search(classifier.name(probabilities), models.category_threshold, embedders)


def categories_to_embed(models: LoadedModels, categories: list[Category], also: str | None) -> list[str]:
    """Those of the categories that have an embedder, and one that is asked for however unlikely."""
    embedders = models.stages.embedders
    wanted = [category.name for category in categories if category.name in embedders]
    return [*wanted, also] if also in embedders and also not in wanted else wanted


def recognise_image(models: LoadedModels, image_rgb: Image, min_object_px: int, timings: Timings) -> Decision:
    """Say what fills a picture, or why that is not known.

    Raises:
        EngineError: a model failed.
    """
    if min(image_rgb.shape[:2]) < min_object_px:
        return Decision(None, None, "too_small")
    look = extract_features(models, image_rgb, timings)
    with timings.stage("search"):
        hits = models.search(look.vectors, look.outline)
    with timings.stage("decide"):
        return models.decide(look.categories, hits)
