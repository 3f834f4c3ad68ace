"""Decode output tensors to boxes, probabilities and unit vectors. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edge.inference.checked_run import unit_vectors
from edge.types import Box, FloatArray

WHITENING_DTYPE = "<f4"  # of the file of a WhiteningMap
_FEW = 64  # boxes that are compared one by one
_ZERO, _TINY = np.float32(0), np.float32(1e-9)  # Python numbers would be converted in every call
_EQUAL_IOU = 1.0 - 1e-6  # equal boxes overlap more than this


def decode_ltrb(
    maps: list[FloatArray], strides: list[int], score_threshold: float
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Decode the raw output of an anchor-free head (FCOS, Tian et al. 2019).

    Args:
        maps: one per stride, (1, 4 + classes, h, w): distances to left, top, right, bottom in units of the stride
            from the cell centre, already non-negative, then class logits.
        strides: input pixels per cell.
        score_threshold: cells whose best class scores lower are skipped.

    Returns:
        boxes (n, 4) in input pixels, scores (n,), class indices (n,).
    """
    threshold_logit = float(np.log(score_threshold / (1 - score_threshold)))
    cells = np.concatenate([level.reshape(level.shape[1], -1) for level in maps], axis=1)  # one column per cell
    best = cells[4] if len(cells) == 5 else cells[4:].max(axis=0)  # class logit of each cell
    above = (best > threshold_logit).nonzero()[0]
    cells = cells.take(above, axis=1)
    centres, stride_px = _cells(tuple(level.shape[2:] for level in maps), tuple(strides))
    centre = centres.take(above, axis=1)
    cells[:4] *= stride_px.take(above)
    boxes = np.empty((cells.shape[1], 4), np.float32)
    boxes[:, :2] = (centre - cells[:2]).T
    boxes[:, 2:] = (centre + cells[2:4]).T
    scores = np.asarray(1 / (1 + np.exp(-best.take(above))), np.float32)
    return boxes, scores, cells[4:].argmax(axis=0)


@cache
def _cells(
    sizes: tuple[tuple[int, ...], ...], strides: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return x and y of the centre of each cell in input pixels, (2, cells), and its stride, (cells,).

    Args:
        sizes: height and width of each map in cells; its cells are y-major.
        strides: of the maps.
    """
    centres, stride_px = [], []
    for (height, width), stride in zip(sizes, strides, strict=True):
        y, x = np.mgrid[:height, :width]
        centres.append((np.stack([x.ravel(), y.ravel()]) + 0.5) * stride)
        stride_px.append(np.full(x.size, stride, np.float32))
    return np.concatenate(centres, axis=1), np.concatenate(stride_px)


def decode_yolox(
    output: FloatArray, strides: list[int], width: int, height: int, score_threshold: float
) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """Decode a YOLOX head (Ge et al. 2021).

    Args:
        output: (1, cells, 5 + classes): offset x, y, log width, log height, objectness, class probabilities; rows by
            stride, y-major.
        strides: input pixels per cell.
        width: of the model input, pixels.
        height: of the model input, pixels.
        score_threshold: on objectness times class probability.

    Returns:
        boxes (n, 4) in input pixels, scores (n,), class indices (n,).
    """
    grid, stride_px = _yolox_cells(tuple(strides), width, height)
    rows = output[0]
    keep = np.nonzero(rows[:, 4] > score_threshold)[0]
    rows, grid, stride_px = rows[keep], grid[keep], stride_px[keep]
    classes = rows[:, 5:].argmax(axis=1)
    scores = rows[:, 4] * rows[np.arange(len(rows)), 5 + classes]
    above = scores > score_threshold
    rows, grid, stride_px = rows[above], grid[above], stride_px[above]
    centre = (rows[:, :2] + grid) * stride_px
    size = np.exp(rows[:, 2:4]) * stride_px
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    return boxes.astype(np.float32), scores[above].astype(np.float32), classes[above].astype(np.int64)


@cache
def _yolox_cells(strides: tuple[int, ...], width: int, height: int) -> tuple[FloatArray, FloatArray]:
    """Return column and row of each cell, (cells, 2), and its stride, (cells, 1)."""
    grids, cell_px = [], []
    for stride in strides:
        y, x = np.mgrid[: height // stride, : width // stride]
        grids.append(np.stack([x.ravel(), y.ravel()], axis=1))
        cell_px.append(np.full(x.size, stride))
    return np.concatenate(grids).astype(np.float32), np.concatenate(cell_px)[:, None].astype(np.float32)


def iou_matrix(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the intersection over union of every box of (n, 4) with every box of (m, 4): (n, m)."""
    ax0, ay0, ax1, ay1 = a.T[:, :, None]
    bx0, by0, bx1, by1 = b.T
    intersection = _overlap(ax0, ax1, bx0, bx1)
    intersection *= _overlap(ay0, ay1, by0, by1)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0)
    union -= intersection
    intersection /= np.maximum(union, _TINY, out=union)
    return intersection


