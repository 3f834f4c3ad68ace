"""COCO's uncompressed run-length encoding of masks: column by column, starting with a run of zeros."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def encode_rle(mask: Mask) -> dict[str, Any]:
    """Return a (height, width) mask as COCO's `segmentation`."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [int(v) for v in mask.shape], "counts": [0, *counts] if flat[0] else counts}


def decode_rle(segmentation: dict[str, Any]) -> Mask:
    """The mask of a COCO `segmentation`; empty where its runs do not fill its size."""
    height, width = segmentation["size"]
    counts = np.asarray(segmentation["counts"], np.int64)
    if counts.sum() != height * width or (counts < 0).any():
        return np.zeros((height, width), np.bool_)
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T.copy()
