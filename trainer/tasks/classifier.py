"""Training of the coarse classifier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import TrainError
from edge.inference.postprocess import softmax
from trainer.data.batches import plain_batches
from trainer.data.crops import Crops, load_crops, predict, recalibrate_bn
from trainer.data.cut_background import install_cut
from trainer.data.run_data_card import write_crops_card
from trainer.loop.batch import Batch
from trainer.loop.training_loop import fit
from trainer.losses.embedding_losses import CosineSoftmax, hard_cross_entropy
from trainer.metrics import bootstrap, calibration_error, fit_temperature, per_class
from trainer.model_setup import card_of, preprocess_of, train_spec_of
from trainer.models.networks import Classifier, ModelCard, build_model, freeze_parts, pool_grid, save_model
from trainer.recipe import ClassifierRecipe
from trainer.tasks.distillation import TeacherEnsemble, mean_angle, softened_divergence

_HARDEST = 2  # classes in a hard softmax, where the recipe does not say


class _TrainingModule(nn.Module):
    """The classifier, and parts for training only: item centres, and projections to the teachers' features."""

    def __init__(self, model: Classifier, items: int, grid: int, teachers: TeacherEnsemble) -> None:
        super().__init__()
        self.model = model
        channels = model.trunk.channels[-1]
        self.items = CosineSoftmax(channels * grid**2, items)
        self.to_teachers = nn.ModuleList(nn.Linear(channels, theirs, bias=False) for theirs in teachers.channels)


class ClassifierTask:
    """Cross-entropy over categories, at the end over the hardest ones only (HCL; HDCL 2021, Table 7) if asked for.

    Optionally also over items on the pooled trunk, and distillation.
    """

    def __init__(self, recipe: ClassifierRecipe, crops: Crops, model: Classifier, teachers: TeacherEnsemble) -> None:
        self.recipe, self.crops, self.teachers = recipe, crops, teachers
        self.module = _TrainingModule(model, len(crops.items), recipe.auxiliary_grid, teachers)
        self._categories = torch.from_numpy(crops.category_indices(crops.train))
        self._items = torch.from_numpy(crops.item_indices(crops.train))
        self.plan: list[NDArray[np.int64]] = []
        self._shares: list[float] = []  # mixup weight of the first picture, by batch

    def steps(self) -> int:
        """Return the number of batches in an epoch."""
        return max(1, len(self.crops.train) // self.recipe.optimiser.batch)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that train at the trunk's own rate."""
        return list(self.module.model.trunk.parameters())

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:  # noqa: ARG002
        """Shuffle the pictures."""
        self.plan = plain_batches(len(self.crops.train), self.recipe.optimiser.batch, rng)
        mixup = self.recipe.augment.mixup  # Zhang et al. 2018
        self._shares = [float(rng.beta(0.4, 0.4)) if mixup and rng.random() < mixup else 1.0 for _ in self.plan]

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Augment the pictures of one batch."""
        indices = self.plan[step]
        x = self.crops.to_input(self.crops.augment(indices, self.recipe.augment, rng))
        share, rows = self._shares[step], torch.from_numpy(indices)
        partner = torch.from_numpy(rng.permutation(len(indices))) if share < 1.0 else torch.arange(len(indices))
        if share < 1.0:
            x = share * x + (1 - share) * x[partner]
        tensors = {
            "x": x,
            "category": self._categories[rows],
            "item": self._items[rows],
            "partner_category": self._categories[rows[partner]],
            "partner_item": self._items[rows[partner]],
            "share": torch.tensor(share),
        }
        return Batch(tensors, [str(self.crops.train[i].path) for i in indices])

    def loss(self, tensors: dict[str, Tensor], done: float) -> dict[str, Tensor]:
        """Return the cross-entropies and the distillation losses."""
        feature = self.module.model.trunk(tensors["x"])[-1]
        logits, pooled = self.module.model.decide(feature), pool_grid(feature, self.recipe.auxiliary_grid)
        share = tensors["share"]
        hardest = (self.recipe.hcl_hardest or _HARDEST) if done >= self.recipe.hcl_from else None

        def coarse(labels: Tensor) -> Tensor:
            return hard_cross_entropy(logits, labels, hardest, self.recipe.label_smoothing)

        parts = {"category": share * coarse(tensors["category"]) + (1 - share) * coarse(tensors["partner_category"])}
        if self.recipe.auxiliary_items:
            ours, theirs = (self.module.items(pooled, tensors[key]) for key in ("item", "partner_item"))
            parts["item"] = share * ours + (1 - share) * theirs
        if self.recipe.teachers:
            teacher_logits, features = self.teachers.classify(tensors["x"])
            ours = feature.mean(dim=(2, 3))
            angles = [
                mean_angle(to(ours), theirs) for to, theirs in zip(self.module.to_teachers, features, strict=True)
            ]
            parts["teachers"] = self.recipe.distil * softened_divergence(logits, teacher_logits)
            parts["features"] = self.recipe.distil * torch.stack(angles).mean()
        return parts

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return the category accuracy on the validation crops, and the item accuracy of the auxiliary centres."""
        crops = self.crops
        if not crops.val:
            return {}
        logits, truth = predict(module.model, crops.val_canvases, crops.spec), crops.category_indices(crops.val)
        metrics = {
            "accuracy": float((logits.argmax(axis=1) == truth).mean()),
            "loss_val": float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth))),
        }
        if self.recipe.auxiliary_items:
            pooled = torch.from_numpy(
                predict(_Pooled(module.model, self.recipe.auxiliary_grid), crops.val_canvases, crops.spec)
            )
            centres = F.normalize(module.items.centres.detach().cpu(), dim=1)
            nearest = (F.normalize(pooled, dim=1) @ centres.T).argmax(dim=1).numpy()
            metrics["item_accuracy"] = float((nearest == crops.item_indices(crops.val)).mean())
        return metrics


