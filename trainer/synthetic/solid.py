"""Solids with a printed skin, and their rendering from a given direction in a given light.

A solid is a stack of horizontal slices. All slices have one section (circle, box or rounded car plan), scaled and
shifted in each row. So one renderer draws bottles, jars, cans, cartons and cars, with skins turned and foreshortened:

    x: to the right of the solid's front, z: towards a viewer at yaw 0, y: down, all in units of the solid's height.

The skin is unrolled: columns follow the section (see `Section`), rows the height. Its fourth channel is gloss.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.shading import Light, Surface, reflectance

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Indices = NDArray[np.intp]

# circle: skin column 0..1 is the angle -180..180 degrees, the front in the middle.
# box, plan: thirds of the columns are the -x face, the front (+z) and the +x face.
Section = Literal["circle", "box", "plan"]

_SLICES = 1024  # rows of the shape, enough to need no interpolation
_ANGLES, _STEPS = 1081, 768  # resolution of the section tables, enough to need no interpolation
_POWER = {"circle": 2.0, "box": 40.0, "plan": 4.5}  # of the superellipse |x|^p + |z|^p = 1


@dataclass(frozen=True, slots=True)
class Solid:
    """The shape and the skin of one item; made by `solid`."""

    section: Section
    surface: Surface
    slices: Floats  # (3, _SLICES) half width along x, half depth along z, centre along x
    normal: Floats  # (5, _SLICES) factors of the normal, see _lit
    skins: tuple[Bytes, ...]  # (rows, columns, 4) RGB and gloss, then halved again and again
    covers: tuple[Bytes, ...]  # (rows, columns) opacity of the skin, halved alike
    top: Bytes  # (n, n, 4) RGBA of the top face, seen from above with the front at the bottom


@dataclass(frozen=True, slots=True)
class View:
    """Position of the camera, and direction of the light."""

    yaw: float  # radians, positive shows the +x face
    pitch: float  # radians above the horizon
    light: Light
    bend: float = 0.0  # sideways sway, in heights


def solid(
    section: Section, surface: Surface, shape: NDArray[np.floating], skin: Bytes, cover: Bytes, top: Bytes
) -> Solid:
    """Make a solid of shape (3, rows): half width along x, half depth along z and centre along x of each slice."""
    rows = shape.shape[1]
    place = np.clip((np.arange(_SLICES) + 0.5) / _SLICES * rows - 0.5, 0, rows - 1)
    a, b, c = (np.interp(place, np.arange(rows), line) for line in shape)
    grow = [np.gradient(line) * _SLICES for line in (a, b, c)]
    normal = np.stack([1 / a, 1 / b, grow[0] / a, grow[1] / b, grow[2] / a])
    slices = np.stack([a, b, c]).astype(np.float32)
    return Solid(section, surface, slices, normal.astype(np.float32), _pyramid(skin), _pyramid(cover), top)


def _pyramid(image: Bytes, levels: int = 4) -> tuple[Bytes, ...]:
    images = [image]
    for _ in range(levels - 1):
        height, width = images[-1].shape[:2]
        images.append(cv2.resize(images[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return tuple(images)


def draw_solid(thing: Solid, view: View, height_px: int) -> Bytes:
    """Render the solid about height_px tall as premultiplied (h, w, 4) uint8 RGBA."""
    sin, cos = float(np.sin(view.yaw)), float(np.cos(view.yaw))
    lift, upright = float(np.sin(view.pitch)), float(np.cos(view.pitch))
    a, b, _ = thing.slices
    back = lift * float(abs(a[0] * sin) + b[0] * cos)
    front = lift * float(np.abs(a * sin).max() + b.max() * cos)
    scale = height_px / (upright + (back + front) * 0.9)
    rows = _rows_at(thing, sin, cos)
    ys = _pixels(-back, upright + front, scale)[:, None]
    xs = _pixels(*rows.reach, scale)[None, :]
    if view.bend:
        xs = xs + np.float32(view.bend) * np.sin(ys * 3.0)

    y = _heights(thing, rows, xs, ys, lift, upright)
    row, spot, across, extent = _spots(rows, xs, y)
    near = [table.take(spot) for table in _sections(thing.section)]  # x, z, column, gradient along x and z
    level = int(np.clip(np.floor(np.log2(thing.skins[0].shape[0] / height_px) + 0.35), 0, len(thing.skins) - 1))
    skin, cover = _skin(thing, level, near[2], y)
    inside = np.clip((1 - np.abs(across)) * extent * scale + 0.5, 0, 1)
    inside *= np.clip(y * scale + 0.5, 0, 1) * np.clip((1 - y) * scale + 0.5, 0, 1)
    alpha = inside * (cover * np.float32(1 / 255))
    channels = [np.clip(channel, 0, 255) * alpha for channel in _lit(thing, view, skin, row, near)]
    if lift > 0 and thing.section != "plan":  # the roof of a car is too flat to be seen from above
        colour = cv2.merge(channels)
        _add_top(thing, view, colour, alpha, np.broadcast_to(xs, y.shape), ys, lift, scale)
        channels = list(cv2.split(colour))
    return np.asarray(cv2.merge([*channels, alpha * 255]).round().astype(np.uint8))


def _pixels(start: float, end: float, scale: float) -> Floats:
    """Return the places of an even number of pixels that cover start to end with a small margin."""
    count = (int((end - start) * scale) // 2 + 3) * 2
    return ((np.arange(count, dtype=np.float32) - np.float32((count - 1) / 2)) / scale + (start + end) / 2).astype(
        np.float32
    )


@cache
def _sections(section: Section) -> tuple[Floats, ...]:
    """Return flat tables by (view angle -90..90, place across -1..1): x, z, skin column, gradient along x and z."""
    power = _POWER[section]
    turn = np.linspace(-np.pi, np.pi, 4001)
    x, z = np.sin(turn), np.cos(turn)
    if section != "circle":
        size = (np.abs(x) ** power + np.abs(z) ** power) ** (-1 / power)
        x, z = x * size, z * size
        square = np.maximum(np.abs(x), np.abs(z))
        u, w = x / square, z / square
        column = np.where(w >= 1, (1 + (u + 1) / 2) / 3, np.where(u > 0, (2 + (1 - w) / 2) / 3, (w + 1) / 6))
    else:
        column = turn / (2 * np.pi) + 0.5
    gradient = [np.sign(line) * np.abs(line) ** (power - 1) for line in (x, z)]
    values = (x, z, column, *gradient)
    tables = np.empty((len(values), _ANGLES, _STEPS), dtype=np.float32)
    across = np.linspace(-1, 1, _STEPS)
    for row, angle in enumerate(np.radians(np.linspace(-90, 90, _ANGLES))):
        screen = x * np.cos(angle) - z * np.sin(angle)
        left, right = int(np.argmin(screen)), int(np.argmax(screen))
        near = np.arange(left, right + 1) if left < right else np.r_[left:4000, : right + 1]
        rising = np.maximum.accumulate(screen[near])
        for table, value in zip(tables, values, strict=True):
            table[row] = np.interp(across * screen[right], rising, value[near])
    return tuple(table.reshape(-1) for table in tables)


@cache
def _support(section: Section) -> NDArray[np.float64]:
    """Return how far the unit section reaches across, for each view angle of the tables."""
    power = _POWER[section]
    angle = np.radians(np.linspace(-90, 90, _ANGLES))
    dual = power / (power - 1)
    return (np.abs(np.cos(angle)) ** dual + np.abs(np.sin(angle)) ** dual) ** (1 / dual)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The contribution of each slice at one yaw."""

    reach: tuple[float, float]  # leftmost and rightmost place of the picture
    extent: Floats  # half of the slice's width on the picture
    middle: Floats  # its middle on the picture
    start: Indices  # of its view angle in the section tables
    depth: tuple[Floats, Floats, Floats]  # factors of x and z, and constant, of the distance towards the camera


