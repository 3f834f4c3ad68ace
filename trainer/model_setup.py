"""What all trainings share: from a recipe to the network's input and trunk, and to its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.errors import TrainError
from edge.manifest import Preprocess
from trainer.data.masks import MaskedPictures
from trainer.data.pictures import Pictures
from trainer.models.backbone import create_trunk, published_mean_std
from trainer.models.networks import ModelCard
from trainer.recipe import AnyRecipe, ClassifierRecipe, EmbedderRecipe, LocaliserRecipe

_HALF = (0.5, 0.5, 0.5)


def preprocess_of(recipe: AnyRecipe) -> Preprocess:
    """The input a recipe asks for; mean and std are the backbone's own where it says nothing."""
    given = recipe.input
    mean, std = given.mean, given.std
    if mean is None or std is None:
        own = (_HALF, _HALF)  # of a network that was not published by others
        published = own if isinstance(recipe, LocaliserRecipe) else published_mean_std(recipe.backbone.name)
        mean, std = mean or published[0], std or published[1]
    return Preprocess(
        width=given.width,
        height=given.height,
        resize=given.resize,
        interpolation=given.interpolation,
        crop_margin=given.crop_margin,
        mean=mean,
        std=std,
    )


def train_spec_of(recipe: ClassifierRecipe | EmbedderRecipe) -> Preprocess:
    """The input that a crop network learns from."""
    spec, given = preprocess_of(recipe), recipe.input
    size = {"width": given.train_width or spec.width, "height": given.train_height or spec.height}
    return spec.model_copy(update=size)


def strides_of(recipe: AnyRecipe) -> list[int]:
    """The strides a recipe asks for; none of a trunk that is kept whole.

    Raises:
        TrainError: the input is no multiple, or a detector has none.
    """
    if recipe.kind == "detector" and not recipe.backbone.strides:
        raise TrainError("backbone.strides: found none, expected one for each map that finds objects, such as [8, 16]")
    if recipe.kind == "detector" and (recipe.input.train_width or recipe.input.train_height):
        raise TrainError("input.train_width and train_height: found in a detector's recipe, expected in those of crops")
    strides = recipe.backbone.strides or create_trunk(recipe.backbone.name, options=recipe.backbone.options).strides
    given = recipe.input
    for width, height in (given.width, given.height), (given.train_width or 0, given.train_height or 0):
        if width % max(strides) or height % max(strides):
            raise TrainError(f"input is {width}x{height}, expected multiples of the stride {max(strides)}")
    return list(recipe.backbone.strides or [])


def card_of(recipe: AnyRecipe, data: dict[str, Any], **own: Any) -> ModelCard:
    """What a recipe says of its model, before anything is learned.

    Args:
        recipe: as run.
        data: what it learns from.
        own: what only models of its kind have, or have otherwise.

    Raises:
        TrainError: the input is no multiple of the strides, or a detector has none.
    """
    said: dict[str, Any] = {
        "kind": recipe.kind,
        "preprocess": preprocess_of(recipe),
        "width": recipe.width,
        "seed": recipe.seed,
        "data": data,
        "recipe": recipe.model_dump(mode="json"),
    }
    if not isinstance(recipe, LocaliserRecipe):
        said |= {
            "backbone": recipe.backbone.name,
            "backbone_options": recipe.backbone.options,
            "strides": strides_of(recipe),
            "grey": recipe.input.grey,
        }
    return ModelCard(**said | own)


def counted(source: Path, train: Pictures | MaskedPictures, val: Pictures | MaskedPictures) -> dict[str, Any]:
    """What a card says of pictures: where they are listed, how many are learned from, how many could not be read."""
    return {
        "source": source.name,
        "train": len(train.samples),
        "val": len(val.samples),
        "skipped": len(train.skipped) + len(val.skipped),
    }
