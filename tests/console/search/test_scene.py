"""An object of a query picture is found in a scene."""

from __future__ import annotations

import json

import numpy as np
import pytest

from console.models.models import Models
from console.search.heat import draw_heat
from console.search.scene import find_in_scene
from console.search.windows import around, grids, paint
from console.settings import Settings
from edge.errors import ConsoleError
from edge.imaging import image
from edge.shipped.examples import shipped
from tests.edge.finder.finder_samples import BLUE, RED, colour_finder, scene_with

DEMO = shipped("demo")
PROBES = json.loads((DEMO / "bundle" / "bundle.json").read_text())["probes"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return Models(Settings(tmp_path_factory.mktemp("console"), is_demo=True))


def object_and_scene():
    """Return a picture of an item, and a noisy scene that holds it, with its box."""
    query = image.read_image(DEMO / "bundle" / PROBES[0]["path"])
    scene = np.random.default_rng(3).integers(90, 140, (360, 640, 3)).astype(np.uint8)
    high, wide = query.shape[:2]
    scene[150 : 150 + high, 400 : 400 + wide] = query
    return query, scene, (400, 150, 400 + wide, 150 + high)


def overlap(a, b) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, wide) * max(0.0, high)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def test_similarity_map_finds_the_object_without_a_finder(models):
    query, scene, box = object_and_scene()
    large = np.repeat(np.repeat(scene, 4, axis=0), 4, axis=1)
    result = find_in_scene(models, query, large, "", None, lambda _: None, spend_s=0)
    assert (result.way, result.category) == ("similarity", PROBES[0]["category"])
    assert (result.width, result.height) == (1600, 900)  # a large scene is searched smaller
    assert overlap(result.found[0].box_px, [2.5 * side for side in box]) > 0.5
    shown = image.decode_image(result.shown, "heat map").astype(int)
    assert shown[450:625, 1010:1100].mean() > 1.3 * shown[50:300, 50:750].mean()


def test_finder_of_the_bundle_is_used_where_there_is_one(models):
    scene = scene_with((RED, 16, 16, 24), (BLUE, 40, 40, 16))
    query = np.full((24, 24, 3), RED, np.uint8)
    result = find_in_scene(models, query, scene, "", None, lambda _: colour_finder())
    assert result.way == "finder"
    assert overlap(result.found[0].box_px, (16, 16, 40, 40)) > 0.5
    assert result.found[0].score > 0.5


def test_missing_finder_is_said_honestly(models):
    query, scene, _ = object_and_scene()
    with pytest.raises(ConsoleError, match="no finder; train one with edge-train finder"):
        find_in_scene(models, query, scene, "", "finder", lambda _: None)


@pytest.mark.parametrize("size", [(4, 4), (8, 900), (900, 8), (400, 700)])
@pytest.mark.parametrize("aspect", [0.01, 1.0, 100.0])
def test_windows_lie_in_the_scene_and_are_bounded(size, aspect):
    scene = np.zeros((*size, 3), np.uint8)
    for grid in grids(scene, aspect, 300):
        assert len(grid.boxes) == grid.rows * grid.columns
        heat = paint(grid.boxes, np.ones(len(grid.boxes), np.float32), scene)
        assert 0 < heat.max() <= 1
        for x0, y0, x1, y1 in [*grid.boxes, *around(grid.boxes[0], scene, 0.25)]:
            assert -1e-6 <= x0 < x1 <= size[1] + 1e-6
            assert -1e-6 <= y0 < y1 <= size[0] + 1e-6


def test_map_of_windows_is_warm_where_the_best_window_is():
    scene = np.zeros((320, 640, 3), np.uint8)
    heat = paint([(0, 0, 640, 320), (400, 100, 480, 180)], np.array([0.3, 1.0], np.float32), scene)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert heat.shape == (40, 80)
    assert (row, column) in {(y, x) for y in (17, 16, 18) for x in (54, 55)}
    assert heat[17, 10] < 0.3


def test_cold_scene_is_dim_and_hot_parts_are_warm():
    scene = np.full((32, 64, 3), 120, np.uint8)
    heat = np.zeros((2, 4), np.float32)
    heat[:, 3] = 1.0
    shown = image.decode_image(draw_heat(scene, heat), "heat map").astype(int)
    assert shown[16, 4].max() < 70
    assert shown[16, 60, 0] > shown[16, 60, 2] + 60
