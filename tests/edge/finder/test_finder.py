"""Finding by pictures, over scripted engines."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import EngineError
from edge.finder.finder import Finder
from edge.inference.postprocess import iou_matrix
from edge.telemetry.timing import Timings
from tests.edge.finder.finder_samples import BLUE, RED, cell_colours, colour_finder, finder_model, query_for, scene_with
from tests.fakes_engine import ScriptedEngine


def found(finder, scene, *colours):
    view = finder.scene_features(scene, Timings())
    queries = [query_for(finder, colour) for colour in colours]
    return finder.find_boxes(view, finder.heat_map(view, queries, Timings()), queries, Timings())


def test_every_instance_of_the_object_is_found():
    boxes = found(colour_finder(), scene_with((RED, 0, 8, 16), (BLUE, 40, 0, 24), (RED, 24, 40, 24)), RED)
    true_px = np.array([[0, 8, 16, 24], [24, 40, 48, 64]], np.float32)
    overlap = iou_matrix(np.array([one.box_px for one in boxes], np.float32), true_px)
    assert overlap.shape == (2, 2)
    assert (overlap.max(axis=0) > 0.5).all()


def test_absent_object_is_not_found():
    assert found(colour_finder(), scene_with((BLUE, 40, 0, 24)), RED) == []


def test_boxes_are_in_scene_pixels():
    (one,) = found(colour_finder(), scene_with((RED, 160, 80, 120), size=320), RED)
    assert iou_matrix(np.array([one.box_px], np.float32), np.array([[160, 80, 280, 200]], np.float32))[0, 0] > 0.6


def test_heat_map_is_the_mean_over_query_pictures():
    finder = colour_finder()
    view = finder.scene_features(scene_with((RED, 16, 16, 24)), Timings())
    heats = [finder.heat_map(view, [query_for(finder, c)], Timings()) for c in (RED, BLUE)]
    both = finder.heat_map(view, [query_for(finder, RED), query_for(finder, BLUE)], Timings())
    assert np.allclose(both, (heats[0] + heats[1]) / 2, atol=1e-5)


def test_part_below_the_threshold_is_not_verified():
    trunk = ScriptedEngine(cell_colours)
    finder = Finder(finder_model(), trunk, colour_finder()._conversion)
    query = query_for(finder, RED)
    view = finder.scene_features(scene_with((RED, 16, 16, 24)), Timings())
    heat = finder.heat_map(view, [query], Timings())
    for least, runs in ((1.1, 0), (0.0, 1)):
        before = len(trunk.batch_sizes)
        finder.find_boxes(view, heat, [query], Timings(), least)
        assert len(trunk.batch_sizes) - before == runs


def test_trunk_with_wrong_output_shape_is_rejected():
    finder = Finder(finder_model(channels=5), ScriptedEngine(cell_colours), ScriptedEngine(lambda maps: [maps[:, 0]]))
    with pytest.raises(EngineError, match=r"found outputs of shapes \[\(1, 3, 8, 8\)\], expected \[\(1, 5, 8, 8\)\]"):
        finder.scene_features(scene_with(), Timings())
