"""Steps that every training shares: from a recipe to the network's input size, its trunk and its model card."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from edge.errors import TrainError
from edge.manifest.model import Preprocess
from trainer.data.masks import MaskedPictures
from trainer.data.pictures import Pictures
from trainer.embedder_recipe import EmbedderRecipe
from trainer.metrics import is_a_guess
from trainer.models.backbone import create_trunk, published_mean_std
from trainer.models.networks import ModelCard
from trainer.recipe import AnyRecipe, ClassifierRecipe, LocaliserRecipe, TrunkRecipe

log = logging.getLogger(__name__)

_HALF = (0.5, 0.5, 0.5)


def preprocess_of(recipe: AnyRecipe) -> Preprocess:
    """Return the input of a recipe; mean and std default to those of the backbone."""
    given = recipe.input
    mean, std = given.mean, given.std
    if mean is None or std is None:
        default = (_HALF, _HALF) if recipe.backbone is None else published_mean_std(recipe.backbone.name)
        mean, std = mean or default[0], std or default[1]
    return Preprocess(
        width=given.width,
        height=given.height,
        resize=given.resize,
        interpolation=given.interpolation,
        crop_margin=given.crop_margin,
        mean=mean,
        std=std,
        fill=255 if isinstance(recipe, ClassifierRecipe | EmbedderRecipe) and recipe.data.cut_to_mask else 114,
    )


def train_spec_of(recipe: ClassifierRecipe | EmbedderRecipe) -> Preprocess:
    """Return the input that a crop network is trained with."""
    spec, given = preprocess_of(recipe), recipe.input
    size = {"width": given.train_width or spec.width, "height": given.train_height or spec.height}
    return spec.model_copy(update=size)


def strides_of(recipe: TrunkRecipe) -> list[int]:
    """Return the strides of a recipe; none for a trunk that is kept whole.

    Raises:
        TrainError: the input size is not a multiple of the strides, or a detector has none.
    """
    if recipe.kind == "detector" and not recipe.backbone.strides:
        raise TrainError(
            "backbone.strides is missing; a detector needs one stride for each output map, such as [8, 16]"
        )
    if recipe.kind == "detector" and (recipe.input.train_width or recipe.input.train_height):
        raise TrainError("input.train_width and train_height: a detector has no training size; remove them")
    strides = recipe.backbone.strides or create_trunk(recipe.backbone.name, options=recipe.backbone.options).strides
    given = recipe.input
    for width, height in (given.width, given.height), (given.train_width or 0, given.train_height or 0):
        if width % max(strides) or height % max(strides):
            raise TrainError(f"input is {width}x{height}, expected multiples of the stride {max(strides)}")
    return list(recipe.backbone.strides or [])


def feature_dim(recipe: EmbedderRecipe) -> int:
    """Return the length of what a head's fully-connected layer sees, which is the vector itself where `dim` is 0."""
    backbone = recipe.backbone
    trunk = create_trunk(backbone.name, backbone.strides, options=backbone.options)
    return (recipe.width or trunk.channels[-1]) * (recipe.grid**2 + (recipe.pool == "max_average"))


def card_of(recipe: AnyRecipe, data: dict[str, Any], **own: Any) -> ModelCard:
    """Build the model card of a recipe, before training.

    Args:
        recipe: recipe of the run.
        data: summary of the training data.
        own: fields that only models of its kind have, or that differ from the recipe.

    Raises:
        TrainError: the input size is not a multiple of the strides, or a detector has none.
    """
    fields: dict[str, Any] = {
        "kind": recipe.kind,
        "preprocess": preprocess_of(recipe),
        "width": recipe.width,
        "seed": recipe.seed,
        "data": data,
        "recipe": recipe.model_dump(mode="json"),
    }
    if not isinstance(recipe, LocaliserRecipe):
        fields |= {
            "backbone": recipe.backbone.name,
            "backbone_options": recipe.backbone.options,
            "strides": strides_of(recipe),
            "grey": recipe.input.grey,
        }
    return ModelCard(**fields | own)


def data_summary(source: Path, train: Pictures | MaskedPictures, val: Pictures | MaskedPictures) -> dict[str, Any]:
    """Summarise the training data for the model card: source, counts, and how many pictures were skipped."""
    return {
        "source": source.name,
        "train": len(train.samples),
        "val": len(val.samples),
        "skipped": len(train.skipped) + len(val.skipped),
    }


def require_learned(card: ModelCard) -> None:
    """Check that a trained classifier or embedder answers better than a guess; warn if nothing was held out.

    Raises:
        TrainError: it does not.
    """
    if card.kind not in {"classifier", "embedder"}:
        return
    of = ", ".join(card.categories) or card.kind
    pictures = int(card.metrics.get("images", 0))
    if not pictures:
        log.warning("%s: no picture was held out, so nothing is known about how good it is; give pictures of `val`", of)
        return
    if card.kind == "classifier":
        share, choices = card.metrics.get("accuracy"), len(card.labels)
    else:
        share, choices = card.metrics.get("recall_1_train"), int(card.data.get("items", 0))
    if share is not None and is_a_guess(share, pictures, choices):
        raise TrainError(
            f"{of}: {share:.0%} of {pictures} held-out pictures are answered rightly, which is no better than "
            "guessing; train longer, start from published weights, or give more pictures"
        )