def accuracy(model: Classifier, crops: Crops) -> float:
    """Return the share of the validation crops whose category is right."""
    logits = predict(model, crops.val_canvases, crops.spec)
    return float((logits.argmax(axis=1) == crops.category_indices(crops.val)).mean())


class _Pooled(nn.Module):
    def __init__(self, model: Classifier, grid: int) -> None:
        super().__init__()
        self.model = model
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        return pool_grid(self.model.trunk(x)[-1], self.grid)


def fit_descriptor_to(model: Classifier, crops: Crops) -> None:
    """Fit the descriptor on the training crops, preprocessed as on the device."""
    network, size = _Pooled(model, 1), 256
    pooled = [
        predict(network, crops.train_canvases(slice(start, start + size)), crops.spec)
        for start in range(0, len(crops.images), size)
    ]
    model.fit_descriptor(torch.from_numpy(np.concatenate(pooled)))


def train_classifier(recipe: ClassifierRecipe, out: Path) -> ModelCard:
    """Train, fit the temperature, and save the model into `out`.

    Raises:
        TrainError: the data is unusable, or training failed.
    """
    spec = preprocess_of(recipe)
    crops = load_crops(recipe.data, spec, train_spec_of(recipe))
    if len(crops.categories) < 2:
        raise TrainError(
            f"{recipe.data.index}: a classifier needs two or more categories; the data has {crops.categories}"
        )
    write_crops_card(out, crops, recipe.data)
    torch.manual_seed(recipe.seed)
    card = card_of(
        recipe,
        crops.summary(recipe.data),
        further_widths=recipe.further_widths,
        dropout=recipe.dropout,
        descriptor_dim=recipe.descriptor_dim,
        labels=crops.categories,
    )
    model = build_model(card, recipe.backbone.pretrained)
    for count, name in (len(crops.train), "training pictures"), (model.trunk.channels[-1], "channels"):
        if count < recipe.descriptor_dim:
            wanted = f"at least descriptor_dim = {recipe.descriptor_dim}"
            raise TrainError(f"{recipe.data.index}: found {count} {name}, expected {wanted}")
    task = ClassifierTask(recipe, crops, model, TeacherEnsemble(recipe.teachers, card))
    frozen = freeze_parts(model, recipe.backbone)
    trained = fit(task, recipe.optimiser, out, recipe.seed, recipe.model_dump_json(), frozen)
    final = recalibrate_bn(trained.model, crops, recipe.seed, lambda m: accuracy(m, crops))
    if recipe.descriptor_dim:
        fit_descriptor_to(final, crops)
    card = card.model_copy(update=_validation(final, crops, recipe.seed))
    card = install_cut(crops.cut, final, card)
    save_model(out, final, card)
    return card


def _validation(model: Classifier, crops: Crops, seed: int) -> dict[str, object]:
    if not crops.val:
        return {}
    logits, truth = predict(model, crops.val_canvases, crops.spec), crops.category_indices(crops.val)
    right = logits.argmax(axis=1) == truth
    temperature = fit_temperature(logits, truth)
    metrics = {
        "accuracy": float(right.mean()),
        "accuracy_interval": list(bootstrap(right.astype(np.float64), seed)),
        "images": len(truth),
        "calibration_error": calibration_error(softmax(logits, temperature).max(axis=1), right),
        "per_class": per_class(
            [crops.categories[i] for i in logits.argmax(axis=1)], [crops.categories[i] for i in truth]
        ),
    }
    return {"temperature": temperature, "metrics": metrics}
