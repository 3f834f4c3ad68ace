"""Recognise the objects of one image: the same models, gallery and decision as for a camera, without tracks."""

from __future__ import annotations

from dataclasses import dataclass

from edge.errors import EngineError, NotLoadedError, PictureError
from edge.imaging.formats import unread_format
from edge.imaging.header import detect_format, read_header
from edge.imaging.image import decode_reduced
from edge.imaging.jpeg_decode import FULL_SIZE, DecodedPicture, Reduction
from edge.imaging.pyramid import Pyramid, pyramid_of
from edge.inference.preprocess import placement_of
from edge.inference.stages import Classifier, Embedder
from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.track_features import TrackFeatures, TrackToEmbed, embed_tracks
from edge.recognition.tracker import Track
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Decision, Detection, FloatArray, Image, Silhouette

MAX_PIXELS = 25_000_000  # 75 MB once decoded
_MARGIN = 2.0  # times the pixels of a model's input, each way, that a reduced picture has at least


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """The categories and embeddings of one image."""

    categories: list[Category]  # to search, best first
    vectors: dict[str, FloatArray]  # by category, (dim,) of unit length
    silhouette: Silhouette | None = None  # where it counts for one of the categories


def decode_upload(data: bytes, reduction: Reduction = FULL_SIZE) -> DecodedPicture:
    """Decode an uploaded JPEG, PNG or WebP: rotated by its EXIF tag, 8 bits, the first frame of an animation.

    Args:
        data: the encoded picture.
        reduction: how many times smaller a JPEG may become, see `reduction_for`.

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
    return decode_reduced(data, "picture", reduction)


def reduction_for(models: LoadedModels) -> Reduction:
    """Return how many times smaller a picture may be decoded that one object fills.

    It keeps _MARGIN times the pixels of every model's input, each way. A model that samples pixels, instead of
    averaging them, needs the full size.
    """
    stages = models.stages
    users = [stages.classifier, stages.localiser, *stages.embedders.values()]
    specs = {id(user): user.model.preprocess for user in users if user is not None}.values()
    if not specs or any(spec.interpolation != "area" for spec in specs):
        return FULL_SIZE

    def reduction(width: int, height: int) -> float:
        placements = [placement_of(spec, width, height) for spec in specs]
        return 1.0 / (_MARGIN * max(max(placed.scale_x, placed.scale_y) for placed in placements))

    return reduction


def extract_features(
    models: LoadedModels, picture: Image | Pyramid, timings: Timings, also: str | None = None
) -> ImageFeatures:
    """Classify and embed an image that one object fills.

    Args:
        models: bundle and gallery.
        picture: the image.
        timings: of the stages.
        also: a category to embed for, even if unlikely.

    Raises:
        EngineError: a model failed, or the one of the likeliest category cannot be loaded.
    """
    pyramid = pyramid_of(picture)
    box: Box = (0.0, 0.0, float(pyramid.width), float(pyramid.height))
    classifier, embedders = models.stages.classifier, models.stages.embedders
    categories = descriptors = None
    if classifier is not None:
        output = classifier.classify_with_features(pyramid, [box], timings)
        categories, descriptors = likely_categories(models, classifier, output.probabilities[0]), output.descriptors
    wanted = list(embedders) if categories is None else categories_to_embed(models, categories, also)
    needed = {embedders[name] for name in ([also] if also in embedders else [] if categories is None else wanted[:1])}
    vectors: dict[str, FloatArray] = {}
    problems: dict[Embedder, NotLoadedError] = {}
    for embedder in dict.fromkeys(embedders[name] for name in wanted):
        try:
            vectors[embedder.model.space_id] = embedder.embed(pyramid, [box], timings, descriptors)[0]
        except NotLoadedError as error:  # other categories are searched, unless this is the likeliest
            problems[embedder] = error
    if problems and (not vectors or not needed.isdisjoint(problems)):
        raise next(iter(problems.values()))
    if categories is None:
        categories = models.nearest_categories(vectors)
        wanted = categories_to_embed(models, categories, also)
    wanted = [name for name in wanted if embedders[name].model.space_id in vectors]
    silhouette = None
    if models.wants_silhouette(wanted) and models.stages.localiser is not None:
        (silhouette,) = models.stages.localiser.silhouettes(pyramid, [box], timings)
    return ImageFeatures(categories, {name: vectors[embedders[name].model.space_id] for name in wanted}, silhouette)


def likely_categories(models: LoadedModels, classifier: Classifier, probabilities: FloatArray) -> list[Category]:
    """Return the categories to search for an image, best first.

    Args:
        models: bundle and gallery.
        classifier: of the bundle.
        probabilities: (labels,) of the classifier.
    """
    ranked = classifier.rank_categories(probabilities)
    return categories_to_search(ranked, models.category_threshold, models.stages.embedders)


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
    picture = DecodedPicture(image_rgb, image_rgb.shape[1], image_rgb.shape[0])
    return recognise_picture(models, picture, min_object_px, timings)


def recognise_picture(models: LoadedModels, picture: DecodedPicture, min_object_px: int, timings: Timings) -> Decision:
    """Decide what fills a picture that is decoded as small as `reduction_for` allows, or why it is unknown.

    Raises:
        EngineError: a model failed.
    """
    if min(picture.width, picture.height) < min_object_px:
        return Decision(None, None, "too_small")
    features = extract_features(models, picture.image_rgb, timings)
    with timings.stage("search"):
        hits = models.search(features.vectors, features.silhouette)
    with timings.stage("decide"):
        return models.decide(features.categories, hits)


def recognise_objects(
    models: LoadedModels, image_rgb: Image, min_object_px: int, timings: Timings
) -> list[tuple[Detection, Decision]]:
    """Detect the objects of an image and decide what each is, by this one view; the detector's best first.

    Raises:
        EngineError: a model failed, or there is no detector.
    """
    if models.stages.detector is None:
        raise EngineError(f"bundle {models.bundle_id}: has no detector; pack one into it")
    (detections,) = models.stages.detector.detect([image_rgb], timings)
    decisions = [Decision(None, None, "too_small")] * len(detections)
    large = [i for i, detection in enumerate(detections) if _shorter_side_px(detection.box_px) >= min_object_px]
    views = [
        TrackToEmbed(Track(i, detections[i].box_px, detections[i].label, 1, 0.0, 0.0), TrackFeatures(), 1.0)
        for i in large
    ]
    if views:
        embed_tracks(models, image_rgb, views, 0.0, timings)
    for i, view in zip(large, views, strict=True):
        decisions[i] = view.features.decision or decisions[i]
    return list(zip(detections, decisions, strict=True))


def _shorter_side_px(box_px: Box) -> float:
    return min(box_px[2] - box_px[0], box_px[3] - box_px[1])
