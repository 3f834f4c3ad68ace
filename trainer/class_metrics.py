"""Detection measures item by item: COCO's average precision of each label, and their means. Pure numpy.

RPC (Wei et al. 2019) calls the mean over labels at IoU 0.5 mAP50, and the mean over IoUs 0.5 to 0.95 as well mmAP.
`trainer.metrics.detection_map` measures boxes whatever their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.inference.postprocess import decode_ltrb, non_maximum_suppression
from edge.types import FloatArray
from trainer.metrics import Boxes, detection_map

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelledBoxes:
    """The boxes found in one picture, or its true ones, with the number of each one's label."""

    boxes_px: FloatArray  # (n, 4)
    labels: Labels  # (n,); -1: none
    scores: FloatArray  # (n,); ones for true boxes

    def of(self, label: int) -> Boxes:
        """Return the boxes of one label."""
        chosen = self.labels == label
        return Boxes(self.boxes_px[chosen], self.scores[chosen])

    @property
    def unlabelled(self) -> Boxes:
        """All boxes, whatever their labels."""
        return Boxes(self.boxes_px, self.scores)

    def at_least(self, score: float) -> LabelledBoxes:
        """Return the boxes that score this much or more."""
        chosen = self.scores >= score
        return LabelledBoxes(self.boxes_px[chosen], self.labels[chosen], self.scores[chosen])


def map_by_label(
    found: Sequence[LabelledBoxes], truths: Sequence[LabelledBoxes], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the average precision of each label that has a true box, with its number of true boxes.

    Args:
        found: boxes found, by picture.
        truths: true boxes, by picture.
        names: names of the labels.

    Returns:
        by name: `map50`, `map50_95` and `objects`. As in COCO, a label without true boxes is left out.
    """
    table = {}
    for label, name in enumerate(names):
        pairs = [(a.of(label), b.of(label).boxes_px) for a, b in zip(found, truths, strict=True)]
        shown = [(boxes, truth) for boxes, truth in pairs if len(boxes.scores) or len(truth)]
        if objects := sum(len(truth) for _, truth in shown):
            measured = detection_map([boxes for boxes, _ in shown], [truth for _, truth in shown])
            table[name] = measured | {"objects": float(objects)}
    return table


def mean_over_labels(table: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return mAP50 and mmAP of RPC: the means over the labels of `map_by_label`."""
    return {
        "item_map50": float(np.mean([one["map50"] for one in table.values()])) if table else 0.0,
        "item_map50_95": float(np.mean([one["map50_95"] for one in table.values()])) if table else 0.0,
    }


def decode_labelled(
    maps: Sequence[FloatArray], strides: list[int], score_threshold: float, iou_threshold: float = 0.6
) -> list[LabelledBoxes]:
    """Decode the detector outputs of a batch to labelled boxes in input pixels, picture by picture.

    Boxes suppress each other whatever their labels, as on the device: one object has one label.
    """
    found = []
    for i in range(len(maps[0])):
        boxes, scores, labels = decode_ltrb([level[i : i + 1] for level in maps], strides, score_threshold)
        kept = non_maximum_suppression(boxes, scores, iou_threshold)
        found.append(LabelledBoxes(boxes[kept], labels[kept], scores[kept]))
    return found


def best_count_threshold(found: Sequence[LabelledBoxes], truths: Sequence[LabelledBoxes], labels: int) -> float:
    """Return the score threshold whose counts of labels differ least from the true ones, summed over pictures.

    Args:
        found: boxes found, by picture.
        truths: true boxes, by picture.
        labels: number of labels.
    """
    candidates = np.round(np.arange(0.1, 0.96, 0.05), 2)
    true = counts_of(truths, labels)
    distances = [int(np.abs(counts_of([one.at_least(t) for one in found], labels) - true).sum()) for t in candidates]
    best = np.flatnonzero(np.asarray(distances) == min(distances))
    return float(candidates[best[len(best) // 2]])  # of equally good ones, the middle


def counts_of(pictures: Sequence[LabelledBoxes], labels: int) -> NDArray[np.int64]:
    """Return how often each picture has each label, (pictures, labels)."""
    rows = [np.bincount(one.labels[one.labels >= 0], minlength=labels) for one in pictures]
    return np.asarray(rows, np.int64).reshape(len(pictures), labels)
