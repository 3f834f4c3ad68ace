"""Proposed boxes of one picture: regions of the cues, scored by agreement, the best of each place kept.

The score is the fourth root of a product of five reasons, each 0..1, which are stored with the box:
  edge       how much of the outline lies on a strong edge (edges wholly inside: Zitnick and Dollar 2014)
  solid      area over that of the convex hull
  contrast   colour inside the outline against just outside
  deviation  how much more the inside deviates from the picture's background than its surroundings do
  agreement  mean over the cues of the best overlap with a region of that cue
A region counts less if only one threshold of one cue gives it, if it is small, or if the picture cuts it off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.imaging.image import resize
from edge.inference.postprocess import box_of, iou_matrix, non_maximum_suppression
from edge.types import Box, FloatArray, Image
from trainer.labelling.regions import CUES, Region, find_regions
from trainer.labelling.saliency_cues import Cues, compute_cues

WORKING_PX = 320  # longer side of the picture that the cues work on
_STEADY = np.log(20.0)  # with this many regions of nearly the same box, `steady` is 1
_STRONG = 15.0  # levels per pixel of a strong edge
_CONTRAST = 30.0  # distance in Lab from which `contrast` is 1
_DEVIATION = 0.4  # difference from which `deviation` is 1
_COMMON = 0.25  # mean of the common map inside a box from which it lowers no score
_ALIKE, _MOST, _LEAST = (
    0.85,
    60,
    0.05,
)  # overlap of duplicate boxes, largest number of kept boxes, and their smallest score
_CLOSE, _PART = 0.35, 0.75  # one of two boxes is dropped at this overlap, or share of the smaller inside the larger

Source = Literal["proposer", "model", "human"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """One box that may hold an object."""

    box_px: Box  # in pixels of the given picture
    score: float  # 0..1
    source: Source
    reasons: dict[str, float] = field(default_factory=dict)
    category: str = "object"


@dataclass(frozen=True, slots=True)
class Priors:
    """What a person knows about the objects beforehand; shares are of the picture."""

    least: float = 0.004  # area of a box
    most: float = 0.7
    aspect: tuple[float, float] = (0.0, np.inf)  # width over height
    count: int | None = None  # largest number of objects in a picture
    threshold: float = 0.55  # smallest score of a proposal

    def allow(self, boxes_px: FloatArray, width: int, height: int) -> NDArray[np.bool_]:
        """Return which boxes (n, 4) of a picture may be objects: (n,)."""
        size = np.maximum(boxes_px[:, 2:] - boxes_px[:, :2], 1e-6)
        share, aspect = size.prod(axis=1) / (width * height), size[:, 0] / size[:, 1]
        shaped = (aspect >= self.aspect[0]) & (aspect <= self.aspect[1])
        return np.asarray((share >= self.least) & (share <= self.most) & shaped)


def propose(
    image_rgb: Image, priors: Priors, common: FloatArray | None = None, using: Sequence[str] = CUES
) -> list[Proposal]:
    """Propose boxes, best first, including boxes of one place and boxes below the threshold.

    Args:
        image_rgb: picture of any size.
        priors: what a person knows about the objects.
        common: (h, w) of any size, 0..1: how much each place shows what the pictures of a set have in common.
        using: the cues that may propose and agree.
    """
    height, width = image_rgb.shape[:2]
    shrink = min(1.0, WORKING_PX / max(height, width))
    small = resize(image_rgb, max(32, round(width * shrink)), max(32, round(height * shrink)), "area")
    cues = compute_cues(small)
    regions = [one for one in find_regions(cues, priors.least, priors.most) if one.cue in using]
    if not regions:
        return []
    scale = np.array([width / small.shape[1], height / small.shape[0]] * 2, np.float32)
    boxes = np.array([region.box_px for region in regions], np.float32)
    reasons = _reasons(cues, regions, boxes, using)
    scores = _score(reasons)
    if common is not None:
        reasons["common"] = _mean_inside(np.asarray(cv2.resize(common, small.shape[1::-1]), np.float32), boxes)
        scores = scores * np.sqrt(np.clip(reasons["common"] / _COMMON, 0.05, 1.0))
    scores = np.where(priors.allow(boxes * scale, width, height), scores, 0.0)
    kept = non_maximum_suppression(boxes, scores, _ALIKE, _MOST)
    return [
        Proposal(
            box_of(boxes[i] * scale),
            float(scores[i]),
            "proposer",
            {name: round(float(values[i]), 3) for name, values in reasons.items()},
        )
        for i in kept
        if scores[i] > _LEAST
    ]


def select_best(listed: list[Proposal], priors: Priors) -> list[Proposal]:
    """Return the best box of each place above the threshold, at most as many as the priors' count."""
    boxes = np.array([one.box_px for one in listed], np.float32).reshape(-1, 4)
    kept = suppress_overlapping(boxes, np.array([one.score for one in listed], np.float32))
    return [listed[i] for i in kept if listed[i].score >= priors.threshold][: priors.count]


