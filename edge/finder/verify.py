"""Parts of a heat map are cut out of the picture and compared with the query once more.

The heat map says where things like the query are, on cells in which two items that differ in a detail are alike and
neighbours run into one another. Rules:
1. Its parts at several levels are proposals. Each is enlarged to a size that the query was represented at, and compared
   with it cell by cell. Several share a canvas, and a run of the trunk.
2. A proposal's score is its peak in the heat map times its likeness to the likest picture of the query.
3. Of proposals that lie on each other only the best is an object.
measured: never-trained items located 90 instead of 80 %, categories 92 instead of 76 % (docs/adr/0010)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge.finder.correlate import Kernel, CanvasSquare, kernel_of, likeness
from edge.finder.heat_map import FoundBox
from edge.finder.query import lay_out_parts
from edge.finder_shape import FinderShape
from edge.manifest import Preprocess
from edge.types import Box, FloatArray, Image

MOST = 18  # parts that are looked at; three canvases of the usual sizes
_COVERED = 0.5  # share of the smaller of two boxes from which on they are of one object

Represent = Callable[[Image], FloatArray]  # a canvas to (channels, rows, columns)


def verify_parts(
    represent: Represent,
    image_rgb: Image,
    parts: Sequence[FoundBox],
    queries: Sequence[Kernel],
    shape: FinderShape,
    spec: Preprocess,
) -> list[FoundBox]:
    """Score the parts of a heat map, best first.

    Args:
        represent: the trunk.
        image_rgb: the picture that was searched.
        parts: of its heat map, hottest first; of more than MOST the others are left out.
        queries: what is searched, its picture or pictures.
        shape: of the finder.
        spec: of its canvas.
    """
    parts, places = parts[:MOST], _places(shape, spec)
    scored = []
    for start in range(0, len(parts), len(places)):
        some = parts[start : start + len(places)]
        canvas, coverage = lay_out_parts(image_rgb, [part.box_px for part in some], places, shape, spec)
        representation = represent(canvas)
        for part, place in zip(some, places, strict=False):
            kernel = kernel_of(representation, coverage, place, shape.stride, shape.look_cells)
            alike = max(likeness(kernel, query) for query in queries)
            scored.append(FoundBox(part.box_px, part.score * max(0.0, alike), part.level))
    kept: list[FoundBox] = []
    for one in sorted(scored, key=lambda found: -found.score):
        if all(_shared(one.box_px, better.box_px) < _COVERED for better in kept):
            kept.append(one)
    return kept


def _places(shape: FinderShape, spec: Preprocess) -> list[CanvasSquare]:
    """Where parts lie on a canvas, on whole cells, with one of ground between two."""
    px = shape.query_px[shape.verify_scale]
    step = -(-px // shape.stride) * shape.stride + shape.stride
    return [(x, y, px) for y in range(0, spec.height - px + 1, step) for x in range(0, spec.width - px + 1, step)]


def _shared(a: Box, b: Box) -> float:
    """How much of the smaller of two boxes lies in the other."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0.0, wide) * max(0.0, high) / smaller
