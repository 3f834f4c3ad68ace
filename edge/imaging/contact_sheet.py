"""Draw a contact sheet of recognised objects, each beside the gallery's picture of its match."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge.imaging import image
from edge.types import Image

_CELL_PX = 112
_TEXT_PX = 34
_GAP_PX = 8
_COLUMNS = 6
_PAPER = 246
_INK = (235, 235, 235)
_RESULT_RGB = {True: (46, 160, 67), False: (207, 34, 46), None: (130, 130, 130)}


@dataclass(frozen=True, slots=True)
class Card:
    """One recognised object."""

    crop_rgb: Image
    reference_rgb: Image | None  # the gallery's picture; None if there is none
    title: str
    subtitle: str
    is_right: bool | None  # None: unknown


def contact_sheet(cards: list[Card], frames_rgb: list[Image]) -> Image:
    """Return a sheet with annotated frames in a row above the cards; (h, w, 3) uint8."""
    card_width = 2 * _CELL_PX
    width = _COLUMNS * card_width + (_COLUMNS + 1) * _GAP_PX
    rows = [_strip(frames_rgb, width)] if frames_rgb else []
    for start in range(0, len(cards), _COLUMNS):
        row = np.full((_CELL_PX + _TEXT_PX + _GAP_PX, width, 3), _PAPER, np.uint8)
        for column, card in enumerate(cards[start : start + _COLUMNS]):
            left = _GAP_PX + column * (card_width + _GAP_PX)
            row[: _CELL_PX + _TEXT_PX, left : left + card_width] = _draw(card)
        rows.append(row)
    top = np.full((_GAP_PX, width, 3), _PAPER, np.uint8)
    return np.concatenate([top, *rows])


def _strip(frames_rgb: list[Image], width: int) -> Image:
    """Return the frames side by side, as wide as the sheet."""
    cell = (width - _GAP_PX * (len(frames_rgb) + 1)) // len(frames_rgb)
    height = max(frame.shape[0] * cell // frame.shape[1] for frame in frames_rgb)
    strip = np.full((height + _GAP_PX, width, 3), _PAPER, np.uint8)
    for i, frame in enumerate(frames_rgb):
        small = image.resize(frame, cell, frame.shape[0] * cell // frame.shape[1], "area")
        left = _GAP_PX + i * (cell + _GAP_PX)
        strip[: small.shape[0], left : left + cell] = small
    return strip


def _draw(card: Card) -> Image:
    canvas = np.full((_CELL_PX + _TEXT_PX, 2 * _CELL_PX, 3), 255, np.uint8)
    canvas[_CELL_PX:] = _RESULT_RGB[card.is_right]
    _place(canvas, card.crop_rgb, 0)
    if card.reference_rgb is not None:
        _place(canvas, card.reference_rgb, _CELL_PX)
    image.draw_text(canvas, card.title[:34], (4, _CELL_PX + 13), _INK, 0.38)
    image.draw_text(canvas, card.subtitle[:36], (4, _CELL_PX + 28), _INK, 0.36)
    return canvas


def _place(canvas: Image, picture: Image, left: int) -> None:
    """Scale a whole picture into the middle of a cell, in place."""
    scale = _CELL_PX / max(picture.shape[:2])
    height, width = max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale))
    y, x = (_CELL_PX - height) // 2, left + (_CELL_PX - width) // 2
    canvas[y : y + height, x : x + width] = image.resize(picture, width, height, "area")
