"""Makes the embedder: measures the machine, trains or fits, and keeps the better of the two."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from learn.plan import Plan, Speed
from trainer.embedder_recipe import EmbedderInput, EmbedderOptimiser, EmbedderRecipe
from trainer.loop.training_loop import choose_device
from trainer.models.backbone import create_trunk
from trainer.models.networks import CARD_FILE
from trainer.models.published_weights import PublishedWeights
from trainer.recipe_parts import Backbone, CropData
from trainer.tasks.embedder import train_embedders
from trainer.tasks.general_embedder import make_general_embedder

_BATCH, _PX, _TRIALS = 16, 128, 6
DIM = 384


def measure_speed(weights: PublishedWeights) -> Speed:
    """Measure the speed of a backbone here: of a training step where training runs, and of embedding on the CPU."""
    trunk = create_trunk(weights.backbone).to(memory_format=torch.channels_last).eval()
    x = torch.randn(_BATCH, 3, _PX, _PX).contiguous(memory_format=torch.channels_last)

    def forward() -> Tensor:
        mean: Tensor = trunk(x)[-1].mean()
        return mean

    def step() -> Tensor:
        loss = forward()
        loss.backward()
        return loss

    with torch.no_grad():
        embed_s = _fastest(forward)
    device = choose_device("auto")
    trunk, x = trunk.to(device), x.to(device)
    train_s = _fastest(step)
    return Speed(train_s / _BATCH * 1.25, embed_s / _BATCH)  # a quarter: augmentation and optimiser


def _fastest(run: Callable[[], Tensor]) -> float:
    """Return the seconds of the fastest of some runs: the first is slower, and other programs disturb."""
    spent = []
    for _ in range(_TRIALS):
        started = time.monotonic()
        run().item()  # waits for a GPU
        spent.append(time.monotonic() - started)
    return min(spent)


def recipe_for(
    plan: Plan, index: Path, weights: PublishedWeights, seed: int = 0, categories: list[str] | None = None
) -> EmbedderRecipe:
    """Return the recipe of one embedder, for all categories or for these."""
    size = {"width": plan.px, "height": plan.px, "mean": weights.mean, "std": weights.mean}
    size |= {"train_width": plan.train_px, "train_height": plan.train_px}
    epochs = max(1, plan.epochs)
    return EmbedderRecipe(
        kind="embedder",
        seed=seed,
        data=CropData(index=index, gallery_splits=[], categories=categories),
        input=EmbedderInput.model_validate(size),
        backbone=Backbone(name=weights.backbone, pretrained=weights.pretrained),
        optimiser=EmbedderOptimiser(epochs=epochs, evaluate_every=max(1, epochs // 4)),
        dim=DIM,
    )


def make_embedder(
    plan: Plan, index: Path, weights: PublishedWeights, work: Path, categories: list[str] | None = None
) -> tuple[Path, str]:
    """Train an embedder, or fit one to published features, and return the folder of the better run.

    A finished run is not made again, and an interrupted training continues.

    Args:
        plan: what to do.
        index: of the pictures.
        weights: to start from.
        work: folder of the runs.
        categories: that the embedder is for; None: all.

    Returns:
        the run folder, and a sentence that says which it is.

    Raises:
        TrainError: photos or weights cannot be used, or training failed.
    """
    recipe = recipe_for(plan, index, weights, categories=categories)
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
