"""Backgrounds of synthetic scenes: walls, shelves, tables, roads and plain textures, from a few seeded surfaces."""

from __future__ import annotations

from functools import cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.motif import ellipse, polygon

Bytes = NDArray[np.uint8]
Kind = Literal["shelf", "table", "road", "plain"]

_SIZE = (512, 768)  # height and width of a stored surface
_VARIANTS = 4


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]) -> NDArray[np.float32]:
    """Return noise of about 0..1 with about `cells` blobs down and across."""
    grid = rng.random((max(2, cells[0]), max(2, cells[1])), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC))


def _tinted(tone: NDArray[np.float32], colour: tuple[float, float, float]) -> Bytes:
    return np.clip(tone[..., None] * np.array(colour, np.float32), 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator, low: float, high: float, tint: float) -> tuple[float, float, float]:
    grey = rng.uniform(low, high)
    red, green, blue = (float(grey * (1 + rng.uniform(-tint, tint))) for _ in range(3))
    return red, green, blue


def _grain(rng: np.random.Generator, fine: float, coarse: float) -> NDArray[np.float32]:
    height, width = _SIZE
    tone = (
        1
        + coarse * (smooth_noise(rng, height, width, (5, 8)) - 0.5)
        + coarse * 0.5 * (smooth_noise(rng, height, width, (23, 34)) - 0.5)
    )
    return np.asarray(tone + fine * (rng.random(_SIZE, dtype=np.float32) - 0.5))


def _plaster(rng: np.random.Generator) -> Bytes:
    return _tinted(_grain(rng, 0.05, 0.25), _colour(rng, 120, 230, 0.12))


def _asphalt(rng: np.random.Generator) -> Bytes:
    return _tinted(_grain(rng, 0.35, 0.2), _colour(rng, 70, 120, 0.03))


def _wood(rng: np.random.Generator) -> Bytes:
    height, width = _SIZE
    tone = (
        0.85
        + 0.35 * (smooth_noise(rng, height, width, (90, 5)) - 0.5)
        + 0.2 * (smooth_noise(rng, height, width, (14, 3)) - 0.5)
    )
    plank = height // int(rng.integers(3, 7))
    for top in range(0, height, plank):
        tone[top : top + plank] *= rng.uniform(0.88, 1.08)
        tone[top : top + 3] *= 0.6
    base = rng.uniform(120, 205)
    return _tinted(tone, (base, base * rng.uniform(0.7, 0.8), base * rng.uniform(0.45, 0.6)))


def _masonry(rng: np.random.Generator) -> Bytes:
    """Draw bricks or tiles."""
    image = _tinted(_grain(rng, 0.1, 0.15), _colour(rng, 150, 215, 0.05))
    tile = rng.random() < 0.5
    rows, columns = (8, 12) if tile else (16, 10)
    high, wide = _SIZE[0] / rows, _SIZE[1] / columns
    red, green, blue = (195, 200, 205) if tile else (168, 92, 70)
    for row in range(rows):
        for column in range(-1, columns):
            shift = 0.0 if tile or row % 2 else wide / 2
            tone = float(rng.uniform(0.9, 1.1) if tile else rng.uniform(0.75, 1.15))
            x, y = column * wide + shift, row * high
            corners = [(x + 2, y + 2), (x + wide - 2, y + 2), (x + wide - 2, y + high - 2), (x + 2, y + high - 2)]
            polygon(image, corners, (int(red * tone), int(green * tone), int(blue * tone)))
    return np.asarray(cv2.GaussianBlur(image, (5, 5), 1))


def _check(rng: np.random.Generator) -> Bytes:
    """Draw a woven tablecloth."""
    first, second = _colour(rng, 190, 245, 0.05), _colour(rng, 60, 190, 0.6)
    step = int(rng.integers(20, 48))
    y, x = np.mgrid[0 : _SIZE[0], 0 : _SIZE[1]]
    share = ((x // step % 2) + (y // step % 2))[..., None] * 0.42
    return np.asarray(np.clip(np.array(first) * (1 - share) + np.array(second) * share, 0, 255).astype(np.uint8))


def _soft_lights(rng: np.random.Generator) -> Bytes:
    """Draw a room far out of focus."""
    image = np.empty((*_SIZE, 3), dtype=np.uint8)
    image[:] = _colour(rng, 40, 170, 0.3)
    for _ in range(60):
        place = (float(rng.uniform(0, _SIZE[1])), float(rng.uniform(0, _SIZE[0])))
        red, green, blue = (int(v) for v in _colour(rng, 40, 220, 0.3))
        ellipse(image, place, (float(rng.uniform(10, 90)), float(rng.uniform(10, 90))), (red, green, blue))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 16))


