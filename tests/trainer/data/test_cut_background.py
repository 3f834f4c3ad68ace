"""`data.cut_to_mask`: training, the exported network and the device see the same object on white."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edge.errors import TrainError
from edge.inference.engine import open_engine
from edge.inference.stages import Embedder
from edge.telemetry.timing import Timings
from quantize.export import export_fp32
from quantize.network_spec import model_entry
from tests.trainer.toy import INPUT, classifier_recipe, embedder_recipe, localiser_recipe, write_crops
from trainer.data.crops import load_crops, predict
from trainer.data.cut_background import on_white
from trainer.model_setup import card_of, preprocess_of
from trainer.models.networks import build_model, load_model, save_model
from trainer.tasks.classifier import train_classifier
from trainer.tasks.embedder import train_embedders
from trainer.tasks.general_embedder import make_general_embedder

pytestmark = pytest.mark.usefixtures("one_thread")
STRETCH = INPUT | {"resize": "stretch"}


@pytest.fixture(scope="module")
def localiser(tmp_path_factory):
    """The run of a localiser whose masks are noise: they must only be the same everywhere."""
    folder = tmp_path_factory.mktemp("localiser")
    torch.manual_seed(3)
    recipe = localiser_recipe(folder / "none.csv", input=STRETCH)
    card = card_of(recipe, {}, backbone="", strides=[2])
    network = build_model(card)
    nn.init.constant_(network.fuse.weight, 8.0)  # masks with contrast
    save_model(folder, network, card)
    return folder


@pytest.fixture(scope="module")
def trained(localiser, tmp_path_factory):
    """An embedder that was trained on objects without background: its run, and its recipe."""
    folder = tmp_path_factory.mktemp("cut")
    recipe = embedder_recipe(write_crops(folder / "data"), epochs=1, heads=["class"], pairs=0.0, input=STRETCH)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cut_to_mask": localiser})})
    (card,) = train_embedders(recipe, folder / "run")
    return folder / "run", recipe, card


def test_objects_on_white_keep_their_share_of_each_pixel():
    picture = np.full((2, 2, 3), (10, 100, 200), np.uint8)
    shown = on_white(picture, np.array([[1.0, 0.0], [0.5, 1.0]], np.float32))
    assert shown.tolist() == [[[10, 100, 200], [255, 255, 255]], [[132, 178, 228], [10, 100, 200]]]


def test_trained_network_cuts_what_training_saw_without_background(trained):
    run, recipe, card = trained
    network, loaded = load_model(run)
    assert loaded == card
    assert card.cut_to_mask.kind == "localiser"
    assert card.preprocess.fill == 255
    whole = load_crops(recipe.data.model_copy(update={"cut_to_mask": None}), card.preprocess)
    cut = load_crops(recipe.data, card.preprocess)
    assert np.abs(cut.val_canvases.astype(int) - whole.val_canvases).mean() > 10
    by_network = predict(network, whole.val_canvases, card.preprocess)
    network.trunk.before = nn.Identity()
    np.testing.assert_allclose(by_network, predict(network, cut.val_canvases, card.preprocess), atol=0.02)
    assert np.abs(by_network - predict(network, whole.val_canvases, card.preprocess)).max() > 0.05


def test_training_pictures_are_cut_like_their_canvases(trained):
    _, recipe, card = trained
    cut = load_crops(recipe.data, card.preprocess)
    canvases = cut.cut.canvases(load_crops(recipe.data.model_copy(update={"cut_to_mask": None}),
                                           card.preprocess).train_canvases())  # fmt: skip
    apart = np.abs(cut.train_canvases().astype(int) - canvases)
    assert apart.mean() < 3  # the mask is resized with the picture


def test_device_cuts_the_background_of_an_exported_network(trained, tmp_path):
    run, recipe, _ = trained
    spec = export_fp32(run, tmp_path / "embedder.onnx")
    assert "cut_to_mask" in spec.record
    engine = open_engine(tmp_path / "embedder.onnx", "onnxruntime")
    embedder = Embedder(model_entry(spec, {"fp32": "embedder.onnx"}, "fp32", ""), engine)
    network, card = load_model(run)
    crops = load_crops(recipe.data.model_copy(update={"cut_to_mask": None}), card.preprocess)
    vectors = embedder.embed_whole(list(crops.val_canvases), Timings())
    np.testing.assert_allclose(vectors, predict(network, crops.val_canvases, card.preprocess), atol=1e-4)


def test_classifier_and_general_embedder_cut_the_background(localiser, tmp_path):
    index = write_crops(tmp_path / "data")
    data = {"index": index, "cut_to_mask": localiser}
    train_classifier(classifier_recipe(index, epochs=1, data=data, input=STRETCH), tmp_path / "classifier")
    recipe = embedder_recipe(index, heads=["class"], pairs=0.0, width=0, grid=1, input=STRETCH)
    weights = tmp_path / "weights.safetensors"
    write_weights(recipe, weights)
    backbone = recipe.backbone.model_copy(update={"pretrained": str(weights)})
    changes = {"backbone": backbone, "data": recipe.data.model_copy(update={"cut_to_mask": localiser})}
    make_general_embedder(recipe.model_copy(update=changes), tmp_path / "general")
    for run in "classifier", "general":
        network, card = load_model(tmp_path / run)
        assert card.cut_to_mask is not None
        x = torch.rand(1, 3, 32, 32)
        assert not torch.equal(network.trunk.before(x), x)


def write_weights(recipe, path):
    """Write random weights of the recipe's backbone as published ones."""
    from safetensors.torch import save_file

    from trainer.models.timm_library import timm

    save_file(timm.create_model(recipe.backbone.name, pretrained=False).state_dict(), path)


def test_fine_tuning_starts_from_a_run_with_or_without_background(trained, localiser, tmp_path):
    run, recipe, _ = trained
    data = recipe.data.model_copy(update={"cut_to_mask": None})
    (card,) = train_embedders(recipe.model_copy(update={"init_from": run, "data": data}), tmp_path / "back")
    assert card.cut_to_mask is None
    again = recipe.model_copy(update={"init_from": tmp_path / "back"})
    assert train_embedders(again, tmp_path / "again")[0].cut_to_mask is not None


def test_localiser_of_another_shape_or_kind_is_refused(trained, localiser, tmp_path):
    run, recipe, card = trained
    with pytest.raises(TrainError, match="this is a embedder; give the run folder of a localiser"):
        load_crops(recipe.data.model_copy(update={"cut_to_mask": run}), card.preprocess)
    letterbox = preprocess_of(recipe).model_copy(update={"resize": "letterbox"})
    with pytest.raises(TrainError, match="and the recipe has letterbox; set it to stretch"):
        load_crops(recipe.data, letterbox)
