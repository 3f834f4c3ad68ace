"""The localiser: its network, its loss, and a training that learns and resumes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.errors import TrainError
from tests.trainer.toy import localiser_recipe, masked_picture, optimiser, write_masks
from trainer.data.augment import augment_masked
from trainer.data.masks import MaskedPictures
from trainer.model_setup import preprocess_of
from trainer.models.localiser_network import Localiser
from trainer.models.networks import load_card, load_model
from trainer.recipe_parts import Augment
from trainer.tasks.localiser import LocaliserTask, iou_of_masks, mask_loss, train_localiser, true_masks

pytestmark = pytest.mark.usefixtures("one_thread")


def test_network_is_small_and_has_output_at_half_size():
    network = Localiser(12)
    assert sum(parameter.numel() for parameter in network.parameters()) < 500_000
    masks = network.all_masks(torch.zeros(2, 3, 64, 96))
    assert [tuple(mask.shape) for mask in masks] == [(2, 1, 32, 48)] * 6
    network.eval()
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(network(x), network.all_masks(x)[0])


def test_mask_loss_is_least_for_the_true_mask():
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1.0
    right, wrong, empty = (20.0 * (logit - 0.5) for logit in (mask, 1.0 - mask, torch.zeros_like(mask)))
    assert float(mask_loss(right, mask)) < 0.01
    assert float(mask_loss(wrong, mask)) > float(mask_loss(empty, mask)) > 1.0
    logits = torch.zeros(2, 1, 8, 8)
    both, either = 16 * 0.5, 16 + 48 * 0.5
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, mask) + 1 - (both + 1) / (either + 1)
    assert float(mask_loss(logits, mask)) == pytest.approx(float(expected))


def test_iou_of_masks_counts_cells():
    logits = np.full((1, 1, 4, 4), -1.0, np.float32)
    logits[..., :2] = 1.0
    mask = np.zeros((1, 4, 4), bool)
    mask[..., 1:3] = True
    assert iou_of_masks(logits, mask).tolist() == [pytest.approx(4 / 12)]


def test_mask_is_augmented_with_its_picture(tmp_path):
    picture, mask = masked_picture(np.random.default_rng(3))
    spec = preprocess_of(localiser_recipe(tmp_path / "none.csv"))
    how = Augment(flip=True, rotate_deg=25.0, colour=0.0, blur=0.0, noise=0.0, erase=0.0)
    for seed in range(8):
        content, cover = augment_masked(picture, mask, spec, how, np.random.default_rng(seed))
        bright = content[..., 0] > 170
        assert (bright & (cover >= 128)).sum() / (bright | (cover >= 128)).sum() > 0.9


def test_object_is_pasted_on_another_picture(tmp_path):
    picture, mask = masked_picture(np.random.default_rng(3))
    spec = preprocess_of(localiser_recipe(tmp_path / "none.csv"))
    still = Augment(scale=(1.0, 1.0), shift=0.0, stretch=0.0, rotate_deg=0.0, perspective=0.0, colour=0.0, blur=0.0,
                    noise=0.0, erase=0.0)  # fmt: skip
    blue = np.full((50, 90, 3), (0, 0, 200), np.uint8)
    content, cover = augment_masked(picture, mask, spec, still, np.random.default_rng(0), blue)
    assert np.abs(content[cover == 0].astype(int) - (0, 0, 200)).max() <= 1
    assert np.abs(content[cover == 255].astype(int) - (230, 200, 40)).max() <= 60  # resized from a noisy neighbourhood


def test_true_masks_have_the_size_of_the_output(tmp_path):
    picture, mask = masked_picture(np.random.default_rng(1))
    spec = preprocess_of(localiser_recipe(tmp_path / "none.csv"))
    (found,) = true_masks(MaskedPictures(images=[picture], masks=[mask]), spec)
    assert found.shape == (16, 16)
    assert not found[:, 13:].any()  # the letterbox: 32 of 40 wide
    assert found.mean() == pytest.approx((mask > 127).mean() * 0.8, abs=0.03)


def test_localiser_learns_and_reports_its_iou(tmp_path):
    how = optimiser(16, 8) | {"lr": 2e-2, "ema": None}
    plain = {"scale": (0.9, 1.1), "blur": 0.0, "colour": 0.0, "erase": 0.0}
    recipe = localiser_recipe(write_masks(tmp_path / "data", 36), paste=0.0, seed=2, augment=plain, optimiser=how)
    card = train_localiser(recipe, tmp_path / "run")
    assert card.metrics["iou"] > 0.6  # a mask of everything: 0.2
    assert card.metrics["images"] == 12
    low, high = card.metrics["iou_interval"]
    assert low <= card.metrics["iou"] <= high
    network, loaded = load_model(tmp_path / "run")
    assert isinstance(network, Localiser)
    assert (loaded.kind, loaded.strides, loaded.data["train"]) == ("localiser", [2], 24)


class Killed(BaseException):
    """Simulates the end of the process."""


def test_killed_training_resumes_to_the_same_weights(tmp_path, monkeypatch):
    recipe = localiser_recipe(write_masks(tmp_path / "data"), epochs=3)
    train_localiser(recipe, tmp_path / "whole")
    begin = LocaliserTask.begin_epoch

    def dies(self, epoch, rng):
        if epoch == 2:
            raise Killed
        begin(self, epoch, rng)

    with monkeypatch.context() as patch:
        patch.setattr(LocaliserTask, "begin_epoch", dies)
        with pytest.raises(Killed):
            train_localiser(recipe, tmp_path / "broken")
    train_localiser(recipe, tmp_path / "broken")
    assert (tmp_path / "broken/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    assert load_card(tmp_path / "broken").metrics == load_card(tmp_path / "whole").metrics


def test_input_size_that_does_not_divide_is_rejected(tmp_path):
    recipe = localiser_recipe(tmp_path / "none.csv", input={"width": 48, "height": 64})
    with pytest.raises(TrainError, match="input is 48x64, expected multiples of 32"):
        train_localiser(recipe, tmp_path)


def test_splits_without_masks_are_an_error(tmp_path):
    index = write_masks(tmp_path)
    recipe = localiser_recipe(index, data={"index": index, "train_splits": ["tune"]}, optimiser=optimiser(1))
    with pytest.raises(TrainError, match=r"no mask belongs to the splits \['tune'\]"):
        train_localiser(recipe, tmp_path / "run")


TRUNK = {"name": "mobilenetv4_conv_small_050", "pretrained": "none"}


def test_localiser_on_a_backbone_has_the_same_outputs(tmp_path):
    train_localiser(localiser_recipe(write_masks(tmp_path / "data"), epochs=1, backbone=TRUNK), tmp_path / "run")
    network, card = load_model(tmp_path / "run")
    assert (card.backbone, card.strides, card.preprocess.mean) == (TRUNK["name"], [2], (0.5, 0.5, 0.5))
    x = torch.rand(1, 3, 64, 96)
    assert [tuple(mask.shape) for mask in network.all_masks(x)] == [(1, 1, 32, 48)] * 6
    assert torch.equal(network(x), network.all_masks(x)[0])


def test_localiser_starts_from_a_run_of_its_shape(tmp_path):
    index = write_masks(tmp_path / "data")
    train_localiser(localiser_recipe(index, epochs=1), tmp_path / "first")
    still = optimiser(1, 4) | {"lr": 1e-9, "weight_decay": 0.0, "ema": None}
    train_localiser(localiser_recipe(index, init_from=tmp_path / "first", optimiser=still), tmp_path / "second")
    first, second = (load_model(tmp_path / run)[0].fuse.weight for run in ("first", "second"))
    torch.testing.assert_close(first, second)
    with pytest.raises(TrainError, match="differs from the recipe in width"):
        train_localiser(localiser_recipe(index, init_from=tmp_path / "first", width=8), tmp_path / "third")
    with pytest.raises(TrainError, match=r"backbone\.strides: a localiser reads every map; remove it"):
        train_localiser(localiser_recipe(index, backbone=TRUNK | {"strides": [8]}), tmp_path / "fourth")
