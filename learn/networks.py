"""Makes the embedder: measures the machine, trains or fits, and keeps the better of the two."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path

import torch

from learn.plan import Plan, Speed
from trainer.models.backbone import create_trunk
from trainer.models.networks import CARD_FILE
from trainer.models.published_weights import PublishedWeights
from trainer.recipe import Backbone, CropData, EmbedderInput, EmbedderOptimiser, EmbedderRecipe
from trainer.tasks.embedder import train_embedders
from trainer.tasks.general_embedder import make_general_embedder

log = logging.getLogger(__name__)

_BATCH, _PX, _TRIALS = 16, 128, 6
DIM = 384


def measure_speed(weights: PublishedWeights) -> Speed:
    """Measure the speed of a backbone here: of one training step, and of embedding."""
    trunk = create_trunk(weights.backbone).to(memory_format=torch.channels_last).eval()
    x = torch.randn(_BATCH, 3, _PX, _PX).contiguous(memory_format=torch.channels_last)
    trained, embedded = [], []
    for _ in range(_TRIALS):  # the first is slower, and other programs disturb
        started = time.monotonic()
        trunk(x)[-1].mean().backward()
        trained.append(time.monotonic() - started)
        started = time.monotonic()
        with torch.no_grad():
            trunk(x)
        embedded.append(time.monotonic() - started)
    return Speed(min(trained[1:]) / _BATCH * 1.25, min(embedded[1:]) / _BATCH)  # a quarter: augmentation and optimiser


def recipe_for(plan: Plan, index: Path, weights: PublishedWeights, seed: int = 0) -> EmbedderRecipe:
    """Return the recipe of one embedder for all categories."""
    size = {"width": plan.px, "height": plan.px, "mean": weights.mean, "std": weights.mean, "crop_margin": 0.05}
    size |= {"train_width": plan.train_px, "train_height": plan.train_px}
    epochs = max(1, plan.epochs)
    return EmbedderRecipe(
        kind="embedder",
        seed=seed,
        data=CropData(index=index, gallery_splits=[]),
        input=EmbedderInput.model_validate(size),
        backbone=Backbone(name=weights.backbone, pretrained=weights.pretrained),
        optimiser=EmbedderOptimiser(epochs=epochs, evaluate_every=max(1, epochs // 4)),
        dim=DIM,
    )


def make_embedder(plan: Plan, index: Path, weights: PublishedWeights, work: Path) -> tuple[Path, str]:
    """Train an embedder, or fit one to published features, and return the folder of the better run.

    A finished run is not made again, and an interrupted training continues.

    Returns:
        the run folder, and a sentence that says which it is.

    Raises:
        TrainError: photos or weights cannot be used, or training failed.
    """
    recipe = recipe_for(plan, index, weights)
    general, trained = work / "general", work / "trained"
    if not (general / CARD_FILE).is_file():
        shutil.rmtree(general, ignore_errors=True)
        make_general_embedder(recipe, general)
    if plan.how == "general":
        return general, f"nothing was trained: {plan.why}"
    if not (trained / CARD_FILE).is_file():
        train_embedders(recipe, trained)
    before, after = (recall_of(folder) for folder in (general, trained))
    if before is not None and after is not None and after < before:
        return (
            general,
            f"training made it worse ({after:.0%} instead of {before:.0%}), so the published features are used",
        )
    return trained, f"trained: {plan.why}"


def recall_of(run: Path) -> float | None:
    """Return the share of held-out photos whose nearest photo is right; None if nothing was held out."""
    metrics = json.loads((run / CARD_FILE).read_text(encoding="utf-8"))["metrics"]
    value = metrics.get("recall_1_train")
    return None if value is None else float(value)
