"""Flat side and front views of cars: glass, doors, wheels, lights and grilles."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.bodies import BODIES, UNIT, Body, silhouette
from trainer.synthetic.items import Item, Rgb
from trainer.synthetic.motif import Canvas, ellipse, polygon, stroke
from trainer.synthetic.printed_label import mix

_PAINT, _GLASS, _RUBBER, _CHROME = 170, 255, 20, 240  # gloss
_TYRE: Rgb = (26, 27, 29)
_DARK: Rgb = (18, 19, 22)


def side_art(item: Item) -> tuple[Canvas, NDArray[np.uint8]]:
    """Draw the flat side view: (UNIT, length, 4) RGB and gloss, and its opacity."""
    body = BODIES[item.outline]
    width = round(body.length * UNIT)
    art = np.zeros((UNIT, width, 4), dtype=np.uint8)
    cover = silhouette(body)
    art[:] = (*item.palette.body, _PAINT)
    _sheet_metal(art, item, body)
    _windows(art, body, cover)
    _side_lights(art, item, body)
    for x in body.wheels[:2]:
        _wheel(art, cover, item, (x * UNIT, (1 - body.wheels[2]) * UNIT), body.wheels[2] * UNIT)
    return art, cover


def _sheet_metal(art: Canvas, item: Item, body: Body) -> None:
    """Draw the sky's reflection on the shoulder, the ground's below, sill, door lines and handles."""
    y = np.arange(UNIT) / UNIT
    tone = np.interp(
        y, (0, body.belt, body.belt + 0.035, body.belt + 0.1, 0.62, 0.645, 0.8), (1.1, 1.08, 1.42, 1.0, 0.92, 0.7, 0.6)
    )
    art[..., :3] = np.clip(art[..., :3] * tone[:, None, None], 0, 255)
    sill = body.outline[0][1]
    art[round((sill - 0.075) * UNIT) :] = (*_DARK, 40)
    line = (*mix(item.palette.body, (0, 0, 0), 0.55), 60)
    doors = [*body.pillars, body.cabin[1] - 0.12]
    for x in doors:
        stroke(art, [(x * UNIT, (body.belt - 0.02) * UNIT), ((x - 0.01) * UNIT, (sill - 0.12) * UNIT)], 3.5, line)
    for x in doors[1:]:
        centre = ((x - 0.38 if len(body.pillars) == 1 else x - 0.42) * UNIT, (body.belt + 0.085) * UNIT)
        ellipse(art, centre, (0.055 * UNIT, 0.013 * UNIT), (*mix(item.palette.body, (0, 0, 0), 0.5), 200))
        ellipse(
            art,
            (centre[0], centre[1] - 3),
            (0.05 * UNIT, 0.007 * UNIT),
            (*mix(item.palette.body, (255, 255, 255), 0.5), 200),
        )
    if item.outline == "pickup":
        stroke(art, [(0.03 * UNIT, 0.47 * UNIT), (1.2 * UNIT, 0.46 * UNIT)], 6, line)


def _windows(art: Canvas, body: Body, cover: NDArray[np.uint8]) -> None:
    padded = cv2.copyMakeBorder(cover, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    within = cv2.distanceTransform((padded > 127).view(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    inner = np.where(within > 0.05 * UNIT, 255, 0).astype(np.uint8)
    inner[round((body.belt - 0.012) * UNIT) :] = 0
    inner[:, : round(body.cabin[0] * UNIT)] = 0
    inner[:, round(body.cabin[1] * UNIT) :] = 0
    trim = cv2.dilate(inner, np.ones((9, 9), np.uint8))
    art[trim > 127] = (*_DARK, 120)
    for x in body.pillars:
        inner[:, round((x - 0.022) * UNIT) : round((x + 0.022) * UNIT)] = 0
    top = art[: round(body.belt * UNIT)]
    y, x = np.mgrid[0 : top.shape[0], 0 : top.shape[1]].astype(np.float32)
    light = 34 + 62 * (1 - y / top.shape[0]) + 34 * (np.sin((x + y * 0.8) / UNIT * 5.2) > 0.55)
    glass = np.dstack([light * 0.86, light * 0.97, light * 1.08, np.full_like(light, _GLASS)])
    share = (cv2.GaussianBlur(inner[: top.shape[0]], (3, 3), 0) * np.float32(1 / 255))[..., None]
    top[:] = np.round(top * (1 - share) + glass * share)
    mirror = (body.cabin[1] - 0.14, body.belt - 0.005)
    ellipse(art, (mirror[0] * UNIT, mirror[1] * UNIT), (0.075 * UNIT, 0.05 * UNIT), (*_DARK, 120))
    tone = art[round((body.belt + 0.1) * UNIT), 8, :3]
    ellipse(
        art,
        ((mirror[0] - 0.008) * UNIT, (mirror[1] - 0.006) * UNIT),
        (0.06 * UNIT, 0.037 * UNIT),
        (int(tone[0]), int(tone[1]), int(tone[2]), _PAINT),
    )


def _side_lights(art: Canvas, item: Item, body: Body) -> None:
    end = body.length
    y = _lamp_y(body)
    lamp = {"slim": 0.045, "round": 0.05, "square": 0.07}[item.graphic]
    ellipse(art, (end * UNIT, y * UNIT), (0.16 * UNIT, lamp * UNIT), (226, 234, 240, _CHROME))
    rear = 0.46 if item.outline == "van" else 0.42
    polygon(
        art,
        [
            (0, rear * UNIT),
            (0.2 * UNIT, (rear + 0.03) * UNIT),
            (0.14 * UNIT, (rear + 0.12) * UNIT),
            (0, (rear + 0.13) * UNIT),
        ],
        (176, 22, 26, _CHROME),
    )
    sill = body.outline[0][1]
    for x0, x1 in ((0.0, 0.12), (end - 0.12, end)):
        polygon(
            art,
            [
                (x0 * UNIT, (sill - 0.12) * UNIT),
                (x1 * UNIT, (sill - 0.12) * UNIT),
                (x1 * UNIT, sill * UNIT),
                (x0 * UNIT, sill * UNIT),
            ],
            (*_DARK, 60),
        )


def _lamp_y(body: Body) -> float:
    return body.outline[-3][1] + 0.055


def _wheel(art: Canvas, cover: NDArray[np.uint8], item: Item, centre: tuple[float, float], radius: float) -> None:
    """Draw arch, tyre and rim."""
    ellipse(art, centre, (radius * 1.16,) * 2, (*_DARK, 0))
    floor = np.zeros_like(cover)
    ellipse(floor, centre, (radius, radius), 255)
    np.maximum(cover, floor, out=cover)
    ellipse(art, centre, (radius, radius), (*_TYRE, _RUBBER))
    ellipse(art, centre, (radius * 0.9,) * 2, (40, 41, 44, _RUBBER))
    metal = (198, 202, 208)
    ellipse(art, centre, (radius * 0.74,) * 2, (*metal, 150))
    hole = (*_DARK, 30)
    if item.layout == "disc":
        ellipse(art, centre, (radius * 0.8,) * 2, (232, 234, 237, 150))
        for angle in range(0, 360, 30):
            _spoke(art, centre, radius, angle, (0.6, 0.7), (0.03, 0.04), hole)
    elif item.layout == "steel":
        ellipse(art, centre, (radius * 0.66,) * 2, (64, 67, 72, 90))
        for angle in range(0, 360, 45):
            _spoke(art, centre, radius, angle, (0.42, 0.58), (0.07, 0.09), hole)
        ellipse(art, centre, (radius * 0.3,) * 2, (*metal, 150))
    else:
        ellipse(art, centre, (radius * 0.68,) * 2, hole)
        for angle in range(0, 360, {"five": 72, "multi": 30, "turbine": 45}[item.layout]):
            base, tip = {"five": (0.2, 0.14), "multi": (0.07, 0.05), "turbine": (0.06, 0.26)}[item.layout]
            _spoke(art, centre, radius, angle - 90, (0.1, 0.68), (base, tip), (*metal, 150))
        ellipse(art, centre, (radius * 0.2,) * 2, (*metal, 150))
    ellipse(art, centre, (radius * 0.1,) * 2, (110, 114, 120, 150))


def _spoke(
    art: Canvas, centre: tuple[float, float], radius: float, angle: float, span: tuple[float, float],
    widths: tuple[float, float], colour: tuple[int, int, int, int],
) -> None:  # fmt: skip
    along = np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    across = np.array([-along[1], along[0]])
    inner, outer = span[0] * along, span[1] * along
    points = [
        inner - widths[0] * across,
        outer - widths[1] * across,
        outer + widths[1] * across,
        inner + widths[0] * across,
    ]
    polygon(art, np.array(points) * radius + np.array(centre), colour)


def front_art(item: Item) -> tuple[Canvas, NDArray[np.uint8]]:
    """Draw the flat front view, 2 half-depths wide: (UNIT, width, 4) RGB and gloss, and its opacity."""
    body = BODIES[item.outline]
    width = round(2 * body.half_depth * UNIT)
    art = np.zeros((UNIT, width, 4), dtype=np.uint8)
    art[:] = (*item.palette.body, _PAINT)
    pen = _Front(art, width, body)
    hood = body.outline[-3][1]
    _windscreen(pen, body)
    pen.box(-1, hood - 0.004, 1, hood + 0.006, (*mix(item.palette.body, (0, 0, 0), 0.5), 60))
    sill = body.outline[0][1]
    pen.box(-1, sill - 0.1, 1, sill, (*_DARK, 50))
    pen.box(-0.5, sill - 0.13, 0.5, sill - 0.03, (*_DARK, 50))
    pen.box(-0.24, sill - 0.125, 0.24, sill - 0.06, (236, 238, 236, 90))
    _headlights(pen, item, _lamp_y(body))
    _grille(pen, item, hood)
    cover = np.full((UNIT, width), 255, dtype=np.uint8)
    cover[round(sill * UNIT) :] = 0
    art[round(sill * UNIT) :] = (*_TYRE, _RUBBER)
    _far_wheel(cover, body.wheels[2])
    return art, cover


def _far_wheel(cover: NDArray[np.uint8], radius: float) -> None:
    """Uncover the part of the other front wheel that shows under the bumper."""
    below = cover == 0
    ellipse(cover, (cover.shape[1] * 0.54, (0.98 - radius) * UNIT), (cover.shape[1] * 0.17, radius * UNIT), 255)
    cover[~below] = 255


class _Front:
    """Draws on a front view: x is -1..1 across the car, y is 0..1 of its height."""

    def __init__(self, art: Canvas, width: int, body: Body) -> None:
        self.art, self.half, self.body = art, width / 2, body

    def poly(self, points: object, colour: tuple[int, int, int, int]) -> None:
        scale = np.array([self.half, UNIT])
        polygon(self.art, (np.asarray(points, dtype=np.float64) + np.array([1.0, 0.0])) * scale, colour)

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: tuple[int, int, int, int]) -> None:
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: tuple[int, int, int, int]) -> None:
        ellipse(self.art, ((x + 1) * self.half, y * UNIT), (rx * self.half, ry * UNIT), colour)


def _windscreen(pen: _Front, body: Body) -> None:
    base = body.outline[-4][1] - 0.005
    pen.poly([(-0.93, 0.055), (0.93, 0.055), (0.9, base), (-0.9, base)], (*_DARK, 120))
    pen.poly([(-0.86, 0.075), (0.86, 0.075), (0.86, base - 0.02), (-0.86, base - 0.02)], (58, 68, 78, _GLASS))
    pen.poly([(-0.5, 0.075), (-0.1, 0.075), (-0.4, base - 0.02), (-0.8, base - 0.02)], (92, 106, 118, _GLASS))
    for x in (-0.5, 0.3):
        pen.poly([(x, base - 0.03), (x + 0.46, base - 0.05), (x + 0.46, base - 0.035), (x, base - 0.015)], (*_DARK, 60))


def _headlights(pen: _Front, item: Item, y: float) -> None:
    lens, rim = (232, 240, 246, _CHROME), (*_DARK, 120)
    if item.graphic == "square":  # set in one bright panel with the grille
        pen.box(-1, y - 0.07, 1, y + 0.13, (212, 216, 220, _CHROME))
    for side in (-1, 1):
        if item.graphic == "slim":
            pen.poly(
                [(side * 1.0, y - 0.05), (side * 0.55, y - 0.02), (side * 0.58, y + 0.04), (side * 1.0, y + 0.045)], rim
            )
            pen.poly(
                [(side * 0.98, y - 0.036), (side * 0.61, y - 0.01), (side * 0.63, y + 0.025), (side * 0.98, y + 0.03)],
                lens,
            )
        elif item.graphic == "round":
            pen.disc(side * 0.74, y + 0.025, 0.22, 0.118, rim)
            pen.disc(side * 0.74, y + 0.025, 0.185, 0.1, lens)
            pen.disc(side * 0.74, y + 0.025, 0.08, 0.045, (180, 196, 208, _CHROME))
        else:
            pen.box(side * 0.95, y - 0.055, side * 0.58, y + 0.085, rim)
            pen.box(side * 0.92, y - 0.04, side * 0.61, y + 0.07, lens)


def _grille(pen: _Front, item: Item, hood: float) -> None:
    chrome, hole = (222, 226, 230, _CHROME), (*_DARK, 60)
    y = hood + 0.03
    if item.detail == "bars":
        pen.box(-0.54, y, 0.54, y + 0.17, hole)
        for row in range(3):
            pen.box(-0.54, y + 0.014 + row * 0.055, 0.54, y + 0.042 + row * 0.055, chrome)
    elif item.detail == "oval":
        pen.disc(0, y + 0.11, 0.5, 0.135, chrome)
        pen.disc(0, y + 0.11, 0.42, 0.1, hole)
        pen.disc(0, y + 0.11, 0.13, 0.05, chrome)
    elif item.detail == "closed":
        pen.box(-0.55, y + 0.02, 0.55, y + 0.045, chrome)
        pen.disc(0, y + 0.032, 0.13, 0.055, chrome)
    elif item.detail == "kidney":
        for side in (-1, 1):
            pen.poly([(side * 0.04, y), (side * 0.46, y), (side * 0.42, y + 0.13), (side * 0.08, y + 0.13)], chrome)
            pen.poly(
                [
                    (side * 0.08, y + 0.015),
                    (side * 0.41, y + 0.015),
                    (side * 0.38, y + 0.115),
                    (side * 0.11, y + 0.115),
                ],
                hole,
            )
    elif item.detail == "upright":
        pen.poly([(-0.46, y - 0.01), (0.46, y - 0.01), (0.36, y + 0.27), (-0.36, y + 0.27)], chrome)
        pen.poly([(-0.4, y + 0.01), (0.4, y + 0.01), (0.31, y + 0.25), (-0.31, y + 0.25)], hole)
        for x in (-0.24, -0.08, 0.08, 0.24):
            pen.box(x - 0.015, y + 0.01, x + 0.015, y + 0.25, chrome)
    else:
        pen.box(-0.54, y, 0.54, y + 0.15, mix_gloss(item.palette.body))
        for x in np.linspace(-0.45, 0.45, 7):
            pen.box(float(x) - 0.045, y + 0.01, float(x) + 0.045, y + 0.14, hole)


def mix_gloss(colour: Rgb) -> tuple[int, int, int, int]:
    """Return a body colour as bright pressed metal."""
    return (*mix(colour, (255, 255, 255), 0.25), _PAINT)
