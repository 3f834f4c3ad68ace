"""Data sets: what is listed, what is skipped, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.errors import TrainError
from edge.imaging.image import encode_image, read_image, trim
from edge.inference.preprocess import to_batch, to_canvas
from edge.manifest import Preprocess
from tests.trainer.toy import write_crops, write_index, write_scenes
from trainer.data.augment import augment_crop, augment_scene, canvases_to_input, confuse_regions, pad
from trainer.data.batches import pair_batches
from trainer.data.crops import load_crops, recalibrate_bn, recompute_bn_statistics
from trainer.data.dataset import read_samples, read_scenes
from trainer.data.pictures import load_canvases, load_pictures
from trainer.recipe import Augment, CropData

SPEC = Preprocess(width=32, height=48, resize="letterbox", interpolation="area", crop_margin=0.1)


def test_an_unreadable_picture_is_named_skipped_and_counted(tmp_path, caplog):
    index = write_crops(tmp_path)
    (tmp_path / "red-0-0.png").write_bytes(b"no picture")
    (tmp_path / "red-1-5.png").unlink()
    crops = load_crops(CropData(index=index), SPEC)
    assert 2 == len(crops.skipped) == crops.summary(CropData(index=index))["skipped"]
    assert "red-0-0.png" in caplog.text
    assert "red-1-5.png" in caplog.text
    assert len(crops.train) == 15


def test_training_canvases_may_be_smaller_than_the_device_has_them(tmp_path):
    crops = load_crops(CropData(index=write_crops(tmp_path)), SPEC, SPEC.model_copy(update={"width": 16, "height": 24}))
    varied = crops.augment(np.arange(3), Augment(), np.random.default_rng(0))
    assert crops.to_input(varied).shape == (3, 3, 24, 16)
    assert crops.val_canvases.shape[1:] == crops.train_canvases().shape[1:] == (48, 32, 3)


def test_an_empty_category_is_named(tmp_path):
    index = write_crops(tmp_path)
    with pytest.raises(TrainError, match=r"too few pictures of green \(0\)"):
        load_crops(CropData(index=index, categories=["red", "green"]), SPEC)


def test_an_item_with_too_few_pictures_for_pairs_is_named(tmp_path):
    index = write_crops(tmp_path)
    for number in range(3):
        (tmp_path / f"blue-1-{number}.png").write_bytes(b"")
    with pytest.raises(TrainError, match=r"too few pictures of blue-1 \(1\), expected at least 2"):
        load_crops(CropData(index=index), SPEC, each_item=2)


def test_an_empty_item_folder_is_named(tmp_path):
    (tmp_path / "jar" / "plum").mkdir(parents=True)
    with pytest.raises(TrainError, match=r"plum: found no picture"):
        read_samples(tmp_path)


def test_folders_of_category_and_item_are_read_with_every_fifth_held_out(tmp_path):
    for number in range(5):
        path = tmp_path / "jar" / "plum" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(np.zeros((4, 4, 3), np.uint8), ".png"))
    samples = read_samples(tmp_path)
    assert {("jar", "plum")} == {(s.category, s.item) for s in samples}
    assert [s.split for s in samples] == ["train"] * 4 + ["val"]


def test_an_index_may_say_coarse_and_fine(tmp_path):
    (tmp_path / "index.csv").write_text("path,split,coarse,fine\na.png,train,jar,plum\n")
    assert [(s.category, s.item) for s in read_samples(tmp_path / "index.csv")] == [("jar", "plum")]
    (tmp_path / "index.csv").write_text("path,split,kind\na.png,train,jar\n")
    with pytest.raises(TrainError, match=r"expected also \['category', 'item'\]"):
        read_samples(tmp_path / "index.csv")


def test_an_index_of_nothing_is_refused(tmp_path):
    write_index(tmp_path, [])
    with pytest.raises(TrainError, match=r"index\.csv"):
        read_samples(tmp_path)


def test_scenes_that_are_not_coco_are_refused(tmp_path):
    path = write_scenes(tmp_path, 3)
    scenes, labels = read_scenes(path)
    assert (len(scenes), labels) == (3, ["object"])
    assert read_scenes(path, class_agnostic=False)[1] == ["box"]
    path.write_text('{"images": [{"id": 1}]}')
    with pytest.raises(TrainError, match="not COCO"):
        read_scenes(path)


def test_the_canvas_of_evaluation_is_the_canvas_of_the_device(tmp_path):
    index = write_crops(tmp_path)
    samples, canvases, _ = load_canvases(read_samples(index), SPEC)
    device = to_batch(SPEC, [to_canvas(SPEC, read_image(sample.path))[0] for sample in samples])
    assert np.array_equal(device, canvases)
    x = canvases_to_input(canvases, SPEC.model_copy(update={"mean": (0.5,) * 3, "std": (0.25,) * 3}))
    expected = (device.transpose(0, 3, 1, 2) / 255.0 - 0.5) / 0.25
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-5)


def test_training_pictures_are_shrunk_and_say_by_how_much(tmp_path):
    pictures = load_pictures(read_samples(write_crops(tmp_path)), 20)
    assert {(20, 16, 3)} == {image.shape for image in pictures.images}
    assert {0.5} == set(pictures.scales)


def test_a_picture_on_a_plain_ground_is_cut_to_its_object():
    image = np.full((100, 100, 3), 250, np.uint8)
    image[20:60, 40:60] = 30
    assert trim(image, 0.1).shape == (48, 24, 3)
    busy = np.random.default_rng(0).integers(0, 255, (50, 50, 3)).astype(np.uint8)
    assert trim(busy, 0.1) is busy


def test_pair_batches_hold_neighbours_and_repeat_only_when_they_must():
    labels = np.repeat(np.arange(6), 3)
    nearest = np.array([[(i + step) % 6 for step in range(1, 6)] for i in range(6)])
    for batch in pair_batches(labels, 4, 3, 20, np.random.default_rng(0), nearest):
        drawn = labels[batch].reshape(4, 3)
        assert (drawn == drawn[:, :1]).all()
        assert len(np.unique(batch)) == 12
        assert {(drawn[0, 0] + 1) % 6, (drawn[0, 0] + 2) % 6} <= set(drawn[:, 0])
    few = pair_batches(labels, 2, 5, 1, np.random.default_rng(0))[0]
    assert len(few) == 10


def test_variation_keeps_the_border_of_the_letterbox():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (60, 20, 3)).astype(np.uint8)
    contents = [augment_crop(image, SPEC, Augment(), rng) for _ in range(8)]
    confused = confuse_regions(contents, SPEC, 4, 1, seed=1)
    for canvas, content, other in zip(pad(contents, SPEC), contents, confused, strict=True):
        assert content.shape == other.shape
        assert content.shape[0] == 48
        assert (canvas[:, content.shape[1] :] == SPEC.fill).all()
        assert (canvas[:, : content.shape[1]] == content).all()


def test_no_variation_gives_the_canvas_of_the_device():
    image = np.random.default_rng(4).integers(0, 255, (48, 32, 3)).astype(np.uint8)
    still = Augment(scale=(1, 1), shift=0, rotate_deg=0, perspective=0, colour=0, blur=0, noise=0, erase=0, stretch=0)
    content = augment_crop(image, SPEC, still, np.random.default_rng(0))
    assert np.abs(pad([content], SPEC)[0].astype(int) - to_canvas(SPEC, image)[0]).max() <= 1


def test_boxes_follow_their_scene():
    image = np.zeros((64, 96, 3), np.uint8)
    image[20:40, 30:60] = 255
    spec = Preprocess(width=96, height=64, resize="letterbox")
    still = Augment(scale=(0.8, 1.2), flip=True)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        canvas, boxes, seen = augment_scene(image, np.array([[30, 20, 60, 40]], np.float32), spec, still, rng)
        y, x = np.nonzero(canvas[..., 0] > 200)
        assert seen.all()
        np.testing.assert_allclose(boxes[0], [x.min(), y.min(), x.max() + 1, y.max() + 1], atol=1.5)


def test_statistics_are_those_of_pictures_as_the_device_sees_them(tmp_path):
    index = write_crops(tmp_path)
    plain, small = (
        load_crops(CropData(index=index), SPEC, SPEC.model_copy(update={"width": width})) for width in (SPEC.width, 16)
    )
    module = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten())
    module.eval()
    assert recalibrate_bn(module, plain, 0, lambda m: 0.0) is module  # nothing to settle where both sizes are one
    assert recalibrate_bn(module, small, 0, lambda m: float(m is module)) is module
    assert recalibrate_bn(module, small, 0, lambda m: float(m is not module)) is not module
    assert module[0].running_mean.tolist() == [0, 0, 0]
    recompute_bn_statistics(module, small, seed=0)
    pixels = canvases_to_input(small.train_canvases(), SPEC)
    torch.testing.assert_close(module[0].running_mean, pixels.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert not module[0].training
    assert module[0].momentum == 0.1
