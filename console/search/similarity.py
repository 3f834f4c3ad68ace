"""A similarity map: which windows of a scene look like an object, by the embedder of a bundle.

It needs no finder, and is coarser: windows have a few sizes, and one shape.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from console.models.models import LoadedPair
from console.search.windows import around, grids, paint
from edge.imaging.pyramid import Pyramid
from edge.recognition.recognise_image import extract_features
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image

_FEWEST, _MOST = 200, 900  # windows
_STEPS = ((0.25, 2), (0.1, 1))  # the nearest so many windows are moved by a share of their sides
_AT_ONCE = 16  # windows of one run
_COLD = 0.15  # a similarity that is not so much above the middle one is no heat
_RANGE = 0.25  # of similarities from cold to hot, at least: a scene without the object stays cold


@dataclass(frozen=True, slots=True)
class SimilarityMap:
    """How similar the windows of a scene are to an object."""

    heat: FloatArray  # (rows, columns), 0..1
    box_px: Box  # the most similar window
    similarity: float  # its, -1..1
    windows: int  # that were compared
    smallest_px: int  # longer side of the smallest ones
    category: str  # whose embedder compared them


def map_similarity(pair: LoadedPair, query: Image, scene: Image, spend_s: float) -> SimilarityMap:
    """Compare windows of a scene with the picture of an object.

    Args:
        pair: whose embedder compares them.
        query: the object fills it.
        scene: the picture.
        spend_s: about so long, in seconds; with more, smaller windows are compared, too.

    Raises:
        EngineError: a model failed.
    """
    features = extract_features(pair.models, query, Timings())
    category = next(iter(features.vectors), pair.general_category)
    embedder = pair.models.stages.embedders[category]
    whole = (0.0, 0.0, float(query.shape[1]), float(query.shape[0]))
    wanted = embedder.embed(Pyramid(query), [whole], Timings())[0]
    pyramid, at_once = Pyramid(scene), min(_AT_ONCE, embedder.model.max_batch)

    def similarities(boxes: list[Box]) -> FloatArray:
        parts = [
            embedder.embed(pyramid, boxes[i : i + at_once], Timings()) @ wanted for i in range(0, len(boxes), at_once)
        ]
        return np.concatenate(parts)

    sizes = grids(scene, query.shape[1] / query.shape[0], _MOST)
    started, windows, scores = time.perf_counter(), list[Box](), np.zeros(0, np.float32)
    for grid in sizes:  # the largest first; smaller ones while there is time
        spent_s = time.perf_counter() - started
        if windows and spent_s * (1 + len(grid.boxes) / len(windows)) > spend_s and len(windows) >= _FEWEST:
            break
        windows, scores = windows + grid.boxes, np.concatenate([scores, similarities(grid.boxes)])
    smallest_px = round(max(windows[-1][2] - windows[-1][0], windows[-1][3] - windows[-1][1]))
    for step, count in _STEPS:  # nearer and nearer to the best ones
        moved = [box for i in np.argsort(-scores)[:count] for box in around(windows[int(i)], scene, step)]
        windows, scores = windows + moved, np.concatenate([scores, similarities(moved)])
    best = int(scores.argmax())
    cold = float(np.median(scores)) + _COLD
    levels = ((scores - cold) / max(_RANGE, float(scores.max()) - cold)).clip(0, 1)
    heat = paint(windows, np.asarray(levels**2, np.float32), scene)
    return SimilarityMap(heat, windows[best], float(scores[best]), len(windows), smallest_px, category)
