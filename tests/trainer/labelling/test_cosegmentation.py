"""The common object of pictures: found for either sign of the component, and not where it is missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge.errors import TrainError
from edge.manifest.model import Preprocess
from tests.trainer.toy import BACKBONE
from trainer.labelling.cosegmentation import colocalise, load_feature_extractor
from trainer.models.backbone import create_trunk
from trainer.models.networks import ModelCard, build_model, save_model


def features(rng, count: int, share: float, flip: float = 1.0) -> list[np.ndarray]:
    """Maps of 8x8 cells of which the middle shows one thing, in `share` of the pictures."""
    ground, thing = rng.normal(size=(2, 16)).astype(np.float32)
    maps = []
    for number in range(count):
        cells = flip * ground + 0.3 * rng.normal(size=(8, 8, 16)).astype(np.float32)
        if number < share * count:
            cells[3:6, 2:6] += 2.5 * flip * (thing - ground)
        maps.append(cells.astype(np.float32))
    return maps


@pytest.mark.parametrize("flip", [1.0, -1.0])
@pytest.mark.parametrize("seed", range(4))
def test_common_object_is_above_zero(seed, flip):
    maps = features(np.random.default_rng(seed), 12, 0.75, flip)
    shown = [colocalise(maps).activation(one) for one in maps]
    for one in shown[:9]:
        assert one[3:6, 2:6].min() > 0.3
        assert one[:2].max() < 0.25
    for one in shown[9:]:
        assert one.max() < 0.25
    assert max(one.max() for one in shown) == pytest.approx(1.0)


def test_raw_descriptors_are_projected_as_published():
    """P = ξᵀ(x - x̄), with ξ the first principal component of the descriptors of all pictures, as they are."""
    maps = features(np.random.default_rng(1), 12, 0.75)
    rows = np.concatenate([one.reshape(-1, 16) for one in maps]).astype(np.float64)
    _, _, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    found = colocalise(maps, "raw")
    expected = (maps[0] - rows.mean(axis=0)) @ axes[0]
    expected *= -np.sign(expected[0].mean())  # the border is not the object
    np.testing.assert_allclose(found.projection(maps[0]), expected, atol=1e-4)
    assert not np.allclose(found.axis, colocalise(maps, "unit").axis, atol=0.02)


def test_picture_without_the_common_object_has_no_cell_above_zero():
    maps = features(np.random.default_rng(2), 12, 0.75)
    found = colocalise(maps, "raw")
    assert [bool((found.projection(one) > 0).any()) for one in maps] == [True] * 9 + [False] * 3


def test_too_few_descriptors_have_no_common_component():
    assert colocalise([]) is None
    assert colocalise([np.ones((1, 1, 4), np.float32)]) is None


def test_run_features_exclude_the_canvas_border(tmp_path):
    spec = Preprocess(width=64, height=64, resize="letterbox", interpolation="area", crop_margin=0.0)
    card = ModelCard(
        kind="detector", backbone=BACKBONE["name"], preprocess=spec, strides=[8, 16], width=8, labels=["x"]
    )
    save_model(tmp_path / "run", build_model(card), card)
    extractor = load_feature_extractor(tmp_path / "run", "ignored")
    rows, columns, _ = extractor.extract(np.full((100, 200, 3), 90, np.uint8)).shape
    assert columns == 2 * rows == 28
    with pytest.raises(TrainError, match="give a safetensors file or a run folder"):
        load_feature_extractor(tmp_path / "absent", "mobilenetv2_100")


def test_weights_from_a_file_give_features_at_stride_16(tmp_path):
    from safetensors.torch import save_file

    name = "mobilenetv2_035"
    torch.manual_seed(0)
    whole = create_trunk(name, None, "none", {"pad_type": ""}).network
    from trainer.models.timm_library import timm

    weights = timm.create_model(name, pretrained=False).state_dict() | whole.state_dict()
    save_file({key: value.contiguous() for key, value in weights.items()}, tmp_path / "w.safetensors")
    feature = load_feature_extractor(tmp_path / "w.safetensors", name, 0.5).extract(np.full((90, 90, 3), 90, np.uint8))
    assert feature.shape == (28, 28, 1280)
