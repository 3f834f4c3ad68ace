"""Printed label fronts: one of ten compositions of bands, medallion, motif and brand word."""

from __future__ import annotations

import cv2
import numpy as np

from trainer.synthetic.items import Item, Rgb
from trainer.synthetic.motif import Canvas, ellipse, lettering, motif, polygon, stroke


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """Return the colour `share` of the way from first to second."""
    blend = [round(a + (b - a) * share) for a, b in zip(first, second, strict=True)]
    return (blend[0], blend[1], blend[2])


def label_art(item: Item, width: int, height: int, front: float) -> Canvas:
    """Draw the label as printed flat, (height, width, 3); `front` pixels around the middle face the viewer."""
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    canvas[:] = item.palette.label
    _GROUNDS[item.layout](canvas, item, front)
    return canvas


def _place(canvas: Canvas, item: Item, y: float, radius: float, colours: tuple[Rgb, Rgb, Rgb] | None = None) -> None:
    palette = item.palette
    centre = (canvas.shape[1] / 2, canvas.shape[0] * y)
    motif(canvas, item.graphic, centre, radius, colours or (palette.ink, palette.accent, palette.label))


def _word(canvas: Canvas, item: Item, y0: float, y1: float, front: float, colour: Rgb) -> None:
    height, width = canvas.shape[:2]
    lettering(canvas, item.text, (width / 2 - front / 2, height * y0, width / 2 + front / 2, height * y1), colour)


def _wave(canvas: Canvas, y: float, swing: float, length: float, colour: Rgb, phase: float = 0.0) -> None:
    height, width = canvas.shape[:2]
    x = np.linspace(0, width, 65)
    edge = y * height + np.sin((x - width / 2) / length * 2 * np.pi + phase) * swing * height
    polygon(canvas, np.concatenate([np.stack([x, edge], axis=1), [(width, height), (0, height)]]), colour)


