"""A detector of two labels that always finds the same boxes, measured item by item."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dataset_formats.coco.reader import write_coco
from dataset_formats.records import Annotation, NamedBox
from edge.errors import TrainError
from edge.imaging.image import encode_image
from edge.manifest.model import Preprocess
from trainer.data.dataset import read_scenes
from trainer.evaluation import evaluate_models
from trainer.evaluation.evaluate_models import evaluate_detector
from trainer.tasks.detector_labels import detect_in_scenes

SPEC = Preprocess(width=64, height=32, resize="letterbox", interpolation="area")
CARD = SimpleNamespace(kind="detector", labels=["jam", "ale"], strides=[8], preprocess=SPEC)


class FixedDetector(nn.Module):
    """Finds an ale of 16x16 pixels around (12, 12), and a jam around (44, 12)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        maps = torch.full((len(x), 6, 4, 8), -9.0)
        maps[:, :4] = 1.0
        maps[:, 5, 1, 1] = 3.0
        maps[:, 4, 1, 5] = 2.0
        return [maps]


@pytest.fixture
def scenes(tmp_path):
    """Pictures of twice the canvas: both items right; an item that the detector lacks in the place of the jam."""
    ale, jam = (8.0, 8.0, 40.0, 40.0), (72.0, 8.0, 104.0, 40.0)
    boxes = [(NamedBox(ale, "ale"), NamedBox(jam, "jam")), (NamedBox(ale, "ale"), NamedBox(jam, "tea"))]
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(encode_image(np.zeros((64, 128, 3), np.uint8), ".png"))
    pictures = [Annotation(f"{number}.png", of, split="val") for number, of in enumerate(boxes)]
    write_coco(pictures, ["ale", "jam", "tea"], tmp_path / "scenes.json")
    return tmp_path / "scenes.json"


def test_true_boxes_get_the_labels_of_the_detector(scenes):
    listed, names = read_scenes(scenes, class_agnostic=False)
    assert names == ["ale", "jam", "tea"]
    found, truths, kept = detect_in_scenes(FixedDetector(), CARD, listed, names)
    assert [one.labels.tolist() for one in truths] == [[1, 0], [1, -1]]
    assert [sorted(one.labels.tolist()) for one in found] == [[0, 1], [0, 1]]
    assert truths[0].boxes_px[0].tolist() == [4, 4, 20, 20]  # on the canvas
    assert [one.path.name for one in kept] == ["0.png", "1.png"]


def test_detector_of_several_labels_is_evaluated_item_by_item(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate_models, "load_model", lambda _: (FixedDetector(), CARD))
    table = evaluate_detector(tmp_path, scenes, None, None)
    assert table["map50"] == 1.0  # whatever their labels
    assert table["by_item"]["ale"] == {"map50": 1.0, "map50_95": 1.0, "objects": 2.0}
    assert table["by_item"]["jam"]["objects"] == 1.0
    assert table["by_item"]["jam"]["map50"] == pytest.approx(1.0)  # the false one ranks after the right one
    assert table["item_map50"] == 1.0
    assert json.dumps(table)


def test_a_run_of_unreadable_pictures_spoils_no_other(scenes, caplog):
    listed, names = read_scenes(scenes, class_agnostic=False)
    absent = [replace(listed[0], path=scenes.parent / f"absent-{number}.png") for number in range(40)]
    _, truths, kept = detect_in_scenes(FixedDetector(), CARD, [*absent, listed[1]], names)
    assert ([one.path.name for one in kept], len(truths)) == (["1.png"], 1)
    assert sum("absent-" in line for line in caplog.messages) == 40
    with pytest.raises(TrainError, match=r"none of 40 pictures can be read; the first: .*absent-0\.png"):
        detect_in_scenes(FixedDetector(), CARD, absent, names)
