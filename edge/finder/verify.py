"""Verify the parts of a heat map: cut each out of the picture, enlarge it, and compare it with the query again.

The cells of a heat map are coarse: two items that differ in a detail look the same, and neighbours merge. Rules:
1. Parts of the heat map at several levels are proposals. Each one is enlarged to a size of the query and compared with
   it cell by cell. Several proposals share a canvas, and thus a run of the trunk.
2. A proposal's score is its peak in the heat map times its similarity to the most similar query picture.
3. Of proposals that overlap, only the best is kept.
measured: never-trained items located 90 instead of 80 %, categories 92 instead of 76 % (docs/adr/0010)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge.finder.correlate import CanvasSquare, Kernel, build_kernel, similarity
from edge.finder.heat_map import FoundBox, VerifiedBox
from edge.finder.query import lay_out_parts
from edge.finder_shape import FinderShape
from edge.manifest.model import Preprocess
from edge.types import Box, FloatArray, Image

MAX_PARTS = 18  # parts that are verified; three canvases of the usual sizes
_SAME_OBJECT = 0.5  # share of the smaller of two boxes that the other covers; from here on they are one object

Represent = Callable[[Image], FloatArray]  # a canvas to (channels, rows, columns)


def verify_parts(
    represent: Represent,
    image_rgb: Image,
    parts: Sequence[FoundBox],
    queries: Sequence[Kernel],
    shape: FinderShape,
    spec: Preprocess,
) -> list[VerifiedBox]:
    """Score the parts of a heat map, best first.

    Args:
        represent: runs the trunk.
        image_rgb: the searched picture.
        parts: of its heat map, hottest first; only the first MAX_PARTS are verified.
        queries: the verification kernels of one object, one for each of its pictures.
        shape: of the finder.
        spec: of its canvas.
    """
    parts = parts[:MAX_PARTS]
    kernels = _part_kernels(represent, image_rgb, [part.box_px for part in parts], shape, spec)
    scored = []
    for part, kernel in zip(parts, kernels, strict=True):
        best = max(similarity(kernel, query) for query in queries)
        scored.append(VerifiedBox(part.box_px, part.score * max(0.0, best), part.level, kernel))
    kept: list[VerifiedBox] = []
    for one in sorted(scored, key=lambda found: -found.score):
        if all(_overlap(one.box_px, better.box_px) < _SAME_OBJECT for better in kept):
            kept.append(one)
    return kept


def _part_kernels(
    represent: Represent, image_rgb: Image, boxes_px: Sequence[Box], shape: FinderShape, spec: Preprocess
) -> list[Kernel]:
    """Return the verification kernel of each part of a picture; several parts share a run of the trunk.

    Args:
        represent: runs the trunk.
        image_rgb: the picture.
        boxes_px: of its parts.
        shape: of the finder.
        spec: of its canvas.
    """
    places = _squares(shape, spec)
    kernels = []
    for start in range(0, len(boxes_px), len(places)):
        some = boxes_px[start : start + len(places)]
        canvas, coverage = lay_out_parts(image_rgb, some, places, shape, spec)
        representation = represent(canvas)
        kernels += [
            build_kernel(representation, coverage, place, shape.stride, shape.look_cells)
            for _, place in zip(some, places, strict=False)
        ]
    return kernels


def _squares(shape: FinderShape, spec: Preprocess) -> list[CanvasSquare]:
    """Return the squares for parts on a canvas, on whole cells, with one empty cell between two."""
    px = shape.query_px[shape.verify_scale]
    step = -(-px // shape.stride) * shape.stride + shape.stride
    return [(x, y, px) for y in range(0, spec.height - px + 1, step) for x in range(0, spec.width - px + 1, step)]


def _overlap(a: Box, b: Box) -> float:
    """Return the share of the smaller of two boxes that lies in the other."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0.0, wide) * max(0.0, high) / smaller
