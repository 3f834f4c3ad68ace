"""Scores of trackers: CLEAR MOT (Bernardin and Stiefelhagen 2008) and IDF1 (Ristani et al. 2016)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

Shown = tuple[list[int], list[Any]]  # ids and boxes of one frame
MIN_IOU = 0.5


def score(truth: list[Shown], found: list[Shown]) -> dict[str, float]:
    """Return identity switches, IDF1 and MOTA; a pair of the frame before is kept while it overlaps enough."""
    track_of: dict[int, int] = {}  # newest track of each object
    before: dict[int, int] = {}  # pairs of the frame before
    together: Counter[tuple[int, int]] = Counter()
    switches = matched = 0
    for (object_ids, objects), (track_ids, tracks) in zip(truth, found, strict=True):
        overlap = overlaps(objects, tracks)
        together.update((object_ids[i], track_ids[j]) for i, j in zip(*np.nonzero(overlap >= MIN_IOU), strict=True))
        kept = {
            (i, j)
            for i, one in enumerate(object_ids)
            for j, other in enumerate(track_ids)
            if before.get(one) == other and overlap[i, j] >= MIN_IOU
        }
        value = np.where(overlap >= MIN_IOU, overlap, -1e3)
        for i, j in kept:
            value[i], value[:, j], value[i, j] = -1e3, -1e3, 1e6
        rows, columns = linear_sum_assignment(-value)
        before = {object_ids[i]: track_ids[j] for i, j in zip(rows, columns, strict=True) if value[i, j] > 0}
        switches += sum(track_of.get(one, track) != track for one, track in before.items())
        track_of |= before
        matched += len(before)
    real, shown = (sum(len(ids) for ids, _ in frames) for frames in (truth, found))
    objects, tracks = (sorted({pair[side] for pair in together}) for side in (0, 1))
    counts = np.array([[together[one, track] for track in tracks] for one in objects])
    same = counts[linear_sum_assignment(-counts)].sum() if together else 0
    mota = 1.0 - (real - matched + shown - matched + switches) / max(1, real)
    return {"switches": switches, "idf1": float(2 * same / max(1, real + shown)), "mota": mota}


def overlaps(a: list[Any], b: list[Any]) -> Any:
    """Return the intersection over union of all pairs: (len(a), len(b))."""
    one, other = (np.asarray(boxes, float).reshape(-1, 4) for boxes in (a, b))
    sides = np.minimum(one[:, None, 2:], other[:, 2:]) - np.maximum(one[:, None, :2], other[:, :2])
    shared = np.prod(np.clip(sides, 0, None), axis=2)
    areas = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other))
    return shared / (next(areas)[:, None] + next(areas) - shared)
