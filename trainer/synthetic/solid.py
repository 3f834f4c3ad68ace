"""Solids with a printed skin, and how one looks from a given direction in a given light.

A solid is a stack of horizontal slices. All slices have one section (circle, box or rounded car plan), scaled and shifted
per row, so a single renderer draws bottles, jars, cans, cartons and cars with true perspective of their skin:

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

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# circle: skin column 0..1 is the angle -180..180 degrees, the front in the middle.
# box, plan: thirds of the columns are the -x face, the front (+z) and the +x face.
Section = Literal["circle", "box", "plan"]
Surface = Literal["glass", "metal", "paper", "paint"]

_ANGLES, _STEPS = 121, 512  # resolution of the section tables
_POWER = {"circle": 2.0, "box": 40.0, "plan": 4.5}  # of the superellipse |x|^p + |z|^p = 1


@dataclass(frozen=True, slots=True)
class Solid:
    """The shape and the skin of one item."""

    section: Section
    surface: Surface
    half_width: Floats  # (rows,) of each slice along x
    half_depth: Floats  # (rows,) along z
    centre: Floats  # (rows,) along x
    skins: tuple[Bytes, ...]  # (rows, columns, 4) RGB and gloss, then halved again and again
    covers: tuple[Bytes, ...]  # (rows, columns) opacity of the skin, halved alike
    top: Bytes  # (n, n, 4) RGBA of the top face, seen from above with the front at the bottom


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera is and where the light comes from."""

    yaw: float  # radians, positive shows the +x face
    pitch: float  # radians above the horizon
    light: float  # -1 from the left .. 1 from the right
    fill: float  # 0 hard shadow side .. 1 flat light
    shine: float  # strength of reflections, about 1
    bend: float = 0.0  # sideways sway, in heights


