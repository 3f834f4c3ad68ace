"""Compose scenes of cut-outs on a background, with exact boxes, masks and visible fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.pasting.background import Background
from trainer.pasting.cutouts import Cutout
from trainer.pasting.distort import DistortionProbabilities, affine, distort, match_lighting, scaled
from trainer.pasting.distort_frame import pillar_box, simulate_camera
from trainer.synthetic.clutter import clutter
from trainer.synthetic.render import stamp
from trainer.synthetic.scene import Scene, SceneObject, box_of

Bytes = NDArray[np.uint8]
_LEAST_LISTED = 0.12  # smallest visible fraction of a listed object
_TRIES = 10  # places tried for each object


@dataclass(frozen=True, slots=True)
class SceneLayout:
    """How a scene is arranged."""

    width_px: int = 480
    height_px: int = 360
    objects: tuple[int, int] = (1, 5)  # number of objects, smallest and largest
    share: tuple[float, float] = (0.2, 0.65)  # an object's longer side, relative to the frame's shorter one
    turn_deg: float = 25.0  # largest turn to either side
    clutter: int = 3  # largest number of clutter objects
    least_visible: float = 0.5  # visible fraction that a later object leaves of earlier ones, if there is room
    fit: float = 0.7  # how far an object's light is matched to its background, 0..1
    shadows: bool = True  # most objects throw a shadow


class Composer:
    """Composes a scene from the back to the front."""

    def __init__(
        self, image_rgb: Bytes, rng: np.random.Generator, layout: SceneLayout, probabilities: DistortionProbabilities
    ) -> None:
        self.image_rgb, self._rng, self._layout, self._probabilities = image_rgb, rng, layout, probabilities
        self._owner: NDArray[np.uint16] = np.zeros(image_rgb.shape[:2], np.uint16)  # 0 nothing, n the n-th object
        self._placed: list[tuple[Cutout, int]] = []  # with the object's whole area

    def paste(self, cutout: Cutout, size_px: float) -> None:
        """Paste an object, its longer side about size_px, where it hides little of the others."""
        picture, area = self._shaped(cutout.picture, size_px)
        self._lay(picture, len(self._placed) + 1)
        self._placed.append((cutout, area))

    def paste_clutter(self, picture: Bytes, size_px: float) -> None:
        """Paste clutter; it hides objects, but is not listed."""
        self._lay(self._shaped(picture, size_px)[0], 0)

    def _shaped(self, picture: Bytes, size_px: float) -> tuple[Bytes, int]:
        """Return the distorted picture, and the area that it would show if nothing hid it."""
        turned = self._rng.random() < self._probabilities.affine
        picture = affine(picture, self._rng, size_px, self._layout.turn_deg) if turned else scaled(picture, size_px)
        area = int((picture[..., 3] >= 128).sum())
        return distort(picture, self._rng, self._probabilities), area

    def _lay(self, picture: Bytes, number: int) -> None:
        left, top = self._place(picture)
        rows, columns = (
            slice(max(0, at), max(0, at) + size) for at, size in ((top, picture.shape[0]), (left, picture.shape[1]))
        )
        if self.image_rgb[rows, columns].size:
            picture = match_lighting(picture, self.image_rgb[rows, columns], self._layout.fit)
        self._shadow(picture, left, top)
        done = stamp(self.image_rgb, picture, left, top)
        if done is not None:
            self._owner[done[0], done[1]][done[2] >= 128] = number

    def _place(self, picture: Bytes) -> tuple[int, int]:
        """Return the first random place that hides no object too much, or the one that hides the least."""
        height, width = self._owner.shape
        high, wide = picture.shape[:2]
        over = 0.2 if self._rng.random() < 0.15 else 0.0  # some reach outside the frame
        best, least = (0, 0), np.inf
        for _ in range(_TRIES):
            left, top = (
                int(self._rng.uniform(min(-over * size, room - size), max(room - size + over * size, 0)))
                for size, room in ((wide, width), (high, height))
            )
            hidden = self._hidden(picture, left, top)
            if hidden < least:
                best, least = (left, top), hidden
            if hidden <= 1 - self._layout.least_visible:
                break
        return best

    def _hidden(self, picture: Bytes, left: int, top: int) -> float:
        """Return the largest hidden fraction that any object would have."""
        y0, x0 = max(0, top), max(0, left)
        under = self._owner[y0 : top + picture.shape[0], x0 : left + picture.shape[1]]
        alpha = picture[y0 - top :, x0 - left :, 3][: under.shape[0], : under.shape[1]]
        covered = np.bincount(under[alpha >= 128], minlength=len(self._placed) + 1)
        if not covered[1:].any():
            return 0.0
        shown = np.bincount(self._owner.ravel(), minlength=len(self._placed) + 1)
        whole = np.array([1, *(area for _, area in self._placed)])
        return float(np.where(covered > 0, 1 - (shown - covered) / whole, 0)[1:].max())

    def _shadow(self, picture: Bytes, left: int, top: int) -> None:
        if self._rng.random() < 0.3 or not self._layout.shadows:
            return
        reach = max(2, round(0.05 * max(picture.shape[:2])))
        room = np.zeros((picture.shape[0] + 4 * reach, picture.shape[1] + 4 * reach, 4), np.uint8)
        room[2 * reach : -2 * reach, 2 * reach : -2 * reach, 3] = picture[..., 3]
        shade = cv2.GaussianBlur(room[..., 3], (0, 0), reach * 0.8) * np.float32(self._rng.uniform(0.25, 0.6))
        room[..., 3] = shade
        off = np.round(self._rng.uniform(-0.6, 0.6, 2) * reach).astype(int)
        stamp(self.image_rgb, room, left - 2 * reach + int(off[0]), top - 2 * reach + int(off[1]) + reach // 2)

    def finish(self) -> Scene:
        """Simulate the camera, and list the visible objects."""
        if self._rng.random() < self._probabilities.pillar_box:
            pillar_box(self.image_rgb, self._owner, self._rng)
        found = []
        for number, (cutout, area) in enumerate(self._placed, start=1):
            mask = self._owner == number
            fraction = np.count_nonzero(mask) / max(1, area)
            if fraction >= _LEAST_LISTED:
                found.append(SceneObject(cutout.item, cutout.category, box_of(mask), mask, min(1.0, float(fraction))))
        return Scene(simulate_camera(self.image_rgb, self._rng, self._probabilities), tuple(found))


def paste_scene(
    rng: np.random.Generator,
    by_item: Sequence[Sequence[Cutout]],
    background: Background,
    layout: SceneLayout,
    probabilities: DistortionProbabilities,
) -> Scene:
    """Compose a scene of random items, each equally likely.

    Args:
        rng: source of randomness.
        by_item: the cut-outs of each item.
        background: source of the picture they are pasted on.
        layout: sizes and counts.
        probabilities: probability of each distortion.
    """
    composer = Composer(background(rng, layout.width_px, layout.height_px), rng, layout, probabilities)
    short = min(layout.width_px, layout.height_px)
    for _ in range(int(rng.integers(layout.clutter + 1))):
        composer.paste_clutter(_litter(rng, by_item), short * rng.uniform(0.15, 0.4))
    for _ in range(int(rng.integers(layout.objects[0], layout.objects[1] + 1))):
        views = by_item[int(rng.integers(len(by_item)))]
        size = np.exp(rng.uniform(*np.log(layout.share))) * short
        composer.paste(views[int(rng.integers(len(views)))], float(size))
    if layout.clutter and rng.random() < 0.25:
        composer.paste_clutter(_litter(rng, by_item), short * rng.uniform(0.1, 0.25))
    return composer.finish()


def _litter(rng: np.random.Generator, by_item: Sequence[Sequence[Cutout]]) -> Bytes:
    """Return drawn clutter, or an unrecognisable piece of a cut-out."""
    if rng.random() < 0.5:
        return clutter(rng, 120.0)
    views = by_item[int(rng.integers(len(by_item)))]
    picture = views[int(rng.integers(len(views)))].picture
    high, wide = (max(4, round(size * rng.uniform(0.15, 0.3))) for size in picture.shape[:2])
    y, x = (int(rng.integers(size - part + 1)) for size, part in zip(picture.shape[:2], (high, wide), strict=True))
    return np.ascontiguousarray(picture[y : y + high, x : x + wide][..., [1, 2, 0, 3]])
