"""The objects of a listing: as crops, as whole pictures with boxes, and clipped to their picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dataset_formats.records import AnnotatedPicture, Listing, NamedBox, Sample, default_split
from edge.types import FloatArray

_SLACK_PX = 1.5  # tolerates rounding, and annotators that count pixels from 1


@dataclass(frozen=True, slots=True)
class ClippedBoxes:
    """Boxes clipped to their picture."""

    boxes_px: FloatArray  # (n, 4), all of the given boxes
    outside: NDArray[np.bool_]  # (n,) reached outside the picture by more than rounding
    empty: NDArray[np.bool_]  # (n,) less than a pixel is left: outside, inverted or without area


def single_objects(listing: Listing, *, cut_to_box: bool = False) -> list[Sample]:
    """Return the pictures of single objects of a listing; every box of a scene is one.

    Args:
        listing: of a data set.
        cut_to_box: use the boxes of a data set that has them beside pictures of single objects.
    """
    samples = [one if cut_to_box or one.box_px is None else replace(one, box_px=None) for one in listing.samples]
    for number, scene in enumerate(listing.scenes):
        of = scene.split or default_split(number)
        samples += [Sample(scene.path, of, box.category, box.item, box_px=box.box_px) for box in scene.boxes]
    return samples


def annotated_pictures(listing: Listing) -> list[AnnotatedPicture]:
    """Return the whole pictures with boxes of a listing; a picture of a single object has one box."""
    if listing.scenes:
        return listing.scenes
    return [
        AnnotatedPicture(s.path, s.split, (NamedBox(s.box_px, s.item, s.category),))
        for s in listing.samples
        if s.box_px is not None
    ]


def clip_boxes(boxes_px: FloatArray, width: int, height: int) -> ClippedBoxes:
    """Clip (n, 4) boxes x0 y0 x1 y1 to a picture."""
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.asarray(boxes_px, np.float32).reshape(-1, 4)
    clipped = np.clip(boxes, 0.0, limit)
    outside = ((boxes < -_SLACK_PX) | (boxes > limit + _SLACK_PX)).any(axis=1)
    broken = ~np.isfinite(boxes).all(axis=1)
    empty = broken | (clipped[:, 2] - clipped[:, 0] < 1.0) | (clipped[:, 3] - clipped[:, 1] < 1.0)
    return ClippedBoxes(np.nan_to_num(clipped), outside & ~empty, empty)
