"""Embed the pictures of one item, with the models and the preprocessing of the device; from any thread.

Rules this module keeps:
1. The vectors of an item depend on its own pictures alone: no other item shares a run of the engine with it. So a
   gallery has the same bytes for any number of threads, shards and machines of one kind.
2. Few pictures are in memory at once, however many an item has.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_formats.decode import decode_pixels
from edge.errors import BundleError, CaptureError
from edge.gallery.item_vectors import ENOUGH_PICTURES, augment_views
from edge.imaging.image import encode_image
from edge.imaging.pyramid import Pyramid
from edge.inference.engine import Backend
from edge.inference.engine_choice import models_of
from edge.inference.stages import Embedder, Localiser, load_stages
from edge.manifest.manifest import Manifest, parse_manifest
from edge.telemetry.timing import Timings
from edge.types import FloatArray, Image
from trainer.catalogue.items import CatalogueItem, CataloguePicture
from trainer.catalogue.part_files import Record
from trainer.catalogue.storage import read_picture_bytes
from trainer.data.pictures import Pictures, clip_to_picture, cut_out_object, is_plain, skip_picture

log = logging.getLogger(__name__)

_MANIFEST = "bundle.json"
_MOST_PIXELS = 16_000_000  # of the pictures that wait for a run of the engine
_UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """What a gallery holds of each item."""

    trimmed: tuple[str, ...] = ("catalogue",)  # splits that show one object on a plain background, see `image.trim`
    few: int = ENOUGH_PICTURES  # items with fewer pictures also get augmented views; 0: never
    thumbnail_px: int = 96  # longer side
    backend: Backend = "onnxruntime"


class ItemEmbedder:
    """Embeds items with the models of a bundle."""

    def __init__(self, bundle: Path, options: EmbedOptions) -> None:
        """Load the models of a bundle; each runs in the thread that calls it.

        Raises:
            BundleError, EngineError: the bundle or an engine cannot be used.
        """
        self.manifest = read_manifest(bundle)
        self._options = options
        self._stages = load_stages(bundle, self.manifest, options.backend)
        self._keys = {category: self._key_of_models(category) for category in self._stages.embedders}

    @property
    def categories(self) -> frozenset[str]:
        """Categories that the bundle has an embedder for."""
        return frozenset(self._keys)

    @property
    def models_digest(self) -> str:
        """A hash of all models and options that decide about vectors."""
        return hashlib.sha256(json.dumps(sorted(self._keys.items())).encode()).hexdigest()

    def embed(self, item: CatalogueItem, known: Collection[str] = ()) -> Record | str:
        """Embed an item, unless that was done before.

        A picture that cannot be read is logged and counted in the record.

        Args:
            item: of a category that the bundle has an embedder for.
            known: keys of the records that there are of this item.

        Returns:
            its record, or the key of the known record that is still right.

        Raises:
            EngineError: a model failed.
        """
        if known and (key := self._key(item, [_digest(picture.path) for picture in item.pictures])) in known:
            return key
        embedder = self._stages.embedders[item.category]
        digests: list[str] = []
        pictures = Pictures()
        found = _read(item.pictures, self._options.trimmed, embedder.model.preprocess.crop_margin, pictures, digests)
        rows = _Rows(embedder, self._options.few)
        silhouettes, thumbnail = [], b""
        for image_rgb, plain in found:
            picture = Pyramid(image_rgb)
            if not rows.pictures:
                thumbnail = _thumbnail(picture, self._options.thumbnail_px)
            if self._stages.localiser is not None:
                silhouettes.append(_silhouette(self._stages.localiser, picture))
            rows.add(picture, plain=plain)
        vectors = rows.finish()
        if not rows.pictures:
            name = f"{item.category}/{item.item_id}"
            why = f"none of {len(item.pictures)} pictures can be read; the first: {pictures.skipped[0]}"
            log.warning("%s: left out of the gallery: %s", name, why)
        return Record(
            self._key(item, digests),
            item.category,
            item.item_id,
            item.label,
            item.negative,
            rows.pictures,
            tuple(pictures.skipped),
            vectors,
            thumbnail,
            b"".join(silhouettes),
            item.attributes,
        )

    def _key(self, item: CatalogueItem, digests: Sequence[str]) -> str:
        """Return a hash of everything that the record of an item depends on."""
        shown = [
            [digest, one.split in self._options.trimmed, one.box_px]
            for digest, one in zip(digests, item.pictures, strict=True)
        ]
        further = [item.attributes] if item.attributes else []
        parts = [self._keys[item.category], *item.order, item.label, item.negative, shown, *further]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _key_of_models(self, category: str) -> list[object]:
        """Return what decides about the vectors of a category, apart from its pictures."""
        options, engines = self._options, self._stages.engines
        files = {entry.path: entry.sha256 for entry in self.manifest.files}
        model = self._stages.embedders[category].model
        used = {"localiser", "classifier"} if model.classifier_share else {"localiser"}
        shas = [
            (name, files[one.every_file[engines[name].form]])
            for name, one in models_of(self.manifest).items()
            if name in used or one is model
        ]
        localiser = self.manifest.localiser
        return [
            model.space_id,
            model.classifier_share,
            shas,
            localiser.model_dump(mode="json") if localiser else None,
            [options.few, options.thumbnail_px, options.backend],
        ]


class _Rows:
    """The vectors of one item, whose pictures come one by one."""

    def __init__(self, embedder: Embedder, few: int) -> None:
        self.pictures = 0
        self._embedder, self._few = embedder, few
        # Pictures, and whether each shows one object on a plain background
        self._held: list[tuple[Pyramid, bool]] = []  # to make views of, if no more come
        self._waiting: list[tuple[Pyramid, bool]] = []
        self._vectors: list[FloatArray] = []

    def add(self, picture: Pyramid, *, plain: bool = False) -> None:
        """Add a picture of the item, which may be on a plain background."""
        self.pictures += 1
        self._held = [*self._held, (picture, plain)] if self.pictures < self._few else []
        self._embed_soon(picture, plain=plain)

    def finish(self) -> FloatArray:
        """Return the vectors of the pictures, then those of the views of each: (n, dim); (0, 0) without a picture."""
        for picture, plain in self._held:
            for view in augment_views([picture.image_rgb])[1:]:
                self._embed_soon(Pyramid(view), plain=plain)
        self._embed()
        return np.concatenate(self._vectors) if self._vectors else np.zeros((0, 0), np.float32)

    def _embed_soon(self, picture: Pyramid, *, plain: bool) -> None:
        self._waiting.append((picture, plain))
        pixels = sum(one.width * one.height for one, _ in self._waiting)
        if len(self._waiting) == self._embedder.model.max_batch or pixels > _MOST_PIXELS:
            self._embed()

    def _embed(self) -> None:
        if self._waiting:
            pictures, plain = zip(*self._waiting, strict=True)
            self._vectors.append(self._embedder.embed_whole(pictures, Timings(), plain=plain))
            self._waiting = []


def embed_pictures(embedder: Embedder, images_rgb: Iterable[Image], few: int = ENOUGH_PICTURES) -> FloatArray:
    """Embed the pictures of an item for a gallery: (n, dim), rows of unit length.

    Args:
        embedder: embedder of the item's category.
        images_rgb: pictures of the item.
        few: with fewer pictures, augmented views are embedded as well.

    Raises:
        EngineError: the model failed.
    """
    rows = _Rows(embedder, few)
    for image in images_rgb:
        rows.add(Pyramid(image))
    return rows.finish()


def read_manifest(bundle: Path) -> Manifest:
    """Read the manifest of a bundle folder.

    Raises:
        BundleError: it cannot be read.
    """
    path = bundle / _MANIFEST
    try:
        return parse_manifest(path.read_text(), str(path))
    except OSError as error:
        raise BundleError(f"{path}: cannot read: {error.strerror}") from error


def _read(
    listed: Sequence[CataloguePicture],
    trimmed: Sequence[str],
    margin: float,
    pictures: Pictures,
    digests: list[str],
) -> Iterator[tuple[Image, bool]]:
    """Yield the part of each picture that shows the object, and whether it was trimmed.

    It notes digests, and why pictures cannot be read.
    """
    last: tuple[str, str, Image | None] = (
        "",
        _UNREADABLE,
        None,
    )  # path, digest and pixels: the crops of one picture follow each other
    for one in listed:
        if one.path != last[0]:
            last = (one.path, *_decoded(one.path, pictures))
        digests.append(last[1])
        if last[2] is not None and (fitted := clip_to_picture(one, last[2], pictures)) is not None:
            yield cut_out_object(fitted, last[2], trimmed, margin), is_plain(fitted, trimmed)


def _decoded(path: str, pictures: Pictures) -> tuple[str, Image | None]:
    """Return the digest and pixels of a picture; None if it cannot be decoded."""
    digest = _UNREADABLE
    try:
        data = read_picture_bytes(path)
        digest = hashlib.sha256(data).hexdigest()
        return digest, decode_pixels(data, path)
    except CaptureError as error:
        skip_picture(pictures, str(error))
        return digest, None


def _digest(path: str) -> str:
    try:
        return hashlib.sha256(read_picture_bytes(path)).hexdigest()
    except CaptureError:
        return _UNREADABLE


def _thumbnail(picture: Pyramid, longest_px: int) -> bytes:
    scale = min(1.0, longest_px / max(picture.width, picture.height))
    width, height = (max(1, round(side * scale)) for side in (picture.width, picture.height))
    return encode_image(picture.resized(width, height), ".jpg", 80)


def _silhouette(localiser: Localiser, picture: Pyramid) -> bytes:
    """Return the packed silhouette; empty if no object is found."""
    (silhouette,) = localiser.silhouettes(picture, [(0.0, 0.0, float(picture.width), float(picture.height))], Timings())
    return b"" if silhouette is None else silhouette.tobytes()
