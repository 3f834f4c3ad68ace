"""Augmentation: crops, scenes and their boxes, and region confusion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.imaging.image import read_image
from edge.inference.preprocess import to_batch, to_canvas
from edge.manifest.model import Preprocess
from tests.trainer.toy import write_crops
from trainer.data.augment import (
    augment_crop,
    augment_scene,
    canvases_to_input,
    confuse_regions,
    pad,
    region_confusion,
    shuffled_positions,
)
from trainer.data.dataset import read_samples
from trainer.data.pictures import load_canvases
from trainer.recipe_parts import Augment

SPEC = Preprocess(width=32, height=48, resize="letterbox", interpolation="area", crop_margin=0.1)


def test_augmentation_keeps_the_letterbox_border():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (60, 20, 3)).astype(np.uint8)
    contents = [augment_crop(image, SPEC, Augment(), rng) for _ in range(8)]
    confused = confuse_regions(contents, SPEC, 4, 1, seed=1)
    for canvas, content, other in zip(pad(contents, SPEC), contents, confused, strict=True):
        assert content.shape == other.shape
        assert content.shape[0] == 48
        assert (canvas[:, content.shape[1] :] == SPEC.fill).all()
        assert (canvas[:, : content.shape[1]] == content).all()


def test_no_augmentation_gives_the_device_canvas():
    image = np.random.default_rng(4).integers(0, 255, (48, 32, 3)).astype(np.uint8)
    still = Augment(scale=(1, 1), shift=0, rotate_deg=0, perspective=0, colour=0, blur=0, noise=0, erase=0, stretch=0)
    content = augment_crop(image, SPEC, still, np.random.default_rng(0))
    assert np.abs(pad([content], SPEC)[0].astype(int) - to_canvas(SPEC, image)[0]).max() <= 1


def test_boxes_follow_the_augmented_scene():
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


def test_validation_canvas_equals_device_canvas(tmp_path):
    index = write_crops(tmp_path)
    samples, canvases, _ = load_canvases(read_samples(index), SPEC)
    device = to_batch(SPEC, [to_canvas(SPEC, read_image(sample.path))[0] for sample in samples])
    assert np.array_equal(device, canvases)
    x = canvases_to_input(canvases, SPEC.model_copy(update={"mean": (0.5,) * 3, "std": (0.25,) * 3}))
    expected = (device.transpose(0, 3, 1, 2) / 255.0 - 0.5) / 0.25
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-5)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("blocks", "neighbourhood"), [(4, 1), (7, 2), (5, 3)])
def test_block_moves_less_than_twice_the_neighbourhood(blocks, neighbourhood):
    home = torch.arange(blocks)
    for seed in range(30):
        rows, columns = shuffled_positions(blocks, neighbourhood, seeded(seed))
        assert (rows - home[:, None]).abs().max() < 2 * neighbourhood
        assert (columns - home[None, :]).abs().max() < 2 * neighbourhood


def test_shuffle_is_a_permutation():
    rows, columns = shuffled_positions(6, 2, seeded())
    assert sorted((rows * 6 + columns).flatten().tolist()) == list(range(36))


def test_region_confusion_without_crop_keeps_every_pixel():
    images = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).reshape(2, 3, 16, 16)
    confused = region_confusion(images, 4, 1, seeded(), crop=0.0)
    assert not torch.equal(images, confused)
    torch.testing.assert_close(confused.flatten(1).sort(dim=1).values, images.flatten(1).sort(dim=1).values)


def test_blocks_without_shuffle_are_only_flipped():
    images = torch.rand(1, 1, 8, 8, generator=seeded(1))
    confused = region_confusion(images, 2, 0, seeded(2), crop=0.0)
    for y in (0, 4):
        for x in (0, 4):
            block, found = images[0, 0, y : y + 4, x : x + 4], confused[0, 0, y : y + 4, x : x + 4]
            assert any(torch.equal(found, block.flip(dims)) for dims in ((), (0,), (1,), (0, 1)))


def test_region_confusion_stays_within_the_pixel_range():
    images = torch.rand(2, 3, 32, 32, generator=seeded(3))
    confused = region_confusion(images, 4, 1, seeded(4), crop=0.3)
    assert confused.shape == images.shape
    assert confused.min() >= images.min()
    assert confused.max() <= images.max()


def test_region_confusion_depends_on_its_seed_alone():
    images = torch.rand(2, 3, 16, 16, generator=seeded(5))
    first = region_confusion(images, 4, 1, seeded(6))
    assert torch.equal(first, region_confusion(images, 4, 1, seeded(6)))
    assert not torch.equal(first, region_confusion(images, 4, 1, seeded(7)))
