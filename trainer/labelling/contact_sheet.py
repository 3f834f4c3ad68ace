"""Contact sheets of pictures with their boxes, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from edge.imaging.image import draw_box, draw_text, resize
from edge.types import Image
from trainer.contact_sheet import tile
from trainer.labelling.label_file import LabelledPicture

_CELL_PX = 224
_COLUMNS, _ROWS = 6, 5
_COLOURS = {"proposer": (240, 150, 20), "model": (30, 120, 240), "human": (40, 190, 80)}


def cell(image_rgb: Image, picture: LabelledPicture) -> Image:
    """Draw one picture, small, with its boxes in the colour of their source, their scores, and its uncertainty."""
    scale = _CELL_PX / max(image_rgb.shape[:2])
    width, height = (max(1, round(size * scale)) for size in (image_rgb.shape[1], image_rgb.shape[0]))
    drawn = np.full((_CELL_PX + 14, _CELL_PX, 3), 60, np.uint8)
    drawn[:height, :width] = resize(image_rgb, width, height, "area")
    for box in picture.boxes:
        x0, y0, x1, y1 = (v * scale for v in box.box_px)
        draw_box(drawn, (x0, y0, x1, y1), _COLOURS[box.source])
        if box.source != "human":
            draw_text(drawn, f"{box.score:.2f}", (round(x0) + 3, round(y0) + 12), (255, 255, 255), 0.35)
    draw_text(drawn, f"{picture.name[-22:]} {picture.uncertainty:.2f}", (2, _CELL_PX + 11), (255, 255, 255), 0.35)
    return drawn


def sheets(cells: Iterable[Image]) -> Iterator[Image]:
    """Lay cells out on pages of thirty."""
    waiting = iter(cells)
    while page := list(islice(waiting, _COLUMNS * _ROWS)):
        yield tile(page, _COLUMNS)
