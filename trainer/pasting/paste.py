"""Scenes composed of cut-outs on a ground: boxes, masks and how much of each object shows are known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.pasting.cutouts import Cutout
from trainer.pasting.distort import Chances, affine, distort, fitted, scaled
from trainer.pasting.frame import pillar_box, take
from trainer.pasting.ground import Ground
from trainer.synthetic.clutter import clutter
from trainer.synthetic.render import stamp
from trainer.synthetic.scene import Scene, SceneObject, box_of

Bytes = NDArray[np.uint8]
_LEAST_LISTED = 0.12  # an object seen less than this is not listed
_TRIES = 10  # places that are tried for each object


@dataclass(frozen=True, slots=True)
class Layout:
    """How a scene is arranged."""

    width_px: int = 480
    height_px: int = 360
    objects: tuple[int, int] = (1, 5)  # at least and at most
    share: tuple[float, float] = (0.2, 0.65)  # an object's longer side, of the frame's shorter one
    turn_deg: float = 25.0
    clutter: int = 3  # things of no interest, at most
    least_visible: float = 0.5  # what a later object leaves to be seen of each earlier one, where there is room
    fit: float = 0.7  # how far an object's light is brought to that of its ground


class Composer:
    """A scene being composed from the back to the front."""

    def __init__(self, image_rgb: Bytes, rng: np.random.Generator, layout: Layout, chances: Chances) -> None:
        self.image_rgb, self._rng, self._layout, self._chances = image_rgb, rng, layout, chances
        self._owner: NDArray[np.uint16] = np.zeros(image_rgb.shape[:2], np.uint16)  # 0 nothing, n the n-th object
        self._placed: list[tuple[Cutout, int]] = []  # with the object's whole area

    def put(self, cutout: Cutout, size_px: float) -> None:
        """Pastes an object, its longer side about size_px, where it hides little of the others."""
        picture, area = self._shaped(cutout.picture, size_px)
        self._lay(picture, len(self._placed) + 1)
        self._placed.append((cutout, area))

    def put_clutter(self, picture: Bytes, size_px: float) -> None:
        """Pastes a thing of no interest; it hides as any other does."""
        self._lay(self._shaped(picture, size_px)[0], 0)

    def _shaped(self, picture: Bytes, size_px: float) -> tuple[Bytes, int]:
        """The distorted picture, and the area it would show whole."""
        turned = self._rng.random() < self._chances.affine
        picture = affine(picture, self._rng, size_px, self._layout.turn_deg) if turned else scaled(picture, size_px)
        area = int((picture[..., 3] >= 128).sum())
        return distort(picture, self._rng, self._chances), area

    def _lay(self, picture: Bytes, number: int) -> None:
        left, top = self._place(picture)
        rows, columns = (
            slice(max(0, at), max(0, at) + size) for at, size in ((top, picture.shape[0]), (left, picture.shape[1]))
        )
        if self.image_rgb[rows, columns].size:
            picture = fitted(picture, self.image_rgb[rows, columns], self._layout.fit)
        self._shadow(picture, left, top)
        done = stamp(self.image_rgb, picture, left, top)
        if done is not None:
            self._owner[done[0], done[1]][done[2] >= 128] = number

    def _place(self, picture: Bytes) -> tuple[int, int]:
        """Of some random places the first that hides no object too much, or the one that hides least."""
        height, width = self._owner.shape
        high, wide = picture.shape[:2]
        over = 0.2 if self._rng.random() < 0.15 else 0.0  # some leave the frame
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
        """The largest share of any object that would no longer show."""
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
        if self._rng.random() < 0.3:
            return
        reach = max(2, round(0.05 * max(picture.shape[:2])))
        room = np.zeros((picture.shape[0] + 4 * reach, picture.shape[1] + 4 * reach, 4), np.uint8)
        room[2 * reach : -2 * reach, 2 * reach : -2 * reach, 3] = picture[..., 3]
        shade = cv2.GaussianBlur(room[..., 3], (0, 0), reach * 0.8) * np.float32(self._rng.uniform(0.25, 0.6))
        room[..., 3] = shade
        off = np.round(self._rng.uniform(-0.6, 0.6, 2) * reach).astype(int)
        stamp(self.image_rgb, room, left - 2 * reach + int(off[0]), top - 2 * reach + int(off[1]) + reach // 2)

    def finish(self) -> Scene:
        """Photographs what was composed, and lists what can be seen."""
        if self._rng.random() < self._chances.pillar_box:
            pillar_box(self.image_rgb, self._owner, self._rng)
        found = []
        for number, (cutout, area) in enumerate(self._placed, start=1):
            mask = self._owner == number
            fraction = np.count_nonzero(mask) / max(1, area)
            if fraction >= _LEAST_LISTED:
                found.append(SceneObject(cutout.item, cutout.category, box_of(mask), mask, min(1.0, float(fraction))))
        return Scene(take(self.image_rgb, self._rng, self._chances), tuple(found))


def paste_scene(
    rng: np.random.Generator, by_item: Sequence[Sequence[Cutout]], ground: Ground, layout: Layout, chances: Chances
) -> Scene:
    """Composes a scene of random items, every item as likely as any other.

    Args:
        rng: of all draws.
        by_item: the cut-outs of each item.
        ground: what they are pasted on.
        layout: sizes and counts.
        chances: of distortions.
    """
    composer = Composer(ground(rng, layout.width_px, layout.height_px), rng, layout, chances)
    short = min(layout.width_px, layout.height_px)
    for _ in range(int(rng.integers(layout.clutter + 1))):
        composer.put_clutter(_litter(rng, by_item), short * rng.uniform(0.15, 0.4))
    for _ in range(int(rng.integers(layout.objects[0], layout.objects[1] + 1))):
        looks = by_item[int(rng.integers(len(by_item)))]
        size = np.exp(rng.uniform(*np.log(layout.share))) * short
        composer.put(looks[int(rng.integers(len(looks)))], float(size))
    if layout.clutter and rng.random() < 0.25:
        composer.put_clutter(_litter(rng, by_item), short * rng.uniform(0.1, 0.25))
    return composer.finish()


def _litter(rng: np.random.Generator, by_item: Sequence[Sequence[Cutout]]) -> Bytes:
    """A drawn thing, or an unrecognisable scrap of some cut-out."""
    if rng.random() < 0.5:
        return clutter(rng, 120.0)
    looks = by_item[int(rng.integers(len(by_item)))]
    picture = looks[int(rng.integers(len(looks)))].picture
    high, wide = (max(4, round(size * rng.uniform(0.15, 0.3))) for size in picture.shape[:2])
    y, x = (int(rng.integers(size - part + 1)) for size, part in zip(picture.shape[:2], (high, wide), strict=True))
    return np.ascontiguousarray(picture[y : y + high, x : x + wide][..., [1, 2, 0, 3]])