def pyramid(image: Bytes, levels: int = 4) -> tuple[Bytes, ...]:
    """The image and its successive halves."""
    images = [image]
    for _ in range(levels - 1):
        height, width = images[-1].shape[:2]
        images.append(cv2.resize(images[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return tuple(images)


def draw_solid(solid: Solid, view: View, height_px: int) -> Bytes:
    """Renders the solid about height_px tall as premultiplied (h, w, 4) uint8 RGBA."""
    sin, cos = float(np.sin(view.yaw)), float(np.cos(view.yaw))
    lift, upright = float(np.sin(view.pitch)), float(np.cos(view.pitch))
    rows = _rows_at(solid, sin, cos)
    back = lift * float(abs(solid.half_width[0] * sin) + solid.half_depth[0] * cos)
    front = lift * float(np.abs(solid.half_width * sin).max() + solid.half_depth.max() * cos)
    scale = height_px / (upright + (back + front) * 0.9)
    ys = (np.arange(-back * scale - 2, (upright + front) * scale + 2, dtype=np.float32) / scale)[:, None]
    xs = (np.arange(rows.reach[0] * scale - 2, rows.reach[1] * scale + 2, dtype=np.float32) / scale)[None, :]
    if view.bend:
        xs = xs + np.float32(view.bend) * np.sin(ys * 3.0)
    else:
        xs = np.broadcast_to(xs, (ys.shape[0], xs.shape[1]))

    y, extent, across, point, detail = _surface_points(solid, rows, xs, ys, lift, upright)
    level = int(np.clip(np.floor(np.log2(solid.skins[0].shape[0] / height_px) + 0.35), 0, len(solid.skins) - 1))
    skin, cover = _skin(solid, level, detail[..., 0], y)
    inside = np.clip((1 - np.abs(across)) * extent * scale + 0.5, 0, 1)
    inside *= np.clip(y * scale + 0.5, 0, 1) * np.clip((1 - y) * scale + 0.5, 0, 1)
    colour = np.clip(_lit(solid, view, skin, rows, y, point, detail), 0, 255)
    alpha = inside * (cover.astype(np.float32) * np.float32(1 / 255))
    colour *= alpha[..., None]
    if lift > 0:
        _add_top(solid, view, colour, alpha, xs, ys, (sin, cos), lift, scale)
    return cv2.merge([*cv2.split(colour), alpha * 255]).round().astype(np.uint8)


@cache
def _sections(section: Section) -> tuple[Floats, Floats]:
    """Tables by (view angle -90..90, place across -1..1) of (x, z) and of (skin column, gradient along x, along z)."""
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
    gradient = np.stack([np.sign(x) * np.abs(x) ** (power - 1), np.sign(z) * np.abs(z) ** (power - 1)])
    values = np.stack([column, x, z, gradient[0], gradient[1]])
    table = np.empty((_ANGLES, _STEPS, 5), dtype=np.float32)
    across = np.linspace(-1, 1, _STEPS)
    for row, angle in enumerate(np.radians(np.linspace(-90, 90, _ANGLES))):
        screen = x * np.cos(angle) - z * np.sin(angle)
        left, right = int(np.argmin(screen)), int(np.argmax(screen))
        near = (
            np.arange(left, right + 1)
            if left < right
            else np.concatenate([np.arange(left, 4000), np.arange(right + 1)])
        )
        reach = screen[right]
        for channel in range(5):
            table[row, :, channel] = np.interp(
                across * reach, np.maximum.accumulate(screen[near]), values[channel, near]
            )
    return np.ascontiguousarray(table[..., 1:3]), np.ascontiguousarray(table[..., [0, 3, 4]])


@cache
def _support(section: Section) -> Floats:
    """How far the unit section reaches across, for each view angle of the table."""
    power = _POWER[section]
    angle = np.radians(np.linspace(-90, 90, _ANGLES))
    dual = power / (power - 1)
    reach = (np.abs(np.cos(angle)) ** dual + np.abs(np.sin(angle)) ** dual) ** (1 / dual)
    return reach.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What each slice contributes at one yaw."""

    reach: tuple[float, float]  # leftmost and rightmost place of the picture
    place: Floats  # (rows, 1, 3) extent, index of the view angle, middle on the picture
    depth: Floats  # (rows, 1, 3) factors of x and z, and constant, of the distance towards the camera
    normal: Floats  # (5, rows) factors of the normal, see _lit


def _rows_at(solid: Solid, sin: float, cos: float) -> _Rows:
    a, b, c = solid.half_width, solid.half_depth, solid.centre
    angle = (np.degrees(np.arctan2(b * sin, a * cos)) + 90) * ((_ANGLES - 1) / 180)
    extent = np.hypot(a * cos, b * sin) * np.interp(angle, np.arange(_ANGLES), _support(solid.section))
    slope = [np.gradient(line) * len(line) for line in (a, b, c)]
    normal = np.stack([1 / a, 1 / b, slope[0] / a, slope[1] / b, slope[2] / a])
    return _Rows(
        (float((c * cos - extent).min()), float((c * cos + extent).max())),
        np.stack([extent, angle, c * cos], axis=1).astype(np.float32)[:, None],
        np.stack([a * sin, b * cos, c * sin], axis=1).astype(np.float32)[:, None],
        normal.astype(np.float32),
    )


def _surface_points(
    solid: Solid, rows: _Rows, xs: Floats, ys: Floats, lift: float, upright: float
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Which point of the solid each pixel sees: height, extent of its slice, place across, (x, z), (column, gradient)."""
    points, details = _sections(solid.section)
    count = len(rows.place)
    zero = np.zeros(xs.shape, dtype=np.float32)
    y = np.repeat(ys / upright, xs.shape[1], axis=1)
    for step in range(3 if lift > 0 else 1):
        row = np.clip(y * count - 0.5, 0, count - 1)
        extent, angle, middle = cv2.split(cv2.remap(rows.place, zero, row, cv2.INTER_LINEAR))
        across = (xs - middle) / extent
        place = np.clip((across + 1) * ((_STEPS - 1) / 2), 0, _STEPS - 1)
        point = cv2.remap(points, place, angle, cv2.INTER_LINEAR)
        if lift > 0 and step < 2:
            along_x, along_z, shift = cv2.split(cv2.remap(rows.depth, zero, row, cv2.INTER_LINEAR))
            y = (ys - lift * (along_x * point[..., 0] + along_z * point[..., 1] + shift)) * (1 / upright)
    return y, extent, across, point, cv2.remap(details, place, angle, cv2.INTER_LINEAR)


def _skin(solid: Solid, level: int, column: Floats, y: Floats) -> tuple[Bytes, Bytes]:
    skin, cover = solid.skins[level], solid.covers[level]
    columns = column * skin.shape[1] - 0.5
    lines = y * skin.shape[0] - 0.5
    return (
        cv2.remap(skin, columns, lines, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        cv2.remap(cover, columns, lines, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
    )


def _lit(solid: Solid, view: View, skin: Bytes, rows: _Rows, y: Floats, point: Floats, detail: Floats) -> Floats:
    """The skin's colour in the light of the view."""
    count = rows.normal.shape[1]
    row = np.clip(y * count - 0.5, 0, count - 1).astype(np.intp)
    per_a, per_b, grow_a, grow_b, shift = (line.take(row) for line in rows.normal)
    gx, gz = detail[..., 1], detail[..., 2]
    across, along = gx * per_a, gz * per_b
    up = gx * (point[..., 0] * grow_a + shift) + gz * point[..., 1] * grow_b
    norm = 1 / np.sqrt(across * across + along * along + up * up + np.float32(1e-6))
    right = (across * float(np.cos(view.yaw)) - along * float(np.sin(view.yaw))) * norm
    up *= norm
    toward = np.sqrt(np.clip(1 - right * right - up * up, 0, 1))
    channels = cv2.split(skin)
    gloss = channels[3] * np.float32(1 / 255)
    shade, shine = _reflectance(solid.surface, view, right, up, toward, gloss)
    return cv2.merge([channel * shade + shine for channel in channels[:3]])


def _reflectance(
    surface: Surface, view: View, right: Floats, up: Floats, toward: Floats, gloss: Floats
) -> tuple[Floats, Floats]:
    """Factor and addition to a colour, from its normal (right, up, toward the camera) and gloss."""
    size = float(np.hypot(view.light * 0.75, 0.832))
    direct = np.clip(right * (view.light * 0.75 / size) + up * (0.45 / size) + toward * (0.7 / size), 0, 1)
    shade = (0.42 + 0.3 * view.fill) + 0.1 * up + (0.62 - 0.3 * view.fill) * direct
    index = np.clip((right + 1) * 127.5, 0, 255).astype(np.intp)
    streak, body = _mirror(surface, view)
    full = np.clip(gloss * 4 - 3, 0, 1) if surface in ("glass", "metal") else 0.0
    if surface in ("glass", "metal"):
        shade = shade + full * (body.take(index) - shade)
    shine = streak.take(index) * (gloss * np.float32(view.shine)) * np.clip(1 - np.abs(up) * 0.9, 0, 1)
    if surface == "paint":
        shade = shade + gloss * 0.25 * np.clip(up, -0.4, 1)
    return shade, shine


def _mirror(surface: Surface, view: View) -> tuple[Floats, Floats]:
    """What a glossy body reflects, by the sideways component of its normal: (256,) streaks and body factor."""
    right = np.linspace(-1, 1, 256)
    side = np.sign(view.light) if view.light else 1.0
    place = side * (0.5 + 0.25 * abs(view.light))

    def lobe(at: float, width: float) -> NDArray[np.float64]:
        return np.exp(-(((right - at) / width) ** 2))

    if surface == "glass":
        streak = 150 * lobe(place, 0.07) + 75 * lobe(-place * 1.08, 0.05) + 18 * lobe(place * 0.6, 0.25)
        body = 0.62 + 0.55 * np.sqrt(np.clip(1 - right**2, 0, 1)) + 0.12 * side * right
    elif surface == "metal":
        streak = 70 * lobe(place, 0.12) + 38 * lobe(-place * 1.1, 0.08)
        body = 0.52 + 0.55 * lobe(place * 0.9, 0.32) + 0.34 * lobe(-place * 0.55, 0.2) - 0.3 * lobe(side * 1.0, 0.1)
        body = body - 0.25 * lobe(-side * 1.0, 0.14) + 0.2 * lobe(0.0, 0.25)
    else:
        streak = 46 * lobe(place, 0.16) + 20 * lobe(-place, 0.1)
        body = np.ones(256)
    return streak.astype(np.float32), body.astype(np.float32)


def _add_top(
    solid: Solid, view: View, colour: Floats, alpha: Floats, xs: Floats, ys: Floats,
    turn: tuple[float, float], lift: float, scale: float,
) -> None:  # fmt: skip
    """Adds the top face, which a raised camera sees, to the picture."""
    a, b, c = (float(line[0]) for line in (solid.half_width, solid.half_depth, solid.centre))
    limit = int(np.searchsorted(ys[:, 0], lift * (a * abs(turn[0]) + b * turn[1] + abs(c))) + 2)
    across, depth = xs[:limit], ys[:limit] / lift
    x = ((across * turn[1] + depth * turn[0]) - c) / a
    z = (depth * turn[1] - across * turn[0]) / b
    power = min(_POWER[solid.section], 12)
    norm = (np.abs(x) ** power + np.abs(z) ** power) ** (1 / power)
    size = solid.top.shape[0]
    texel = cv2.remap(
        solid.top,
        ((x + 1) * (size / 2) - 0.5).astype(np.float32),
        ((z + 1) * (size / 2) - 0.5).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    cover = np.clip((1 - norm) * max(min(a, b * lift) * scale, 6.0) + 0.5, 0, 1) * texel[..., 3] * np.float32(1 / 255)
    shade = np.float32(0.78 + 0.22 * view.fill)
    colour[:limit] += (texel[..., :3] * shade - colour[:limit]) * cover[..., None]
    alpha[:limit] += (1 - alpha[:limit]) * cover