def _stock(rng: np.random.Generator) -> Bytes:
    """Draw rows of unrecognisable packs, out of focus."""
    image = np.empty((*_SIZE, 3), dtype=np.uint8)
    image[:] = (50, 46, 44)
    for row in range(4):
        base, x = (row + 1) * 128, 0.0
        while x < _SIZE[1]:
            wide, high = float(rng.uniform(22, 60)), float(rng.uniform(60, 108))
            red, green, blue = (int(v) for v in rng.integers(40, 235, 3))
            polygon(
                image,
                [(x, base - high), (x + wide - 3, base - high), (x + wide - 3, base - 10), (x, base - 10)],
                (red, green, blue),
            )
            polygon(
                image,
                [
                    (x, base - high * 0.7),
                    (x + wide - 3, base - high * 0.7),
                    (x + wide - 3, base - high * 0.35),
                    (x, base - high * 0.35),
                ],
                (blue, red, green),
            )
            x += wide
        polygon(image, [(0, base - 10), (_SIZE[1], base - 10), (_SIZE[1], base), (0, base)], (190, 188, 184))
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 4.5))


def _foliage(rng: np.random.Generator) -> Bytes:
    image = np.empty((*_SIZE, 3), dtype=np.uint8)
    image[:] = (46, 66, 34)
    for _ in range(900):
        tone = float(rng.uniform(0.5, 1.4))
        place = (float(rng.uniform(0, _SIZE[1])), float(rng.uniform(0, _SIZE[0])))
        ellipse(
            image,
            place,
            (float(rng.uniform(6, 20)), float(rng.uniform(3, 9))),
            (int(70 * tone), int(104 * tone), int(44 * tone)),
            float(rng.uniform(0, 180)),
        )
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.2))


