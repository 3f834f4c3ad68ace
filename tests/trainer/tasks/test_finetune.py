"""Fine-tuning from a base model: known centres are kept, new ones are imprinted, other categories stay."""

from __future__ import annotations

import hashlib

import pytest
import torch

from edge.errors import TrainError
from tests.trainer.toy import classifier_recipe, embedder_recipe, write_crops, write_index
from trainer import cli
from trainer.data.augment import canvases_to_input
from trainer.data.crops import load_crops
from trainer.model_setup import preprocess_of, train_spec_of
from trainer.models.networks import load_model
from trainer.tasks.classifier import train_classifier
from trainer.tasks.embedder import EmbedderTask, train_embedders
from trainer.tasks.finetune import base_run_of, finetune_recipe, init_from_run, load_centres, mean_directions

STILL = {"epochs": 1, "lr": 1e-12, "trunk_lr": 0.0, "ema": None, "device": "cpu", "weight_decay": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Embedders of two categories with two items each, and data with a third item of each."""
    folder = tmp_path_factory.mktemp("base")
    train_embedders(embedder_recipe(write_crops(folder / "old"), one_per_category=True), folder / "base")
    write_crops(folder / "new", items=3)
    return folder


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.*"))}


def test_centres_are_saved_beside_the_model(base):
    centres = load_centres(base / "base" / "red")
    assert set(centres) == {"class", "local", "outline"}
    assert set(centres["class"]) == {"red-0", "red-1"}
    assert centres["local"]["red-0"].shape == (8,)


def test_known_centres_are_kept_and_new_ones_imprinted(base):
    recipe = finetune_recipe(embedder_recipe(base / "new" / "index.csv"), None, ["red"])
    crops = load_crops(recipe.data, preprocess_of(recipe), train_spec_of(recipe))
    source, card = load_model(base / "base" / "red")
    task = EmbedderTask(recipe, crops, load_model(base / "base" / "blue")[0], card)
    init_from_run(base / "base" / "red", task.module.model, card, task.centres(task.module), crops)
    known = load_centres(base / "base" / "red")
    for head, rows in task.centres(task.module).items():
        assert crops.items == ["red-0", "red-1", "red-2"]
        assert torch.equal(rows[0], known[head]["red-0"])
        assert float(rows[2].detach().norm()) == pytest.approx(1.0, abs=1e-5)
    state = source.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in task.module.model.state_dict().items())
    with torch.no_grad():
        vectors = source.parts(canvases_to_input(crops.train_canvases(), crops.spec))["class"]
    third = [i for i, sample in enumerate(crops.train) if sample.item == "red-2"]
    expected = torch.nn.functional.normalize(vectors[third].sum(dim=0), dim=0)
    assert torch.allclose(task.centres(task.module)["class"][2], expected, atol=1e-4)


def test_mean_directions_weigh_every_picture_equally():
    vectors = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 5.0]])
    found = mean_directions(vectors, torch.tensor([0, 0, 1]), 2)
    assert torch.allclose(found, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]]))


def test_command_trains_only_the_chosen_category(base, tmp_path, capsys):
    before = hashes(base / "base")
    recipe = embedder_recipe(base / "new" / "index.csv", optimiser=STILL)
    config = tmp_path / "recipe.yaml"
    config.write_text(recipe.model_dump_json())
    arguments = ["embedder", "-c", str(config), "-o", str(tmp_path / "mine"), "--base", str(base / "base")]
    assert cli.main([*arguments, "--categories", "red"]) == 0
    assert hashes(base / "base") == before
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["red"]
    tuned, card = load_model(tmp_path / "mine" / "red")
    started = load_model(base / "base" / "red")[0]
    weights = [network.heads["class_head"].project.weight for network in (tuned, started)]
    assert torch.allclose(*weights, atol=1e-6)
    assert card.recipe["init_from"] == str(base / "base" / "red")
    assert card.data["items"] == 3
    assert cli.main([*arguments, "--categories", "green"]) == 1
    assert "green (0)" in capsys.readouterr().err


def test_base_run_of_a_folder_of_runs_and_of_a_run(base):
    assert base_run_of(base / "base", "red") == base / "base" / "red"
    assert base_run_of(base / "base" / "red", "shampoo") == base / "base" / "red"


def test_init_from_classifier_or_embedder_of_another_shape(base, tmp_path):
    index = base / "new" / "index.csv"
    train_classifier(classifier_recipe(index, epochs=1), tmp_path / "classifier")
    train_embedders(embedder_recipe(index, init_from=tmp_path / "classifier", optimiser=STILL), tmp_path / "run")
    trunk = load_model(tmp_path / "classifier")[0].trunk.state_dict()
    taken = load_model(tmp_path / "run")[0].trunk.state_dict()
    weights = [key for key in trunk if key.endswith("weight")]
    assert all(torch.allclose(trunk[key], taken[key], atol=1e-6) for key in weights)
    with pytest.raises(TrainError, match="differs from the recipe in heads"):
        train_embedders(embedder_recipe(index, init_from=base / "base" / "red", dim=16), tmp_path / "wide")


def test_single_item_can_be_added_to_a_category(base, tmp_path):
    rows = [(f"{base}/new/red-{item}-{n}.png", "train", "red", f"red-{item}") for item in (1, 2) for n in range(4)]
    write_index(tmp_path, rows)
    recipe = embedder_recipe(tmp_path / "index.csv", init_from=base / "base" / "red", optimiser=STILL)
    train_embedders(recipe, tmp_path / "run")
    assert set(load_centres(tmp_path / "run")["class"]) == {"red-1", "red-2"}
