"""True masks: which pictures have one, read, and refused where they can teach nothing.

Rules this module keeps:
1. A mask is of its picture's size. Its border is mostly ground, and it covers neither nothing nor everything.
2. A picture or mask that breaks a rule is named in the log, skipped and counted; training goes on with the others.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import CaptureError, TrainError
from edge.imaging.image import decode_mask, read_image
from edge.types import Image
from trainer.data.pictures import shrink_to

log = logging.getLogger(__name__)

_LEAST, _MOST = 0.005, 0.98  # of the picture
_HALF = 128  # grey level from which a pixel is the object's


@dataclass(frozen=True, slots=True)
class Masked:
    """One picture of one object, and where the object is told."""

    path: Path
    mask: Path  # grey, 255 where the object is; or a cut-out, whose alpha it is
    split: str


@dataclass(slots=True)
class MaskedPictures:
    """Decoded pictures beside their masks."""

    samples: list[Masked] = field(default_factory=list)  # only those that can be used
    images: list[Image] = field(default_factory=list)  # RGB
    masks: list[NDArray[np.uint8]] = field(default_factory=list)  # (h, w), 0..255, of the picture's size
    skipped: list[str] = field(default_factory=list)  # why each of the others cannot


def read_masked(index: Path, root: Path | None = None) -> list[Masked]:
    """List the pictures that have a mask.

    Args:
        index: a CSV with columns path, mask, split; rows whose mask is empty have none.
        root: that its paths are relative to; None: its folder.

    Raises:
        TrainError: unreadable, without a needed column, or without a mask.
    """
    try:
        with index.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainError(f"{index}: cannot read: {error}") from error
    found = set(rows[0]) if rows else set()
    if missing := {"path", "mask", "split"} - found:
        raise TrainError(f"{index}: found columns {sorted(found)}, expected also {sorted(missing)}")
    base = root or index.parent
    masked = [Masked(base / row["path"], base / row["mask"], row["split"]) for row in rows if row["mask"]]
    if not masked:
        raise TrainError(f"{index}: found no mask in {len(rows)} rows, expected some")
    return masked


def of_splits(samples: Iterable[Masked], splits: Sequence[str]) -> list[Masked]:
    """Those of certain splits."""
    return [sample for sample in samples if sample.split in splits]


def load_masked(samples: Sequence[Masked], longest_px: int | None = None) -> MaskedPictures:
    """Decode pictures and masks once.

    Args:
        samples: to read.
        longest_px: larger ones are shrink_to until the longer side is this; None: none are.

    Raises:
        TrainError: none can be used; says why the first cannot.
    """
    pictures = MaskedPictures()
    for sample in samples:
        try:
            image, mask = _read(sample)
        except (CaptureError, TrainError) as error:
            log.warning("skipped %s", error)
            pictures.skipped.append(str(error))
            continue
        image, mask = shrink_to(image, longest_px)[0], shrink_to(mask, longest_px)[0]
        pictures.samples.append(sample)
        pictures.images.append(image)
        pictures.masks.append(mask)
    if samples and not pictures.samples:
        raise TrainError(f"none of {len(samples)} masks can be used, the first: {pictures.skipped[0]}")
    return pictures


def _read(sample: Masked) -> tuple[Image, NDArray[np.uint8]]:
    image = read_image(sample.path)
    try:
        mask = decode_mask(sample.mask.read_bytes(), str(sample.mask))
    except OSError as error:
        raise TrainError(f"{sample.mask}: cannot read: {error.strerror}") from error
    if mask.shape != image.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape)]
        raise TrainError(f"{sample.mask}: found a mask of {sizes[0]}, expected {sizes[1]} as {sample.path.name}")
    if fault := fault_of(mask):
        raise TrainError(f"{sample.mask}: {fault}")
    return image, mask


def fault_of(mask: NDArray[np.uint8]) -> str | None:
    """Why a mask can teach nothing, None where it can: it is empty, full, or shows the ground instead of the object.

    Args:
        mask: (h, w), 0..255.
    """
    inside = mask >= _HALF
    share = float(inside.mean())
    if share < _LEAST:
        return f"found an empty mask, {share:.1%} of the picture, expected an object"
    if share > _MOST:
        return f"found a mask of {share:.1%} of the picture, expected some ground around an object"
    height, width = inside.shape
    border = float(np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]]).mean())
    middle = float(inside[height // 4 : max(1, -(-3 * height // 4)), width // 4 : max(1, -(-3 * width // 4))].mean())
    if border > 0.5 and middle < border:
        return f"found an inverted mask, {border:.0%} of its border and {middle:.0%} of its middle, expected the object"
    return None
