"""Predictions while items are left out, compared with the device's own decision."""

import numpy as np
import pytest

from edge.manifest.embedder import OpenSet
from edge.recognition.decision import decide
from edge.types import Category, Hit
from quantize.open_set.leave_items_out import ScoredCrop, leave_items_out

ITEMS = {"box": ["a", "b", "c", "same"], "can": ["d", "e", "same"], "jar": ["f"]}


def decided(crop, left_out):
    """Return what a device decides without a threshold."""
    hits = {
        name: [
            Hit(item, item, float(score))
            for item, score in zip(ITEMS[name], crop.scores[name], strict=True)
            if (name, item) not in left_out
        ]
        for name in crop.scores
    }
    hits = {name: found for name, found in hits.items() if found}
    decision = decide(crop.categories, hits, dict.fromkeys(hits, OpenSet(threshold=-1.0)))
    if decision.match is None:
        return "", -1.0, False
    right = (decision.category.name, decision.match.item_id) == (crop.category, crop.item)
    return decision.category.name, decision.match.score, right


def test_predictions_are_the_decisions_of_a_device():
    rng = np.random.default_rng(0)
    pairs = [(category, item) for category, items in ITEMS.items() for item in [*items, "new"]]
    crops = []
    for category, item in pairs * 5:
        names = list(rng.permutation(list(ITEMS)))[: rng.integers(0, 4)]
        found = [Category(name, float(rng.choice([0.1, 0.5, 0.5]))) for name in names]
        scores = {name: rng.normal(0.6, 0.2, len(ITEMS[name])).round(1).astype(np.float32) for name in names}
        crops.append(ScoredCrop(category, item, found, scores))
    predictions = leave_items_out(crops, ITEMS, rounds=6, share=0.4)
    every = sorted((item, category) for category, items in ITEMS.items() for item in items)
    draws = np.random.default_rng(0)
    for number in range(6):
        chosen = draws.choice(len(every), round(0.4 * len(every)), replace=False)
        left_out = {(every[i][1], every[i][0]) for i in chosen}
        for row, crop in enumerate(crops, start=number * len(crops)):
            category, score, right = decided(crop, left_out)
            assert predictions.category[row] == category
            assert predictions.score[row] == pytest.approx(score)
            assert predictions.correct[row] == right
            assert predictions.known[row] == ((crop.category, crop.item) in {(c, i) for i, c in every} - left_out)


def test_no_picture_and_no_gallery_give_no_prediction():
    assert len(leave_items_out([], ITEMS).score) == 0
    assert len(leave_items_out([ScoredCrop("box", "a", [], {})], {}).score) == 0


def test_rounds_of_one_picture_count_as_one_picture():
    crop = ScoredCrop("box", "a", [Category("box", 1.0)], {"box": np.array([0.9, 0.5, 0.4, 0.3], np.float32)})
    predictions = leave_items_out([crop, crop], ITEMS)
    assert len(predictions.score) == 40
    assert predictions.pictures(predictions.correct) == 2
