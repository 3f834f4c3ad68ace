"""The agreement guard of self-tuning: keep an extracted mask only if a second mask source agrees with it."""

from __future__ import annotations

import cv2
import numpy as np

from edge.types import Box
from trainer.pasting.mask_sources import Bytes, Mask, context_window, cut_in_window

LEAST_AGREEMENT = 0.8  # IoU of two masks of one object
AREA_RATIO = (0.05, 0.9)  # share of the box's `context_window`


def colour_model(image_rgb: Bytes, box_px: Box) -> Mask | None:
    """Mask what deviates in colour from the surroundings of a box: Mahalanobis distance in Lab, Otsu's threshold."""

    def cut(part: Bytes, inside: Bytes) -> Mask:
        lab = cv2.GaussianBlur(cv2.cvtColor(part, cv2.COLOR_RGB2LAB), (3, 3), 0).astype(np.float32)
        around = lab[inside == 0]
        precision = np.linalg.inv(np.cov(around.T) + 4.0 * np.eye(3))
        off = lab - around.mean(axis=0)
        far = np.sqrt(np.maximum(np.einsum("ijk,kl,ijl->ij", off, precision, off), 0))
        level = np.clip(far * 16, 0, 255).astype(np.uint8)
        threshold, _ = cv2.threshold(level, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
        found = ((level > max(threshold, 32)) & (inside > 0)).astype(np.uint8)
        return np.asarray(cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0)

    return cut_in_window(image_rgb, box_px, cut)


def disagreement(student: Mask | None, teacher: Mask | None, box_px: Box) -> str | None:
    """Return why an extracted mask is not kept, or None.

    Args:
        student: the mask to keep.
        teacher: the mask of another source for the same object.
        box_px: box of the object; the area is compared with its context window.
    """
    if student is None or teacher is None:
        return "no mask"
    rows, columns = context_window(box_px, student.shape)
    ratio = float(student[rows, columns].mean())
    if not AREA_RATIO[0] <= ratio <= AREA_RATIO[1]:
        return "area"
    overlap = float((student & teacher).sum()) / max(1.0, float((student | teacher).sum()))
    return None if overlap >= LEAST_AGREEMENT else "agreement"
