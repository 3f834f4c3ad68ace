"""Solids of bottles, jars and cans: profiles of revolution with closures, contents and wrapped labels."""

# ruff: noqa: E501  an outline is read as one row

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.items import Item, Rgb
from trainer.synthetic.motif import Canvas, ellipse, polygon
from trainer.synthetic.printed_label import label_art, mix, paste
from trainer.synthetic.shading import Surface
from trainer.synthetic.solid import Solid, solid

ROWS, COLUMNS = 512, 1024
_PRINT, _PLASTIC, _GLASS = 40, 130, 255  # gloss

Points = tuple[tuple[float, float], ...]

# (height from the top, radius) in units of the vessel's height; the first number is where the closure ends.
_BOTTLES: dict[str, tuple[float, Points, tuple[float, float]]] = {
    "contour": (0.092, ((0.092, 0.06), (0.15, 0.066), (0.36, 0.202), (0.44, 0.202), (0.58, 0.17), (0.74, 0.198), (0.95, 0.196), (1, 0.168)), (0.39, 0.79)),
    "sloped": (0.092, ((0.092, 0.066), (0.13, 0.072), (0.36, 0.192), (0.42, 0.197), (0.96, 0.197), (1, 0.174)), (0.42, 0.88)),
    "shouldered": (0.092, ((0.092, 0.066), (0.15, 0.0696), (0.19, 0.18), (0.23, 0.199), (0.96, 0.199), (1, 0.18)), (0.42, 0.88)),
    "long_neck": (0.075, ((0.075, 0.0552), (0.34, 0.0696), (0.47, 0.186), (0.52, 0.192), (0.96, 0.192), (1, 0.174)), (0.5, 0.92)),
    "stubby": (0.092, ((0.092, 0.0726), (0.14, 0.0792), (0.3, 0.22), (0.36, 0.233), (0.95, 0.233), (1, 0.204)), (0.39, 0.88)),
}  # fmt: skip
_JARS: dict[str, tuple[float, Points, tuple[float, float]]] = {
    "straight": (0.17, ((0.17, 0.25), (0.21, 0.25), (0.26, 0.29), (0.95, 0.29), (1, 0.26)), (0.34, 0.86)),
    "belly": (0.17, ((0.17, 0.235), (0.21, 0.235), (0.34, 0.3), (0.56, 0.335), (0.8, 0.305), (0.96, 0.245), (1, 0.225)), (0.33, 0.82)),
    "hive": (0.17, ((0.17, 0.22), (0.2, 0.22), (0.25, 0.27), (0.28, 0.255), (0.33, 0.3), (0.36, 0.29), (0.82, 0.3), (0.85, 0.28), (0.91, 0.29), (0.94, 0.265), (1, 0.255)), (0.37, 0.81)),
    "tall": (0.13, ((0.13, 0.175), (0.16, 0.175), (0.22, 0.205), (0.96, 0.205), (1, 0.185)), (0.36, 0.82)),
}  # fmt: skip
_CANS: dict[str, tuple[float, Points, tuple[float, float]]] = {
    "standard": (0.025, ((0.025, 0.215), (0.05, 0.222), (0.12, 0.268), (0.93, 0.268), (0.975, 0.225), (1, 0.215)), (0.08, 0.95)),
    "sleek": (0.02, ((0.02, 0.158), (0.045, 0.162), (0.1, 0.196), (0.94, 0.196), (0.98, 0.165), (1, 0.16)), (0.07, 0.96)),
    "tin": (0.03, ((0.03, 0.315), (0.06, 0.32), (0.96, 0.32), (0.97, 0.328), (1, 0.328)), (0.1, 0.92)),
    "low_tin": (0.05, ((0.05, 0.53), (0.09, 0.54), (0.94, 0.54), (0.95, 0.55), (1, 0.55)), (0.13, 0.9)),
}  # fmt: skip


def vessel(item: Item) -> Solid:
    """Make the solid of a bottle, jar or can."""
    shapes = {"bottle": _BOTTLES, "jar": _JARS, "can": _CANS}[item.category]
    closure, points, zone = shapes[item.outline]
    radius = _profile(points)
    skin = np.zeros((ROWS, COLUMNS, 4), dtype=np.uint8)
    cover = np.full((ROWS, COLUMNS), 255, dtype=np.uint8)
    top = np.full((192, 192, 4), 255, dtype=np.uint8)
    surface: Surface = "metal" if item.category == "can" else "glass"
    if item.category == "can":
        _metal(skin)
        _can_top(top, item)
        radius[: round(closure * ROWS)] = points[0][1] * 1.03
    else:
        _glass(skin, cover, item, closure)
        _close(skin, cover, top, radius, item, closure)
    _wrap(skin, radius, item, zone)
    if item.category != "can":
        cover[round(zone[0] * ROWS) : round(zone[1] * ROWS)] = 255
    if item.outline.endswith("tin"):
        _ribs(skin, zone)
    return solid("circle", surface, np.stack([radius, radius, np.zeros(ROWS)]), skin, cover, top)


