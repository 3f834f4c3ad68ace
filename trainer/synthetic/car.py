"""Solids of cars: side and front views wrapped around a rounded plan."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.bodies import BODIES, UNIT, Body, silhouette
from trainer.synthetic.bodywork import front_art, side_art
from trainer.synthetic.items import Item
from trainer.synthetic.motif import Canvas
from trainer.synthetic.solid import Solid, solid

ROWS, FACE = 256, 720  # FACE columns for each of the rear, side and front


def car(item: Item) -> Solid:
    """Make the solid of a car whose side faces a viewer at yaw 0 and whose front points right."""
    body = BODIES[item.outline]
    rear_x, front_x = _extents(body)
    rows = (np.arange(ROWS) + 0.5) / ROWS
    tumble = np.interp(rows, (0, 0.03, body.belt + 0.04), (body.tumble - 0.06, body.tumble, 1.0))
    depth = body.half_depth * tumble
    middle = body.length / 2
    width = (front_x - rear_x) / 2
    centre = (front_x + rear_x) / 2 - middle

    side, side_cover = side_art(item)
    front, front_cover = front_art(item)
    skin = np.zeros((ROWS, FACE * 3, 4), dtype=np.uint8)
    cover = np.zeros((ROWS, FACE * 3), dtype=np.uint8)
    for art, target in ((side, skin), (side_cover, cover)):
        target[:, FACE : FACE * 2] = _unroll(art, rear_x, front_x)
    inset = body.half_depth * (1 - tumble)
    for art, target in ((front, skin), (front_cover, cover)):
        flat = _unroll(art, inset, 2 * body.half_depth - inset)
        target[:, FACE * 2 :] = flat[:, ::-1]
        target[:, :FACE] = flat
    skin[:, :FACE], cover[:, :FACE] = skin[:, FACE : FACE + 1], cover[:, FACE : FACE + 1]
    return solid("plan", "paint", np.stack([width, depth, centre]), skin, cover, np.zeros((4, 4, 4), np.uint8))


def _extents(body: Body) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where the body begins and ends along x in every row; below the sill it keeps the sill's extent."""
    mask = cv2.resize(silhouette(body), (round(body.length * UNIT), ROWS), interpolation=cv2.INTER_AREA) > 100
    sill = int(np.flatnonzero(mask.any(axis=1))[-1])
    first = int(np.flatnonzero(mask.any(axis=1))[0])
    rows = np.clip(np.arange(ROWS), first, sill - 2)
    rear = mask.argmax(axis=1)[rows] / UNIT
    front = body.length - mask[:, ::-1].argmax(axis=1)[rows] / UNIT
    smooth = [
        cv2.GaussianBlur(line[:, None], (1, 13), 2.4, borderType=cv2.BORDER_REPLICATE)[:, 0] for line in (rear, front)
    ]
    return smooth[0], smooth[1]


def _unroll(art: Canvas | NDArray[np.uint8], start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Stretch each row of flat art between start and end (car heights) to FACE columns."""
    across = (np.arange(FACE) + 0.5) / FACE
    columns = (start[:, None] + (end - start)[:, None] * across) * UNIT - 0.5
    lines = np.repeat((np.arange(ROWS) + 0.5)[:, None] * (UNIT / ROWS) - 0.5, FACE, axis=1)
    unrolled = cv2.remap(
        cv2.GaussianBlur(art, (3, 3), 0.8),
        columns.astype(np.float32),
        lines.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(unrolled)
