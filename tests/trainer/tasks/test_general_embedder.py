"""A general embedder: what whitening keeps and weakens, and that its run folder is one like any other."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import linear, normalize

from edge.errors import TrainError
from tests.trainer.toy import embedder_recipe, write_crops
from trainer.models.networks import load_model
from trainer.tasks.general_embedder import make_general_embedder, whitening


def vectors(per_item, items=10, channels=12, spread=3.0):
    """Return items that differ in two directions, and pictures that differ more in a third."""
    torch.manual_seed(0)
    labels = torch.arange(items).repeat_interleave(per_item)
    x = 0.05 * torch.randn(len(labels), channels)
    x[:, 0] += torch.cos(0.63 * labels)
    x[:, 1] += torch.sin(0.63 * labels)
    x[:, 2] += spread * torch.randn(len(labels))
    return x, labels


def nearest_is_right(x, labels):
    cosines = normalize(x) @ normalize(x).T
    return (labels[cosines.fill_diagonal_(-2).argmax(dim=1)] == labels).float().mean()


def test_whitening_weakens_what_varies_within_items():
    x, labels = vectors(20)
    whitened = linear(x, *whitening(x, labels, 8))
    assert whitened.shape == (200, 8)
    assert nearest_is_right(x, labels) < nearest_is_right(whitened, labels)


@pytest.mark.parametrize("per_item", [1, 2])
def test_whitening_of_few_pictures_is_finite(per_item):
    x, labels = vectors(per_item)
    whitened = linear(x, *whitening(x, labels, 24))
    assert whitened.isfinite().all()


def test_unknown_vectors_keep_their_distance():
    x, labels = vectors(2)
    weight, bias = whitening(x, labels, 24)
    unknown = torch.randn(50, 12)
    whole = linear(unknown, *whitening(x, labels, 12))
    assert torch.allclose(linear(unknown, weight, bias).norm(dim=1), whole.norm(dim=1), rtol=1e-3)


def test_general_embedder_is_a_run_of_all_categories(tmp_path):
    recipe = embedder_recipe(write_crops(tmp_path / "data"), dim=16)
    with pytest.raises(TrainError, match="needs published weights"):
        make_general_embedder(recipe, tmp_path / "none")
    network, _ = load_model(make_run(tmp_path, recipe))
    assert network.part_dims == {"class": 16}


def make_run(tmp_path, recipe):
    from safetensors.torch import save_file

    from trainer.models.backbone import create_trunk

    backbone = recipe.backbone.model_copy(update={"strides": None})
    torch.manual_seed(1)
    trunk = create_trunk(backbone.name, options=backbone.options)
    weights = {key: value.contiguous() for key, value in trunk.network.state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    backbone = backbone.model_copy(update={"pretrained": str(tmp_path / "weights.safetensors")})
    card = make_general_embedder(recipe.model_copy(update={"backbone": backbone}), tmp_path / "run")
    assert card.categories == ["blue", "red"]
    assert card.metrics["recall_1_train"] >= 0
    return tmp_path / "run"
