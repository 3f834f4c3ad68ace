"""Training of embedders: what is trained, how it starts, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from edge.errors import TrainError
from tests.trainer.toy import INPUT, embedder_recipe, write_crops, write_index
from trainer.data.augment import canvases_to_input
from trainer.data.crops import load_crops
from trainer.embedder_recipe import EmbedderRecipe
from trainer.model_setup import card_of, preprocess_of
from trainer.models.networks import build_model, load_model
from trainer.tasks.embedder import SINGLE_ITEMS, EmbedderTask, train_embedders
from trainer.tasks.finetune import fit_projection, imprint_centres, load_centres

SOFTMAX = {"heads": ["class"], "pairs": 0.0}


def without(folder, *items):
    """Write the toy crops and list them without some items."""
    write_crops(folder)
    rows = [line.split(",") for line in (folder / "index.csv").read_text().splitlines()[1:]]
    write_index(folder, [tuple(row) for row in rows if row[3] not in items])
    return folder / "index.csv"


def test_only_category_with_one_item_joins_another(tmp_path, caplog):
    index = without(tmp_path / "data", "blue-1")
    cards = train_embedders(embedder_recipe(index, epochs=1, one_per_category=True, **SOFTMAX), tmp_path / "run")
    assert [card.categories for card in cards] == [["blue", "red"]]
    assert (tmp_path / "run" / "red" / "model.json").is_file()
    assert "blue: one item each, so that they share an embedder with others" in caplog.text


def test_categories_with_one_item_share_an_embedder(tmp_path):
    write_crops(tmp_path / "data")
    rows = [line.split(",") for line in (tmp_path / "data" / "index.csv").read_text().splitlines()[1:]]
    names = {"blue-0": "Jus d'orange 1 l", "blue-1": "果汁"}
    write_index(tmp_path / "data", [(row[0], row[1], names.get(row[3], row[2]), row[3]) for row in rows])
    recipe = embedder_recipe(tmp_path / "data" / "index.csv", epochs=1, one_per_category=True, **SOFTMAX)
    cards = train_embedders(recipe, tmp_path / "run")
    assert sorted(card.categories for card in cards) == [["Jus d'orange 1 l", "果汁"], ["red"]]
    assert sorted(card.parent.name for card in (tmp_path / "run").glob("*/model.json")) == ["red", SINGLE_ITEMS]


@pytest.mark.parametrize("key", ["teacher", "compatible_with"])
def test_summed_heads_imitate_summed_vectors(tmp_path, key):
    summed = {"joint": "sum", "heads": ["class", "outline"], "pairs": 0.0}
    index = write_crops(tmp_path / "data", per_item=3)
    train_embedders(embedder_recipe(index, epochs=1, **summed), tmp_path / "old")
    recipe = embedder_recipe(index, epochs=1, **summed, **{key: tmp_path / "old"})
    (card,) = train_embedders(recipe, tmp_path / "new")
    assert [part.dim for part in card.vector_parts] == [8]


def test_grid_finer_than_the_last_map_is_rejected(tmp_path):
    recipe = embedder_recipe(write_crops(tmp_path / "data"), grid=5, **SOFTMAX)
    with pytest.raises(TrainError, match="the last map of a 32x32 input has 4x4 cells; set grid to 4 or less"):
        train_embedders(recipe, tmp_path / "run")


def test_softmax_alone_trains_items_of_one_picture(tmp_path):
    index = write_crops(tmp_path / "data", per_item=2)
    write_index(index.parent, [(f"{c}-{i}-0.png", "train", c, f"{c}-{i}") for c in ("red", "blue") for i in (0, 1)])
    assert train_embedders(embedder_recipe(index, epochs=1, **SOFTMAX), tmp_path / "run")[0].data["train"] == 4
    with pytest.raises(TrainError, match="because training uses pairs"):
        train_embedders(embedder_recipe(index, epochs=1), tmp_path / "pairs")


@pytest.fixture
def task(tmp_path):
    recipe = embedder_recipe(write_crops(tmp_path), width=0, grid=1, **SOFTMAX)
    crops = load_crops(recipe.data, preprocess_of(recipe))
    card = card_of(recipe, {}, heads=[{"name": "class", "dim": recipe.dim}], categories=crops.categories)
    return EmbedderTask(recipe, crops, build_model(card), card)


def test_softmax_alone_shows_every_picture_once_an_epoch(task):
    task.begin_epoch(0, np.random.default_rng(0))
    shown = sorted(int(i) for batch in task.plan for i in batch)
    assert shown == list(range(len(task.crops.train)))


def test_centres_start_at_the_means_of_the_features(task):
    model, crops, centres = task.module.model, task.crops, task.centres(task.module)
    imprint_centres(model, centres, crops)
    with torch.no_grad():
        vectors = model.eval()(canvases_to_input(crops.train_canvases(), crops.spec))
    items = torch.from_numpy(crops.item_indices(crops.train))
    mean = normalize(vectors[items == 2].mean(dim=0), dim=0)
    assert torch.allclose(normalize(centres["class"][2], dim=0), mean, atol=1e-4)


def test_fitted_projection_keeps_the_cosines_of_vectors_and_centres(tmp_path):
    recipe = embedder_recipe(write_crops(tmp_path), width=0, grid=1, dim=24, fit_projection=True, **SOFTMAX)
    crops = load_crops(recipe.data, preprocess_of(recipe))
    card = card_of(recipe, {}, heads=[{"name": "class", "dim": recipe.dim}], categories=crops.categories)
    model = build_model(card).eval()
    model.defer_projection()
    task = EmbedderTask(recipe, crops, model, card)
    x = canvases_to_input(crops.train_canvases(), crops.spec)
    with torch.no_grad():
        imprint_centres(model, task.centres(task.module), crops)
        whole, centres = model(x), task.centres(task.module)["class"]
        cosines = whole @ whole.T, normalize(whole) @ normalize(centres, dim=1).T
        fitted = normalize(fit_projection(model, task.centres(task.module), crops, recipe.dim)["class"], dim=1)
        vectors = model(x)
    assert vectors.shape[1] == recipe.dim < whole.shape[1]
    assert torch.allclose(vectors @ vectors.T, cosines[0], atol=0.02)
    assert torch.allclose(vectors @ fitted.T, cosines[1], atol=0.02)


def test_embedder_from_published_weights_ends_with_its_projection(tmp_path):
    recipe = embedder_recipe(write_crops(tmp_path / "data"), epochs=1, width=0, grid=1, fit_projection=True, **SOFTMAX)
    (card,) = train_embedders(recipe, tmp_path / "run")
    network, _ = load_model(tmp_path / "run")
    assert not network.is_deferred
    assert network.part_dims == {"class": recipe.dim} == {head.name: head.dim for head in card.heads}
    assert next(iter(load_centres(tmp_path / "run")["class"].values())).shape == (recipe.dim,)


@pytest.mark.parametrize("loss", ["contrastive", "triplet", "crl", "proxy_anchor"])
def test_embedder_learns_with_another_loss_alone(tmp_path, loss):
    index = write_crops(tmp_path / "data", per_item=9)
    recipe = embedder_recipe(index, epochs=6, loss=loss, centre_lr=10.0, **SOFTMAX)
    card = train_embedders(recipe, tmp_path / "run")[0]
    header = (tmp_path / "run/metrics.csv").read_text().splitlines()[0]
    assert f"loss_{loss}" in header
    assert "class_anchor" not in header
    assert card.metrics["recall_1_train"] >= 0.75
    assert list(load_centres(tmp_path / "run")) == (["class"] if loss in {"crl", "proxy_anchor"} else [])


def test_feature_itself_is_the_vector_where_dim_is_0(tmp_path):
    recipe = embedder_recipe(write_crops(tmp_path / "data"), epochs=1, dim=0, pool="max_average", **SOFTMAX)
    (card,) = train_embedders(recipe, tmp_path / "run")
    network, saved = load_model(tmp_path / "run")
    length = recipe.width * (recipe.grid**2 + 1)
    assert [head.dim for head in card.heads] == [length] == list(network.part_dims.values())
    assert (saved.projection, network.is_deferred, dict(network.heads["class_head"].project.named_parameters())) == (
        False,
        False,
        {},
    )
    again = train_embedders(recipe.model_copy(update={"init_from": tmp_path / "run"}), tmp_path / "again")
    assert again[0].heads == card.heads


def test_published_weights_keep_their_batch_norm_statistics(tmp_path):
    def recipe(**backbone):
        return EmbedderRecipe(kind="embedder", data={"index": tmp_path}, backbone=backbone, input=INPUT)

    assert recipe(pretrained="hub").freezes_bn
    assert not recipe(pretrained="none").freezes_bn
    assert not recipe(pretrained="hub", freeze_bn=False).freezes_bn
