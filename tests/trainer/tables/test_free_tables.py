"""The tables of methods without training, each filled on a tiny data set by its command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge.errors import TrainError
from edge.imaging.image import encode_image, resize
from tests.trainer.toy import COLOURS, write_crops
from trainer.cli import main
from trainer.models.timm_library import timm
from trainer.tables import ddt
from trainer.tables.ddt import DDT
from trainer.tables.scda import SCDA
from trainer.tables.table import Request

BACKBONE = "mobilenetv4_conv_small_050"


def fill(capsys, *arguments):
    """Fill a table by its command; return the means of each row."""
    assert main(["table", *map(str, arguments), "--backbone", BACKBONE]) == 0
    report = json.loads(capsys.readouterr().out)
    return {row["method"]: {name: one["mean"] for name, one in row["measures"].items()} for row in report["rows"]}


def test_scda_table_searches_tests_among_training_pictures(tmp_path, capsys):
    torch.manual_seed(0)
    weights = tmp_path / f"{BACKBONE}.safetensors"
    save_file(timm.create_model(BACKBONE).state_dict(), weights)
    data = write_crops(tmp_path / "data")
    rows = ["SCDA_flip+ whitened"]
    where = ["--data", data, "-o", tmp_path / "out", "--weights", weights, "--pixels", "32"]
    measured = fill(capsys, "scda", *where, "--methods", ",".join(rows))
    assert list(measured) == rows
    (measures,) = measured.values()
    assert set(SCDA.columns) <= set(measures)
    assert measures["top-1 mAP"] == measures["R@1"] > 0
    assert measures["dim"] == 8.0  # half of the sixteen training pictures
    assert len(SCDA.methods(Request(data, tmp_path))) == 9


def write_scenes(folder):
    """Write six scenes for each of two colours: one rectangle on grey noise."""
    rng = np.random.default_rng(6)
    tree = {"images": [], "annotations": [], "categories": [{"id": n, "name": one} for n, one in enumerate(COLOURS)]}
    for number in range(12):
        colour = list(COLOURS.values())[number % 2]
        image = rng.integers(100, 140, (96, 128, 3)).astype(np.uint8)
        x, y = int(rng.integers(10, 60)), int(rng.integers(10, 40))
        image[y : y + 40, x : x + 48] = colour
        (folder / f"{number}.png").write_bytes(encode_image(image, ".png"))
        tree["images"].append({"id": number, "file_name": f"{number}.png"})
        tree["annotations"].append({"image_id": number, "category_id": number % 2, "bbox": [x, y, 48, 40]})
    (folder / "scenes.json").write_text(json.dumps(tree))
    return folder / "scenes.json"


class ColourExtractor:
    """Features that are the colours of cells of 8x8 pixels."""

    def extract(self, image_rgb):
        return resize(image_rgb, image_rgb.shape[1] // 8, image_rgb.shape[0] // 8, "area").astype(np.float32)


def test_ddt_table_measures_boxes_and_noise(tmp_path, capsys, monkeypatch):
    scenes = write_scenes(tmp_path)
    monkeypatch.setattr(ddt, "_extractor", lambda _: ColourExtractor())
    where = ["--data", scenes, "-o", tmp_path / "out", "--weights", "none", "--seeds", "0"]
    measured = fill(capsys, "ddt", *where)
    assert list(measured) == list(DDT.methods(Request(scenes, tmp_path)))
    for method, measures in measured.items():
        assert set(measures) == ({"CorLoc", "mean IoU"} if method == "SCDA" else set(DDT.columns))
    for method in ("DDT", "DDT unit length"):
        assert measured[method]["CorLoc"] == 1.0
        assert 0.6 < measured[method]["mean IoU"] < measured[f"{method} from half"]["mean IoU"]
    assert measured["DDT"]["noise AUROC"] == 1.0  # a blue thing among red ones
    assert measured["DDT"]["pictures refused"] == 0.0


def test_ddt_reads_the_weights_and_pixels_of_the_request(tmp_path):
    request = Request(tmp_path, tmp_path, weights="none", backbone="mobilenetv2_035", pixels=64)
    assert ddt._extractor(request).extract(np.zeros((64, 64, 3), np.uint8)).shape == (4, 4, 1280)


def test_ddt_needs_two_pictures_of_a_class(tmp_path):
    scenes = write_scenes(tmp_path)
    tree = json.loads(scenes.read_text())
    tree["annotations"] = tree["annotations"][:2]
    scenes.write_text(json.dumps(tree))
    with pytest.raises(TrainError, match="no class has boxes in two pictures"):
        ddt._by_class(Request(scenes, tmp_path))
