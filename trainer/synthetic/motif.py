"""Drawing on flat art: polygons and strokes, motifs of labels, and lettering."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.items import Rgb

Canvas = NDArray[np.uint8]
Colour = tuple[int, ...] | int  # one number for each channel of the canvas
_SHIFT = 4  # sub-pixel bits of OpenCV's drawing functions


def polygon(canvas: Canvas, points: object, colour: Colour) -> None:
    """Fill a polygon given in float pixels, anti-aliased."""
    fixed = np.round(np.asarray(points, dtype=np.float64) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], colour, cv2.LINE_AA, _SHIFT)


def ellipse(
    canvas: Canvas, centre: tuple[float, float], radii: tuple[float, float], colour: Colour, angle: float = 0.0
) -> None:
    """Fill an ellipse given in float pixels, anti-aliased."""
    turn = np.linspace(0, 2 * np.pi, 49)[:-1]
    x, y = np.cos(turn) * radii[0], np.sin(turn) * radii[1]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    polygon(canvas, np.stack([centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos], axis=1), colour)


def stroke(canvas: Canvas, points: object, width_px: float, colour: Colour) -> None:
    """Draw an open polyline with round joints."""
    fixed = np.round(np.asarray(points, dtype=np.float64) * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, colour, max(1, round(width_px)), cv2.LINE_AA, _SHIFT)


class _Pen:
    """Draws in motif units: -1..1 on both axes around a centre."""

    def __init__(self, canvas: Canvas, centre: tuple[float, float], radius: float) -> None:
        self.canvas, self.centre, self.radius = canvas, np.array(centre), radius

    def poly(self, points: object, colour: Rgb) -> None:
        polygon(self.canvas, np.asarray(points, dtype=np.float64) * self.radius + self.centre, colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: Rgb, angle: float = 0.0) -> None:
        centre = self.centre + np.array([x, y]) * self.radius
        ellipse(self.canvas, (centre[0], centre[1]), (rx * self.radius, ry * self.radius), colour, angle)

    def line(self, points: object, width: float, colour: Rgb) -> None:
        stroke(
            self.canvas,
            np.asarray(points, dtype=np.float64) * self.radius + self.centre,
            width * self.radius,
            colour,
        )


def _around(count: int, radius: float, phase: float = -90.0) -> NDArray[np.float64]:
    turn = np.radians(phase + np.arange(count) * 360.0 / count)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1) * radius


def _star(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del accent, ground
    points = np.empty((10, 2))
    points[0::2], points[1::2] = _around(5, 1.05), _around(5, 0.44, -54)
    pen.poly(points, ink)


def _ring(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del accent
    pen.disc(0, 0, 0.95, 0.95, ink)
    pen.disc(0, 0, 0.55, 0.55, ground)
    pen.line([(-0.8, 0.8), (0.8, -0.8)], 0.26, ink)


def _leaf(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del accent
    t = np.linspace(0, 1, 16)
    bulge = np.sin(np.pi * t) * 0.55
    base = np.stack([-0.8 + 1.6 * t, 0.8 - 1.6 * t], axis=1)
    side = np.stack([bulge, bulge], axis=1) * 0.9
    pen.poly(np.concatenate([base - side, (base + side)[::-1]]), ink)
    pen.line([(-1.0, 1.0), (0.5, -0.5)], 0.13, ground)
    pen.line([(-0.15, 0.15), (-0.15, -0.35)], 0.1, ground)
    pen.line([(-0.1, 0.1), (0.4, 0.15)], 0.1, ground)


def _mountain(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    pen.poly([(-0.1, 0.75), (0.5, -0.4), (1.1, 0.75)], accent)
    pen.poly([(-1.1, 0.75), (-0.25, -0.85), (0.6, 0.75)], ink)
    pen.poly([(-0.52, -0.35), (-0.25, -0.85), (0.02, -0.35), (-0.14, -0.18), (-0.26, -0.38), (-0.4, -0.16)], ground)


def _crown(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del ground
    pen.poly([(-0.9, 0.5), (-1, -0.55), (-0.45, 0.0), (0, -0.85), (0.45, 0.0), (1, -0.55), (0.9, 0.5)], ink)
    pen.poly([(-0.9, 0.62), (0.9, 0.62), (0.9, 0.86), (-0.9, 0.86)], ink)
    for x, y in ((-1, -0.6), (0, -0.9), (1, -0.6)):
        pen.disc(x, y, 0.15, 0.15, accent)


def _bolt(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del accent, ground
    pen.poly([(0.3, -1.1), (-0.7, 0.2), (-0.1, 0.2), (-0.35, 1.1), (0.7, -0.25), (0.1, -0.25), (0.55, -1.1)], ink)


def _claw(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del accent, ground
    for x, lift in ((-0.65, 0.15), (0.0, -0.05), (0.65, 0.15)):
        pen.poly([(x - 0.22, -1 + lift), (x + 0.28, -0.85 + lift), (x + 0.2, 0.2), (x - 0.12, 1.05 - lift)], ink)


def _drop(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del ground
    t = np.linspace(-0.75 * np.pi, 0.75 * np.pi, 24) + np.pi / 2
    arc = np.stack([np.cos(t) * 0.68, np.sin(t) * 0.68 + 0.32], axis=1)
    pen.poly(np.concatenate([arc, [(0, -1.1)]]), ink)
    pen.disc(-0.22, 0.42, 0.15, 0.26, accent, 25)


def _fish(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    pen.disc(-0.15, 0, 0.85, 0.48, ink)
    pen.poly([(0.45, 0), (1.05, -0.55), (0.9, 0), (1.05, 0.55)], ink)
    pen.poly([(-0.2, -0.35), (0.2, -0.8), (0.35, -0.3)], accent)
    pen.disc(-0.6, -0.1, 0.12, 0.12, ground)


def _wheat(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del ground
    pen.line([(0, 1.1), (0, -0.6)], 0.12, ink)
    pen.disc(0, -0.8, 0.17, 0.32, ink)
    for row, y in enumerate((-0.4, 0.0, 0.4)):
        colour = accent if row == 1 else ink
        pen.disc(-0.34, y, 0.18, 0.36, colour, -38)
        pen.disc(0.34, y, 0.18, 0.36, colour, 38)


def _anchor(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del accent
    pen.disc(0, -0.8, 0.28, 0.28, ink)
    pen.disc(0, -0.8, 0.12, 0.12, ground)
    pen.line([(0, -0.55), (0, 0.9)], 0.24, ink)
    pen.line([(-0.5, -0.3), (0.5, -0.3)], 0.2, ink)
    t = np.radians(np.linspace(15, 165, 14))
    pen.line(np.stack([np.cos(t) * 0.85, np.sin(t) * 0.75 + 0.2], axis=1), 0.24, ink)


def _strawberry(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    t = np.linspace(0, 2 * np.pi, 33)[:-1]
    x = np.sin(t) * 0.85 * (1 - 0.32 * np.clip(-np.cos(t), 0, 1))
    pen.poly(np.stack([x, -np.cos(t) * 0.95 + 0.15], axis=1), ink)
    for px, py in ((-0.4, -0.1), (0.1, 0.0), (0.45, 0.2), (-0.15, 0.45), (0.15, 0.75), (-0.45, 0.35)):
        pen.disc(px, py, 0.07, 0.11, ground)
    pen.poly(np.concatenate([[(-0.8, -0.5), (-0.35, -0.95), (0, -0.7), (0.35, -0.95), (0.8, -0.5), (0, -0.3)]]), accent)


def _cherry(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    pen.line([(-0.5, 0.4), (-0.2, -0.4), (0.25, -1.0)], 0.12, accent)
    pen.line([(0.5, 0.5), (0.4, -0.3), (0.25, -1.0)], 0.12, accent)
    pen.disc(-0.5, 0.45, 0.45, 0.45, ink)
    pen.disc(0.52, 0.55, 0.42, 0.42, ink)
    pen.disc(-0.62, 0.3, 0.11, 0.11, ground)
    pen.disc(0.4, 0.42, 0.1, 0.1, ground)
    pen.disc(0.7, -0.85, 0.4, 0.18, accent, 20)


def _heart(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del accent, ground
    t = np.linspace(0, 2 * np.pi, 41)[:-1]
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    pen.poly(np.stack([x, y], axis=1), ink)


def _flower(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del ground
    for x, y in _around(6, 0.62):
        pen.disc(x, y, 0.36, 0.36, ink)
    pen.disc(0, 0, 0.32, 0.32, accent)


def _bee(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    pen.disc(-0.3, -0.55, 0.28, 0.5, accent, -20)
    pen.disc(0.3, -0.55, 0.28, 0.5, accent, 20)
    pen.disc(0, 0.2, 0.9, 0.55, ink)
    for x in (-0.3, 0.15, 0.55):
        pen.poly([(x - 0.1, -0.32), (x + 0.1, -0.32), (x + 0.1, 0.72), (x - 0.1, 0.72)], ground)


def _sun(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del accent
    for tip, left, right in zip(_around(10, 1.1), _around(10, 0.72, -104), _around(10, 0.72, -76), strict=True):
        pen.poly([tip, left, right], ink)
    pen.disc(0, 0, 0.66, 0.66, ground)
    pen.disc(0, 0, 0.55, 0.55, ink)


def _slice(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del ground
    pen.disc(0, 0, 1, 1, accent)
    pen.disc(0, 0, 0.86, 0.86, ink)
    for angle in range(0, 360, 60):
        a = np.radians([angle + 6, angle + 30, angle + 54])
        rim = np.stack([np.cos(a), np.sin(a)], axis=1) * 0.74
        pen.poly(np.concatenate([rim, [rim.mean(axis=0) * 0.16]]), accent)


def _apple(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    del ground
    pen.disc(-0.33, 0.2, 0.58, 0.75, ink)
    pen.disc(0.33, 0.2, 0.58, 0.75, ink)
    pen.line([(0, -0.35), (0.12, -0.95)], 0.16, accent)
    pen.disc(0.5, -0.8, 0.42, 0.2, accent, -25)


def _moon(pen: _Pen, ink: Rgb, accent: Rgb, ground: Rgb) -> None:
    pen.disc(-0.05, 0, 0.95, 0.95, ink)
    pen.disc(0.38, -0.15, 0.78, 0.78, ground)
    pen.disc(0.55, -0.2, 0.2, 0.2, accent)


_MOTIFS: dict[str, Callable[[_Pen, Rgb, Rgb, Rgb], None]] = {
    "star": _star, "ring": _ring, "leaf": _leaf, "mountain": _mountain, "crown": _crown, "bolt": _bolt, "claw": _claw,
    "drop": _drop, "fish": _fish, "wheat": _wheat, "anchor": _anchor, "strawberry": _strawberry, "cherry": _cherry,
    "heart": _heart, "flower": _flower, "bee": _bee, "sun": _sun, "slice": _slice, "apple": _apple, "moon": _moon,
}  # fmt: skip


def motif(canvas: Canvas, name: str, centre: tuple[float, float], radius: float, colours: tuple[Rgb, Rgb, Rgb]) -> None:
    """Draw a motif in `colours`: ink, accent, and the ground behind it."""
    _MOTIFS[name](_Pen(canvas, centre, radius), *colours)


def lettering(canvas: Canvas, text: str, box: tuple[float, float, float, float], colour: Rgb) -> None:
    """Write a word in bold so that it fills box (x0, y0, x1, y1) in pixels and keeps its aspect."""
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, 2.0, 9)
    ink = np.zeros((height + base + 20, width + 20), dtype=np.uint8)
    cv2.putText(ink, text, (10, height + 8), cv2.FONT_HERSHEY_DUPLEX, 2.0, 255, 9, cv2.LINE_AA)
    x, y, w, h = cv2.boundingRect(ink)
    ink = ink[y : y + h, x : x + w]
    scale = min((box[2] - box[0]) / w, (box[3] - box[1]) / h)
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    ink = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
    x0, y0 = round((box[0] + box[2] - size[0]) / 2), round((box[1] + box[3] - size[1]) / 2)
    target = canvas[y0 : y0 + size[1], x0 : x0 + size[0]]
    share = ink[: target.shape[0], : target.shape[1], None].astype(np.float32) / 255
    target[:] = np.round(target * (1 - share) + np.array(colour, np.float32) * share)
