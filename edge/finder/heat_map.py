"""Turn a heat map into boxes with scores, and into pictures for display."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.finder.correlate import Kernel
from edge.imaging import image
from edge.inference.preprocess import Placement
from edge.types import Box, FloatArray, Image

_MIN_SIDE_PX = 6  # shorter side of a box, in canvas pixels; smaller parts are noise
_DIM = 0.25  # brightness factor for pixels outside the found objects


@dataclass(frozen=True, slots=True)
class FoundBox:
    """One box in which the object of a query was found."""

    box_px: Box  # in the source picture
    score: float  # 0..1
    level: float  # heat map pixels in the box at or above it belong to the object


@dataclass(frozen=True, slots=True)
class VerifiedBox(FoundBox):
    """A box whose content was compared with the query."""

    kernel: Kernel = field(compare=False, repr=False)  # of its content, at the size of verification


def connected_parts(
    heat: FloatArray, placed: Placement, stride: int, levels: Sequence[float], min_peak: float = 0.0
) -> list[FoundBox]:
    """Return the connected parts of a heat map at several thresholds, hottest first; a part's score is its peak.

    Two objects that touch are one part at a low level and two at a higher one; a faint object shows at low levels only.

    Args:
        heat: (rows, columns), about 1 on the object.
        placed: where the source picture lies on the canvas.
        stride: canvas pixels per cell.
        levels: thresholds for a pixel.
        min_peak: parts with a lower peak are dropped.
    """
    fine = image.resize_map(heat, heat.shape[1] * stride, heat.shape[0] * stride)
    found: dict[Box, FoundBox] = {}
    for level in levels:
        labels, boxes = image.connected_components((fine >= level).astype(np.uint8))
        for number, (x0, y0, x1, y1) in enumerate(boxes, start=1):
            if min(x1 - x0, y1 - y0) < _MIN_SIDE_PX:
                continue
            part = np.s_[int(y0) : int(y1), int(x0) : int(x1)]
            peak = min(1.0, float(fine[part][labels[part] == number].max()))
            box_px = placed.to_source((x0, y0, x1, y1))
            if peak >= min_peak and box_px[2] > box_px[0] and box_px[3] > box_px[1]:
                found.setdefault(box_px, FoundBox(box_px, peak, level))
    return sorted(found.values(), key=lambda one: -one.score)


def resize_to_source(heat: FloatArray, placed: Placement, stride: int) -> FloatArray:
    """Resize a heat map to the source picture: (source height, source width)."""
    fine = image.resize_map(heat, heat.shape[1] * stride, heat.shape[0] * stride)
    rows = max(1, min(fine.shape[0], round(placed.source_height * placed.scale_y)))
    columns = max(1, min(fine.shape[1], round(placed.source_width * placed.scale_x)))
    return image.resize_map(fine[:rows, :columns], placed.source_width, placed.source_height)


def colour_heat_map(heat: FloatArray) -> Image:
    """Colour a heat map from black over red and yellow to white: (h, w, 3) RGB."""
    level = heat.clip(0, 1)[..., None] * 3 - np.arange(3, dtype=np.float32)
    return np.asarray((level.clip(0, 1) * 255).round(), np.uint8)


def highlight(image_rgb: Image, heat: FloatArray, found: Sequence[FoundBox]) -> Image:
    """Return the picture with everything but the found objects dimmed.

    Args:
        image_rgb: (h, w, 3).
        heat: (h, w), at the picture's size.
        found: the boxes.
    """
    share = np.full((*heat.shape, 1), _DIM, np.float32)
    for one in found:
        x0, y0, x1, y1 = (round(v) for v in one.box_px)
        share[y0:y1, x0:x1][heat[y0:y1, x0:x1] >= one.level] = 1.0
    return np.asarray((image_rgb * share).round(), np.uint8)