def _rows_at(thing: Solid, sin: float, cos: float) -> _Rows:
    a, b, c = thing.slices
    angle = (np.degrees(np.arctan2(b * sin, a * cos)) + 90) * ((_ANGLES - 1) / 180)
    index = angle.round().astype(np.intp)
    extent = np.hypot(a * cos, b * sin) * _support(thing.section).take(index).astype(np.float32)
    middle = c * cos
    reach = (float((middle - extent).min()), float((middle + extent).max()))
    return _Rows(reach, extent, middle, index * _STEPS, (a * sin, b * cos, c * sin))


def _spots(rows: _Rows, xs: Floats, y: Floats) -> tuple[Indices, Indices, Floats, Floats]:
    """Return for pixels at height y: slice, index into the section tables, place across, and extent of the slice."""
    row = np.clip(y * _SLICES, 0, _SLICES - 1).astype(np.intp)
    extent = rows.extent.take(row)
    across = (xs - rows.middle.take(row)) / extent
    step = np.clip((across + 1) * (_STEPS / 2), 0, _STEPS - 1).astype(np.intp)
    return row, rows.start.take(row) + step, across, extent


def _heights(thing: Solid, rows: _Rows, xs: Floats, ys: Floats, lift: float, upright: float) -> Floats:
    """Return the height on the solid that each pixel sees, by fixed-point iteration on a grid of half resolution."""
    size = (xs.shape[1], ys.shape[0])
    if lift <= 0:
        return np.repeat(ys / upright, size[0], axis=1)
    ys = np.float32(0.5) * (ys[::2] + ys[1::2])
    xs = np.float32(0.5) * (xs[:, ::2] + xs[:, 1::2])
    if xs.shape[0] > 1:
        xs = xs[::2]
    y = np.repeat(ys / upright, xs.shape[1], axis=1)
    table_x, table_z = _sections(thing.section)[:2]
    for _ in range(2):
        row, spot, _, _ = _spots(rows, xs, y)
        along_x, along_z, shift = (line.take(row) for line in rows.depth)
        y = (ys - lift * (along_x * table_x.take(spot) + along_z * table_z.take(spot) + shift)) * (1 / upright)
    return np.asarray(cv2.resize(y, size, interpolation=cv2.INTER_LINEAR))


