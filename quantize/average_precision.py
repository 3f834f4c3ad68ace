"""Average precision of boxes of one class, with COCO's interpolation.

`trainer.metrics` has the same formula, because packing runs without the trainer and neither may import the other. A
test compares both on boxes with tied scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge.inference.postprocess import iou_matrix
from edge.types import FloatArray

IOUS = np.arange(0.5, 0.96, 0.05)
_RECALLS = np.linspace(0, 1, 101)
Boxes = tuple[FloatArray, FloatArray]  # (n, 4) boxes and (n,) scores of one picture


def match(boxes: FloatArray, scores: FloatArray, truth: FloatArray, iou: float) -> tuple[FloatArray, FloatArray]:
    """Match boxes to true boxes, best score first, each true box once.

    Returns:
        the IoU of each box with its true box, 0 without one, in the order of the boxes; and whether each true box was
        found, as 0 or 1.
    """
    overlap = np.zeros(len(boxes), np.float32)
    found = np.zeros(len(truth), np.float32)
    if len(boxes) == 0 or len(truth) == 0:
        return overlap, found
    ious = iou_matrix(boxes, truth)
    for index in np.argsort(-scores, kind="stable"):
        free = np.where(found > 0, -1.0, ious[index])
        best = int(free.argmax())
        if free[best] >= iou:
            overlap[index], found[best] = free[best], 1.0
    return overlap, found


def average_precision(predicted: Sequence[Boxes], truths: Sequence[FloatArray], iou: float) -> float:
    """Return the area under the precision-recall curve over all pictures; 0 without true boxes."""
    total = sum(len(truth) for truth in truths)
    if total == 0:
        return 0.0
    scores = np.concatenate([np.zeros(0, np.float32), *(scores for _, scores in predicted)])
    hits = np.concatenate(
        [
            np.zeros(0, bool),
            *(match(boxes, s, truth, iou)[0] > 0 for (boxes, s), truth in zip(predicted, truths, strict=True)),
        ]
    )
    hits = hits[np.argsort(-scores, kind="stable")]
    true_positives = hits.cumsum()
    recall = true_positives / total
    precision = true_positives / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.mean([precision[i] if i < len(precision) else 0.0 for i in at]))


def ap50_95(predicted: Sequence[Boxes], truths: Sequence[FloatArray]) -> float:
    """Return the mean average precision over IoU thresholds 0.5 to 0.95."""
    return float(np.mean([average_precision(predicted, truths, float(iou)) for iou in IOUS]))