def _band(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    for y0, y1 in ((0.0, 0.1), (0.9, 1.0)):
        polygon(
            canvas, [(0, height * y0), (width, height * y0), (width, height * y1), (0, height * y1)], palette.accent
        )
    _word(canvas, item, 0.13, 0.29, front * 0.82, palette.ink)
    _place(canvas, item, 0.6, min(0.28 * height, 0.4 * front))


def _diagonal(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    x, run = width / 2, front * 0.5
    polygon(
        canvas,
        [(x - run * 1.6, height), (x - run * 0.7, height), (x + run * 1.6, 0), (x + run * 0.7, 0)],
        palette.accent,
    )
    ellipse(canvas, (x, height * 0.58), (front * 0.4,) * 2, palette.label)
    _place(canvas, item, 0.58, min(0.31 * height, 0.33 * front))
    _word(canvas, item, 0.08, 0.24, front * 0.7, palette.ink)


def _waves(canvas: Canvas, item: Item, front: float) -> None:
    palette = item.palette
    _wave(canvas, 0.7, 0.045, front * 0.9, palette.accent)
    _wave(canvas, 0.8, 0.04, front * 0.9, palette.ink, 1.6)
    _place(canvas, item, 0.46, min(0.235 * canvas.shape[0], 0.4 * front))
    _word(canvas, item, 0.05, 0.2, front * 0.8, palette.ink)


def _oval(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    polygon(
        canvas, [(0, height * 0.3), (width, height * 0.3), (width, height * 0.7), (0, height * 0.7)], palette.accent
    )
    centre = (width / 2, height * 0.44)
    rx, ry = front * 0.42, min(height * 0.39, front * 0.5)
    ellipse(canvas, centre, (rx, ry), palette.ink)
    ellipse(canvas, centre, (rx * 0.92, ry * 0.92), palette.label)
    _place(canvas, item, 0.44, min(rx, ry) * 0.78)
    _word(canvas, item, 0.85, 0.96, front * 0.6, palette.ink)


def _arch(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    x = width / 2
    ellipse(canvas, (x, height * 0.95), (front * 0.47, height * 0.78), palette.accent)
    ellipse(canvas, (x, height * 0.97), (front * 0.4, height * 0.7), palette.label)
    _word(canvas, item, 0.02, 0.17, front * 0.5, palette.ink)
    _place(canvas, item, 0.64, min(0.29 * height, 0.3 * front))


def _stripes(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    count = max(4, round(width / (front / 7)) // 2 * 2)
    for index in range(0, count, 2):
        x0, x1 = width * index / count, width * (index + 1) / count
        polygon(canvas, [(x0, 0), (x1, 0), (x1, height), (x0, height)], palette.accent)
    ellipse(canvas, (width / 2, height * 0.42), (front * 0.4, min(height * 0.38, front * 0.42)), palette.label)
    _place(canvas, item, 0.42, min(0.27 * height, 0.28 * front))
    polygon(canvas, [(0, height * 0.79), (width, height * 0.79), (width, height), (0, height)], palette.ink)
    _word(canvas, item, 0.82, 0.97, front * 0.6, palette.label)


def _rays(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    centre, reach = np.array([width / 2, height * 0.6]), float(np.hypot(width, height))
    for angle in np.radians(np.arange(0, 360, 30)):
        ends = [centre + reach * np.array([np.cos(angle + d), np.sin(angle + d)]) for d in (-0.13, 0.13)]
        polygon(canvas, [centre, *ends], mix(palette.label, palette.ink, 0.42))
    radius = min(0.3 * height, 0.4 * front)
    ellipse(canvas, (centre[0], centre[1]), (radius * 1.12,) * 2, palette.accent)
    _place(canvas, item, 0.6, radius * 0.82, (palette.ink, palette.label, palette.accent))
    polygon(canvas, [(0, 0), (width, 0), (width, height * 0.24), (0, height * 0.24)], palette.accent)
    _word(canvas, item, 0.05, 0.19, front * 0.8, palette.ink)


def _spots(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    for x, y, rx, ry, angle in (
        (-0.3, 0.3, 0.2, 0.1, 20), (0.36, 0.4, 0.15, 0.12, -30), (-0.38, 0.72, 0.17, 0.11, 60),
        (0.28, 0.82, 0.24, 0.09, 10), (-0.12, 0.95, 0.16, 0.06, 0), (0.1, 0.27, 0.1, 0.05, 40),
    ):  # fmt: skip
        ellipse(canvas, (width / 2 + x * front, height * y), (rx * front, ry * height), palette.ink, angle)
    ellipse(canvas, (width / 2, height * 0.57), (0.3 * front,) * 2, palette.label)
    _place(canvas, item, 0.57, min(0.2 * height, 0.24 * front), (palette.accent, palette.label, palette.label))
    _word(canvas, item, 0.05, 0.2, front * 0.8, palette.ink)


def _split(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    x = width / 2
    polygon(
        canvas,
        [
            (0, height * 0.74),
            (x - front / 2, height * 0.68),
            (x + front / 2, height * 0.86),
            (width, height * 0.8),
            (width, height),
            (0, height),
        ],
        palette.accent,
    )
    polygon(
        canvas,
        [
            (0, height * 0.7),
            (x - front / 2, height * 0.64),
            (x + front / 2, height * 0.82),
            (width, height * 0.76),
            (width, height * 0.79),
            (x + front / 2, height * 0.85),
            (x - front / 2, height * 0.67),
            (0, height * 0.73),
        ],
        palette.ink,
    )
    _place(canvas, item, 0.44, min(0.26 * height, 0.34 * front))
    _word(canvas, item, 0.05, 0.18, front * 0.75, palette.accent)


def _chevrons(canvas: Canvas, item: Item, front: float) -> None:
    height, width = canvas.shape[:2]
    palette = item.palette
    x = width / 2
    for y, colour in ((0.74, palette.accent), (0.86, palette.ink), (0.98, palette.accent)):
        stroke(
            canvas,
            [(x - front, height * (y - 0.25)), (x, height * y), (x + front, height * (y - 0.25))],
            height * 0.055,
            colour,
        )
    _place(canvas, item, 0.4, min(0.22 * height, 0.32 * front))
    _word(canvas, item, 0.05, 0.18, front * 0.75, palette.accent)


_GROUNDS = {
    "band": _band, "diagonal": _diagonal, "waves": _waves, "oval": _oval, "arch": _arch, "stripes": _stripes,
    "rays": _rays, "spots": _spots, "split": _split, "chevrons": _chevrons,
}  # fmt: skip


def paste(skin: Canvas, art: Canvas, box: tuple[int, int, int, int]) -> None:
    """Put art, resized, into the pixel box (x0, y0, x1, y1) of a skin's colour channels."""
    x0, y0, x1, y1 = box
    skin[y0:y1, x0:x1, :3] = cv2.resize(art, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
