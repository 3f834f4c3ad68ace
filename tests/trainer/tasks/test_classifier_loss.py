"""The loss of a classifier: plain softmax first, then over the hardest categories only."""

from __future__ import annotations

import numpy as np
import torch

from tests.trainer.toy import classifier_recipe, write_crops, write_index
from trainer.data.crops import load_crops
from trainer.losses.embedding_losses import hard_cross_entropy
from trainer.model_setup import card_of, preprocess_of
from trainer.models.networks import build_model
from trainer.tasks.classifier import ClassifierTask
from trainer.tasks.distillation import TeacherEnsemble


@torch.no_grad()
def test_softmax_turns_hard_after_its_share_of_the_training(tmp_path):
    rows = [line.split(",") for line in write_crops(tmp_path).read_text().splitlines()[1:]]
    write_index(tmp_path, [(path, split, item, item) for path, split, _, item in rows])  # four categories
    plain = {"width": 0, "dropout": 0.0, "auxiliary_items": False, "label_smoothing": 0.0}
    recipe = classifier_recipe(tmp_path / "index.csv", hcl_from=0.5, **plain)
    crops = load_crops(recipe.data, preprocess_of(recipe))
    card = card_of(recipe, {}, labels=crops.categories, dropout=0.0)
    task = ClassifierTask(recipe, crops, build_model(card).eval(), TeacherEnsemble([], card))
    task.begin_epoch(0, np.random.default_rng(0))
    tensors = task.batch(0, np.random.default_rng(0)).tensors
    logits = task.module.model(tensors["x"])
    assert logits.shape == (8, 4)
    for done, hardest in (0.49, None), (0.5, 2), (1.0, 2):
        expected = hard_cross_entropy(logits, tensors["category"], hardest)
        torch.testing.assert_close(task.loss(tensors, done)["category"], expected)
    assert hard_cross_entropy(logits, tensors["category"], 2) < hard_cross_entropy(logits, tensors["category"], None)
