"""Masks of objects in photos: on a plain background, or inside a box; and checks of given masks.

Rules this module keeps:
1. A mask source returns None if it finds no object; it never raises because of a picture's content.
2. `mask_flaw` describes what is wrong with a mask before it is used.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.imaging.image import PLAIN
from edge.inference.postprocess import iou_matrix
from edge.types import Box

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
MaskSource = Callable[[Bytes, Box], Mask | None]  # RGB picture and a box in it to a mask of the picture's size

_CLOSE = 6  # grey levels off the background that a flood still crosses
_CONTEXT = 0.25  # how much of a box is added on each side
_WORK_PX = 160  # longest side that GrabCut works on


def mask_on_plain_background(image_rgb: Bytes) -> Mask | None:
    """Mask what stands on a plain background: everything that a flood from the border does not reach.

    Returns None if the border is not plain by the rule of edge.imaging.image.trim, or if nothing is left.
    """
    border = np.concatenate([image_rgb[0], image_rgb[-1], image_rgb[:, 0], image_rgb[:, -1]]).astype(np.int16)
    background = np.median(border, axis=0)
    if np.abs(border - background).max(axis=1).mean() > PLAIN:
        return None
    off = np.abs(image_rgb.astype(np.int16) - background.astype(np.int16)).max(axis=2)
    near = np.pad((cv2.medianBlur(off.astype(np.uint8), 3) <= _CLOSE).astype(np.uint8), 1, constant_values=1)
    cv2.floodFill(near, None, (0, 0), 2)
    mask = near[1:-1, 1:-1] != 2
    return main_parts(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0)


def context_window(box_px: Box, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and columns of a box, grown by a quarter on each side, in a picture of (height, width, ..)."""
    x0, y0, x1, y1 = box_px
    grow_x, grow_y = _CONTEXT * (x1 - x0), _CONTEXT * (y1 - y0)
    top, bottom = max(0, round(y0 - grow_y)), min(shape[0], round(y1 + grow_y))
    left, right = max(0, round(x0 - grow_x)), min(shape[1], round(x1 + grow_x))
    return slice(top, max(top, bottom)), slice(left, max(left, right))


def grabcut(image_rgb: Bytes, box_px: Box) -> Mask | None:
    """Mask the object in a box by GrabCut (Rother et al. 2004): colour models inside and outside, and a graph cut."""

    def cut(part: Bytes, inside: Bytes) -> Mask:
        labels = np.where(inside > 0, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
        cv2.setRNGSeed(0)  # the models start from k-means
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(cv2.cvtColor(part, cv2.COLOR_RGB2BGR), labels, None, *models, 4, cv2.GC_INIT_WITH_MASK)
        return np.asarray((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))

    return cut_in_window(image_rgb, box_px, cut)


def cut_in_window(image_rgb: Bytes, box_px: Box, cut: Callable[[Bytes, Bytes], Mask]) -> Mask | None:
    """Segment the shrunk context window of a box; return the mask in the picture, or None."""
    rows, columns = context_window(box_px, image_rgb.shape)
    part = image_rgb[rows, columns]
    if min(part.shape[:2]) < 8:
        return None
    scale = min(1.0, _WORK_PX / max(part.shape[:2]))
    size = (max(8, round(part.shape[1] * scale)), max(8, round(part.shape[0] * scale)))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    inside = np.zeros(small.shape[:2], np.uint8)
    corners = (np.array(box_px).reshape(2, 2) - (columns.start, rows.start)) * np.divide(size, part.shape[1::-1])
    (x0, y0), (x1, y1) = np.round(corners).astype(int).clip(0, None)
    inside[y0:y1, x0:x1] = 1
    if not inside.any() or int((inside == 0).sum()) < 16:
        return None
    found = main_parts(cut(small, inside))
    if found is None:
        return None
    mask = np.zeros(image_rgb.shape[:2], np.bool_)
    grow_box = cv2.resize(found.astype(np.float32), part.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    mask[rows, columns] = grow_box >= 0.5
    return mask


def main_parts(mask: Mask) -> Mask | None:
    """Return the large parts of a mask with their holes filled, so that parts in the background's colour stay."""
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    areas = [float(cv2.contourArea(part)) for part in outline]
    if not areas or max(areas) < 16:
        return None
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(
        filled, [part for part, area in zip(outline, areas, strict=True) if area > 0.08 * max(areas)], -1, 1, -1
    )
    return np.asarray(filled > 0)


def mask_flaw(mask: Mask, shape: tuple[int, ...]) -> str | None:
    """Return what is wrong with a given mask for a picture of (height, width, ..), or None."""
    if mask.shape != shape[:2]:
        return f"mask is {mask.shape[1]}x{mask.shape[0]}, expected {shape[1]}x{shape[0]}, the size of the picture"
    covered = float(mask.mean())
    if not mask.any():
        return "mask is empty"
    if covered > 0.995:
        return "mask covers the whole picture and leaves no background"
    border = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean()
    if border > 0.5 and border > covered:  # an object that fills the frame covers the middle more than the border
        return f"mask covers {border:.0%} of the border and {covered:.0%} of the picture; it seems to be inverted"
    return None


def box_agreement(mask: Mask, box_px: Box) -> float:
    """Return the IoU of a box with the bounding box of a mask that is not empty."""
    x, y, wide, high = cv2.boundingRect(mask.view(np.uint8))
    extent = np.array([[x, y, x + wide, y + high]], np.float32)
    return float(iou_matrix(extent, np.array([box_px], np.float32))[0, 0])
