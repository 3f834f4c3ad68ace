"""Re-ranking by vector and silhouette."""

import numpy as np
import pytest

from edge.manifest.embedder import SilhouetteRule
from edge.silhouettes.rerank import silhouettes_for
from edge.silhouettes.silhouette import SIDE, align
from edge.types import Hit


def block(top: int, left: int, size: int) -> np.ndarray:
    grid = np.zeros((SIDE, SIDE), bool)
    grid[top : top + size, left : left + 2 * size] = True
    return np.packbits(grid)


HITS = [Hit("tall", "Tall", 0.9), Hit("flat", "Flat", 0.88), Hit("new", "New", 0.5)]
QUERY = block(20, 10, 20)
BY_ITEM = {"tall": np.stack([block(0, 0, 10)]), "flat": np.stack([block(0, 0, 4), block(20, 10, 20)])}


def order(rule: SilhouetteRule, query=QUERY) -> list[str]:
    return [hit.item_id for hit in silhouettes_for(rule, BY_ITEM).rerank(HITS, query)]


def test_fitting_silhouette_beats_a_slightly_nearer_vector():
    fused = silhouettes_for(SilhouetteRule(weight=0.2), BY_ITEM).rerank(HITS, QUERY)
    assert [hit.item_id for hit in fused] == ["flat", "tall", "new"]
    assert fused[0].score == pytest.approx(0.8 * 0.88 + 0.2 * 1.0)  # the best of its two pictures
    assert order(SilhouetteRule(weight=0.0)) == ["tall", "flat", "new"]


def test_aligned_silhouettes_ignore_size_and_position():
    far = block(2, 2, 12)
    assert order(SilhouetteRule(weight=0.1), far)[0] == "tall"  # only 'tall' lies there
    aligned = silhouettes_for(SilhouetteRule(mode="aligned", weight=0.5), BY_ITEM).rerank(HITS, far)
    assert aligned[0].score == pytest.approx(0.5 * 0.9 + 0.5, abs=0.03)
    assert np.array_equal(
        silhouettes_for(SilhouetteRule(mode="aligned", weight=1), BY_ITEM).by_item["tall"][0], align(block(0, 0, 10))
    )


def test_iou_only_sorts_by_overlap():
    assert order(SilhouetteRule(mode="iou_only")) == ["flat", "new", "tall"]


def test_item_without_silhouettes_keeps_its_cosine():
    scores = {
        hit.item_id: hit.score for hit in silhouettes_for(SilhouetteRule(weight=0.3), BY_ITEM).rerank(HITS, QUERY)
    }
    assert scores["new"] == 0.5
