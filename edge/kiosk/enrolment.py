"""Enrolment of a new item: which pictures to take, which vectors to search it by, and what to warn about; pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge.imaging import image
from edge.inference.postprocess import unit_rows
from edge.manifest.embedder import OpenSet
from edge.types import FloatArray, Hit, Image

PictureVerdict = Literal["take", "moving", "blurred", "same", "enough"]
WarningKind = Literal["few_looks", "same_pose", "near_another", "not_recognised"]

MIN_PICTURES = 3
# Mean cosine between pictures. Measured on 20 new items by the demo's embedders, 10th and 90th percentile: 0.969 and
# 0.997 for five noisy frames of one pose, 0.812 and 0.945 for rendered pictures of a rotated item.
SAME_POSE = 0.96

_COMPARED_PX = 32  # side of the reduced picture that is compared with others
_SHARPNESS_PX = 320  # width of the reduced picture whose sharpness is measured
_DIFFERENT = 4.0  # mean difference in grey levels between two poses; the noise of a still camera is below 1
_SHARP_SHARE = 0.5  # of the sharpest picture so far


@dataclass(frozen=True, slots=True)
class PictureMeasure:
    """The measurements that decide whether a picture is taken."""

    grey: FloatArray  # (32, 32), 0..255
    sharpness: float
    is_still: bool


def measure_picture(image_rgb: Image, *, is_still: bool) -> PictureMeasure:
    """Measure a picture."""
    height, width = image_rgb.shape[:2]
    reduced = image.resize(image_rgb, _SHARPNESS_PX, max(1, height * _SHARPNESS_PX // width), "area")
    grey = image.resize(reduced, _COMPARED_PX, _COMPARED_PX, "area").astype(np.float32).mean(axis=2)
    return PictureMeasure(grey, image.sharpness(reduced), is_still)


def judge_picture(picture: PictureMeasure, taken: list[PictureMeasure], sharpest: float, wanted: int) -> PictureVerdict:
    """Decide whether to take a picture, or why not.

    Args:
        picture: the candidate.
        taken: the pictures taken so far.
        sharpest: highest sharpness since the enrolment started.
        wanted: how many pictures to take at most.
    """
    if len(taken) >= wanted:
        return "enough"
    if not picture.is_still:
        return "moving"
    if picture.sharpness < _SHARP_SHARE * sharpest:
        return "blurred"
    if any(float(np.abs(picture.grey - other.grey).mean()) < _DIFFERENT for other in taken):
        return "same"
    return "take"


def exemplars(pictures: Sequence[FloatArray]) -> FloatArray:
    """Return the vectors that an item is searched by: the views of its pictures, and points between two pictures.

    Few pictures show few poses. A pose between two of them is assumed to lie near the line between their vectors: the
    nearest feature line (Li & Lu 1999). Only the midpoints are kept, so that any index can hold them. Measured in
    benchmarks/openset.py.

    Args:
        pictures: for each one (views, dim), rows of unit length; the first row is the picture unchanged.

    Returns:
        (rows, dim) of unit length: for n pictures of v views, n * v and then n * (n - 1) / 2 * (2 * v - 1).
    """
    midpoints = []
    for one, other in itertools.combinations(pictures, 2):
        midpoints += [one[:1] + other, one[1:] + other[:1]]
    return np.concatenate([*pictures, *(unit_rows(rows) for rows in midpoints)])


def mean_vector(rows: FloatArray) -> FloatArray:
    """Return the unit vector of the mean of all rows: (n, dim) to (dim,)."""
    return unit_rows(rows.sum(axis=0))


@dataclass(frozen=True, slots=True)
class EnrolmentWarning:
    """Something that makes a new item harder to recognise."""

    kind: WarningKind
    other: Hit | None = None  # near_another: the item that it may be confused with


def enrolment_warnings(
    vectors: Mapping[str, FloatArray],
    others: Mapping[str, list[Hit]],
    open_sets: Mapping[str, OpenSet],
    recognised: int,
) -> list[EnrolmentWarning]:
    """Return the warnings for a newly taught item.

    Args:
        vectors: of its pictures, by category, (pictures, dim), rows of unit length.
        others: by category, the items nearest to the mean of all pictures, without the item itself; best first.
        open_sets: by category.
        recognised: how many of the pictures are now recognised as the item.
    """
    pictures = max((len(rows) for rows in vectors.values()), default=0)
    warnings = [EnrolmentWarning("not_recognised")] if not recognised else []
    if pictures < MIN_PICTURES:
        warnings.append(EnrolmentWarning("few_looks"))
    elif max(_mean_cosine(rows) for rows in vectors.values()) > SAME_POSE:
        warnings.append(EnrolmentWarning("same_pose"))
    near = [
        hits[0]
        for category, hits in others.items()
        if hits and hits[0].score >= open_sets.get(category, OpenSet()).threshold
    ]
    if near:
        warnings.append(EnrolmentWarning("near_another", max(near, key=lambda hit: hit.score)))
    return warnings


def _mean_cosine(rows: FloatArray) -> float:
    """Return the mean cosine between two different rows; 0 for fewer than MIN_PICTURES."""
    if len(rows) < MIN_PICTURES:
        return 0.0
    cosines = rows @ rows.T
    return float(cosines[~np.eye(len(rows), dtype=bool)].mean())
