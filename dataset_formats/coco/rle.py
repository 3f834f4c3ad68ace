"""COCO's run-length encoding of masks: column by column, starting with a run of zeros; as numbers or as text."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_formats.text_files import BAD_DATA
from edge.errors import DataError

Mask = NDArray[np.bool_]
_MOST_PX = 1 << 28


def encode_rle(mask: Mask) -> dict[str, Any]:
    """Return a (height, width) mask as COCO's `segmentation`."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [int(v) for v in mask.shape], "counts": [0, *counts] if flat[0] else counts}


def decode_rle(segmentation: dict[str, Any]) -> Mask:
    """Return the mask of a COCO `segmentation`; empty if its runs do not fill its size.

    Raises:
        DataError: it has no size, no run lengths, or is larger than any picture.
    """
    try:
        height, width = (int(side) for side in segmentation["size"])
        written = segmentation["counts"]
        counts = np.asarray(_numbers(written) if isinstance(written, str) else written, np.int64)
    except BAD_DATA as error:
        raise DataError(f"segmentation: {type(error).__name__} {error}") from error
    if height < 0 or width < 0 or height * width > _MOST_PX or counts.ndim != 1:
        raise DataError(f"segmentation: size {width}x{height} or its run lengths are impossible")
    if (counts < 0).any() or (counts > height * width).any() or counts.sum() != height * width:
        return np.zeros((height, width), np.bool_)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T.copy()


def _numbers(text: str) -> list[int]:
    """Return the run lengths of COCO's compressed form.

    Each character holds 5 bits and whether more follow, the lowest bits first, in two's complement; from the fourth
    number on, it is the difference to the number two before.

    Raises:
        ValueError: a character or a number is impossible, or the last number is cut off.
    """
    counts: list[int] = []
    value = bits = 0
    for character in text:
        part = ord(character) - 48
        if not 0 <= part < 64 or bits > 60:
            raise ValueError(f"run lengths {text[:20]!r} are not COCO's compressed form")
        value |= (part & 31) << bits
        bits += 5
        if part & 32:
            continue
        if part & 16:
            value -= 1 << bits
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = bits = 0
    if bits:
        raise ValueError("run lengths end within a number")
    return counts
