"""The till: rendered scenes, the demo's bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.config.schema import EngineConfig
from edge.errors import TrainError
from trainer.evaluation.checkout_scenes import LEVELS, _matched, judge_bundle, left_out_of, render
from trainer.synthetic.items import catalogue

DEMO = Path(__file__).parents[3] / "demo"
FEW = catalogue()[:6]


def test_scenes_are_the_same_for_a_seed_and_fuller_from_level_to_level():
    shown = {level: [len(one.objects) for one in render(level, 1, 0, FEW)] for level in LEVELS}
    assert shown["easy"] == [len(one.objects) for one in render("easy", 1, 0, FEW)]
    assert sum(shown["easy"]) < sum(shown["hard"])


def test_a_true_object_is_matched_once_by_the_surest_box():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]], np.float32)
    truth = np.array([[20, 20, 30, 30], [0, 0, 10, 10]], np.float32)
    assert _matched(boxes, truth) == {1: 0}
    assert _matched(boxes[:0], truth) == {}


def test_the_demo_reads_lists_and_tells_what_it_lacks():
    left = left_out_of(DEMO / "bundle", DEMO / "gallery", 0.2, 0)
    assert len(left) == 14
    table = judge_bundle(DEMO / "bundle", DEMO / "gallery", 1, 1, left, EngineConfig(backend="onnxruntime"))
    easy = table["easy"]
    assert easy["scenes"] == 1
    assert easy["mCIoU"] > 0.5
    assert easy["known"]["identified"] > 0.5
    for level in table.values():
        for sort in ("known", "unknown"):
            assert sum(level[sort].values()) == pytest.approx(1.0) or not any(level[sort].values())


def test_a_bundle_without_detector_cannot_read_lists(tmp_path):
    import json
    import shutil

    folder = shutil.copytree(DEMO / "bundle", tmp_path / "bundle")
    manifest = json.loads((folder / "bundle.json").read_text()) | {"detector": None}
    (folder / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(TrainError, match="found no detector"):
        judge_bundle(folder, DEMO / "gallery", 1, 0, [], EngineConfig(backend="onnxruntime"))
