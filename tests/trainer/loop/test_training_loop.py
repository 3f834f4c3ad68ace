"""The training loop: it learns, resumes exactly, and stops on a loss that is not finite."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch

from edge.errors import TrainError
from tests.trainer.toy import (
    BACKBONE,
    INPUT,
    classifier_recipe,
    detector_recipe,
    embedder_recipe,
    optimiser,
    write_crops,
    write_index,
    write_scenes,
)
from trainer.data.augment import canvases_to_input
from trainer.data.dataset import choose, read_samples
from trainer.data.pictures import load_canvases
from trainer.loop.checkpoint import CHECKPOINT_FILE
from trainer.loop.training_loop import choose_device
from trainer.models.networks import ClassifierWithDescriptor, build_model, load_card, load_model
from trainer.tasks import detector
from trainer.tasks.classifier import ClassifierTask, train_classifier
from trainer.tasks.detector import train_detector
from trainer.tasks.embedder import EmbedderTask, train_embedders
from trainer.tasks.finetune import finetune_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def table(out) -> list[dict[str, str]]:
    """metrics.csv without the clock."""
    with (out / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


class Killed(BaseException):
    """Simulates the end of the process."""


def kill_in(monkeypatch, task_class, epoch: int) -> None:
    begin = task_class.begin_epoch

    def dies(self, now, rng):
        if now == epoch:
            raise Killed
        begin(self, now, rng)

    monkeypatch.setattr(task_class, "begin_epoch", dies)


def test_killed_run_resumes_to_the_same_weights(tmp_path, monkeypatch):
    recipe = embedder_recipe(write_crops(tmp_path / "data"), epochs=4)
    train_embedders(recipe, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        kill_in(patch, EmbedderTask, 2)
        with pytest.raises(Killed):
            train_embedders(recipe, tmp_path / "killed")
    assert len(table(tmp_path / "killed")) == 2
    train_embedders(recipe, tmp_path / "killed")
    assert table(tmp_path / "unbroken") == table(tmp_path / "killed")
    one, other = (load_model(tmp_path / name)[0].state_dict() for name in ("unbroken", "killed"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_tiny_classifier_learns_and_writes_table_curves_and_card(tmp_path):
    index = write_crops(tmp_path / "data", per_item=9)
    card = train_classifier(classifier_recipe(index, epochs=8), tmp_path / "run")
    rows = table(tmp_path / "run")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert card.metrics["accuracy"] == 1.0
    assert card.labels == ["blue", "red"]
    assert {"loss_category", "loss_item", "item_accuracy"} <= set(rows[-1])
    assert (tmp_path / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert card == load_card(tmp_path / "run")
    assert (len(card.data["categories"]), card.data["train"], card.data["val"]) == (2, 24, 12)


def test_descriptor_as_long_as_the_data_keeps_all_distances(tmp_path):
    index = write_crops(tmp_path / "data", per_item=9)
    train_classifier(classifier_recipe(index, descriptor_dim=24), tmp_path / "run")
    model, card = load_model(tmp_path / "run")
    canvases = load_canvases(choose(read_samples(index), ["train"], None), card.preprocess)[1]
    x = canvases_to_input(canvases, card.preprocess)
    with torch.no_grad():
        pooled = model.trunk(x)[-1].mean(dim=(2, 3))
        logits, descriptor = ClassifierWithDescriptor(model)(x)
        torch.testing.assert_close(logits, model(x))
    assert descriptor.shape == (24, card.descriptor_dim)
    torch.testing.assert_close(torch.cdist(descriptor, descriptor), torch.cdist(pooled, pooled), rtol=1e-2, atol=1e-3)
    assert descriptor.mean(dim=0).abs().max() < 1e-2 * descriptor.abs().max()


def test_descriptor_does_not_change_the_training(tmp_path):
    index = write_crops(tmp_path / "data", per_item=6)
    for dim in (0, 8):
        train_classifier(classifier_recipe(index, descriptor_dim=dim), tmp_path / f"run-{dim}")
    without, beside = (load_model(tmp_path / f"run-{dim}")[0].state_dict() for dim in (0, 8))
    assert set(beside) - set(without) == {"descriptor.weight", "descriptor.bias"}
    assert all(torch.equal(without[key], beside[key]) for key in without)


@pytest.mark.parametrize(("dim", "fault"), [(25, "24 training pictures"), (33, "32 channels")])
def test_descriptor_longer_than_the_data_is_rejected(tmp_path, dim, fault):
    index = write_crops(tmp_path / "data", per_item=9 if dim == 25 else 15)
    with pytest.raises(TrainError, match=f"found {fault}, expected at least descriptor_dim = {dim}"):
        train_classifier(classifier_recipe(index, descriptor_dim=dim), tmp_path / "run")


def test_tiny_detector_learns(tmp_path):
    quick = optimiser(epochs=10, batch=4) | {"lr": 1e-2}
    recipe = detector_recipe(write_scenes(tmp_path / "data"), optimiser=quick)
    card = train_detector(recipe, tmp_path / "run")
    rows = table(tmp_path / "run")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert card.metrics["map50"] > 0.2
    assert 0.2 <= card.score_threshold <= 0.6
    assert card.metrics["images"] == 12


def test_embedders_start_from_the_trunk_of_the_classifier(tmp_path):
    index = write_crops(tmp_path / "data")
    train_classifier(classifier_recipe(index, epochs=1), tmp_path / "classifier")
    recipe = embedder_recipe(
        index,
        epochs=1,
        one_per_category=True,
        init_from=tmp_path / "classifier",
        optimiser={"epochs": 1, "trunk_lr": 0.0, "ema": None, "device": "cpu", "weight_decay": 0.0},
        backbone=classifier_recipe(index).backbone.model_copy(update={"freeze_bn": True}),
    )
    cards = train_embedders(recipe, tmp_path / "embedders")
    assert [card.categories for card in cards] == [["blue"], ["red"]]
    source = load_model(tmp_path / "classifier")[0].trunk.state_dict()
    taken = load_model(tmp_path / "embedders" / "red")[0].trunk.state_dict()
    assert all(torch.equal(source[key], taken[key]) for key in source)


def test_trunk_of_another_shape_is_rejected(tmp_path):
    index = write_crops(tmp_path / "data")
    train_classifier(classifier_recipe(index, epochs=1), tmp_path / "classifier")
    backbone = {"name": "mobilenetv4_conv_small_050", "strides": [16]}
    recipe = embedder_recipe(index, init_from=tmp_path / "classifier", backbone=backbone, grid=2)
    with pytest.raises(TrainError, match="differs from the recipe in strides"):
        train_embedders(recipe, tmp_path / "run")


def test_nan_loss_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    recipe = classifier_recipe(write_crops(tmp_path / "data"), epochs=3)
    loss = ClassifierTask.loss

    def breaks(self, tensors, done):
        parts = loss(self, tensors, done)
        return {key: value * (float("nan") if done >= 0.5 else 1.0) for key, value in parts.items()}

    monkeypatch.setattr(ClassifierTask, "loss", breaks)
    with pytest.raises(TrainError, match=r"loss is nan in epoch 2, batch 1 .*data/(red|blue).*holds epoch 1"):
        train_classifier(recipe, tmp_path / "run")
    assert torch.load(tmp_path / "run" / CHECKPOINT_FILE, weights_only=True)["epoch"] == 1


def test_checkpoint_of_another_recipe_or_damaged_is_rejected(tmp_path):
    index = write_crops(tmp_path / "data")
    train_classifier(classifier_recipe(index, epochs=1), tmp_path / "run")
    with pytest.raises(TrainError, match="another recipe"):
        train_classifier(classifier_recipe(index, epochs=2), tmp_path / "run")
    (tmp_path / "run" / CHECKPOINT_FILE).write_bytes(b"half a file")
    with pytest.raises(TrainError, match="cannot resume"):
        train_classifier(classifier_recipe(index, epochs=1), tmp_path / "run")


def test_error_while_making_a_batch_ends_the_run(tmp_path, monkeypatch):
    recipe = classifier_recipe(write_crops(tmp_path / "data"))

    def fails(self, step, rng):
        raise TrainError("batch 0: nothing to show")

    monkeypatch.setattr(ClassifierTask, "batch", fails)
    with pytest.raises(TrainError, match="nothing to show"):
        train_classifier(recipe, tmp_path / "run")


def test_embedder_needs_two_items(tmp_path):
    index = write_crops(tmp_path / "data", items=1)
    recipe = finetune_recipe(embedder_recipe(index), None, ["red"])
    with pytest.raises(TrainError, match="an embedder needs two or more items"):
        train_embedders(recipe, tmp_path / "run")


def test_classifier_needs_two_categories(tmp_path):
    index = write_crops(tmp_path / "data")
    recipe = classifier_recipe(index, data={"index": index, "categories": ["red"]})
    with pytest.raises(TrainError, match="a classifier needs two or more categories"):
        train_classifier(recipe, tmp_path / "run")


def test_pair_losses_are_ramped_in(tmp_path):
    recipe = embedder_recipe(write_crops(tmp_path / "data"), epochs=4, pair_ramp=(0.5, 1.0))
    train_embedders(recipe, tmp_path / "run")
    rows = table(tmp_path / "run")
    assert rows[0]["loss_class_pairs"] == ""
    assert float(rows[-1]["loss_class_pairs"]) > 0


def test_missing_gpu_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainError, match="there is no CUDA device"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"


def test_cell_learns_the_smallest_box_around_it():
    from edge.manifest.model import Preprocess

    cells = detector.cells_of(Preprocess(width=64, height=64), [8, 16])
    boxes = np.array([[0, 0, 64, 64], [20, 20, 36, 36]], np.float32)
    owner = detector.assign(cells, boxes, 1.5)
    at = {tuple(centre): int(who) for centre, who in zip(cells.centres_px[:64], owner[:64], strict=True)}
    assert at[(28.0, 28.0)] == 1
    assert at[(4.0, 4.0)] == -1
    assert {0} == set(owner[64:]) - {-1}  # the large one belongs to the coarser map
    assert (detector.assign(cells, np.zeros((0, 4), np.float32), 1.5) == -1).all()


def test_unreadable_picture_is_skipped(tmp_path):
    index = write_crops(tmp_path / "data")
    (tmp_path / "data" / "red-0-0.png").write_bytes(b"")
    assert train_classifier(classifier_recipe(index, epochs=1), tmp_path / "run").data["skipped"] == 1


def test_no_readable_picture_is_an_error(tmp_path):
    write_index(tmp_path, [("a.png", "train", "red", "red-0"), ("b.png", "train", "blue", "blue-0")])
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(TrainError, match="none of 2 pictures can be read"):
        train_classifier(classifier_recipe(tmp_path / "index.csv"), tmp_path / "run")


def test_frozen_stages_keep_the_published_weights(tmp_path):
    index = write_crops(tmp_path / "crops")
    train_classifier(classifier_recipe(index, backbone=BACKBONE | {"frozen_stages": 1}), tmp_path / "held")
    train_classifier(classifier_recipe(index, backbone=BACKBONE | {"frozen_stages": 0}), tmp_path / "free")
    torch.manual_seed(0)
    fresh = build_model(load_card(tmp_path / "held"))
    held, free = (load_model(tmp_path / name)[0] for name in ("held", "free"))
    stem = "trunk.network.conv_stem.weight"
    assert torch.equal(held.state_dict()[stem], fresh.state_dict()[stem])
    assert not torch.equal(free.state_dict()[stem], fresh.state_dict()[stem])


def test_detector_needs_strides_and_no_training_size(tmp_path):
    scenes = write_scenes(tmp_path / "scenes")
    with pytest.raises(TrainError, match=r"backbone\.strides is missing"):
        train_detector(detector_recipe(scenes, backbone=BACKBONE | {"strides": None}), tmp_path / "out")
    with pytest.raises(TrainError, match="train_width"):
        train_detector(detector_recipe(scenes, input={"width": 96, "height": 64, "train_width": 64}), tmp_path / "out")


PUBLISHED = {"name": "sgd", "lr": 1e-3, "schedule": "plateau", "watch": "loss_val", "ema": None, "batch": 8}
PUBLISHED |= {"evaluate_every": 1, "device": "cpu"}


def test_plateau_schedule_resumes_and_stops_early(tmp_path, monkeypatch):
    how = PUBLISHED | {"lr": 1e-9, "epochs": 9, "patience": 1, "stop_after": 2}  # too small to gain anything
    recipe = classifier_recipe(
        write_crops(tmp_path / "data"), optimiser=how, further_widths=[8], dropout=0.5, auxiliary_items=False
    )
    train_classifier(recipe, tmp_path / "unbroken")
    rows = table(tmp_path / "unbroken")
    assert 2 < len(rows) < 9
    assert float(rows[-1]["lr"]) < float(rows[0]["lr"])
    best = min(range(len(rows)), key=lambda i: float(rows[i]["loss_val"]))
    assert len(rows) - 1 - best == 2
    with monkeypatch.context() as patch:
        kill_in(patch, ClassifierTask, 2)
        with pytest.raises(Killed):
            train_classifier(recipe, tmp_path / "killed")
    train_classifier(recipe, tmp_path / "killed")
    assert rows == table(tmp_path / "killed")


def test_published_optimiser_learns(tmp_path):
    recipe = classifier_recipe(
        write_crops(tmp_path / "data", per_item=9),
        optimiser=PUBLISHED | {"lr": 2e-2, "epochs": 8, "evaluate_every": 8},
        further_widths=[8],
    )
    card = train_classifier(recipe, tmp_path / "run")
    assert card.metrics["accuracy"] == 1.0
    assert load_card(tmp_path / "run").further_widths == [8]


def test_plateau_schedule_with_unmeasured_metric_is_rejected(tmp_path):
    recipe = classifier_recipe(write_crops(tmp_path / "data"), optimiser=PUBLISHED | {"watch": "beauty"})
    with pytest.raises(TrainError, match=r"beauty was not measured; set it to one of \['accuracy', .*\]"):
        train_classifier(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    "changes",
    [
        {"joint": "sum", "shorter_dims": [2, 4]},
        {"pool": "max_average", "width": 0, "heads": ["class"], "grid": 1, "input": INPUT | {"grey": True}},
        {"heads": ["class", "outline"], "mode": "literal"},
        {"hdcl_from": 0.0, "hdcl_hardest": 2, "heads": ["class"], "pairs": 0.0},
    ],
)
def test_every_form_of_embedder_learns(tmp_path, changes):
    index = write_crops(tmp_path / "data", per_item=9)
    card = train_embedders(embedder_recipe(index, epochs=6, **changes), tmp_path / "run")[0]
    rows = table(tmp_path / "run")
    assert all(f"recall_1_train_dim_{dim}" in card.metrics for dim in card.shorter_dims)
    assert card.metrics["recall_1_train"] >= 0.75  # a random guess is right once in four
    first, last = (sum(float(v) for k, v in row.items() if k.endswith("_anchor")) for row in (rows[0], rows[-1]))
    assert last < first
