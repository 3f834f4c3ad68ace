"""Clutter, which belongs to no item: mugs, balls, fruit, books, boxes, plants, cones and bushes."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.motif import Canvas, ellipse, polygon, stroke
from trainer.synthetic.printed_label import mix
from trainer.synthetic.render import trimmed

Bytes = NDArray[np.uint8]
_SIZE, _VARIANTS = 192, 6
_INDOOR = ("mug", "ball", "fruit", "books", "box", "plant")
_OUTDOOR = ("cone", "bush", "bin", "post")


def _shaded(canvas: Canvas) -> None:
    """Shade a flat drawing with light from the upper left, in place."""
    y, x = np.mgrid[0:_SIZE, 0:_SIZE] / _SIZE - 0.5
    canvas[..., :3] = np.clip(canvas[..., :3] * (1.05 - 0.45 * x - 0.3 * y)[..., None], 0, 255)


def _mug(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    for width, tone in ((15, 0.25), (9, 0.0)):
        turn = np.radians(np.linspace(-95, 95, 20))
        points = np.stack([138 + 36 * np.cos(turn), 110 + 38 * np.sin(turn)], axis=1)
        stroke(canvas, points, width, (*mix(colour, (0, 0, 0), tone), 255))
    polygon(canvas, [(32, 40), (142, 40), (138, 178), (122, 188), (50, 188), (36, 178)], (*colour, 255))
    for index in range(24):
        fade = (*mix(colour, (0, 0, 0), abs(index - 8) / 34), 255)
        x = 34 + index * 4.4
        polygon(canvas, [(x, 44), (x + 4.6, 44), (x + 4.4, 180), (x, 180)], fade)
    ellipse(canvas, (87, 42), (55, 13), (*mix(colour, (255, 255, 255), 0.5), 255))
    ellipse(canvas, (87, 44), (48, 10), (*mix(colour, (30, 18, 10), 0.7), 255))


def _ball(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    for index in range(30):
        share = index / 30
        tone = (*mix(mix(colour, (0, 0, 0), 0.55), mix(colour, (255, 255, 255), 0.3), share), 255)
        ellipse(canvas, (96 - 26 * share, 96 - 28 * share), (90 * (1 - share) + 3,) * 2, tone)


def _fruit(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    _ball(canvas, mix(colour, (220, 120, 30), 0.7))
    stroke(canvas, [(96, 30), (104, 6)], 7, (80, 60, 30, 255))


def _books(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    x = 6.0
    for index in range(5):
        tone = mix(colour, ((20, 30, 60), (240, 230, 210), (120, 40, 40), (30, 90, 70), (60, 60, 60))[index], 0.6)
        wide, top = 24.0 + 9 * ((index * 7) % 3), 18.0 + 14 * ((index * 5) % 4)
        polygon(canvas, [(x, top), (x + wide, top), (x + wide, 190), (x, 190)], (*tone, 255))
        for y in (top + 16, 160):
            polygon(
                canvas,
                [(x + 2, y), (x + wide - 2, y), (x + wide - 2, y + 6), (x + 2, y + 6)],
                (*mix(tone, (250, 220, 130), 0.7), 255),
            )
        polygon(
            canvas,
            [(x + wide - 3, top), (x + wide, top), (x + wide, 190), (x + wide - 3, 190)],
            (*mix(tone, (0, 0, 0), 0.4), 255),
        )
        x += wide + 1


def _box(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    polygon(canvas, [(10, 70), (130, 76), (130, 188), (10, 176)], (*colour, 255))
    polygon(canvas, [(130, 76), (184, 60), (184, 164), (130, 188)], (*mix(colour, (0, 0, 0), 0.35), 255))
    polygon(canvas, [(10, 70), (66, 54), (184, 60), (130, 76)], (*mix(colour, (255, 255, 255), 0.35), 255))
    polygon(canvas, [(62, 73), (80, 74), (80, 183), (62, 181)], (*mix(colour, (255, 255, 255), 0.5), 255))


def _plant(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    for index in range(11):
        angle = -90 + (index - 5) * 15
        tip = np.array([96, 120]) + (70 + 30 * (index % 3)) * np.array(
            [np.cos(np.radians(angle)), np.sin(np.radians(angle))]
        )
        green = (40 + 12 * (index % 4), 96 + 16 * (index % 3), 46)
        centre = (tip + np.array([96, 120])) / 2
        ellipse(canvas, (centre[0], centre[1]), (52, 12), (*green, 255), angle)
    polygon(canvas, [(54, 118), (138, 118), (126, 190), (66, 190)], (*mix(colour, (190, 100, 60), 0.6), 255))
    polygon(canvas, [(50, 112), (142, 112), (140, 128), (52, 128)], (*mix(colour, (150, 74, 44), 0.6), 255))


def _cone(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    orange = mix(colour, (240, 92, 20), 0.85)
    polygon(canvas, [(86, 6), (106, 6), (146, 172), (46, 172)], (*orange, 255))
    for y0, y1 in ((50, 80), (108, 136)):
        half = [10 + 40 * (y - 6) / 166 for y in (y0, y1)]
        polygon(
            canvas,
            [(96 - half[0], y0), (96 + half[0], y0), (96 + half[1], y1), (96 - half[1], y1)],
            (240, 240, 236, 255),
        )
    polygon(canvas, [(26, 172), (166, 172), (174, 190), (18, 190)], (*mix(orange, (0, 0, 0), 0.3), 255))


def _bush(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sum(colour))
    for _ in range(260):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0, 1))
        place = (96 + 84 * reach * np.cos(angle), 108 + 78 * reach * np.sin(angle))
        tone = float(rng.uniform(0.6, 1.3)) * (1.2 - place[1] / 300)
        ellipse(
            canvas, place, (11, 6), (int(62 * tone), int(104 * tone), int(40 * tone), 255), float(rng.uniform(0, 180))
        )


def _bin(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    polygon(canvas, [(52, 30), (140, 30), (132, 188), (60, 188)], (*mix(colour, (60, 70, 66), 0.6), 255))
    for x in range(64, 132, 14):
        stroke(canvas, [(x, 44), (96 + (x - 96) * 0.85, 184)], 4, (*mix(colour, (20, 20, 20), 0.7), 255))
    ellipse(canvas, (96, 30), (48, 12), (40, 42, 44, 255))


def _post(canvas: Canvas, colour: tuple[int, int, int]) -> None:
    polygon(canvas, [(84, 4), (108, 4), (108, 190), (84, 190)], (*mix(colour, (90, 90, 90), 0.7), 255))
    polygon(canvas, [(84, 24), (108, 24), (108, 54), (84, 54)], (230, 230, 226, 255))


_DRAW = {
    "mug": _mug, "ball": _ball, "fruit": _fruit, "books": _books, "box": _box, "plant": _plant,
    "cone": _cone, "bush": _bush, "bin": _bin, "post": _post,
}  # fmt: skip


@cache
def _thing(name: str, variant: int) -> Bytes:
    """Return the premultiplied picture of a thing."""
    rng = np.random.default_rng([len(name), ord(name[0]), ord(name[1]), variant])
    red, green, blue = (int(v) for v in rng.integers(40, 230, 3))
    canvas = np.zeros((_SIZE, _SIZE, 4), dtype=np.uint8)
    _DRAW[name](canvas, (red, green, blue))
    _shaded(canvas)
    canvas[..., :3] = np.round(canvas[..., :3] * (canvas[..., 3:] / 255.0))
    return trimmed(canvas)


def clutter(rng: np.random.Generator, height_px: float, outdoor: bool = False) -> Bytes:
    """Return random clutter about height_px tall, as (h, w, 4) RGBA premultiplied by alpha."""
    names = _OUTDOOR if outdoor else _INDOOR
    picture = _thing(names[int(rng.integers(len(names)))], int(rng.integers(_VARIANTS)))
    scale = height_px / picture.shape[0]
    size = (max(2, round(picture.shape[1] * scale * rng.uniform(0.85, 1.15))), max(2, round(height_px)))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        picture = np.ascontiguousarray(picture[:, ::-1])
    gain = float(rng.uniform(0.6, 1.0))
    return np.asarray(cv2.multiply(picture, np.array([gain, gain, gain, 1.0])))
