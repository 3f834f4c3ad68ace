"""Loading of data-set pictures into memory: decoded once, cut to their boxes, shrink_to to what training needs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import CaptureError, TrainError
from edge.imaging.image import crop, resize, trim
from edge.inference.preprocess import to_canvas
from edge.manifest import Preprocess
from edge.types import FloatArray, Image
from trainer.data.decode import read_picture
from trainer.sample import Sample, DetectionSample

log = logging.getLogger(__name__)

_SLACK_PX = 1.5  # rounding, and annotators that count pixels from 1, are no news


@dataclass(slots=True)
class Pictures:
    """Decoded pictures beside their samples."""

    samples: list[Any] = field(default_factory=list)  # Sample or DetectionSample, only those that could be read
    images: list[Image] = field(default_factory=list)  # RGB, shrink_to to what training needs
    scales: list[float] = field(default_factory=list)  # by which each was shrink_to
    skipped: list[str] = field(default_factory=list)  # why each of the others could not be read
    clipped: list[str] = field(default_factory=list)  # boxes that were clipped to their picture, or left out


def load_pictures(
    samples: Sequence[Any], longest_px: int | None, trimmed: Sequence[str] = (), margin: float = 0.0
) -> Pictures:
    """Decode pictures once.

    One that cannot be read is named in the log, skipped and counted.

    Args:
        samples: Sample or DetectionSample.
        longest_px: larger ones are shrink_to until the longer side is this; None: none are.
        trimmed: splits whose pictures show one object on a plain ground, see `trim`.
        margin: by which a box grows, in its sizes.

    Raises:
        TrainError: none could be read.
    """
    pictures = Pictures()
    read: dict[Path, Image] = {}  # the latest picture: the crops of one scene follow each other
    for sample in samples:
        try:
            if sample.path not in read:
                read = {sample.path: read_picture(sample.path)[0]}
        except CaptureError as error:
            _skip(pictures, str(error))
            continue
        fitted = _clip_to_picture(sample, read[sample.path], pictures)
        if fitted is None:
            continue
        image, shrink = shrink_to(_cut_out_object(fitted, read[sample.path], trimmed, margin), longest_px)
        pictures.samples.append(fitted)
        pictures.images.append(image)
        pictures.scales.append(shrink)
    if samples and not pictures.samples:
        raise TrainError(f"none of {len(samples)} pictures could be read, the first: {pictures.skipped[0]}")
    return pictures


def shrink_to(picture: NDArray[np.uint8], longest_px: int | None) -> tuple[NDArray[np.uint8], float]:
    """A picture or mask whose longer side is at most this, None: as it is; and by which it was shrink_to."""
    shrink = 1.0 if longest_px is None else min(1.0, longest_px / max(picture.shape[:2]))
    if shrink == 1.0:
        return picture, shrink
    width, height = (max(1, round(size * shrink)) for size in (picture.shape[1], picture.shape[0]))
    return resize(picture, width, height, "area"), shrink


def _cut_out_object(sample: Any, image: Image, trimmed: Sequence[str], margin: float) -> Image:
    """What is learned from of a picture."""
    if isinstance(sample, DetectionSample):
        return image
    if sample.box_px is not None:
        return np.ascontiguousarray(crop(image, sample.box_px, margin))
    return trim(image, margin) if sample.split in trimmed else image


def _skip(pictures: Pictures, why: str) -> None:
    log.warning("skipped %s", why)
    pictures.skipped.append(why)


def _clip_to_picture(sample: Any, image: Image, pictures: Pictures) -> Any:
    """The sample with its boxes within the picture; None where its only box is not."""
    height, width = image.shape[:2]
    if isinstance(sample, DetectionSample):
        fitted = clip_boxes(sample.boxes_px, width, height)
        for what, found in ("clipped", fitted.outside), ("left out", fitted.empty):
            if found.any():
                text = f"{sample.path}: {what} {found.sum()} boxes outside its {width}x{height} pixels or without size"
                log.warning("%s", text)
                pictures.clipped.append(text)
        kept = ~fitted.empty
        return replace(sample, boxes_px=fitted.boxes_px[kept], labels=sample.labels[kept])
    if sample.box_px is None:
        return sample
    fitted = clip_boxes(np.asarray(sample.box_px), width, height)
    if fitted.empty[0]:
        _skip(pictures, f"{sample.path}: found box {sample.box_px}, expected some of it within {width}x{height} pixels")
        return None
    if fitted.outside[0]:
        pictures.clipped.append(f"{sample.path}: clipped box {sample.box_px} to its {width}x{height} pixels")
    return replace(sample, box_px=tuple(fitted.boxes_px[0].tolist()))


def load_canvases(
    samples: Sequence[Any], spec: Preprocess, trimmed: Sequence[str] = ()
) -> tuple[list[Any], NDArray[np.uint8], list[str]]:
    """Decode pictures into exactly what the device would feed the network.

    Args:
        samples: Sample or DetectionSample.
        spec: of the network's input.
        trimmed: splits whose pictures show one object on a plain ground, see `trim`.

    Returns:
        the samples that could be read, their (n, h, w, 3) canvases, and why each other one could not.
    """
    pictures = load_pictures(samples, None, trimmed, spec.crop_margin)
    canvases = [to_canvas(spec, image)[0] for image in pictures.images]
    stacked = np.stack(canvases) if canvases else np.zeros((0, spec.height, spec.width, 3), np.uint8)
    return pictures.samples, stacked, pictures.skipped


def require_each(samples: Sequence[Sample], expected: Iterable[str], key: str, least: int, where: str) -> None:
    """Check that each category or item has pictures enough.

    Args:
        samples: as loaded.
        expected: names that must be there.
        key: `category` or `item`.
        least: pictures of each.
        where: named in the error.

    Raises:
        TrainError: names those with too few.
    """
    counts = Counter(getattr(sample, key) for sample in samples)
    if few := [f"{name} ({counts[name]})" for name in expected if counts[name] < least]:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        why = ", for pairs are learned from" if least > 1 else ""
        raise TrainError(
            f"{where}: found too few pictures of {', '.join(few[:5])}{more}, expected at least {least} each{why}"
        )


@dataclass(frozen=True, slots=True)
class ClippedBoxes:
    """Boxes within their picture."""

    boxes_px: FloatArray  # (n, 4), every one that was given
    outside: NDArray[np.bool_]  # (n,) those that reached out of the picture by more than rounding
    empty: NDArray[np.bool_]  # (n,) those of which less than a pixel is left: outside, inverted or without size


def clip_boxes(boxes_px: FloatArray, width: int, height: int) -> ClippedBoxes:
    """Clip (n, 4) boxes x0 y0 x1 y1 to a picture."""
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.asarray(boxes_px, np.float32).reshape(-1, 4)
    clipped = np.clip(boxes, 0.0, limit)
    outside = ((boxes < -_SLACK_PX) | (boxes > limit + _SLACK_PX)).any(axis=1)
    broken = ~np.isfinite(boxes).all(axis=1)
    empty = broken | (clipped[:, 2] - clipped[:, 0] < 1.0) | (clipped[:, 3] - clipped[:, 1] < 1.0)
    return ClippedBoxes(np.nan_to_num(clipped), outside & ~empty, empty)
