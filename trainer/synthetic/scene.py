"""Still scenes: items among clutter in some place, with exact masks and boxes of their visible parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.background import Kind, backdrop
from trainer.synthetic.camera import photograph
from trainer.synthetic.clutter import clutter
from trainer.synthetic.items import Item
from trainer.synthetic.render import random_sprite, stamp

Bytes = NDArray[np.uint8]
Box = tuple[int, int, int, int]
_LEAST_VISIBLE = 0.12  # smallest visible fraction of a listed object


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One item in a scene."""

    item_id: str
    category: str
    box_px: Box  # box of the visible part: x0 y0 x1 y1, x1 and y1 exclusive
    mask: NDArray[np.bool_]  # (height, width), the visible part
    visible_fraction: float  # share of the object's pixels that are neither hidden nor outside the frame


@dataclass(frozen=True, slots=True)
class Scene:
    """A photograph and the objects in it."""

    image_rgb: Bytes
    objects: tuple[SceneObject, ...]


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Return the exact bounding box of a mask that is not empty."""
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    return int(x), int(y), int(x + w), int(y + h)


@cache
def _blob() -> Bytes:
    y, x = np.mgrid[-1:1:48j, -1:1:96j]
    return np.asarray((np.clip(1 - np.hypot(x, y), 0, 1) ** 1.4 * 255).astype(np.uint8))


def contact_shadow(image_rgb: Bytes, left: int, right: int, foot: int, strength: float) -> None:
    """Darken the ground where something stands, in place."""
    wide, high = max(4, round((right - left) * 1.2)), max(3, round((right - left) * 0.16))
    picture = np.zeros((high, wide, 4), dtype=np.uint8)
    picture[..., 3] = cv2.resize(_blob(), (wide, high)) * strength
    stamp(image_rgb, picture, (left + right - wide) // 2, foot - round(high * 0.62))


def scene(rng: np.random.Generator, items: Sequence[Item], width_px: int, height_px: int, count: int) -> Scene:
    """Photograph about `count` random items in a random place.

    Cars stand on roads, and packages on shelves and tables; both may also appear on a plain texture.
    """
    first = items[int(rng.integers(len(items)))]
    outdoor = first.category == "car"
    kind: Kind = "plain" if rng.random() < 0.25 else "road" if outdoor else "shelf" if rng.random() < 0.5 else "table"
    fitting = [item for item in items if kind == "plain" or (item.category == "car") == outdoor]
    chosen = [first, *(fitting[int(rng.integers(len(fitting)))] for _ in range(count - 1))]
    image_rgb, feet = backdrop(rng, kind, width_px, height_px)
    canvas = _Canvas(image_rgb, rng, kind)
    for _ in range(int(rng.integers(0, 4))):
        canvas.put_clutter(feet, rng.uniform(0.12, 0.4))
    heights = np.clip(rng.lognormal(np.log(0.33), 0.42, len(chosen)), 0.14, 0.8)
    stands = np.sort(rng.uniform(feet[0], feet[1], len(chosen)))
    if kind != "plain":  # nearer is lower and larger
        heights = np.sort(heights) if rng.random() < 0.7 else heights
    for item, share, foot in zip(chosen, heights, stands, strict=True):
        canvas.put_item(item, float(share), int(foot))
    if rng.random() < 0.35:
        canvas.put_clutter((feet[1] - 2, height_px + height_px // 8), rng.uniform(0.15, 0.35))
    return Scene(photograph(canvas.image_rgb, rng), canvas.objects())


class _Canvas:
    """Paints a scene from the back to the front."""

    def __init__(self, image_rgb: Bytes, rng: np.random.Generator, kind: Kind) -> None:
        self.image_rgb, self.rng, self.kind = image_rgb, rng, kind
        self.owner: NDArray[np.uint8] = np.zeros(image_rgb.shape[:2], dtype=np.uint8)  # 0 nothing, n the n-th item
        self.placed: list[tuple[Item, int]] = []  # with the object's whole area

    def put_item(self, item: Item, share: float, foot: int) -> None:
        height, width = self.image_rgb.shape[:2]
        # a car of the same frame height would be far larger than any package
        size = max(0.12, share * 0.62) if item.category == "car" else share
        picture = random_sprite(item, self.rng, size * height)
        if picture.shape[1] > width * 0.9:
            scale = width * 0.9 / picture.shape[1]
            size_px = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
            picture = np.asarray(cv2.resize(picture, size_px, interpolation=cv2.INTER_AREA))
        left = self._free_place(picture.shape[1], foot, picture.shape[0])
        top = foot - picture.shape[0]
        if top < -0.25 * picture.shape[0]:
            top = int(-0.1 * picture.shape[0])
        self.put_picture(item, picture, left, top)

    def put_picture(self, item: Item, picture: Bytes, left: int, top: int) -> None:
        self._shade(left, left + picture.shape[1], top + picture.shape[0])
        place = stamp(self.image_rgb, picture, left, top)
        self.placed.append((item, int((picture[..., 3] >= 128).sum())))
        if place is not None:
            self.owner[place[0], place[1]][place[2] >= 128] = len(self.placed)

    def lay(self, picture: Bytes, foot: int, right: bool) -> None:
        """Lay a picture that belongs to no listed object at one side of the frame, half outside."""
        wide = picture.shape[1]
        left = round(self.owner.shape[1] - wide * 0.4) if right else round(-wide * 0.6)
        place = stamp(self.image_rgb, picture, left, foot - picture.shape[0])
        if place is not None:
            self.owner[place[0], place[1]][place[2] >= 128] = 0

    def put_clutter(self, feet: tuple[int, int], share: float) -> None:
        height, width = self.image_rgb.shape[:2]
        picture = clutter(self.rng, share * height, outdoor=self.kind == "road")
        left = int(self.rng.integers(-picture.shape[1] // 3, width - picture.shape[1] // 2))
        foot = int(self.rng.integers(feet[0], feet[1]))
        self._shade(left, left + picture.shape[1], foot)
        place = stamp(self.image_rgb, picture, left, foot - picture.shape[0])
        if place is not None:
            self.owner[place[0], place[1]][place[2] >= 128] = 0

    def _shade(self, left: int, right: int, foot: int) -> None:
        if self.kind != "plain" or self.rng.random() < 0.5:
            contact_shadow(self.image_rgb, left, right, foot, float(self.rng.uniform(0.35, 0.8)))

    def _free_place(self, wide: int, foot: int, tall: int) -> int:
        """Return the least crowded of a few random columns; objects may overlap a little or leave the frame."""
        height, width = self.owner.shape
        over = round(wide * 0.25) if self.rng.random() < 0.2 else 0
        rows = slice(max(0, foot - tall), min(height, max(foot, 1)))
        places = self.rng.integers(-over, max(1 - over, width - wide + over) + 1, 6)
        taken = [np.count_nonzero(self.owner[rows, max(0, x) : x + wide]) for x in places]
        return int(places[int(np.argmin(np.array(taken) + self.rng.uniform(0, 0.12 * wide * tall, 6)))])

    def objects(self, least: float = _LEAST_VISIBLE) -> tuple[SceneObject, ...]:
        found = []
        for number, (item, area) in enumerate(self.placed, start=1):
            mask = self.owner == number
            fraction = np.count_nonzero(mask) / max(1, area)
            if fraction >= least and mask.any():
                found.append(SceneObject(item.item_id, item.category, box_of(mask), mask, float(fraction)))
        return tuple(found)


def photograph_item(
    rng: np.random.Generator, item: Item, neighbours: Sequence[Item], tall_px: int
) -> tuple[Bytes, SceneObject]:
    """Photograph one item tall_px high, sometimes beside or partly behind others, in a frame not much larger."""
    picture = random_sprite(item, rng, tall_px)
    high, wide = picture.shape[:2]
    height, width = round(high * rng.uniform(1.3, 1.7)), round(wide * rng.uniform(1.4, 2.0))
    outdoor = item.category == "car"
    kind: Kind = "plain" if rng.random() < 0.3 else "road" if outdoor else "shelf" if rng.random() < 0.5 else "table"
    image_rgb, _ = backdrop(rng, kind, max(48, width), max(48, height))
    height, width = image_rgb.shape[:2]
    canvas = _Canvas(image_rgb, rng, kind)
    foot = min(height, round((height + high) / 2 + rng.uniform(0, 0.1) * high))
    left = round((width - wide) / 2)
    beside = [other for other in neighbours if (other.category == "car") == outdoor]
    if beside and rng.random() < 0.4:
        canvas.lay(random_sprite(beside[int(rng.integers(len(beside)))], rng, tall_px), foot, rng.random() < 0.5)
    if rng.random() < 0.4:
        canvas.put_clutter((max(1, foot - high // 4), foot + 1), rng.uniform(0.2, 0.6))
    canvas.put_picture(item, picture, left, foot - high)
    if beside and rng.random() < 0.2:
        canvas.lay(
            random_sprite(beside[int(rng.integers(len(beside)))], rng, tall_px), foot + high // 6, rng.random() < 0.5
        )
    found = canvas.objects(least=0.0)
    if not found:  # wholly hidden
        return photograph_item(rng, item, neighbours, tall_px)
    return photograph(canvas.image_rgb, rng), found[0]
