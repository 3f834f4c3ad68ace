"""Near-duplicates of a set: which crops show the same object from nearly the same view, so that one stands for all.

Rules this module keeps:
1. Two crops of one picture are two objects: they are never folded together.
2. Pixels and vectors must agree, and the best proposal must be the same: variants of one package look alike.
3. Frames of one sequence may differ a little more than pictures that have nothing to do with each other.
4. A group is near its first crop, not only near its last: a slow pan does not chain different things together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from edge.imaging.image import grey, resize
from edge.types import FloatArray, Image

_WINDOW = 128  # open groups that a crop is compared with
_SAME_BITS, _SAME_COSINE = 6, 0.985  # of 64; of any two pictures
_NEAR_BITS, _NEAR_COSINE = 14, 0.95  # of two frames of a sequence
_SEQUENCE = 10  # pictures of a sequence that are near each other


@dataclass(frozen=True, slots=True)
class Candidate:
    """An open crop that may be folded."""

    crop_id: int
    picture_id: int
    sequence: str  # of its picture, see sequence_of
    place: int  # of its picture in the sequence
    area: float  # pixels
    hash: int
    best_item: tuple[str, str] | None  # category and item of the best proposal
    vector: FloatArray  # unit length
    space: str


@dataclass(slots=True)
class _Group:
    first: Candidate
    last: Candidate  # the newest: frames of a sequence are near it in time
    largest: Candidate
    members: list[int]
    pictures: set[int]


def difference_hash(image_rgb: Image) -> int:
    """Return the difference hash of a picture: 64 bits, each says whether a cell is brighter than the one before."""
    small = grey(resize(image_rgb, 9, 8, "area"))
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def sequence_of(name: str, source: str) -> tuple[str, int]:
    """Return what a picture is a frame of, and where in it: the last number of its name counts."""
    numbers = list(re.finditer(r"\d{1,15}", name.rpartition(".")[0] or name))
    if not numbers:
        return f"{source}|{name}", 0
    last = numbers[-1]
    return f"{source}|{name[: last.start()]}", int(last.group())


def fold(candidates: Iterable[Candidate]) -> dict[int, int | None]:
    """Return for each crop the crop that stands for it, None where it stands for itself.

    Args:
        candidates: by sequence and place, so that near frames follow each other.
    """
    groups: list[_Group] = []
    done: dict[int, int | None] = {}
    for one in candidates:
        group = next((group for group in reversed(groups) if _belongs(one, group)), None)
        if group is None:
            groups.append(_Group(one, one, one, [one.crop_id], {one.picture_id}))
            if len(groups) > _WINDOW:
                _close(groups.pop(0), done)
            continue
        group.members.append(one.crop_id)
        group.pictures.add(one.picture_id)
        group.last = one
        if one.area > group.largest.area:
            group.largest = one
    for group in groups:
        _close(group, done)
    return done


def _belongs(one: Candidate, group: _Group) -> bool:
    first = group.first
    if one.picture_id in group.pictures or one.space != first.space or one.best_item != first.best_item:
        return False
    near = one.sequence == first.sequence and abs(one.place - group.last.place) <= _SEQUENCE
    bits, cosine = (_NEAR_BITS, _NEAR_COSINE) if near else (_SAME_BITS, _SAME_COSINE)
    to = group.last if near else first
    if (one.hash ^ to.hash).bit_count() > bits:
        return False
    return float(one.vector @ to.vector) >= cosine and (not near or float(one.vector @ first.vector) >= _FAR_COSINE)


_FAR_COSINE = 0.9  # of any frame to the first of its group


def _close(group: _Group, done: dict[int, int | None]) -> None:
    for member in group.members:
        done[member] = None if member == group.largest.crop_id else group.largest.crop_id
