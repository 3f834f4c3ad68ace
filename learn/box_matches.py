"""Matches the boxes that a detector found to the true ones of a picture: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.inference.postprocess import iou_matrix
from edge.types import FloatArray

LEAST_IOU = 0.5  # overlap from which a box shows the true object


@dataclass(frozen=True, slots=True)
class Match:
    """A found box and the true box that it overlaps."""

    found: int  # row of the found box
    true: int  # row of the true box
    iou: float  # their overlap, 0..1


@dataclass(frozen=True, slots=True)
class Matches:
    """What became of every box; each found box, and each true box, is in exactly one group."""

    matched: tuple[Match, ...]  # one found box for each of these true boxes
    doubled: tuple[Match, ...]  # further found boxes of true boxes that have one
    unmatched: tuple[int, ...]  # found boxes that show no true object
    missed: tuple[int, ...]  # true boxes without a found one


def match_boxes(found_px: FloatArray, scores: FloatArray, true_px: FloatArray, least: float = LEAST_IOU) -> Matches:
    """Match greedily, the best score first, as detections are judged (PASCAL VOC): each true box once.

    Args:
        found_px: (n, 4), x0 y0 x1 y1.
        scores: (n,) of the found boxes.
        true_px: (m, 4).
        least: smallest overlap of a match.
    """
    overlap = iou_matrix(found_px.reshape(-1, 4), true_px.reshape(-1, 4))  # n, m
    free = np.ones(overlap.shape[1], np.bool_)
    matched, doubled, unmatched = [], [], []
    for row in np.argsort(-scores, kind="stable").tolist():
        own = np.where(free, overlap[row], -1.0)
        if own.size and own.max() >= least:
            best = int(own.argmax())
            free[best] = False
            matched.append(Match(row, best, float(own[best])))
        elif own.size and overlap[row].max() >= least:
            best = int(overlap[row].argmax())
            doubled.append(Match(row, best, float(overlap[row, best])))
        else:
            unmatched.append(row)
    return Matches(tuple(matched), tuple(doubled), tuple(unmatched), tuple(np.flatnonzero(free).tolist()))
