"""Load the pictures of a data set into memory: decoded once, cut to their boxes, shrunk to what training needs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_formats.boxes import clip_boxes
from dataset_formats.decode import read_picture
from dataset_formats.records import Sample
from edge.errors import CaptureError, TrainError
from edge.imaging.image import crop, shrink, trim
from edge.inference.preprocess import to_canvas
from edge.manifest.model import Preprocess
from edge.types import Image
from trainer.data.detection_sample import DetectionSample

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Pictures:
    """Decoded pictures and their samples."""

    samples: list[Any] = field(default_factory=list)  # Sample or DetectionSample, only those that could be read
    images: list[Image] = field(default_factory=list)  # RGB, shrunk to what training needs
    scales: list[float] = field(default_factory=list)  # the factor that each was shrunk by
    skipped: list[str] = field(default_factory=list)  # why each other sample was not read
    clipped: list[str] = field(default_factory=list)  # which boxes were clipped to their picture or left out


def load_pictures(
    samples: Sequence[Any], longest_px: int | None, trimmed: Sequence[str] = (), margin: float = 0.0
) -> Pictures:
    """Decode pictures once, as `load_readable`.

    Raises:
        TrainError: no picture could be read.
    """
    pictures = load_readable(samples, longest_px, trimmed, margin)
    if samples and not pictures.samples:
        raise TrainError(f"none of {len(samples)} pictures can be read; the first: {pictures.skipped[0]}")
    return pictures


def load_readable(
    samples: Sequence[Any], longest_px: int | None, trimmed: Sequence[str] = (), margin: float = 0.0
) -> Pictures:
    """Decode pictures once; an unreadable one is logged, skipped and counted, be there others or not.

    Args:
        samples: Sample or DetectionSample.
        longest_px: shrink larger pictures until their longer side is this; None: shrink none.
        trimmed: splits whose pictures show one object on a plain background, see edge.imaging.image.trim.
        margin: how much a box grows, as a fraction of its size.
    """
    pictures = Pictures()
    read: dict[Path, Image] = {}  # holds the latest picture: the crops of one picture follow each other
    for sample in samples:
        try:
            if sample.path not in read:
                read = {sample.path: read_picture(sample.path)[0]}
        except CaptureError as error:
            skip_picture(pictures, str(error))
            continue
        fitted = clip_to_picture(sample, read[sample.path], pictures)
        if fitted is None:
            continue
        image, scale = shrink_to(cut_out_object(fitted, read[sample.path], trimmed, margin), longest_px)
        pictures.samples.append(fitted)
        pictures.images.append(image)
        pictures.scales.append(scale)
    return pictures


def shrink_to(picture: NDArray[np.uint8], longest_px: int | None) -> tuple[NDArray[np.uint8], float]:
    """Return a picture or mask whose longer side is at most `longest_px`, and the factor that it was shrunk by."""
    if longest_px is None:
        return picture, 1.0
    return shrink(picture, longest_px), min(1.0, longest_px / max(picture.shape[:2]))


def cut_out_object(sample: Any, image: Image, trimmed: Sequence[str], margin: float) -> Image:
    """Return the part of a picture that training uses."""
    if isinstance(sample, DetectionSample):
        return image
    if sample.box_px is not None:
        return np.ascontiguousarray(crop(image, sample.box_px, margin))
    return trim(image, margin) if is_plain(sample, trimmed) else image


def is_plain(sample: Any, trimmed: Sequence[str]) -> bool:
    """Return whether the picture of a Sample shows its object alone, on a plain background."""
    return sample.box_px is None and sample.split in trimmed


def skip_picture(pictures: Pictures, why: str) -> None:
    """Log and note why a picture is not used."""
    log.warning("skipped %s", why)
    pictures.skipped.append(why)


def clip_to_picture(sample: Any, image: Image, pictures: Pictures) -> Any:
    """Return the sample with its boxes clipped to the picture; None if no part of any of them is inside."""
    height, width = image.shape[:2]
    if isinstance(sample, DetectionSample):
        fitted = clip_boxes(sample.boxes_px, width, height)
        for what, found in ("clipped", fitted.outside), ("left out", fitted.empty):
            if found.any():
                text = f"{sample.path}: {what} {found.sum()} boxes outside its {width}x{height} pixels or without area"
                log.warning("%s", text)
                pictures.clipped.append(text)
        kept = ~fitted.empty
        if len(kept) and not kept.any():  # it shows something: no background
            skip_picture(pictures, f"{sample.path}: none of its boxes is inside the picture; correct them")
            return None
        return replace(sample, boxes_px=fitted.boxes_px[kept], labels=sample.labels[kept])
    if sample.box_px is None:
        return sample
    fitted = clip_boxes(np.asarray(sample.box_px), width, height)
    if fitted.empty[0]:
        why = f"box {sample.box_px} lies outside the {width}x{height} picture or has no area"
        skip_picture(pictures, f"{sample.path}: {why}")
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
        spec: preprocessing of the network's input.
        trimmed: splits whose pictures show one object on a plain background, see edge.imaging.image.trim.

    Returns:
        the samples that were read, their (n, h, w, 3) canvases, and why each other sample was not read.
    """
    pictures = load_pictures(samples, None, trimmed, spec.crop_margin)
    canvases = [to_canvas(spec, image)[0] for image in pictures.images]
    stacked = np.stack(canvases) if canvases else np.zeros((0, spec.height, spec.width, 3), np.uint8)
    return pictures.samples, stacked, pictures.skipped


def require_each(samples: Sequence[Sample], expected: Iterable[str], key: str, least: int, where: str) -> None:
    """Check that each category or item has enough pictures.

    Args:
        samples: what was loaded.
        expected: categories or items to check.
        key: `category` or `item`.
        least: smallest number of pictures that each needs.
        where: the data set and splits, for the message.

    Raises:
        TrainError: some have too few pictures; names them.
    """
    counts = Counter(getattr(sample, key) for sample in samples)
    if few := [f"{name} ({counts[name]})" for name in expected if counts[name] < least]:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        why = ", because training uses pairs" if least > 1 else ""
        raise TrainError(f"{where}: too few pictures of {', '.join(few[:5])}{more}; each needs at least {least}{why}")
