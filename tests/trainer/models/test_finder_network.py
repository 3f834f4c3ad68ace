"""The search network: its grouped convolution, its norms, and that the device computes the same."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from edge.finder.correlate import build_query, heat_maps
from edge.finder_shape import FinderShape
from edge.manifest.model import Preprocess
from trainer.models.backbone import create_trunk
from trainer.models.finder_network import Finder, correlate

SPEC = Preprocess(width=160, height=96)
SHAPE = FinderShape(query_px=[32, 48], parts=3)


def small_finder(**changes):
    torch.manual_seed(0)
    trunk = create_trunk("mobilenetv4_conv_small_050", [4, 8, 16])
    parts = {"query_trunk": None, "channels": 8, "guide": 4, "width": 4, "shape": SHAPE, "spec": SPEC} | changes
    return Finder(trunk, **parts).eval()


def test_batched_correlation_equals_single_searches():
    torch.manual_seed(1)
    scene, values, weights = torch.randn(3, 4, 6, 9), torch.randn(3, 2, 4, 3, 3), torch.rand(3, 2, 3, 3)
    together = correlate(scene, values, weights)
    for i, k in product(range(3), range(2)):
        alone = correlate(scene[i : i + 1], values[i : i + 1, k : k + 1], weights[i : i + 1, k : k + 1])
        assert torch.allclose(together[i, k], alone[0, 0], atol=1e-6)


def test_correlation_without_norms_is_the_published_sum():
    torch.manual_seed(2)
    scene, values = torch.randn(1, 2, 5, 5), torch.randn(1, 2, 3, 3)
    found = correlate(scene, values[:, None], torch.ones(1, 1, 3, 3), normalise=False)[0]
    assert found[0, 2, 1].item() == pytest.approx((scene[0, :, 1:4, 0:3] * values[0]).sum().item(), abs=1e-5)
    flipped = (scene[0, :, 1:4, 0:3] * values[0].flip(1, 2)).sum().item()
    assert abs(found[0, 2, 1].item() - flipped) > 0.1


def test_correlation_with_norms_is_a_cosine():
    torch.manual_seed(3)
    scene, values, weights = torch.randn(2, 4, 6, 9), torch.randn(2, 1, 4, 3, 3), torch.rand(2, 1, 3, 3)
    found = correlate(scene, values, weights)
    assert found.abs().max() <= 1 + 1e-5
    assert torch.allclose(found, correlate(scene * 7, values * 0.2, weights), atol=1e-4)


def test_heat_maps_equal_those_of_the_device():
    finder = small_finder()
    rng = np.random.default_rng(4)
    scene, query = (rng.normal(size=(8, 12, 20)).astype(np.float32) for _ in range(2))
    coverage = rng.uniform(size=(12, 20)).astype(np.float32)
    stacked = finder.stack(*(torch.from_numpy(one[None]) for one in (scene, query, coverage)), None)[0].numpy()
    wanted = heat_maps(scene, build_query(query, coverage, SHAPE, SPEC), SHAPE, SPEC)
    assert stacked.shape == wanted.shape == (SHAPE.maps, 24, 40)
    assert np.abs(stacked - wanted).max() < 1e-5


def test_pairs_are_separate_searches():
    finder = small_finder()
    scenes, queries, cells = torch.randn(2, 3, 96, 160), torch.randn(2, 3, 96, 160), torch.rand(2, 12, 20)
    with torch.no_grad():
        found = finder(scenes, queries, cells, torch.tensor([[0, 0], [0, 1], [1, 1]]))
        alone = finder(scenes[:1], queries[1:], cells[1:])
    assert found.shape == (3, 24, 40)
    assert torch.allclose(found[1], alone[0], atol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_separate_query_trunk_without_guide():
    apart = small_finder(query_trunk=create_trunk("mobilenetv4_conv_small_050", [8, 16]), guide=0)
    with torch.no_grad():
        found = apart(torch.randn(1, 3, 96, 160), torch.randn(1, 3, 96, 160), torch.rand(1, 12, 20))
    assert found.shape == (1, 24, 40)
    assert apart.conversion.enter[0].in_channels == SHAPE.maps
