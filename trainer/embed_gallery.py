"""Embed catalogue pictures into a gallery for a bundle, with the engine and preprocessing of the device."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from dataset_formats.notices import printable
from dataset_formats.records import Sample
from edge.errors import BundleError, TrainError
from edge.file_names import file_name
from edge.gallery.generation import Gallery, write_gallery_index
from edge.gallery.item_vectors import ENOUGH_PICTURES, augment_views
from edge.gallery.limits import NEGATIVE
from edge.gallery.store import store_path
from edge.gallery.writer import GalleryWriter
from edge.imaging.image import encode_image, shrink
from edge.inference.engine import Backend
from edge.inference.stages import Embedder, Localiser, load_stages
from edge.manifest import Manifest, parse_manifest
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image
from trainer.data.pictures import load_pictures

log = logging.getLogger(__name__)

_MANIFEST = "bundle.json"
_MAX_ID_CHARACTERS = 200  # an event holds at most 256


@dataclass(frozen=True, slots=True)
class EmbeddedGallery:
    """A gallery that was written."""

    gallery: Gallery
    pictures: int
    skipped: list[str]  # pictures that could not be read
    not_embedded: dict[str, int]  # pictures of each category that the bundle has no embedder for


def embed_gallery(
    bundle: Path,
    samples: Sequence[Sample],
    out: Path,
    *,
    trimmed: Sequence[str] = ("catalogue",),
    negatives: Sequence[str] = (),
    per_item: int | None = None,
    few: int = ENOUGH_PICTURES,
    thumbnail_px: int = 96,
    backend: Backend = "onnxruntime",
    created_at: str | None = None,
) -> EmbeddedGallery:
    """Embed pictures and write a gallery generation: one store per category, with thumbnails.

    An item without a readable picture is left out, and its pictures are in `skipped`. A category that the bundle cannot
    embed is left out and counted. With a localiser in the bundle, the gallery also holds silhouettes of its pictures.

    Args:
        bundle: folder with `bundle.json`.
        samples: pictures of every item; the first picture of an item becomes its thumbnail.
        out: folder of the generation.
        trimmed: splits whose pictures show one object on a plain background, see edge.imaging.image.trim.
        negatives: splits of negative pictures: an object that is nearest to one of their items is not named.
        per_item: most pictures of an item to use; None: all.
        few: items with fewer pictures also get augmented views, turned and closer; 0: never.
        thumbnail_px: longer side of the thumbnail.
        backend: inference engine.
        created_at: ISO 8601, UTC; None: now.

    Raises:
        TrainError: no picture can be read, or the bundle has no embedder for any of the categories.
        BundleError, EngineError, GalleryError: bundle, engine or gallery cannot be used.
    """
    manifest = _read_manifest(bundle)
    stages = load_stages(bundle, manifest, backend)
    by_item: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        by_item[sample.category][sample.item].append(sample)
    missing = sorted(set(by_item) - set(stages.embedders))
    if missing and len(missing) == len(by_item):
        raise TrainError(f"{bundle}: the bundle has embedders for {sorted(stages.embedders)}, but none for {missing}")
    not_embedded = {category: sum(map(len, by_item.pop(category).values())) for category in missing}
    if not_embedded:
        log.warning(
            "left out %d pictures of %d categories that the bundle has no embedder for: %s",
            sum(not_embedded.values()),
            len(missing),
            ", ".join(f"{printable(category)} ({count})" for category, count in not_embedded.items()),
        )
    pictures, skipped, empty = 0, [], []
    for category, items in sorted(by_item.items()):
        model = manifest.embedder_for(category)
        if model is None:
            raise BundleError(f"{bundle}: the manifest has no embedder for {category!r}")
        written = 0
        with GalleryWriter(out, category, model.space_id, model.heads) as writer:
            for item, listed in sorted(items.items()):
                try:
                    loaded = load_pictures(listed[:per_item], None, trimmed, model.preprocess.crop_margin)
                except TrainError as error:  # the others may be readable
                    log.warning("%s/%s: left out of the gallery: %s", category, item, error)
                    skipped += [str(sample.path) for sample in listed[:per_item]]
                    continue
                is_negative = listed[0].split in negatives
                silhouettes = (
                    [_silhouette(stages.localiser, image) for image in loaded.images] if stages.localiser else []
                )
                writer.add(
                    item_id_of(item),
                    printable(listed[0].label or item),
                    embed_pictures(stages.embedders[category], loaded.images, few),
                    metadata={NEGATIVE: True} if is_negative else None,
                    thumbnail=encode_image(shrink(loaded.images[0], thumbnail_px), ".jpg", 80),
                    silhouettes=b"".join(silhouettes) or None,
                )
                written += 1
                pictures += len(loaded.images)
                skipped += loaded.skipped
        log.info("%s: %d items", category, written)
        if not written:
            store_path(out, category).unlink()
            empty.append(category)
    if len(empty) == len(by_item):
        raise TrainError(f"{', '.join(empty)}: no picture of any item can be read; the first: {skipped[0]}")
    created_at = created_at or datetime.now(timezone.utc).isoformat(timespec="seconds")
    return EmbeddedGallery(write_gallery_index(out, created_at), pictures, skipped, not_embedded)


def item_id_of(name: str) -> str:
    """Return the id of an item in galleries and events: its printable name, or a file name for a very long one."""
    name = printable(name)
    return name if len(name) <= _MAX_ID_CHARACTERS else file_name(name)


def embed_pictures(embedder: Embedder, images_rgb: Sequence[Image], few: int = ENOUGH_PICTURES) -> FloatArray:
    """Embed the pictures of an item for a gallery: (n, dim), rows of unit length.

    Args:
        embedder: embedder of the item's category.
        images_rgb: pictures of the item.
        few: with fewer pictures, augmented views are embedded as well.

    Raises:
        EngineError: the model failed.
    """
    return np.concatenate(
        [embedder.embed(image, [_whole(image)], Timings()) for image in augment_views(images_rgb, few)]
    )


def _silhouette(localiser: Localiser, image_rgb: Image) -> bytes:
    """Return the packed silhouette; empty if no object is found."""
    (silhouette,) = localiser.silhouettes(image_rgb, [_whole(image_rgb)], Timings())
    return b"" if silhouette is None else silhouette.tobytes()


def _whole(image_rgb: Image) -> Box:
    return (0.0, 0.0, float(image_rgb.shape[1]), float(image_rgb.shape[0]))


def _read_manifest(bundle: Path) -> Manifest:
    path = bundle / _MANIFEST
    try:
        return parse_manifest(path.read_text(), str(path))
    except OSError as error:
        raise BundleError(f"{path}: cannot read: {error.strerror}") from error
