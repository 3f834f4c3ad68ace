"""Nearest items in order of vector and outline."""

import numpy as np
import pytest

from edge.gallery.rerank import outlines_for
from edge.imaging.silhouette import SIDE, align
from edge.manifest import OutlineRule
from edge.types import Hit


def block(top: int, left: int, size: int) -> np.ndarray:
    grid = np.zeros((SIDE, SIDE), bool)
    grid[top : top + size, left : left + 2 * size] = True
    return np.packbits(grid)


HITS = [Hit("tall", "Tall", 0.9), Hit("flat", "Flat", 0.88), Hit("new", "New", 0.5)]
QUERY = block(20, 10, 20)
BY_ITEM = {"tall": np.stack([block(0, 0, 10)]), "flat": np.stack([block(0, 0, 4), block(20, 10, 20)])}


def order(rule: OutlineRule, query=QUERY) -> list[str]:
    return [hit.item_id for hit in outlines_for(rule, BY_ITEM).rerank(HITS, query)]


def test_the_outline_that_fits_wins_over_a_slightly_nearer_vector():
    fused = outlines_for(OutlineRule(weight=0.2), BY_ITEM).rerank(HITS, QUERY)
    assert [hit.item_id for hit in fused] == ["flat", "tall", "new"]
    assert fused[0].score == pytest.approx(0.8 * 0.88 + 0.2 * 1.0)  # the best of its two pictures
    assert order(OutlineRule(weight=0.0)) == ["tall", "flat", "new"]


def test_aligned_outlines_ignore_size_and_place():
    far = block(2, 2, 12)
    assert order(OutlineRule(weight=0.1), far)[0] == "tall"  # only 'tall' lies there
    aligned = outlines_for(OutlineRule(mode="aligned", weight=0.5), BY_ITEM).rerank(HITS, far)
    assert aligned[0].score == pytest.approx(0.5 * 0.9 + 0.5, abs=0.03)
    assert np.array_equal(
        outlines_for(OutlineRule(mode="aligned", weight=1), BY_ITEM).by_item["tall"][0], align(block(0, 0, 10))
    )


def test_iou_only_sorts_by_the_overlap_as_published():
    assert order(OutlineRule(mode="iou_only")) == ["flat", "new", "tall"]


def test_an_item_without_outlines_keeps_its_cosine():
    scores = {hit.item_id: hit.score for hit in outlines_for(OutlineRule(weight=0.3), BY_ITEM).rerank(HITS, QUERY)}
    assert scores["new"] == 0.5
