"""Checkout evaluation: the demo's bundle reads rendered scenes; measures are checked on short lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.config.schema import EngineConfig
from edge.errors import TrainError
from trainer.evaluation.checkout_scenes import (
    LEVELS,
    _match_boxes,
    checkout_accuracy,
    choose_left_out,
    count_items,
    counting_distance,
    evaluate_checkout,
    mean_category_distance,
    mean_category_iou,
    render_scenes,
)
from trainer.synthetic.items import catalogue

DEMO = Path(__file__).parents[3] / "demo"
FEW = catalogue()[:6]
ITEMS = ["ale", "jam", "tea"]
TRUE = count_items([{"ale": 2}, {"ale": 1, "jam": 1}], ITEMS)
FOUND = count_items([{"ale": 2}, {"jam": 3, "cat": 9}], ITEMS)


def test_scenes_depend_on_seed_and_fill_up_with_the_level():
    shown = {level: [len(one.objects) for one in render_scenes(level, 1, 0, FEW)] for level in LEVELS}
    assert shown["easy"] == [len(one.objects) for one in render_scenes("easy", 1, 0, FEW)]
    assert sum(shown["easy"]) < sum(shown["hard"])


def test_true_object_is_matched_once_by_the_best_box():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], np.float32)
    truth = np.array([[20, 20, 30, 30], [0, 0, 10, 10]], np.float32)
    assert _match_boxes(boxes, truth) == {1: 0}
    assert _match_boxes(boxes[:0], truth) == {}


def test_demo_bundle_reads_lists_and_rejects_left_out_items():
    left = choose_left_out(DEMO / "bundle", DEMO / "gallery", 0.2, 0)
    assert len(left) == 14
    table = evaluate_checkout(DEMO / "bundle", DEMO / "gallery", 1, 1, left, EngineConfig(backend="onnxruntime"))
    easy = table["easy"]
    assert easy["scenes"] == 1
    assert easy["mCIoU"] > 0.5
    assert easy["known"]["identified"] > 0.5
    for level in table.values():
        for sort in ("known", "unknown"):
            assert sum(level[sort].values()) == pytest.approx(1.0) or not any(level[sort].values())


def test_bundle_without_detector_is_rejected(tmp_path):
    import json
    import shutil

    folder = shutil.copytree(DEMO / "bundle", tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_text()) | {"detector": None}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match="has no detector"):
        evaluate_checkout(folder, DEMO / "gallery", 1, 0, [], EngineConfig(backend="onnxruntime"))


def test_lists_become_rows_of_known_items():
    assert FOUND.tolist() == [[2, 0, 0], [0, 3, 0]]


def test_list_is_right_only_as_a_whole():
    assert checkout_accuracy(FOUND, TRUE).tolist() == [1.0, 0.0]
    assert counting_distance(FOUND, TRUE).tolist() == [0.0, 3.0]


def test_category_distance_averages_over_shown_items():
    assert mean_category_distance(FOUND, TRUE) == pytest.approx((1 / 3 + 2 / 1) / 2)


def test_category_iou_averages_over_shown_or_found_items():
    assert mean_category_iou(FOUND, TRUE) == pytest.approx((2 / 3 + 1 / 3) / 2)
    invented = count_items([{"tea": 1}, {}], ITEMS)
    assert mean_category_iou(FOUND + invented, TRUE) == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)


def test_measures_of_empty_lists_are_numbers():
    nothing = np.zeros((2, 3), np.int64)
    assert mean_category_distance(nothing, nothing) == 0.0
    assert mean_category_iou(nothing, nothing) == 1.0