def suppress_overlapping(boxes_px: FloatArray, scores: FloatArray) -> list[int]:
    """Return the indices of the best boxes, best first; none overlaps, lies in or contains a better one."""
    corners = np.minimum(boxes_px[:, None, 2:], boxes_px[None, :, 2:])
    shared = (corners - np.maximum(boxes_px[:, None, :2], boxes_px[None, :, :2])).clip(0).prod(axis=2)
    area = (boxes_px[:, 2:] - boxes_px[:, :2]).prod(axis=1)
    rival = (shared > _CLOSE * (area[:, None] + area[None] - shared)) | (
        shared > _PART * np.minimum(area[:, None], area[None])
    )
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if not rival[i, kept].any():
            kept.append(int(i))
    return kept


def _score(reasons: dict[str, FloatArray]) -> FloatArray:
    product = np.prod([reasons[name] for name in ("edge", "solid", "contrast", "deviation", "agreement")], axis=0)
    size = np.clip(1.0 + 0.15 * (np.log(reasons["share"]) + 2.5), 0.5, 1.1)
    whole = reasons["steady"] ** 0.25 * size * (1.0 - 0.5 * reasons["cut_off"])
    return np.asarray((product ** (1 / 4) * whole).clip(0.0, 1.0), np.float32)


def _reasons(cues: Cues, regions: list[Region], boxes: FloatArray, using: Sequence[str]) -> dict[str, FloatArray]:
    height, width = cues.colour.shape
    overlap = iou_matrix(boxes, boxes)
    cue = np.array([region.cue for region in regions])
    agreement = [overlap[:, cue == name].max(axis=1, initial=0.0) for name in using]
    rows = np.array([_region_reasons(cues, region) for region in regions], np.float32)
    size = boxes[:, 2:] - boxes[:, :2]
    named = dict(zip(("edge", "solid", "contrast", "deviation", "cut_off"), rows.T, strict=True))
    return named | {
        "agreement": np.mean(agreement, axis=0).astype(np.float32),
        "steady": np.clip(np.log1p((overlap > 0.8).sum(axis=1)) / _STEADY, 0.0, 1.0).astype(np.float32),
        "share": (size.prod(axis=1) / (height * width)).astype(np.float32),
    }


def _region_reasons(cues: Cues, region: Region) -> tuple[float, float, float, float, float]:
    """Return edge, solid, contrast, deviation and cut-off of one region."""
    height, width = cues.colour.shape
    x, y = region.outline[:, 0].T
    inner = (x > 1) & (y > 1) & (x < width - 2) & (y < height - 2)
    edge = float(np.minimum(cues.gradient[y, x][inner] / _STRONG, 1.0).mean()) if inner.any() else 0.0
    solid = region.area_px / max(1.0, cv2.contourArea(cv2.convexHull(region.outline)))
    x0, y0, x1, y1 = (int(v) for v in region.box_px)
    reach = max(3, int(0.08 * min(x1 - x0, y1 - y0)))
    left, top, right, bottom = max(0, x0 - reach), max(0, y0 - reach), min(width, x1 + reach), min(height, y1 + reach)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.drawContours(mask, [region.outline - np.array([left, top], np.int32)], -1, 1, -1)
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    outside = cv2.dilate(mask, kernel) - mask
    strip = mask - cv2.erode(mask, kernel, borderValue=0)
    lab, colour = cues.lab[top:bottom, left:right], cues.colour[top:bottom, left:right]
    apart = np.linalg.norm(np.subtract(cv2.mean(lab, strip)[:3], cv2.mean(lab, outside)[:3]))
    deviates = cv2.mean(colour, mask)[0] - cv2.mean(colour, outside)[0]
    return (
        edge,
        float(solid),
        float(min(float(apart) / _CONTRAST, 1.0)),
        float(np.clip(deviates / _DEVIATION, 0.05, 1.0)),
        1.0 - float(inner.mean()),
    )


def _mean_inside(values: FloatArray, boxes: FloatArray) -> FloatArray:
    total = cv2.integral(values)
    x0, y0, x1, y1 = boxes.astype(int).T
    return np.asarray(
        (total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0]) / ((x1 - x0) * (y1 - y0)), np.float32
    )
