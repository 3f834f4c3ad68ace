"""COCO's uncompressed run-length encoding of masks: column by column, starting with a run of zeros."""

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
        DataError: it has no size, no list of run lengths, or is larger than any picture.
    """
    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = np.asarray(segmentation["counts"], np.int64)
    except BAD_DATA as error:
        raise DataError(f"segmentation: {type(error).__name__} {error}") from error
    if height < 0 or width < 0 or height * width > _MOST_PX or counts.ndim != 1:
        raise DataError(f"segmentation: size {width}x{height} or its run lengths are impossible")
    if (counts < 0).any() or (counts > height * width).any() or counts.sum() != height * width:
        return np.zeros((height, width), np.bool_)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T.copy()
