"""Mixed precision: the trunk computes in bfloat16, everything else and all weights in float32."""

from __future__ import annotations

import torch

from tests.trainer.processes import card_of
from tests.trainer.toy import classifier_recipe, write_crops
from trainer.models.backbone import training_dtype, training_mode
from trainer.models.networks import build_model, load_model
from trainer.tasks.classifier import train_classifier


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
