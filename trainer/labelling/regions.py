"""Candidate regions: connected components of the cues at several thresholds, and the box of a map of features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.types import Box, FloatArray
from trainer.labelling.saliency_cues import Cues

_LEVELS = {"colour": (0.12, 0.2, 0.3, 0.42, 0.55, 0.7), "texture": (0.25, 0.4, 0.55, 0.7), "saliency": (0.15, 0.3, 0.5)}
CUES = ("colour", "texture", "saliency", "clusters", "edges")
_OPENINGS = (0.0, 0.012, 0.03)  # of the shorter side: separates parts that only a narrow neck joins
_CLUSTERS = (3, 5, 8)
_CLOSINGS = (0.008, 0.02)


@dataclass(frozen=True, slots=True)
class Region:
    """One connected component of one cue, its holes filled."""

    cue: str
    box_px: Box
    outline: NDArray[np.int32]  # (n, 1, 2)
    area_px: float


def find_regions(cues: Cues, least: float, most: float) -> list[Region]:
    """Return all regions whose box covers `least` to `most` of the picture."""
    height, width = cues.colour.shape
    found = []
    for cue, mask in _masks(cues):
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        for outline in outlines:
            x, y, w, h = cv2.boundingRect(outline)
            if least <= w * h / (width * height) <= most:
                box = (float(x), float(y), float(x + w), float(y + h))
                found.append(Region(cue, box, outline, float(cv2.contourArea(outline))))
    return found


def scda_map(feature: FloatArray) -> FloatArray:
    """Return SCDA's object mask (h, w), 0..1: the largest component of the cells with more than mean activation.

    Wei et al., "Selective convolutional descriptor aggregation", IEEE TIP 2017.

    Args:
        feature: (h, w, c), of a trunk.
    """
    total = feature.sum(axis=2)
    over = (total - total.mean()).clip(0.0)
    return np.asarray(np.where(largest_component(over > 0), over, 0.0) / max(float(over.max()), 1e-6), np.float32)


def largest_component(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest 8-connected component of a mask."""
    count, owner, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return np.asarray(owner == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()) if count > 1 else np.zeros(mask.shape, bool)


def box_of_map(values: FloatArray, width: int, height: int, level: float = 0.0) -> Box | None:
    """Return the bounding box of a map's largest component in a picture of that size; None if nothing is above 0.

    Args:
        values: (h, w), as `CommonComponent.activation` and `scda_map` give.
        width: width of the picture.
        height: height of the picture.
        level: share of the map's largest value that a place needs. The published 0 takes in all of the object and much
            around it, because a cell sees far beyond itself.
    """
    grown = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
    y, x = np.nonzero(largest_component(grown > level * max(0.0, float(grown.max()))))
    return (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)) if len(x) else None


def _masks(cues: Cues) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    side = min(cues.colour.shape)
    for cue, values in cues.maps.items():
        for level in _LEVELS[cue]:
            for mask in _opened((values > level).astype(np.uint8), side):
                yield cue, mask
    for count in _CLUSTERS:
        owner = _clusters(cues.lab, count)
        for value in range(count):
            for mask in _opened((owner == value).astype(np.uint8), side):
                yield "clusters", mask
    for share in _CLOSINGS:
        radius = max(1, round(share * side))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        closed = cv2.morphologyEx(cues.contours, cv2.MORPH_CLOSE, kernel)
        outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        filled = np.zeros_like(closed)
        cv2.drawContours(filled, outlines, -1, 1, -1)
        for mask in _opened(filled, side):
            yield "edges", mask
        gaps = (cv2.dilate(cues.contours, np.ones((3, 3), np.uint8)) == 0).astype(np.uint8)
        yield "edges", gaps


def _opened(mask: NDArray[np.uint8], side: int) -> Iterator[NDArray[np.uint8]]:
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    filled = np.zeros_like(mask)
    cv2.drawContours(filled, outlines, -1, 1, -1)
    for share in _OPENINGS:
        radius = round(share * side)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
        yield np.asarray(filled if radius == 0 else cv2.morphologyEx(filled, cv2.MORPH_OPEN, kernel), np.uint8)


def _clusters(lab: FloatArray, count: int) -> NDArray[np.int32]:
    small = np.asarray(cv2.resize(lab, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), np.float32)
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 0.5)
    _, _, centres = cv2.kmeans(small.reshape(-1, 3), count, None, criteria, 1, cv2.KMEANS_PP_CENTERS)
    distances = np.stack([((lab - centre) ** 2).sum(axis=2) for centre in centres])
    return np.asarray(distances.argmin(axis=0), np.int32)
