"""Checkout evaluation: the demo's bundle reads rendered scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config.schema import EngineConfig
from edge.errors import TrainError
from trainer.evaluation.checkout_scenes import (
    LEVELS,
    choose_left_out,
    evaluate_checkout,
    render_scenes,
)
from trainer.synthetic.items import catalogue

DEMO = Path(__file__).parents[3] / "demo"
FEW = catalogue()[:6]


def test_scenes_depend_on_seed_and_fill_up_with_the_level():
    shown = {level: [len(one.objects) for one in render_scenes(level, 1, 0, FEW)] for level in LEVELS}
    assert shown["easy"] == [len(one.objects) for one in render_scenes("easy", 1, 0, FEW)]
    assert sum(shown["easy"]) < sum(shown["hard"])


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
