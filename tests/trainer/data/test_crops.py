"""Crops in memory: what is skipped, which category or item is missing, and batch-norm statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.errors import TrainError
from edge.imaging.image import encode_image
from edge.manifest.model import Preprocess
from tests.trainer.toy import write_crops, write_index
from trainer.data.augment import canvases_to_input
from trainer.data.crops import load_crops, recalibrate_bn, recompute_bn_statistics
from trainer.recipe_parts import Augment, CropData

SPEC = Preprocess(width=32, height=48, resize="letterbox", interpolation="area", crop_margin=0.1)


def test_unreadable_picture_is_named_skipped_and_counted(tmp_path, caplog):
    index = write_crops(tmp_path)
    (tmp_path / "red-0-0.png").write_bytes(b"no picture")
    (tmp_path / "red-1-5.png").write_bytes(b"")
    crops = load_crops(CropData(index=index), SPEC)
    assert 2 == len(crops.skipped) == crops.summary(CropData(index=index))["skipped"]
    assert "red-0-0.png" in caplog.text
    assert "red-1-5.png" in caplog.text
    assert len(crops.train) == 15


def test_training_canvases_may_be_smaller_than_the_devices(tmp_path):
    crops = load_crops(CropData(index=write_crops(tmp_path)), SPEC, SPEC.model_copy(update={"width": 16, "height": 24}))
    varied = crops.augment(np.arange(3), Augment(), np.random.default_rng(0))
    assert crops.to_input(varied).shape == (3, 3, 24, 16)
    assert crops.val_canvases.shape[1:] == crops.train_canvases().shape[1:] == (48, 32, 3)


def test_empty_category_is_named(tmp_path):
    index = write_crops(tmp_path)
    with pytest.raises(TrainError, match=r"too few pictures of green \(0\)"):
        load_crops(CropData(index=index, categories=["red", "green"]), SPEC)


def test_item_with_too_few_pictures_for_pairs_is_named(tmp_path):
    index = write_crops(tmp_path)
    for number in range(3):
        (tmp_path / f"blue-1-{number}.png").write_bytes(b"")
    with pytest.raises(TrainError, match=r"too few pictures of blue-1 \(1\); each needs at least 2"):
        load_crops(CropData(index=index), SPEC, each_item=2)


def test_bn_statistics_come_from_pictures_at_the_devices_size(tmp_path):
    index = write_crops(tmp_path)
    plain, small = (
        load_crops(CropData(index=index), SPEC, SPEC.model_copy(update={"width": width})) for width in (SPEC.width, 16)
    )
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten())
    module.eval()
    assert (
        recalibrate_bn(module, plain, 0, lambda m: 0.0) is module
    )  # nothing to recalibrate where both sizes are equal
    assert recalibrate_bn(module, small, 0, lambda m: float(m is module)) is module
    assert recalibrate_bn(module, small, 0, lambda m: float(m is not module)) is not module
    assert module[0].running_mean.tolist() == [0, 0, 0]
    recompute_bn_statistics(module, small, seed=0)
    pixels = canvases_to_input(small.train_canvases(), SPEC)
    torch.testing.assert_close(module[0].running_mean, pixels.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert not module[0].training
    assert module[0].momentum == 0.1


def test_pictures_keep_the_pixels_that_deep_cuts_need(tmp_path):
    picture = encode_image(np.zeros((300, 400, 3), np.uint8), ".png")
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(picture)
    write_index(tmp_path, [(f"{n}.png", "train", "red", "red-0") for n in range(2)])
    source, spec = CropData(index=tmp_path / "index.csv"), SPEC.model_copy(update={"height": 32, "resize": "stretch"})
    for cut, shape in (1.0, (32, 42)), (0.5, (60, 80)):
        image = load_crops(source, spec, smallest_cut=cut).images[0]
        assert image.shape[:2] == pytest.approx(shape, abs=1)
