"""Mixed precision: the trunk computes in bfloat16, everything else and all weights in float32. Stems of patches."""

from __future__ import annotations

import pytest
import torch

from edge.errors import TrainError
from tests.trainer.processes import card_of
from tests.trainer.toy import classifier_recipe, write_crops
from trainer.models.backbone import create_trunk, training_dtype, training_mode
from trainer.models.networks import build_model, load_model, save_model
from trainer.tasks.classifier import train_classifier

SMALL = "mobilenetv4_conv_small_050"


def test_auto_precision_is_bf16_on_gpu_and_fp32_on_cpu():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert [training_dtype("auto", cpu), training_dtype("auto", cuda)] == [None, torch.bfloat16]
    assert [training_dtype("bf16", cpu), training_dtype("fp32", cuda)] == [torch.bfloat16, None]


def test_only_the_trunk_is_lowered_and_only_training_mode():
    torch.manual_seed(0)
    model = build_model(card_of("classifier"))
    seen: list[torch.dtype] = []
    for convolution in (m for m in model.trunk.modules() if isinstance(m, torch.nn.Conv2d)):
        convolution.register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    x = torch.randn(4, 3, 32, 32)
    with training_mode([model.trunk], torch.bfloat16):
        lowered = model.train().trunk(x)[0]
        assert set(seen) == {torch.bfloat16}
        seen.clear()
        model.eval().trunk(x)
        assert set(seen) == {torch.float32}
    full = model.train().trunk(x)[0]
    assert lowered.dtype == torch.float32
    difference = (lowered - full).abs().mean() / full.abs().mean()
    assert 0 < difference < 0.05


def test_mixed_precision_training_ships_float32_weights(tmp_path):
    recipe = classifier_recipe(write_crops(tmp_path / "data", per_item=9), epochs=8)
    how = recipe.optimiser.model_copy(update={"precision": "bf16"})
    card = train_classifier(recipe.model_copy(update={"optimiser": how}), tmp_path / "run")
    assert card.metrics["accuracy"] == 1.0
    weights = load_model(tmp_path / "run")[0].state_dict()
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_patch_stem_keeps_the_maps_and_reads_each_pixel_once():
    torch.manual_seed(0)
    plain, patched = (create_trunk(SMALL, [4, 8, 16], options=options).eval() for options in ({}, {"patch_stem": True}))
    x = torch.randn(1, 3, 64, 96)
    assert [m.shape for m in patched(x)] == [m.shape for m in plain(x)]
    assert patched.channels == plain.channels
    stem = patched.network.conv_stem
    assert (stem.kernel_size, stem.stride, stem.padding) == ((4, 4), (4, 4), (0, 0))
    assert create_trunk(SMALL, options={"patch_stem": True}).eval()(x)[0].shape[2:] == (2, 3)


@pytest.mark.parametrize(("name", "strides"), [("mobilenetv2_050", [8]), ("resnet10t", [8]), (SMALL, [2, 8])])
def test_patch_stem_needs_two_strides_of_two(name, strides):
    with pytest.raises(TrainError, match="patch_stem needs a stem and a first stage of stride 2 each"):
        create_trunk(name, strides, options={"patch_stem": True})


def test_run_with_a_patch_stem_loads_and_one_without_still_does(tmp_path):
    for number, options in enumerate(({}, {"patch_stem": True})):
        card = card_of("classifier").model_copy(update={"backbone": SMALL, "backbone_options": options})
        save_model(tmp_path / str(number), build_model(card), card)
        network, loaded = load_model(tmp_path / str(number))
        assert loaded.backbone_options == options
        assert (network.trunk.network.conv_stem.kernel_size == (4, 4)) is bool(options)