def _street(rng: np.random.Generator) -> Bytes:
    """Draw house fronts under a sky, a little out of focus."""
    height, width = _SIZE
    image = np.empty((*_SIZE, 3), dtype=np.uint8)
    image[:] = np.linspace((150, 190, 232), (228, 234, 238), height)[:, None, :].astype(np.uint8)
    x = 0.0
    while x < width:
        wide, top = float(rng.uniform(110, 230)), float(rng.uniform(20, 220))
        red, green, blue = (int(v) for v in _colour(rng, 110, 205, 0.18))
        polygon(image, [(x, top), (x + wide, top), (x + wide, height), (x, height)], (red, green, blue))
        for row in range(int((height - top) // 76)):
            for column in range(int(wide // 48)):
                wx, wy = x + 14 + column * 48, top + 18 + row * 76
                tone = int(rng.integers(40, 110))
                polygon(
                    image, [(wx, wy), (wx + 24, wy), (wx + 24, wy + 42), (wx, wy + 42)], (tone, tone + 8, tone + 18)
                )
        x += wide
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.2))


_SURFACES = {
    "plaster": _plaster, "asphalt": _asphalt, "wood": _wood, "masonry": _masonry, "check": _check,
    "lights": _soft_lights, "stock": _stock, "foliage": _foliage, "street": _street,
}  # fmt: skip
_WALLS = ("plaster", "masonry", "lights", "stock", "wood")


@cache
def _surface(name: str, variant: int) -> Bytes:
    return _SURFACES[name](np.random.default_rng([sorted(_SURFACES).index(name), variant]))


def surface(name: str, rng: np.random.Generator, width: int, height: int, zoom: float = 0.0) -> Bytes:
    """Return a random crop of a surface, (height, width, 3), with a slightly changed colour."""
    image = _surface(name, int(rng.integers(_VARIANTS)))
    zoom = zoom or float(rng.uniform(0.6, 1.3))
    tall, wide = min(_SIZE[0], max(2, round(height * zoom))), min(_SIZE[1], max(2, round(width * zoom)))
    y, x = int(rng.integers(_SIZE[0] - tall + 1)), int(rng.integers(_SIZE[1] - wide + 1))
    cut = image[y : y + tall, x : x + wide]
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    cut = cv2.resize(np.ascontiguousarray(cut), (width, height), interpolation=cv2.INTER_LINEAR)
    gain = rng.uniform(0.75, 1.15)
    return np.asarray(cv2.multiply(cut, np.array([*(gain * (1 + rng.uniform(-0.1, 0.1)) for _ in range(3)), 1.0])))


def _floor(image: Bytes, ground: Bytes, top: int) -> None:
    """Lay a ground texture in perspective below the row `top`, in place."""
    height, width = image.shape[:2]
    source = np.array(
        [[0, 0], [ground.shape[1], 0], [ground.shape[1], ground.shape[0]], [0, ground.shape[0]]], np.float32
    )
    spread = width * 0.6
    target = np.array([[0, 0], [width, 0], [width + spread, height - top], [-spread, height - top]], np.float32)
    image[top:] = cv2.warpPerspective(ground, cv2.getPerspectiveTransform(source, target), (width, height - top))


def backdrop(rng: np.random.Generator, kind: Kind, width: int, height: int) -> tuple[Bytes, tuple[int, int]]:
    """Return an empty place, and the range of rows on which an object may stand."""
    if kind == "plain":
        name = ("plaster", "wood", "masonry", "check", "lights", "foliage", "asphalt", "stock")[int(rng.integers(8))]
        return surface(name, rng, width, height), (round(height * 0.3), height + height // 12)
    if kind == "road":
        image = surface("street" if rng.random() < 0.7 else "foliage", rng, width, height)
        top = round(height * rng.uniform(0.38, 0.6))
        _floor(image, surface("asphalt", rng, width, height - top), top)
        curb = max(2, height // 60)
        image[top : top + curb] = 176
        for start in range(-int(rng.integers(width // 3)), width, width // 3):
            y, x = round(height * 0.93), start
            polygon(
                image,
                [
                    (x, y),
                    (x + width * 0.16, y),
                    (x + width * 0.14, y + height * 0.025),
                    (x - width * 0.025, y + height * 0.025),
                ],
                (214, 212, 204),
            )
        return image, (top + (height - top) // 4, height - 2)
    image = surface(_WALLS[int(rng.integers(len(_WALLS)))], rng, width, height)
    if kind == "table":
        top = round(height * rng.uniform(0.45, 0.68))
        ground = ("wood", "check", "plaster", "wood")[int(rng.integers(4))]
        _floor(image, surface(ground, rng, width, height - top), top)
        image[top : top + 2] = image[top : top + 2] // 2
        return image, (top + (height - top) // 5, height - 2)
    board = round(height * rng.uniform(0.78, 0.95))
    shelf_board(image, board, max(5, height // 16), rng)
    return image, (board, board + 2)


def shelf_board(image: Bytes, top: int, thick: int, rng: np.random.Generator) -> None:
    """Draw the front edge of a shelf with price tags, and its shadow on the wall above and below."""
    height, width = image.shape[:2]
    tone = int(rng.integers(150, 235))
    image[top - max(1, thick // 3) : top + 1] = (tone - 30, tone - 32, tone - 38)
    image[top + 1 : top + thick] = (tone, tone - 2, tone - 6)
    image[min(height, top + thick) : top + thick * 2] = image[min(height, top + thick) : top + thick * 2] // 2
    x = float(rng.uniform(0, thick * 3))
    while x < width:
        wide = thick * float(rng.uniform(1.8, 2.6))
        light = (250, 248, 240) if rng.random() < 0.75 else (250, 222, 60)
        polygon(image, [(x, top + 2), (x + wide, top + 2), (x + wide, top + thick - 1), (x, top + thick - 1)], light)
        y = top + thick * 0.55
        polygon(
            image,
            [(x + wide * 0.15, y - 1), (x + wide * 0.6, y - 1), (x + wide * 0.6, y + 1), (x + wide * 0.15, y + 1)],
            (60, 60, 60),
        )
        x += wide + thick * float(rng.uniform(2, 6))