def _profile(points: Points) -> NDArray[np.float64]:
    height, radius = np.array(points).T
    rows = (np.arange(ROWS) + 0.5) / ROWS
    line = np.interp(rows, height, radius)
    return np.asarray(cv2.GaussianBlur(line[:, None], (1, 61), 9, borderType=cv2.BORDER_REPLICATE)[:, 0])


def _fill(skin: Canvas, y0: float, y1: float, colour: Rgb, gloss: int) -> None:
    skin[round(y0 * ROWS) : round(y1 * ROWS)] = (*colour, gloss)


def _glass(skin: Canvas, cover: Canvas, item: Item, closure: float) -> None:
    """Fill the body: empty glass above the level, then the contents."""
    body = item.palette.body
    level = closure + (0.11 if item.category == "bottle" else 0.045)
    _fill(skin, 0, level, mix(body, (238, 244, 244), 0.45), _GLASS)
    _fill(skin, level, 1, body, _GLASS)
    _fill(skin, level - 0.004, level + 0.006, mix(body, (255, 255, 255), 0.5), _GLASS)
    _fill(skin, 0.965, 1, mix(body, (20, 20, 20), 0.3), _GLASS)
    cover[: round(level * ROWS)] = 205
    cover[round(level * ROWS) :] = (
        232 if item.outline in ("sloped", "shouldered", "long_neck") and item.text == "FJORD" else 250
    )
    rng = np.random.default_rng(7)
    if item.text == "DILL":
        for index in range(13):
            x = (index + 0.5 + rng.uniform(-0.15, 0.15)) * COLUMNS / 13
            for y in (0.4, 0.76):
                tone = mix(body, (44, 66, 20), float(rng.uniform(0.15, 0.7)))
                ellipse(
                    skin,
                    (x, (y + rng.uniform(-0.04, 0.04)) * ROWS),
                    (31, 100),
                    (*tone, _GLASS),
                    float(rng.uniform(-6, 6)),
                )
    elif item.text == "JAM":
        for _ in range(220):
            spot = mix(body, (60, 0, 14) if rng.random() < 0.6 else (226, 60, 60), float(rng.uniform(0.1, 0.5)))
            place = (float(rng.uniform(0, COLUMNS)), float(rng.uniform(level + 0.02, 0.97) * ROWS))
            ellipse(skin, place, (float(rng.uniform(3, 16)), float(rng.uniform(3, 14))), (*spot, _GLASS))
    elif item.text == "HONEY":
        fade = np.linspace(1.12, 0.86, ROWS)[:, None, None]
        skin[..., :3] = np.clip(skin[..., :3] * fade, 0, 255)


def _close(skin: Canvas, cover: Canvas, top: Canvas, radius: NDArray[np.float64], item: Item, closure: float) -> None:
    """Draw the closure and shape the profile for it."""
    end = round(closure * ROWS)
    neck = float(radius[end])
    accent, kind = item.palette.accent, item.detail
    cover[:end] = 255
    colour, gloss, wide, ridges, depth = {
        "screw": (accent if min(item.palette.label) > 200 else item.palette.label, _PLASTIC, 1.16, 40, 0.25),
        "crown": ((206, 210, 216), 225, 1.12, 21, 0.45),
        "sport": (item.palette.ink, _PLASTIC, 1.35, 40, 0.2),
        "plain": (mix(accent, (212, 172, 60), 0.7), 230, 1.06, 0, 0.0),
        "cloth": (item.palette.label, _PRINT, 1.12, 0, 0.0),
        "ribbed": (item.palette.ink, _PLASTIC, 1.08, 48, 0.4),
        "clip": (mix(item.palette.body, (235, 240, 240), 0.6), _GLASS, 1.05, 0, 0.0),
        "dotted": (item.palette.ink, _PLASTIC, 1.08, 0, 0.0),
    }[kind]
    _fill(skin, 0, closure, colour, gloss)
    radius[:end] = neck * wide
    for index in range(ridges):
        x = (index + 0.5) * COLUMNS / ridges
        half = COLUMNS / ridges * 0.24
        groove = (*mix(colour, (0, 0, 0), depth), gloss)
        polygon(
            skin,
            [(x - half, end * 0.16), (x + half, end * 0.16), (x + half, end * 0.86), (x - half, end * 0.86)],
            groove,
        )
    top[..., :3] = mix(colour, (255, 255, 255), 0.12)
    _CLOSURES.get(kind, _bare)(skin, top, radius, item, end)


