"""Whether a thing was taught well: what to tell the person who taught it; pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge.imaging import image
from edge.inference.postprocess import unit_rows
from edge.manifest import OpenSet
from edge.types import FloatArray, Hit, Image

Kind = Literal["few_looks", "same_pose", "near_another", "not_recognised"]

MIN_LOOKS = 3
# Mean cosine between looks. Measured on 20 new items by the demo's embedders, 10th and 90th percentile: 0.969 and 0.997
# for five noisy frames of one pose, 0.812 and 0.945 for rendered looks at a thing that was turned.
SAME_POSE = 0.96


@dataclass(frozen=True, slots=True)
class EnrolmentWarning:
    """Something that will make a thing harder to recognise."""

    kind: Kind
    other: Hit | None = None  # near_another: which item it may be taken for


def concerns(
    vectors: Mapping[str, FloatArray],
    others: Mapping[str, list[Hit]],
    open_sets: Mapping[str, OpenSet],
    recognised: int,
) -> list[EnrolmentWarning]:
    """Judge what was taught.

    Args:
        vectors: of its looks by category, (looks, dim), rows of unit length.
        others: by category, the items nearest to all looks together, without the thing itself; best first.
        open_sets: by category.
        recognised: of the looks, how many are recognised as the thing now.
    """
    looks = max((len(rows) for rows in vectors.values()), default=0)
    found = [EnrolmentWarning("not_recognised")] if not recognised else []
    if looks < MIN_LOOKS:
        found.append(EnrolmentWarning("few_looks"))
    elif max(_alike(rows) for rows in vectors.values()) > SAME_POSE:
        found.append(EnrolmentWarning("same_pose"))
    near = [
        hits[0]
        for category, hits in others.items()
        if hits and hits[0].score >= open_sets.get(category, OpenSet()).threshold
    ]
    if near:
        found.append(EnrolmentWarning("near_another", max(near, key=lambda hit: hit.score)))
    return found


def exemplars(looks: Sequence[FloatArray]) -> FloatArray:
    """The vectors that a thing is searched by: its looks in every view, and points between two looks.

    A few looks are few poses, and a pose between two of them is taken to lie near the line between their vectors: the
    nearest feature line (Li & Lu 1999), of which only the middles are kept, so that any index can hold them. Measured
    in benchmarks/openset.py.

    Args:
        looks: of each look (views, dim) rows of unit length; the first is the look as it is.

    Returns:
        (rows, dim) of unit length: for n looks of v views, n * v and then n * (n - 1) / 2 * (2 * v - 1).
    """
    between = []
    for one, other in itertools.combinations(looks, 2):
        between += [one[:1] + other, one[1:] + other[:1]]
    return np.concatenate([*looks, *(unit_rows(rows) for rows in between)])


def together(rows: FloatArray) -> FloatArray:
    """The unit vector of all looks: (looks, dim) to (dim,)."""
    return unit_rows(rows.sum(axis=0))


def _alike(rows: FloatArray) -> float:
    """The mean cosine between two different looks."""
    if len(rows) < MIN_LOOKS:
        return 0.0
    cosines = rows @ rows.T
    return float(cosines[~np.eye(len(rows), dtype=bool)].mean())


Verdict = Literal["take", "moving", "blurred", "same", "enough"]

_SIZE_PX = 32  # of the picture that looks are compared in
_SHARPNESS_PX = 320  # width of the one that sharpness is measured in
_UNLIKE = 4.0  # mean grey levels by which a look differs from another; noise of a still camera is below 1
_SHARP_SHARE = 0.5  # of the sharpest picture so far


@dataclass(frozen=True, slots=True)
class PictureMeasure:
    """A picture as it is judged."""

    grey: FloatArray  # (32, 32), 0..255
    sharpness: float
    is_still: bool


def measure_picture(image_rgb: Image, *, is_still: bool) -> PictureMeasure:
    """Measure a picture."""
    height, width = image_rgb.shape[:2]
    reduced = image.resize(image_rgb, _SHARPNESS_PX, max(1, height * _SHARPNESS_PX // width), "area")
    grey = image.resize(reduced, _SIZE_PX, _SIZE_PX, "area").astype(np.float32).mean(axis=2)
    return PictureMeasure(grey, image.sharpness(reduced), is_still)


def judge(glance: PictureMeasure, taken: list[PictureMeasure], sharpest: float, wanted: int) -> Verdict:
    """Say whether to take a picture, or why not.

    Args:
        glance: the picture.
        taken: those that were taken.
        sharpest: sharpness of the sharpest picture seen meanwhile.
        wanted: how many are taken at most.
    """
    if len(taken) >= wanted:
        return "enough"
    if not glance.is_still:
        return "moving"
    if glance.sharpness < _SHARP_SHARE * sharpest:
        return "blurred"
    if any(float(np.abs(glance.grey - other.grey).mean()) < _UNLIKE for other in taken):
        return "same"
    return "take"
