"""Solids of gable-top and brick cartons: folded board with a printed front, sides and roof."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.items import Item
from trainer.synthetic.motif import Canvas, ellipse, lettering, polygon, stroke
from trainer.synthetic.printed_label import label_art, mix, paste
from trainer.synthetic.solid import Solid, solid

ROWS, FACE = 512, 320  # FACE columns for each of the -x, front and +x faces
_BOARD = 70  # gloss

_SIZES = {"gable": (0.235, 0.235), "slim": (0.172, 0.172), "brick": (0.3, 0.19)}  # half width, half depth
_RIDGE, _EAVES = 0.075, 0.27  # of a gable top, from the top


def carton(item: Item) -> Solid:
    """Make the solid of a carton."""
    wide, deep = _SIZES[item.outline]
    width = np.full(ROWS, wide, dtype=np.float32)
    depth = np.full(ROWS, deep, dtype=np.float32)
    gabled = item.outline != "brick"
    if gabled:
        ridge, eaves = round(_RIDGE * ROWS), round(_EAVES * ROWS)
        depth[:ridge] = 0.014
        depth[ridge:eaves] = np.linspace(0.02, deep, eaves - ridge)
    skin = np.zeros((ROWS, FACE * 3, 4), dtype=np.uint8)
    skin[..., :3] = item.palette.label
    skin[..., 3] = _BOARD
    _faces(skin, item, round(_EAVES * ROWS) if gabled else 0, (wide, deep))
    if gabled:
        _roof(skin, item)
    _creases(skin, gabled)
    top = np.full((192, 192, 4), 255, dtype=np.uint8)
    top[..., :3] = mix(item.palette.label, (255, 255, 255), 0.2)
    if not gabled:
        _brick_top(top, item)
    cover = np.full((ROWS, FACE * 3), 255, dtype=np.uint8)
    return solid("box", "paper", np.stack([width, depth, np.zeros(ROWS)]), skin, cover, top)


def _faces(skin: Canvas, item: Item, y0: int, size: tuple[float, float]) -> None:
    height = ROWS - y0
    width = round(2 * size[0] * ROWS)
    paste(skin, label_art(item, width, height, front=width * 0.9), (FACE, y0, FACE * 2, ROWS))
    if item.detail == "straw":
        _straw(skin)
    side = _side(item, round(2 * size[1] * ROWS), height)
    paste(skin, side, (0, y0, FACE, ROWS))
    paste(skin, side, (FACE * 2, y0, FACE * 3, ROWS))


def _straw(skin: Canvas) -> None:
    """Draw a striped straw in its clear sleeve, glued across the front."""
    x0, y0, x1, y1 = FACE + 36, ROWS - 20, FACE * 2 - 60, ROWS * 0.3
    stroke(skin, [(x0, y0), (x1, y1)], 46, (236, 240, 244, 200))
    stroke(skin, [(x0, y0), (x1, y1)], 22, (252, 252, 252, 120))
    for step in np.linspace(0.04, 0.96, 9):
        x, y = x0 + (x1 - x0) * step, y0 + (y1 - y0) * step
        stroke(skin, [(x - 3, y + 5), (x + 4, y - 6)], 22, (30, 120, 190, 120))


def _side(item: Item, width: int, height: int) -> NDArray[np.uint8]:
    """Draw the narrow side: brand word, a table of facts and a bar code."""
    palette = item.palette
    art = np.empty((height, width, 3), dtype=np.uint8)
    art[:] = palette.label
    polygon(art, [(0, height * 0.8), (width, height * 0.8), (width, height), (0, height)], palette.accent)
    lettering(art, item.text, (width * 0.15, height * 0.05, width * 0.85, height * 0.17), palette.ink)
    for line in range(9):
        y = height * (0.26 + 0.042 * line)
        reach = 0.88 if line % 4 else 0.6
        polygon(
            art,
            [(width * 0.12, y), (width * reach, y), (width * reach, y + 4), (width * 0.12, y + 4)],
            mix(palette.label, palette.ink, 0.75),
        )
    white = (250, 250, 250)
    polygon(
        art,
        [
            (width * 0.3, height * 0.68),
            (width * 0.9, height * 0.68),
            (width * 0.9, height * 0.78),
            (width * 0.3, height * 0.78),
        ],
        white,
    )
    for index, wide in enumerate((2, 1, 3, 1, 2, 2, 1, 3, 1, 2, 1, 3)):
        x = width * (0.34 + 0.043 * index)
        polygon(
            art,
            [(x, height * 0.69), (x + wide, height * 0.69), (x + wide, height * 0.77), (x, height * 0.77)],
            (20, 20, 20),
        )
    return art


def _roof(skin: Canvas, item: Item) -> None:
    """Draw the sealed ridge, the sloping roof, the folded gables, and a screw cap if the item has one."""
    palette = item.palette
    ridge, eaves = round(_RIDGE * ROWS), round(_EAVES * ROWS)
    skin[:eaves, :, :3] = palette.accent
    skin[:ridge, :, :3] = mix(palette.accent, (255, 255, 255), 0.35)
    for y in range(6, ridge - 4, 8):
        skin[y : y + 2, :, :3] = mix(palette.accent, (255, 255, 255), 0.15)
    for x0 in (0, FACE * 2):  # gusset folded inwards
        skin[:eaves, x0 : x0 + FACE, :3] = skin[:eaves, x0 : x0 + FACE, :3] * 0.8
        shade = (*mix(palette.accent, (0, 0, 0), 0.35), _BOARD)
        polygon(skin, [(x0, eaves), (x0 + FACE / 2, ridge), (x0 + FACE, eaves)], shade)
    middle = (FACE * 1.5, (ridge + eaves) / 2 + 4)
    if item.detail == "cap":
        for radius, tone in ((62, 0.5), (57, 0.0), (44, 0.16), (38, 0.06)):
            colour = (*mix(palette.ink, (0, 0, 0) if tone == 0.5 else (255, 255, 255), tone), 140)
            ellipse(skin, middle, (radius, radius * 0.82), colour)
    else:
        polygon(
            skin,
            [
                (FACE * 1.12, eaves - 26),
                (FACE * 1.88, eaves - 26),
                (FACE * 1.88, eaves - 14),
                (FACE * 1.12, eaves - 14),
            ],
            (*palette.label, _BOARD),
        )
        flat = skin[..., :3].copy()
        lettering(flat, item.text, (FACE * 1.3, ridge + 14, FACE * 1.7, eaves - 38), palette.label)
        skin[..., :3] = flat


def _brick_top(top: Canvas, item: Item) -> None:
    polygon(top, [(0, 84), (192, 84), (192, 108), (0, 108)], (*mix(item.palette.label, (0, 0, 0), 0.1), 255))
    ellipse(top, (46, 140), (12, 12), (200, 204, 208, 255))


def _creases(skin: Canvas, gabled: bool) -> None:
    for x in (FACE, FACE * 2):
        skin[:, x - 2 : x + 2, :3] = 255 - (255 - skin[:, x - 2 : x + 2, :3]) * 0.8
    for y in (round(_EAVES * ROWS), round(_RIDGE * ROWS)) if gabled else ():
        skin[y - 2 : y + 2, :, :3] = skin[y - 2 : y + 2, :, :3] * 0.8
    skin[-5:, :, :3] = skin[-5:, :, :3] * 0.75
