"""Pictures with true masks, for the localiser: list them, load them, and reject useless masks.

Rules this module keeps:
1. A mask has its picture's size. Its border is mostly background, and it covers neither nothing nor everything.
2. A picture or mask that breaks a rule is logged, skipped and counted; training goes on with the others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_formats.csv_table import read_table
from dataset_formats.decode import read_bytes, read_image
from dataset_formats.index import complete_rows, find_pictures, root_of, split_of
from dataset_formats.notices import report
from edge.errors import CaptureError, DataError, TrainError
from edge.imaging.image import decode_mask
from edge.types import Image
from trainer.data.pictures import shrink_to

log = logging.getLogger(__name__)

_LEAST, _MOST = 0.005, 0.98  # share of the picture that a mask covers
_HALF = 128  # grey level from which a pixel belongs to the object


@dataclass(frozen=True, slots=True)
class Masked:
    """One picture of one object, and its mask."""

    path: Path
    mask: Path  # grey, 255 where the object is; or a cut-out, whose alpha is the mask
    split: str


@dataclass(slots=True)
class MaskedPictures:
    """Decoded pictures and their masks."""

    samples: list[Masked] = field(default_factory=list)  # only the usable ones
    images: list[Image] = field(default_factory=list)  # RGB
    masks: list[NDArray[np.uint8]] = field(default_factory=list)  # (h, w), 0..255, of the picture's size
    skipped: list[str] = field(default_factory=list)  # why each other sample is not used


def read_masked(index: Path, root: Path | None = None) -> list[Masked]:
    """List the pictures that have a mask; log what is left out.

    Args:
        index: a CSV with columns path, mask, split; a row with an empty mask is ignored.
        root: folder of its paths; None: its own folder.

    Raises:
        DataError: the file cannot be read, or has no such columns or no mask.
    """
    table = read_table(index)
    table.require("path", "mask", "split")
    count = len(table.rows)
    with_mask = [row for row in table.rows if row[1]["mask"]]
    rows = complete_rows(table, with_mask, ("path", "split"))
    base = root or root_of(table, "path")
    there = {line: (values, path) for line, values, path in find_pictures(table, rows, "path", base)}
    rows = [(line, values) for line, (values, _) in there.items()]
    masked = [
        Masked(there[line][1], mask, split_of(values["split"]))
        for line, values, mask in find_pictures(table, rows, "mask", base)
    ]
    for line in report(table, index):
        log.warning("%s", line)
    if not masked:
        raise DataError(
            f"{index}: none of its {count} rows has a mask" if count and not with_mask else table.why_empty()
        )
    return masked


def of_splits(samples: Iterable[Masked], splits: Sequence[str]) -> list[Masked]:
    """Return the samples of certain splits."""
    return [sample for sample in samples if sample.split in splits]


def load_masked(samples: Sequence[Masked], longest_px: int | None = None) -> MaskedPictures:
    """Decode pictures and masks once.

    Args:
        samples: samples to read.
        longest_px: shrink larger pictures until their longer side is this; None: shrink none.

    Raises:
        TrainError: no mask can be used; the message says why for the first one.
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
        raise TrainError(f"none of {len(samples)} masks can be used; the first: {pictures.skipped[0]}")
    return pictures


def _read(sample: Masked) -> tuple[Image, NDArray[np.uint8]]:
    image = read_image(sample.path)
    mask = decode_mask(read_bytes(sample.mask), str(sample.mask))
    if mask.shape != image.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape)]
        raise TrainError(
            f"{sample.mask}: found a mask of {sizes[0]}, expected {sizes[1]}, the size of {sample.path.name}"
        )
    if fault := fault_of(mask):
        raise TrainError(f"{sample.mask}: {fault}")
    return image, mask


def fault_of(mask: NDArray[np.uint8]) -> str | None:
    """Return why a mask is useless (empty, full or inverted), or None.

    Args:
        mask: (h, w), 0..255.
    """
    inside = mask >= _HALF
    share = float(inside.mean())
    if share < _LEAST:
        return f"mask is empty: it covers {share:.1%} of the picture"
    if share > _MOST:
        return f"mask covers {share:.1%} of the picture and leaves no background"
    height, width = inside.shape
    border = float(np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]]).mean())
    middle = float(inside[height // 4 : max(1, -(-3 * height // 4)), width // 4 : max(1, -(-3 * width // 4))].mean())
    if border > 0.5 and middle < border:
        return f"mask is inverted: it covers {border:.0%} of the border and {middle:.0%} of the middle"
    return None
