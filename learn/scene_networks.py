"""Trains the networks of a shop's scenes: the detector until it converges, the coarse classifier, the embedders."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_formats.records import Sample
from edge.file_names import distinct_file_names
from learn.networks import make_embedder
from learn.plan import Photos, Plan, Speed, make_plan
from learn.scene_plan import ScenePlan, detector_batch, embedder_groups
from trainer.metrics import is_a_guess
from trainer.models.networks import CARD_FILE
from trainer.models.published_weights import PublishedWeights
from trainer.recipe import ClassifierRecipe, DetectorRecipe
from trainer.recipe_parts import Backbone, CropData, Input, Optimiser, SceneData
from trainer.tasks.classifier import train_classifier
from trainer.tasks.detector import train_detector

_EVALUATIONS = 25  # of a training that runs to its last epoch
_PATIENCE, _STOP_AFTER, _DECAY = 3, 7, 0.3  # evaluations without a better one: the rate falls; it has converged
_LEAST_STEPS = 20  # between two evaluations: a detector finds nothing in its first steps, and has not converged
_STRIDES = [8, 16, 32]


@dataclass(frozen=True, slots=True)
class Trained:
    """A network that was trained until it converged, or until the time was up."""

    run: Path
    epochs: int  # that it trained
    converged: bool
    metrics: dict[str, Any]


def until_converged(epochs: int, watch: str, batch: int, pictures: int) -> Optimiser:
    """Return an optimiser that lowers its rate when nothing improves, and stops when that no longer helps.

    Args:
        epochs: the most.
        watch: metric that has to improve.
        batch: pictures of a step.
        pictures: of an epoch.
    """
    steps = max(1, pictures // batch)
    return Optimiser(
        epochs=epochs,
        batch=batch,
        lr=1e-3,
        trunk_lr=0.3,
        schedule="plateau",
        watch=watch,
        patience=_PATIENCE,
        decay=_DECAY,
        stop_after=_STOP_AFTER,
        evaluate_every=min(epochs, max(1, epochs // _EVALUATIONS, -(-_LEAST_STEPS // steps))),
    )


def detector_recipe(plan: ScenePlan, scenes: Path, weights: PublishedWeights, pictures: int) -> DetectorRecipe:
    """Return the recipe of a detector that finds objects of whatever name, so that new items need no other one."""
    return DetectorRecipe(
        kind="detector",
        scenes=SceneData(train=scenes),
        input=Input(
            width=plan.detector_width,
            height=plan.detector_height,
            crop_margin=0.0,
            mean=weights.mean,
            std=weights.mean,
        ),
        backbone=Backbone(name=weights.backbone, pretrained=weights.pretrained, strides=_STRIDES, freeze_bn=True),
        optimiser=until_converged(plan.detector_epochs, "map50_95", detector_batch(pictures), pictures),
    )


def classifier_recipe(plan: ScenePlan, index: Path, weights: PublishedWeights, crops: int) -> ClassifierRecipe:
    """Return the recipe of the coarse classifier."""
    batch = min(32, max(4, crops // 8))
    return ClassifierRecipe(
        kind="classifier",
        data=CropData(index=index, gallery_splits=[]),
        input=Input(width=plan.classifier_px, height=plan.classifier_px, mean=weights.mean, std=weights.mean),
        backbone=Backbone(name=weights.backbone, pretrained=weights.pretrained, strides=[_STRIDES[-1]], freeze_bn=True),
        optimiser=until_converged(plan.classifier_epochs, "loss_val", batch, crops),
        auxiliary_items=False,
    )


def make_detector(recipe: DetectorRecipe, run: Path) -> Trained:
    """Train the detector, or go on with an interrupted training; a finished one stays.

    Raises:
        TrainError: the scenes are unusable, or training failed.
    """
    if not (run / CARD_FILE).is_file():
        train_detector(recipe, run)
    return _trained(run, recipe.optimiser.epochs)


def make_classifier(recipe: ClassifierRecipe, run: Path) -> Trained:
    """Train the classifier, as `make_detector`.

    Raises:
        TrainError: the crops are unusable, or training failed.
    """
    if not (run / CARD_FILE).is_file():
        train_classifier(recipe, run)
    return _trained(run, recipe.optimiser.epochs)


def classifier_guesses(trained: Trained, categories: int) -> bool:
    """Return whether the classifier knows no more than a guess; also where nothing was held out."""
    share, pictures = trained.metrics.get("accuracy"), int(trained.metrics.get("images", 0))
    return share is None or is_a_guess(float(share), pictures, categories)


def _trained(run: Path, most: int) -> Trained:
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        epochs = len(list(csv.DictReader(file)))
    metrics = json.loads((run / CARD_FILE).read_text(encoding="utf-8"))["metrics"]
    return Trained(run, epochs, epochs < most, metrics)


@dataclass(frozen=True, slots=True)
class MadeEmbedder:
    """The embedder of some categories."""

    run: Path
    categories: tuple[str, ...]
    plan: Plan
    how: str  # for people


def plan_embedders(
    samples: Sequence[Sample], speed: Speed, minutes: float, *, by_category: bool
) -> list[tuple[list[str], Plan]]:
    """Return the categories of each embedder and what to do: a pure decision.

    Categories whose crops are too few to train on share one embedder, which is trained if they suffice together, and
    else takes published features and learns from all of them what varies within an item.

    Args:
        samples: the crops.
        speed: of the network on this machine.
        minutes: for all embedders.
        by_category: whether a classifier names the category; if not, one embedder covers everything.
    """
    items: dict[str, set[str]] = {}
    for sample in samples:
        items.setdefault(sample.category, set()).add(sample.item)
    every = sorted(items)
    groups = embedder_groups({name: len(own) for name, own in items.items()}) if by_category else [every]

    def planned(group: list[str]) -> tuple[list[str], Plan]:
        own = [sample for sample in samples if sample.category in group]
        return group, make_plan(Photos.of(own), speed, minutes * len(own) / len(samples))

    alone = [planned(group) for group in groups]
    few = sorted(name for group, plan in alone if plan.how == "general" for name in group)
    apart = [one for one in alone if one[1].how == "trained"]
    return sorted([*apart, *([planned(few)] if few else [])], key=lambda one: one[0])


def make_embedders(
    planned: Sequence[tuple[list[str], Plan]], index: Path, weights: PublishedWeights, work: Path
) -> list[MadeEmbedder]:
    """Train or fit each embedder; finished ones stay.

    Raises:
        TrainError: crops or weights cannot be used, or training failed.
    """
    folders = distinct_file_names([", ".join(group) for group, _ in planned])
    made = []
    for group, plan in planned:
        run, how = make_embedder(plan, index, weights, work / folders[", ".join(group)], group)
        made.append(MadeEmbedder(run, tuple(group), plan, how))
    return made