def _bare(skin: Canvas, top: Canvas, radius: NDArray[np.float64], item: Item, end: int) -> None:
    """Draw a plain closure: bevel and lower ring."""
    del item
    bevel = max(2, end // 7)
    radius[:bevel] *= np.linspace(0.9, 1, bevel)
    skin[end - max(2, end // 9) : end, :, :3] = skin[end - max(2, end // 9) : end, :, :3] * 0.72
    ellipse(top, (96, 96), (74, 74), (*(int(v * 0.9) for v in top[0, 0, :3]), 255))


def _crown(skin: Canvas, top: Canvas, radius: NDArray[np.float64], item: Item, end: int) -> None:
    radius[:end] *= np.linspace(0.82, 1.28, end)
    ellipse(top, (96, 96), (70, 70), (*item.palette.ink, 255))
    skin[: end // 4, :, :3] = skin[: end // 4, :, :3] * 0.85


def _sport(skin: Canvas, top: Canvas, radius: NDArray[np.float64], item: Item, end: int) -> None:
    """Draw a pull-up nozzle on a wide collar."""
    del item
    tip = round(end * 0.5)
    radius[:tip] = radius[tip] * 0.5
    radius[tip : tip + 8] = np.linspace(radius[tip] * 0.6, radius[tip], 8)
    skin[:tip] = (232, 96, 36, _PLASTIC)
    top[..., :3] = (240, 120, 60)


def _cloth(skin: Canvas, top: Canvas, radius: NDArray[np.float64], item: Item, end: int) -> None:
    """Draw a gingham cover with a ruffle and a string."""
    hem = end + round(0.075 * ROWS)
    radius[:end] *= np.linspace(0.86, 1.0, end) ** 0.5
    radius[end:hem] = radius[end - 1] * np.linspace(0.96, 1.17, hem - end)
    red = item.palette.ink
    step = COLUMNS // 48
    y, x = np.mgrid[0:hem, 0:COLUMNS]
    woven = (y // step % 2) + (x // step % 2)
    tones = np.array([item.palette.label, mix(item.palette.label, red, 0.5), red], dtype=np.uint8)
    skin[:hem, :, :3] = tones[woven]
    skin[:hem, :, 3] = _PRINT
    folds = 1 - 0.16 * (0.5 + 0.5 * np.sin(np.arange(COLUMNS) / COLUMNS * 2 * np.pi * 22))
    skin[end:hem, :, :3] = skin[end:hem, :, :3] * folds[None, :, None]
    skin[end - 6 : end + 5, :, :3] = (156, 108, 60)
    top[..., :3] = mix(item.palette.label, red, 0.4)
    for x in range(0, 192, 24):
        top[:, x : x + 12, :3] = mix(item.palette.label, red, 0.15)


def _clip(skin: Canvas, top: Canvas, radius: NDArray[np.float64], item: Item, end: int) -> None:
    """Draw a glass lid on an orange seal, held by a wire bail."""
    radius[: end // 3] *= np.sqrt(np.linspace(0.45, 1, end // 3))
    skin[end - 12 : end + 3] = (222, 92, 30, _PLASTIC)
    radius[end - 12 : end + 3] *= 1.07
    wire = (92, 96, 102, 230)
    middle = COLUMNS // 2
    for x in (middle - 20, middle + 20):
        polygon(skin, [(x - 6, end * 0.3), (x + 6, end * 0.3), (x + 6, end * 1.9), (x - 6, end * 1.9)], wire)
    skin[round(end * 1.45) : round(end * 1.45) + 8] = wire
    skin[round(end * 0.3) : round(end * 0.3) + 7, middle - 26 : middle + 26] = wire
    skin[round(end * 1.85) : round(end * 1.85) + 12, middle - 44 : middle + 44] = wire
    top[..., :3] = mix(item.palette.body, (240, 244, 240), 0.7)


def _dotted(skin: Canvas, top: Canvas, radius: NDArray[np.float64], item: Item, end: int) -> None:
    _bare(skin, top, radius, item, end)
    light = item.palette.label
    for row, y in enumerate((0.3, 0.72)):
        for index in range(22):
            ellipse(skin, ((index + 0.5 * row + 0.25) * COLUMNS / 22, y * end), (13, 8.5), (*light, _PLASTIC))
    for index in range(16):
        ellipse(top, (24 + index % 4 * 48, 24 + index // 4 * 48), (14, 14), (*light, 255))


_CLOSURES = {"crown": _crown, "sport": _sport, "cloth": _cloth, "clip": _clip, "dotted": _dotted}


def _metal(skin: Canvas) -> None:
    skin[:] = (196, 200, 206, 255)
    skin[: round(0.03 * ROWS), :, :3] = (226, 228, 232)


def _can_top(top: Canvas, item: Item) -> None:
    """Draw the end of a can: rim, recessed panel, and a tab if it has one."""
    top[..., :3] = (214, 217, 222)
    ellipse(top, (96, 96), (84, 84), (150, 154, 160, 255))
    ellipse(top, (96, 98), (78, 78), (192, 196, 202, 255))
    if item.detail == "pull":
        ellipse(top, (96, 132), (30, 26), (168, 172, 178, 255))
        ellipse(top, (96, 88), (19, 34), (226, 229, 232, 255))
        ellipse(top, (96, 74), (10, 12), (140, 144, 150, 255))
    else:
        for radius in (64, 48):
            ellipse(top, (96, 96), (radius, radius), (170, 174, 180, 255))
            ellipse(top, (96, 97), (radius - 4, radius - 4), (200, 204, 208, 255))


def _ribs(skin: Canvas, zone: tuple[float, float]) -> None:
    """Shade the beads that are rolled into a food tin, also through its paper label."""
    y = (np.arange(ROWS) + 0.5) / ROWS
    inside = (y > zone[0]) & (y < zone[1])
    wave = np.where(inside, 1 + 0.035 * np.sin(y * 2 * np.pi * 16), 1.0)
    skin[..., :3] = np.clip(skin[..., :3] * wave[:, None, None], 0, 255)


def _wrap(skin: Canvas, radius: NDArray[np.float64], item: Item, zone: tuple[float, float]) -> None:
    """Wrap the label around the zone."""
    y0, y1 = round(zone[0] * ROWS), round(zone[1] * ROWS)
    wide = float(radius[y0:y1].mean())
    height = y1 - y0
    width = round(2 * np.pi * wide * ROWS)
    art = label_art(item, width, height, front=2 * wide * ROWS * 0.86)
    gloss = 235 if item.category == "can" and not item.outline.endswith("tin") else _PRINT
    if item.category == "can" or item.layout in ("band", "waves", "diagonal", "stripes"):
        paste(skin, art, (0, y0, COLUMNS, y1))
        skin[y0:y1, :, 3] = gloss
        skin[y0 : y0 + 2, :, :3] = skin[y0 : y0 + 2, :, :3] * 0.8
        skin[y1 - 2 : y1, :, :3] = skin[y1 - 2 : y1, :, :3] * 0.8
        return
    half = width * 80 // 360  # a patch that covers 160 degrees
    art = art[:, width // 2 - half : width // 2 + half]
    span = COLUMNS * 80 // 360
    shape = np.zeros((height, span * 2), dtype=np.uint8)
    _patch(shape, item.layout)
    box = skin[y0:y1, COLUMNS // 2 - span : COLUMNS // 2 + span]
    share = shape[..., None].astype(np.float32) / 255
    flat = np.dstack(
        [
            cv2.resize(art, (span * 2, height), interpolation=cv2.INTER_AREA),
            np.full((height, span * 2), _PRINT, np.uint8),
        ]
    )
    box[:] = np.round(box * (1 - share) + flat * share)


def _patch(shape: Canvas, layout: str) -> None:
    """Fill the outline of a label patch: an arch for arch labels, rounded corners for others."""
    height, width = shape.shape[:2]
    corner = height * 0.08
    if layout == "arch":
        ellipse(shape, (width / 2, height * 0.42), (width / 2, height * 0.42), 255)
        polygon(shape, [(0, height * 0.42), (width, height * 0.42), (width, height), (0, height)], 255)
        return
    polygon(
        shape,
        [
            (0, corner),
            (corner * 2, 0),
            (width - corner * 2, 0),
            (width, corner),
            (width, height - corner),
            (width - corner * 2, height),
            (corner * 2, height),
            (0, height - corner),
        ],
        255,
    )
