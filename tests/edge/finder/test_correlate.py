"""The numpy search layers, compared with their definition."""

from __future__ import annotations

import numpy as np
import pytest

from edge.finder.correlate import (
    Kernel,
    build_query,
    correlate,
    heat_maps,
    map_size,
    paint,
    pool_matrix,
    query_positions,
    scene_grids,
    upsample_matrix,
)
from edge.finder_shape import FinderShape
from edge.manifest.model import Preprocess

SPEC = Preprocess(width=160, height=96)
SHAPE = FinderShape(query_px=[32, 48], stride=8, map_stride=4)


def by_definition(scene, kernel):
    """The patent's sum, cell by cell, over the weighted norms."""
    size = len(kernel.weights)
    out = np.zeros(scene.shape[1:])
    padded = np.pad(scene, ((0, 0), (1, 1), (1, 1)))
    for y in range(scene.shape[1]):
        for x in range(scene.shape[2]):
            total = energy = own = 0.0
            for m in range(size):
                for n in range(size):
                    for c in range(len(scene)):
                        weight, value = kernel.weights[m, n], kernel.values[c, m, n]
                        total += weight * value * padded[c, y + m, x + n]
                        energy += weight * padded[c, y + m, x + n] ** 2
                        own += weight * value**2
            out[y, x] = total / np.sqrt(energy * own)
    return out


@pytest.mark.parametrize("masked", [False, True])
def test_correlation_is_the_published_formula(masked):
    rng = np.random.default_rng(0)
    scene = rng.normal(size=(2, 5, 6)).astype(np.float32)
    weights = rng.uniform(size=(3, 3)) if masked else np.ones((3, 3))
    kernel = Kernel(rng.normal(size=(2, 3, 3)).astype(np.float32), weights.astype(np.float32))
    assert np.allclose(by_definition(scene, kernel), correlate(scene, [kernel])[0], atol=1e-5)


def test_correlation_is_one_where_the_scene_equals_the_query():
    rng = np.random.default_rng(1)
    scene = rng.normal(size=(8, 9, 12)).astype(np.float32)
    kernel = Kernel(scene[:, 3:6, 7:10], np.ones((3, 3), np.float32))
    (found,) = correlate(scene, [kernel])
    assert np.unravel_index(found.argmax(), found.shape) == (4, 8)
    assert found.max() == pytest.approx(1.0, abs=1e-5)
    assert np.sort(found.ravel())[-2] < 0.8


def test_cells_outside_the_object_have_no_weight():
    rng = np.random.default_rng(2)
    scene = rng.normal(size=(4, 7, 7)).astype(np.float32)
    weights = np.ones((3, 3), np.float32)
    weights[:, 0] = 0
    kernel = Kernel(scene[:, 2:5, 2:5].copy(), weights)
    scene[:, :, :3] *= 50  # its surroundings, left of it
    assert correlate(scene, [kernel])[0][3, 3] == pytest.approx(1.0, abs=1e-5)


def test_paint_draws_the_query_shape_where_it_was_found():
    found = np.zeros((2, 5, 6), np.float32)
    found[0, 2, 3] = 0.8
    found[1] = -0.5
    weights = np.zeros((2, 3, 3), np.float32)
    weights[0] = [[0, 1, 0], [0, 1, 0.5], [0, 1, 0]]  # tall, and something at its right
    weights[1] = 1
    painted = paint(found, weights)
    expected = np.zeros((5, 6))
    expected[1:4, 3], expected[2, 4] = 0.8, 0.4
    assert np.allclose(expected, painted)


def test_resize_matrices_keep_the_mean_and_a_ramp():
    assert np.allclose(pool_matrix(24, 7).sum(axis=1), 1)
    assert np.allclose(pool_matrix(6, 3) @ np.arange(6), [0.5, 2.5, 4.5])
    assert np.allclose(pool_matrix(5, 2) @ np.ones(5), 1)
    assert np.allclose((upsample_matrix(4, 8) @ np.arange(4))[1:-1], np.arange(0.25, 3, 0.5))


def test_query_positions_do_not_overlap_and_must_fit():
    places = query_positions(FinderShape(), Preprocess(width=320, height=192))
    assert places == [(0, 0), (48, 0), (112, 0), (208, 0)]
    assert query_positions(SHAPE, SPEC) == [(0, 0), (48, 0)]
    with pytest.raises(ValueError, match=r"\[96, 96\] do not fit on 160x96 together"):
        query_positions(FinderShape(query_px=[96, 96]), SPEC)


def test_each_pair_of_neighbouring_scales_gives_a_map():
    rng = np.random.default_rng(3)
    representation = rng.normal(size=(4, 12, 20)).astype(np.float32)
    query = build_query(representation, np.ones((12, 20), np.float32), SHAPE, SPEC)
    maps = heat_maps(representation, query, SHAPE, SPEC)
    assert scene_grids(SHAPE, SPEC) == [(9, 15), (6, 10)]
    assert maps.shape == (SHAPE.maps, *map_size(SHAPE, SPEC)) == (4 + 2 + 2, 24, 40)
    assert np.abs(maps).max() <= 1 + 1e-5
