"""A finder of colours with scripted engines: the trunk gives the mean colour of each cell."""

from __future__ import annotations

import numpy as np

from edge.finder.finder import Finder
from edge.finder.query import object_mask
from edge.finder_shape import FinderShape
from edge.manifest.stages import FinderModel
from edge.telemetry.timing import Timings
from tests.fakes_engine import SIZE, SPEC, ScriptedEngine

SHAPE = FinderShape(stride=8, map_stride=4, query_px=[16, 24])
GREY = 114  # the fill of the canvas: its cells have similarity 0
RED, BLUE = (230, 30, 30), (30, 30, 230)


def finder_model(**changes) -> FinderModel:
    fields = {"files": {"fp32": "t.onnx"}, "ship": "fp32", "input_name": "image", "output_names": ["representation"]}
    fields |= {"preprocess": SPEC, "shape": SHAPE, "channels": 3, "guide": 0, "conversion": "c.onnx"}
    return FinderModel.model_validate({**fields, **changes})


def cell_colours(batch):
    pixels = np.asarray(batch, np.float32).reshape(len(batch), SIZE // 8, 8, SIZE // 8, 8, 3)
    return [(pixels.mean(axis=(2, 4)) - GREY).transpose(0, 3, 1, 2)]


def colour_finder() -> Finder:
    conversion = ScriptedEngine(lambda maps: [(maps[:, -2] - 0.5) * 2])
    return Finder(finder_model(), ScriptedEngine(cell_colours), conversion)


def scene_with(*squares, size=SIZE):
    """Grey, with squares given as colour, x, y and side in pixels."""
    picture = np.full((size, size, 3), GREY, np.uint8)
    for colour, x, y, side in squares:
        picture[y : y + side, x : x + side] = colour
    return picture


def query_for(finder: Finder, colour):
    picture = np.full((20, 20, 3), colour, np.uint8)
    return finder.make_query(picture, object_mask(picture, (0, 0, 20, 20)), Timings())
