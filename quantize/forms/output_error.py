"""How far the outputs of a form are from FP32's, as what the network is for: boxes and scores, or plain numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.inference.postprocess import decode_ltrb, decode_yolox
from edge.types import FloatArray
from quantize.network_spec import Spec

Outputs = Sequence[NDArray[np.generic]]
OutputError = Callable[[Outputs, Outputs], float]
_EVERY_CELL = 1e-30  # a score threshold that every cell of a map passes


def output_error(spec: Spec) -> OutputError:
    """Return the function that compares the outputs of a form with FP32's, of one picture.

    For a detector: the change of the scores and the lost overlap of the boxes, over the cells where either form scores
    at least half of the threshold, relative to FP32's scores there. The thousands of cells without an object do not
    count. Else: the RMS difference of each output relative to FP32's RMS, averaged.
    """
    if spec.kind != "detector":
        return _relative_rms
    least = spec.score_threshold / 2

    def of_boxes(want: Outputs, got: Outputs) -> float:
        (boxes, scores), (other_boxes, other_scores) = (_cells(spec, outputs) for outputs in (want, got))
        counted = np.maximum(scores, other_scores) >= least
        lost = np.abs(scores - other_scores) + scores * (1 - _overlap(boxes, other_boxes))
        return float(lost[counted].sum() / max(float(scores[scores >= least].sum()), least))

    return of_boxes


def _relative_rms(want: Outputs, got: Outputs) -> float:
    errors = []
    for one, other in zip(want, got, strict=True):
        exact, found = np.asarray(one, np.float64), np.asarray(other, np.float64)
        errors.append(np.sqrt(((exact - found) ** 2).mean() / max(float((exact**2).mean()), 1e-12)))
    return float(np.mean(errors))


def _cells(spec: Spec, outputs: Outputs) -> tuple[FloatArray, FloatArray]:
    """Return the box and the score of every cell."""
    maps = [np.asarray(output, np.float32) for output in outputs]
    if spec.decoder == "yolox":
        given = spec.preprocess
        boxes, scores, _ = decode_yolox(maps[0], spec.strides, given.width, given.height, -1.0)
    else:
        boxes, scores, _ = decode_ltrb(maps, spec.strides, _EVERY_CELL)
    return boxes, scores


def _overlap(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the intersection over union of each box of (n, 4) with the one in the same row."""
    sides = np.clip(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0, None)
    both = sides[:, 0] * sides[:, 1]
    areas = [(box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (a, b)]
    return np.asarray(both / np.maximum(areas[0] + areas[1] - both, 1e-9), np.float32)
