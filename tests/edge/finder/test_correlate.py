"""The numpy search layers against their definition, written out."""

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
from edge.manifest import Preprocess

SPEC = Preprocess(width=160, height=96)
SHAPE = FinderShape(query_px=[32, 48], stride=8, map_stride=4)


def defined(scene, kernel):
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
def test_correlation_is_the_published_sum_without_a_flip_over_both_norms(masked):
    rng = np.random.default_rng(0)
    scene = rng.normal(size=(2, 5, 6)).astype(np.float32)
    weights = rng.uniform(size=(3, 3)) if masked else np.ones((3, 3))
    kernel = Kernel(rng.normal(size=(2, 3, 3)).astype(np.float32), weights.astype(np.float32))
    assert np.allclose(defined(scene, kernel), correlate(scene, [kernel])[0], atol=1e-5)


def test_a_scene_answers_one_where_it_is_the_query_and_less_elsewhere():
    rng = np.random.default_rng(1)
    scene = rng.normal(size=(8, 9, 12)).astype(np.float32)
    kernel = Kernel(scene[:, 3:6, 7:10], np.ones((3, 3), np.float32))
    (found,) = correlate(scene, [kernel])
    assert np.unravel_index(found.argmax(), found.shape) == (4, 8)
    assert found.max() == pytest.approx(1.0, abs=1e-5)
    assert np.sort(found.ravel())[-2] < 0.8


def test_what_is_not_the_object_weighs_nothing_even_in_the_norm_of_the_scene():
    rng = np.random.default_rng(2)
    scene = rng.normal(size=(4, 7, 7)).astype(np.float32)
    weights = np.ones((3, 3), np.float32)
    weights[:, 0] = 0
    kernel = Kernel(scene[:, 2:5, 2:5].copy(), weights)
    scene[:, :, :3] *= 50  # its surroundings, left of it
    assert correlate(scene, [kernel])[0][3, 3] == pytest.approx(1.0, abs=1e-5)


def test_a_query_is_painted_where_it_was_found_in_its_own_shape():
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


def test_matrices_keep_the_mean_and_a_ramp():
    assert np.allclose(pool_matrix(24, 7).sum(axis=1), 1)
    assert np.allclose(pool_matrix(6, 3) @ np.arange(6), [0.5, 2.5, 4.5])
    assert np.allclose(pool_matrix(5, 2) @ np.ones(5), 1)
    assert np.allclose((upsample_matrix(4, 8) @ np.arange(4))[1:-1], np.arange(0.25, 3, 0.5))


def test_queries_lie_apart_on_one_canvas_and_too_many_are_refused():
    places = query_positions(FinderShape(), Preprocess(width=320, height=192))
    assert places == [(0, 0), (48, 0), (112, 0), (208, 0)]
    assert query_positions(SHAPE, SPEC) == [(0, 0), (48, 0)]
    with pytest.raises(ValueError, match=r"found \[96, 96\], expected sizes that fit on 160x96 together"):
        query_positions(FinderShape(query_px=[96, 96]), SPEC)


def test_every_pair_of_neighbouring_scales_makes_a_map_on_one_grid():
    rng = np.random.default_rng(3)
    representation = rng.normal(size=(4, 12, 20)).astype(np.float32)
    query = build_query(representation, np.ones((12, 20), np.float32), SHAPE, SPEC)
    maps = heat_maps(representation, query, SHAPE, SPEC)
    assert scene_grids(SHAPE, SPEC) == [(9, 15), (6, 10)]
    assert maps.shape == (SHAPE.maps, *map_size(SHAPE, SPEC)) == (4 + 2 + 2, 24, 40)
    assert np.abs(maps).max() <= 1 + 1e-5
