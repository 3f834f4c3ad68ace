"""A full disk or a loss that is not finite leaves the last good checkpoint."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from edge.errors import TrainError
from tests.trainer.loop.test_training_loop import table
from tests.trainer.toy import classifier_recipe, write_crops
from trainer.loop.checkpoint import BEST_FILE, CHECKPOINT_FILE, load_best, save_best
from trainer.models.networks import save_model
from trainer.tasks.classifier import ClassifierTask, train_classifier


def fill_disk(monkeypatch, after: int) -> None:
    """Make every flush after the first `after` fail as on a full disk."""
    flush, done = os.fsync, iter(range(10**6))

    def full(descriptor):
        if next(done) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", full)


def test_run_resumes_after_a_full_disk_to_the_same_result(tmp_path, monkeypatch):
    recipe = classifier_recipe(write_crops(tmp_path / "data"), epochs=3)
    train_classifier(recipe, tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        fill_disk(patch, 6)  # card, checkpoint and table of the first epoch: a flush for each file and folder
        with pytest.raises(
            TrainError, match=r"checkpoint.pt: cannot save epoch 2: .*No space left.*previous file is intact"
        ):
            train_classifier(recipe, tmp_path / "full")
    assert torch.load(tmp_path / "full" / CHECKPOINT_FILE, weights_only=True)["epoch"] == 1
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == [CHECKPOINT_FILE, "data_card.json", "metrics.csv"]
    train_classifier(recipe, tmp_path / "full")
    assert table(tmp_path / "unbroken") == table(tmp_path / "full")


def test_full_disk_is_reported_for_every_file(tmp_path, monkeypatch):
    recipe = classifier_recipe(write_crops(tmp_path / "data"), epochs=1)
    card = train_classifier(recipe, tmp_path / "run")
    fill_disk(monkeypatch, 0)
    with pytest.raises(TrainError, match=r"model: cannot save the model: No space left"):
        save_model(tmp_path / "model", torch.nn.Linear(1, 1), card)
    monkeypatch.undo()
    fill_disk(monkeypatch, 4)
    with pytest.raises(TrainError, match=r"other: cannot write the history: No space left"):
        train_classifier(recipe, tmp_path / "other")
    monkeypatch.undo()
    fill_disk(monkeypatch, 0)
    with pytest.raises(TrainError, match=r"third: cannot write the data card: No space left"):
        train_classifier(recipe, tmp_path / "third")


def test_infinite_gradient_stops_before_the_weights_change(tmp_path, monkeypatch):
    recipe = classifier_recipe(write_crops(tmp_path / "data"), epochs=3)
    loss = ClassifierTask.loss

    class Spoils(torch.autograd.Function):
        """Pass a loss on and return an infinite gradient."""

        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    def breaks(self, tensors, done):
        parts = loss(self, tensors, done)
        return {key: Spoils.apply(value) if done >= 0.5 else value for key, value in parts.items()}

    monkeypatch.setattr(ClassifierTask, "loss", breaks)
    with pytest.raises(TrainError, match=r"gradient is (nan|inf) in epoch 2, batch 1 .*data/(red|blue).*holds epoch 1"):
        train_classifier(recipe, tmp_path / "run")
    saved = torch.load(tmp_path / "run" / CHECKPOINT_FILE, weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["module"].values())


def test_best_weights_of_another_epoch_or_damaged_are_rejected(tmp_path):
    module = torch.nn.Linear(2, 2)
    save_best(tmp_path, 4, module)
    with pytest.raises(TrainError, match="found epoch 4, expected epoch 6"):
        load_best(tmp_path, 6, module)
    (tmp_path / BEST_FILE).write_bytes(b"half a file")
    with pytest.raises(TrainError, match="cannot load the best weights"):
        load_best(tmp_path, 4, module)
