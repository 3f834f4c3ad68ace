"""Cut-outs: objects without their background, from RGBA pictures, mask files, plain backgrounds or boxes.

The first of these that applies gives the mask of a picture:

    picture.png with transparent pixels     its alpha
    picture.mask.png beside picture.*       white is the object
    COCO `segmentation`                     polygons or run lengths
    a box of COCO, VOC, YOLO ..             the mask source, GrabCut by default
    a plain border                          a flood from the border

A picture without a mask, or with a mask that cannot be right, is logged, skipped and counted.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_formats.coco.reader import read_coco
from dataset_formats.coco.rle import decode_rle
from dataset_formats.decode import PICTURE_SUFFIXES, read_image, read_picture
from dataset_formats.layouts import find_layout
from dataset_formats.notices import report
from dataset_formats.records import ONE_CATEGORY, NamedBox, Sample
from dataset_formats.text_files import BAD_DATA
from edge.errors import CaptureError, DataError, TrainError
from edge.types import Box
from trainer.data.dataset import read_samples
from trainer.pasting.mask_sources import Mask, MaskSource, box_agreement, grabcut, mask_flaw, mask_on_plain_background

log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]
LONGEST_PX = 512
LEAST_BOX_AGREEMENT = 0.7  # IoU of a box with the bounding box of the mask found in it
_SMALLEST_PX = 8
_SUFFIX = ".mask.png"


@dataclass(frozen=True, slots=True)
class Cutout:
    """One object without its background."""

    picture: Bytes  # (h, w, 4) RGBA, colours premultiplied by alpha, feathered, tight
    category: str
    item: str
    label: str = ""  # name of the item, for people


@dataclass(slots=True)
class Cutouts:
    """The cut-outs of a collection."""

    found: list[Cutout] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # why each other object was not cut out
    count: Counter[tuple[str, str]] = field(default_factory=Counter)  # by category and item

    def skip(self, reason: str) -> None:
        """Log and count an object that cannot be cut out."""
        log.warning("skipped %s", reason)
        self.skipped.append(reason)


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which objects of a collection to cut out, and how."""

    splits: Sequence[str] | None
    per_item: int | None
    masks: MaskSource

    def takes(self, split: str | None, sample: Sample, taken: Cutouts) -> bool:
        if self.splits is not None and split is not None and split not in self.splits:
            return False
        return self.per_item is None or taken.count[sample.category, sample.item] < self.per_item


_Candidate = tuple[str, Bytes, Mask | None, Sample]


def read_cutouts(
    source: Path,
    root: Path | None = None,
    splits: Sequence[str] | None = None,
    *,
    per_item: int | None = None,
    masks: MaskSource = grabcut,
) -> Cutouts:
    """Cut out every object of a collection.

    Args:
        source: one of three kinds. In a COCO JSON, the `supercategory` is the category, and the category is the item
            unless an annotation has an `item_id`. A data set as trainer.data.dataset.read_samples takes it. Or a folder
            of pictures, each of which is its own item of the category `object`.
        root: folder of the paths in a JSON or CSV; None: where the pictures are.
        splits: use only these; None: all.
        per_item: largest number of cut-outs of an item; None: all.
        masks: mask source for boxes without a segmentation.

    Raises:
        DataError: the collection cannot be read.
        TrainError: nothing could be cut out; names the first skipped object.
    """
    taken, selection = Cutouts(), _Selection(splits, per_item, masks)
    reading = _of_coco if source.suffix == ".json" else _of_pictures
    for where, image_rgb, mask, sample in reading(source, root, selection, taken):
        picture = None if mask is None or mask_flaw(mask, image_rgb.shape) else cut_out(image_rgb, mask)
        if picture is not None and min(picture.shape[:2]) >= _SMALLEST_PX:
            taken.found.append(Cutout(picture, sample.category, sample.item, sample.label))
            taken.count[sample.category, sample.item] += 1
        elif picture is not None:
            size = f"{picture.shape[1]}x{picture.shape[0]}"
            taken.skip(f"{where}: object is {size} pixels; it needs {_SMALLEST_PX} or more on each side")
        elif mask is not None:
            taken.skip(f"{where}: {mask_flaw(mask, image_rgb.shape)}")
        else:
            taken.skip(f"{where}: no mask: give one, a plain background, or a box around a clear object")
    if not taken.found:
        first = f"; the first: {taken.skipped[0]}" if taken.skipped else ""
        raise TrainError(f"{source}: nothing can be cut out{first}")
    return taken


def _of_pictures(source: Path, root: Path | None, selection: _Selection, taken: Cutouts) -> Iterator[_Candidate]:
    for sample in _samples(source, root):
        if sample.path.name.endswith(_SUFFIX) or not selection.takes(sample.split, sample, taken):
            continue
        try:
            image_rgb = read_picture(sample.path)[0]
            mask = _given_mask(sample.path)
        except CaptureError as error:
            taken.skip(str(error))
            continue
        if mask is None:
            box_px = sample.box_px
            mask = (
                mask_on_plain_background(image_rgb) if box_px is None else _in_box(image_rgb, box_px, selection.masks)
            )
        yield str(sample.path), image_rgb, mask, sample