def _overlap(low_a: FloatArray, high_a: FloatArray, low_b: FloatArray, high_b: FloatArray) -> FloatArray:
    """Return by how much intervals overlap; 0 where they do not."""
    overlap = np.minimum(high_a, high_b)
    overlap -= np.maximum(low_a, low_b)
    return np.maximum(overlap, _ZERO, out=overlap)


def non_maximum_suppression(
    boxes: FloatArray, scores: FloatArray, iou_threshold: float, limit: int = 100
) -> NDArray[np.int64]:
    """Return the indices of the boxes to keep, best first: greedy, whatever the classes of the boxes.

    Equal boxes are one object, even at a threshold of 1. Drop the boxes that nobody wants before: they would suppress.

    Args:
        boxes: (n, 4), in pixels.
        scores: (n,).
        iou_threshold: a box that overlaps a better one by more than this is dropped.
        limit: most boxes to keep.
    """
    iou_threshold = min(iou_threshold, _EQUAL_IOU)
    order = (-scores).argsort(kind="stable")
    kept: list[int] = []
    while len(order) > _FEW and len(kept) < limit:
        kept.append(int(order[0]))
        order = order[1:][iou_matrix(boxes[order[:1]], boxes[order[1:]])[0] <= iou_threshold]
    rows = boxes[order].tolist()  # for a few boxes, plain numbers are quicker than arrays
    apart: list[list[float]] = []
    for i, row in zip(order.tolist(), rows, strict=True):
        if len(kept) == limit:
            break
        if all(iou(row, other) <= iou_threshold for other in apart):
            apart.append(row)
            kept.append(i)
    return np.asarray(kept, np.int64)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes; for a few pairs, quicker than `iou_matrix`."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a, b
    width, height = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - common)


def softmax(logits: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Return probabilities along the last axis."""
    scaled = logits / temperature
    scaled = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(scaled / scaled.sum(axis=-1, keepdims=True), np.float32)


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Scale rows to length one; a zero row stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


def box_of(row: FloatArray) -> Box:
    """Return a box row as plain numbers."""
    x0, y0, x1, y1 = (float(v) for v in row)
    return (x0, y0, x1, y1)


@dataclass(frozen=True, slots=True)
class WhiteningMap:
    """The last step of an embedder that has one: a linear map of its joint vectors, with an offset for each side.

    The map weakens the directions in which the pictures of one item differ (within-class covariance normalisation,
    Hatch and Stolcke 2006). It first takes away the mean vector: that of photos, or for pictures on a plain background
    that of catalogue pictures, so that both sides have the same centre.
    """

    matrix: FloatArray  # (dim, parts)
    offsets: FloatArray  # (2, dim), added after the matrix: of photos, of pictures on a plain background
    where: str = "whitening"  # names it in errors

    def map(self, vectors: FloatArray, *, plain: bool | Sequence[bool] = False) -> FloatArray:
        """Map joint vectors.

        Args:
            vectors: (n, parts) float32, rows of unit length.
            plain: whether the pictures, or each of them, show one object on a plain background.

        Returns:
            (n, dim) float32, rows of unit length.

        Raises:
            EngineError: a vector is the mean, so its image has no direction.
        """
        side = np.broadcast_to(np.asarray(plain, np.bool_), len(vectors)).astype(np.int64)
        return unit_vectors(self.where, vectors @ self.matrix.T + self.offsets[side])

    def to_bytes(self) -> bytes:
        """Return it as the bundle's file: for each row of the matrix, the row, then its two offsets."""
        return np.hstack([self.matrix, self.offsets.T]).astype(WHITENING_DTYPE).tobytes()
