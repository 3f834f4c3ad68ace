"""Decode output tensors to boxes, probabilities and unit vectors. Pure numpy."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from edge.types import Box, FloatArray

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
    boxes, scores, classes = [], [], []
    for level, stride in zip(maps, strides, strict=True):
        cells = level[0]
        logits = cells[4:]
        best = logits.max(axis=0)
        y, x = np.nonzero(best > threshold_logit)
        left, top, right, bottom = cells[:4, y, x] * stride
        centre_x, centre_y = (x + 0.5) * stride, (y + 0.5) * stride
        boxes.append(np.stack([centre_x - left, centre_y - top, centre_x + right, centre_y + bottom], axis=1))
        scores.append(1 / (1 + np.exp(-best[y, x])))
        classes.append(logits[:, y, x].argmax(axis=0))
    return (
        np.concatenate(boxes).astype(np.float32),
        np.concatenate(scores).astype(np.float32),
        np.concatenate(classes).astype(np.int64),
    )


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
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=1)
    union = area_a[:, None] + area_b[None, :] - intersection
    return np.asarray(intersection / np.maximum(union, 1e-9), np.float32)


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
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < limit:
        first, rest = order[0], order[1:]
        kept.append(int(first))
        order = rest[iou_matrix(boxes[first : first + 1], boxes[rest])[0] <= iou_threshold]
    return np.asarray(kept, np.int64)


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