def _skin(thing: Solid, level: int, column: Floats, y: Floats) -> tuple[Bytes, Bytes]:
    skin, cover = thing.skins[level], thing.covers[level]
    columns = column * skin.shape[1] - 0.5
    lines = y * skin.shape[0] - 0.5
    return (
        cv2.remap(skin, columns, lines, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        cv2.remap(cover, columns, lines, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
    )


def _lit(thing: Solid, view: View, skin: Bytes, row: Indices, near: list[Floats]) -> list[Floats]:
    """Return the skin's red, green and blue in the light of the view."""
    x, z, _, gx, gz = near
    per_a, per_b, grow_a, grow_b, shift = (line.take(row) for line in thing.normal)
    across, along = gx * per_a, gz * per_b
    up = gx * (x * grow_a + shift) + gz * z * grow_b
    norm = 1 / np.sqrt(across * across + along * along + up * up + np.float32(1e-6))
    right = (across * float(np.cos(view.yaw)) - along * float(np.sin(view.yaw))) * norm
    channels = cv2.split(skin)
    gloss = channels[3] * np.float32(1 / 255)
    shade, shine = reflectance(thing.surface, view.light, right, up * norm, gloss)
    return [channel * shade + shine for channel in channels[:3]]


def _add_top(
    thing: Solid, view: View, colour: Floats, alpha: Floats, xs: Floats, ys: Floats, lift: float, scale: float
) -> None:
    """Add the top face, which a raised camera sees, to the picture, in place."""
    turn = (float(np.sin(view.yaw)), float(np.cos(view.yaw)))
    a, b, c = (float(line[0]) for line in thing.slices)
    limit = int(np.searchsorted(ys[:, 0], lift * (a * abs(turn[0]) + b * turn[1] + abs(c))) + 2)
    across, depth = xs[:limit], ys[:limit] / lift
    x = ((across * turn[1] + depth * turn[0]) - c) / a
    z = (depth * turn[1] - across * turn[0]) / b
    power = min(_POWER[thing.section], 12)
    norm = (np.abs(x) ** power + np.abs(z) ** power) ** (1 / power)
    size = thing.top.shape[0]
    texel = cv2.remap(
        thing.top,
        ((x + 1) * (size / 2) - 0.5).astype(np.float32),
        ((z + 1) * (size / 2) - 0.5).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    cover = np.clip((1 - norm) * max(min(a, b * lift) * scale, 6.0) + 0.5, 0, 1) * texel[..., 3] * np.float32(1 / 255)
    shade = np.float32(0.78 + 0.22 * view.light.fill)
    colour[:limit] += (texel[..., :3] * shade - colour[:limit]) * cover[..., None]
    alpha[:limit] += (1 - alpha[:limit]) * cover
