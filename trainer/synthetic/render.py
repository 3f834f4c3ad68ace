"""Pictures of single objects: an item in a random view, pose and light, cut out or on white."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.car import car
from trainer.synthetic.carton import carton
from trainer.synthetic.items import Item
from trainer.synthetic.shading import Light
from trainer.synthetic.solid import Solid, View, draw_solid
from trainer.synthetic.vessel import vessel

Bytes = NDArray[np.uint8]

_MAKERS: dict[str, Callable[[Item], Solid]] = {
    "bottle": vessel, "jar": vessel, "can": vessel, "carton": carton, "car": car,
}  # fmt: skip


@cache
def _solid(item: Item) -> Solid:
    return _MAKERS[item.category](item)


def random_view(item: Item, rng: np.random.Generator) -> View:
    """Return a random camera and light that show the item's differences from its neighbours."""
    if item.category == "car":
        yaw, pitch = rng.uniform(0.55, 1.02), rng.uniform(0.0, 0.05)
    else:
        yaw, pitch = rng.uniform(-0.55, 0.55), rng.uniform(0.02, 0.2)
    light = rng.uniform(0.25, 1.0) * (1 if rng.random() < 0.5 else -1)
    return View(
        yaw=float(yaw),
        pitch=float(pitch),
        light=Light(float(light), fill=float(rng.uniform(0.1, 1.0)), shine=float(rng.uniform(0.5, 1.25))),
        bend=float(rng.normal(0, 0.004)),
    )


def sprite(item: Item, view: View, height_px: float, warp: tuple[float, float, float] = (0.0, 1.0, 0.0)) -> Bytes:
    """Draw an item about height_px tall: tight (h, w, 4) uint8 RGBA, premultiplied by alpha.

    Args:
        item: what to draw.
        view: camera and light.
        height_px: wanted height of the picture.
        warp: roll in radians, horizontal stretch, and keystone (relative change of width from bottom to top).
    """
    oversample = 1.7 if height_px < 150 else 1.35
    large = draw_solid(_solid(item), view, max(8, round(height_px * oversample)))
    height, width = large.shape[:2]
    roll, stretch, keystone = warp
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    middle = np.array([width / 2, height / 2])
    shaped = (corners - middle) / oversample * np.array([stretch, 1.0])
    shaped[:2, 0] *= 1 + keystone
    shaped[2:, 0] *= 1 - keystone
    turn = np.array([[np.cos(roll), np.sin(roll)], [-np.sin(roll), np.cos(roll)]])
    shaped = shaped @ turn
    shaped -= shaped.min(axis=0)
    size = np.ceil(shaped.max(axis=0)).astype(int)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), shaped.astype(np.float32))
    return trimmed(cv2.warpPerspective(large, matrix, (int(size[0]), int(size[1])), flags=cv2.INTER_LINEAR))


def trimmed(picture: Bytes) -> Bytes:
    """Return the picture without empty margins."""
    x, y, w, h = cv2.boundingRect((picture[..., 3] >= 24).view(np.uint8))
    return picture[y : y + h, x : x + w]


def random_sprite(item: Item, rng: np.random.Generator, height_px: float) -> Bytes:
    """Draw an item in a random view, pose and light, premultiplied by alpha."""
    view = random_view(item, rng)
    warp = (float(rng.normal(0, 0.045)), float(rng.uniform(0.95, 1.05)), float(rng.uniform(-0.04, 0.04)))
    picture = sprite(item, view, height_px, warp)
    if item.category == "car" and rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    exposure, warmth = rng.uniform(0.72, 1.12), rng.normal(0, 0.05)
    gains = (exposure * (1 + warmth), exposure, exposure * (1 - warmth), 1.0)
    alpha = picture[..., 3]
    picture = cv2.multiply(picture, np.array(gains))
    picture[..., :3] = np.minimum(picture[..., :3], alpha[..., None])
    return np.asarray(picture)


def unpremultiply(picture: Bytes) -> Bytes:
    """Undo the premultiplication by alpha."""
    alpha = picture[..., 3:].astype(np.float32)
    colour = picture[..., :3] * (255.0 / np.maximum(alpha, 1))
    return np.dstack([np.clip(np.round(colour), 0, 255).astype(np.uint8), picture[..., 3]])


def render_object(item: Item, rng: np.random.Generator, height_px: int) -> Bytes:
    """Draw an item in a random view, about height_px tall, as tight (h, w, 4) uint8 RGBA, not premultiplied."""
    return unpremultiply(random_sprite(item, rng, height_px))


def stamp(image_rgb: Bytes, picture: Bytes, left: int, top: int) -> tuple[slice, slice, Bytes] | None:
    """Lay a premultiplied picture over the image, in place; return the rows, columns and alpha inside it, or None."""
    height, width = image_rgb.shape[:2]
    y0, y1 = max(0, top), min(height, top + picture.shape[0])
    x0, x1 = max(0, left), min(width, left + picture.shape[1])
    if y0 >= y1 or x0 >= x1:
        return None
    part = picture[y0 - top : y1 - top, x0 - left : x1 - left]
    alpha = part[..., 3]
    under = image_rgb[y0:y1, x0:x1]
    keep = cv2.cvtColor(255 - alpha, cv2.COLOR_GRAY2RGB)
    under[:] = cv2.add(cv2.multiply(under, keep, scale=1 / 255), cv2.cvtColor(part, cv2.COLOR_RGBA2RGB))
    return slice(y0, y1), slice(x0, x1), alpha


def catalogue_picture(item: Item, rng: np.random.Generator, size_px: int = 256) -> tuple[Bytes, NDArray[np.bool_]]:
    """Draw an item on white for the gallery: (size, size, 3) RGB, and its (size, size) mask."""
    view = random_view(item, rng)
    view = replace(view, light=replace(view.light, fill=float(rng.uniform(0.6, 1.0))))
    view = replace(view, yaw=view.yaw * 0.8 if item.category != "car" else view.yaw, bend=0.0)
    picture = sprite(item, view, size_px * (0.86 if item.category != "car" else 0.44))
    if item.category == "car" and rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    scale = 0.88 * size_px / max(picture.shape[:2])
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    image_rgb = np.full((size_px, size_px, 3), 255, dtype=np.uint8)
    mask = np.zeros((size_px, size_px), dtype=np.bool_)
    place = stamp(image_rgb, picture, (size_px - picture.shape[1]) // 2, (size_px - picture.shape[0]) // 2)
    if place is not None:
        mask[place[0], place[1]] = place[2] >= 128
    return image_rgb, mask