def _samples(source: Path, root: Path | None) -> list[Sample]:
    if source.is_dir() and not (source / "index.csv").is_file() and not _has_boxes(source):
        flat = sorted(path for path in source.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        if flat:
            return [Sample(path, "train", ONE_CATEGORY, path.name.split(".")[0]) for path in flat]
    return read_samples(source, root)


def _has_boxes(folder: Path) -> bool:
    try:
        find_layout(folder, boxed=True)
    except DataError:
        return False
    return True


def _given_mask(path: Path) -> Mask | None:
    """Return the mask file beside a picture, or its alpha, or None."""
    beside = path.with_name(path.stem + _SUFFIX)
    if beside.is_file():
        return np.asarray(read_image(beside).max(axis=2) >= 128)
    if path.suffix.lower() not in (".png", ".webp", ".tif", ".tiff"):
        return None
    picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
        return None
    half = 128 if picture.dtype == np.uint8 else 32768
    return None if picture[..., 3].min() >= half else np.asarray(picture[..., 3] >= half)


def _of_coco(source: Path, root: Path | None, selection: _Selection, taken: Cutouts) -> Iterator[_Candidate]:
    listing = read_coco(source, root, outlines=True)
    for line in report(listing, source):
        log.warning("%s", line)
    taken.skipped += listing.left_out
    for picture in listing.scenes:
        pieces = []
        for box in picture.boxes:
            sample = Sample(picture.path, "train", box.category, box.item_id or box.item)
            if selection.takes(picture.split or None, sample, taken):
                pieces.append((box, sample))
        if not pieces:
            continue
        try:
            image_rgb = read_picture(picture.path)[0]
        except CaptureError as error:
            taken.skip(str(error))
            continue
        for box, sample in pieces:
            x, y = box.box_px[:2]
            where = f"{picture.path}, {sample.item} at {x:g},{y:g}"
            yield where, image_rgb, _segment(box, image_rgb, selection.masks), sample


def _segment(box: NamedBox, image_rgb: Bytes, masks: MaskSource) -> Mask | None:
    """Return the mask of an annotated object; None if its outline is unreadable, or nothing is found in its box."""
    try:
        if isinstance(box.outline, dict):
            return decode_rle(box.outline)
        if isinstance(box.outline, list):
            drawn = np.zeros(image_rgb.shape[:2], np.uint8)
            cv2.fillPoly(drawn, [np.round(np.reshape(part, (-1, 2))).astype(np.int32) for part in box.outline], 1)
            return np.asarray(drawn > 0)
    except (*BAD_DATA, cv2.error, DataError):
        return None
    return _in_box(image_rgb, box.box_px, masks)


def _in_box(image_rgb: Bytes, box_px: Box, masks: MaskSource) -> Mask | None:
    mask = masks(image_rgb, box_px) if np.isfinite(box_px).all() else None
    return mask if mask is not None and box_agreement(mask, box_px) >= LEAST_BOX_AGREEMENT else None


def cut_out(image_rgb: Bytes, mask: Mask) -> Bytes:
    """Cut an object out: tight (h, w, 4), premultiplied and feathered.

    The rim of a mask holds colours of the old background; the object's nearest colours replace them.
    """
    x, y, wide, high = cv2.boundingRect(mask.astype(np.uint8))
    part = np.pad(image_rgb[y : y + high, x : x + wide], ((2, 2), (2, 2), (0, 0)), mode="edge")
    solid = np.pad(mask[y : y + high, x : x + wide].astype(np.float32), 2)
    shrink = min(1.0, LONGEST_PX / max(part.shape[:2]))
    if shrink < 1.0:
        size = (max(1, round(part.shape[1] * shrink)), max(1, round(part.shape[0] * shrink)))
        part, solid = (cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in (part, solid))
    square = np.ones((3, 3), np.uint8)
    inner = cv2.erode(solid, square, iterations=2)
    if inner.max() < 0.5:  # too thin to spare its rim
        inner = solid
    weight = cv2.GaussianBlur(inner, (0, 0), 2.0)
    spread = (
        cv2.GaussianBlur(part.astype(np.float32) * inner[..., None], (0, 0), 2.0) / np.maximum(weight, 1e-3)[..., None]
    )
    colour = inner[..., None] * part + (1 - inner[..., None]) * np.where(weight[..., None] > 1e-3, spread, part)
    alpha = cv2.GaussianBlur(np.minimum(solid, cv2.erode(solid, square) + 0.35), (0, 0), 0.8)
    alpha = np.clip((alpha - 0.1) / 0.8, 0, 1)
    return np.dstack([colour * alpha[..., None], alpha * 255]).round().clip(0, 255).astype(np.uint8)
