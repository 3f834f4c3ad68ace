"""Crops and scenes: how each is read, which can be used, and the order in which they are chosen.

Rules this module keeps:
1. The order depends on the names in the data set alone, not on the order there or on this machine.
2. A picture that cannot be read is left out, named and counted; the next one takes its place.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from dataset_formats.boxes import clip_boxes
from dataset_formats.decode import read_picture
from dataset_formats.notices import printable
from edge.errors import CaptureError, QuantizeError
from edge.imaging.image import crop, trim
from edge.types import Box, FloatArray, Image


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled crop."""

    path: Path
    name: str  # as the data set writes it, and the box if there is one
    split: str
    category: str
    item: str
    plain: bool = False  # one object on a plain background; `crop` cuts it out
    box_px: Box | None = None  # where the object is; None: the whole picture

    def crop(self, margin: float) -> Image:
        """Return the picture as a device would crop it.

        Args:
            margin: how much a box grows, as a fraction of its size.

        Raises:
            CaptureError: the picture cannot be read.
        """
        picture = read_picture(self.path)[0]
        if self.box_px is not None:
            return np.ascontiguousarray(crop(picture, self.box_px, margin))
        return trim(picture, margin) if self.plain else picture


@dataclass(frozen=True, slots=True)
class Scene:
    """One frame and its true boxes."""

    path: Path
    name: str  # as the data set writes it
    split: str  # "" if the data set gives none
    boxes_px: FloatArray  # (n, 4) x0 y0 x1 y1
    box_px: None = None  # a detector sees the whole frame

    def crop(self, margin: float) -> Image:  # noqa: ARG002 as Sample.crop
        """Return the whole frame.

        Raises:
            CaptureError: the picture cannot be read.
        """
        return read_picture(self.path)[0]


Picture = Sample | Scene
_Picture = TypeVar("_Picture", Sample, Scene)
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(slots=True)
class PictureCheck:
    """Decodes each picture once, to find those that can be read."""

    sizes_px: dict[Path, tuple[int, int] | None] = field(default_factory=dict)  # width, height; None: unreadable
    left_out: dict[str, None] = field(default_factory=dict)  # why each other picture is not used, without repeats

    def usable(self, picture: _Picture) -> _Picture | None:
        """Return a picture with its boxes clipped to it; None if it cannot be read or no part of its box is inside."""
        if picture.path not in self.sizes_px:
            self.sizes_px[picture.path] = self._size_px(picture.path)
        size_px = self.sizes_px[picture.path]
        if size_px is None:
            return None
        if isinstance(picture, Scene):
            clipped = clip_boxes(picture.boxes_px, *size_px)
            return replace(picture, boxes_px=clipped.boxes_px[~clipped.empty])
        if picture.box_px is None:
            return picture
        clipped = clip_boxes(np.asarray(picture.box_px), *size_px)
        if clipped.empty[0]:
            why = f"box {picture.box_px} lies outside the {size_px[0]}x{size_px[1]} picture or has no area"
            self.left_out[printable(f"{picture.path}: {why}")] = None
            return None
        x0, y0, x1, y1 = clipped.boxes_px[0].tolist()
        return replace(picture, box_px=(x0, y0, x1, y1))

    def _size_px(self, path: Path) -> tuple[int, int] | None:
        try:
            image = read_picture(path)[0]
        except CaptureError as error:
            self.left_out[printable(error)] = None
            return None
        return image.shape[1], image.shape[0]

    def first(self, ordered: Sequence[_Picture], count: int, what: str) -> list[_Picture]:
        """Return the first usable pictures.

        Args:
            ordered: pictures to take from.
            count: most pictures to take.
            what: the pictures, for the message.

        Raises:
            QuantizeError: there are pictures, but none can be used.
        """
        found: list[_Picture] = []
        for picture in ordered:
            if len(found) == count:
                break
            if (checked := self.usable(picture)) is not None:
                found.append(checked)
        if count and ordered and not found:
            raise QuantizeError(
                f"none of the {len(ordered)} {what} can be read; the first: {next(iter(self.left_out))}"
            )
        return found


def map_in_threads(task: Callable[[_Given], _Made], given: Sequence[_Given]) -> list[_Made]:
    """Apply a task to each picture, on every core: decoding and engines leave Python while they work."""
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(task, given))


def of_splits(samples: Sequence[Sample], splits: Collection[str]) -> list[Sample]:
    """Return the samples of these splits."""
    return [sample for sample in samples if sample.split in splits]


def shuffled(pictures: Iterable[_Picture]) -> list[_Picture]:
    """Return pictures in an order that depends on their names alone."""
    return sorted(pictures, key=lambda p: hashlib.sha256(p.name.encode("utf-8", "surrogatepass")).digest())


def in_turns(samples: Sequence[Sample]) -> list[Sample]:
    """Order samples so that the categories take turns. The result does not depend on the order in the index."""
    by_category: dict[str, list[Sample]] = defaultdict(list)
    for sample in shuffled(samples):
        by_category[sample.category].append(sample)
    ordered: list[Sample] = []
    for round_ in range(max((len(group) for group in by_category.values()), default=0)):
        ordered += [by_category[name][round_] for name in sorted(by_category) if round_ < len(by_category[name])]
    return ordered
