"""The record that a detector trains on: one whole picture with its boxes as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.types import FloatArray


@dataclass(frozen=True, slots=True)
class DetectionSample:
    """One whole picture with its boxes, as the detector trains on it."""

    path: Path
    boxes_px: FloatArray  # (n, 4), x0 y0 x1 y1
    labels: NDArray[np.int64]  # (n,) class numbers
    split: str = ""  # empty: it belongs to every split
    level: str = ""  # amount of clutter: easy, medium or hard; empty where the data set has none
