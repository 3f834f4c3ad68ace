"""What the three trainings share: from a recipe to the network's input and trunk."""

from __future__ import annotations

from edge.errors import TrainError
from edge.manifest import Preprocess
from trainer.backbone import create_trunk, published_mean_std
from trainer.recipe import ClassifierRecipe, DetectorRecipe, EmbedderRecipe


def preprocess_of(recipe: DetectorRecipe | ClassifierRecipe | EmbedderRecipe) -> Preprocess:
    """The input a recipe asks for; mean and std are the backbone's own where it says nothing."""
    given = recipe.input
    mean, std = given.mean, given.std
    if mean is None or std is None:
        published = published_mean_std(recipe.backbone.name)
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


def strides_of(recipe: DetectorRecipe | ClassifierRecipe | EmbedderRecipe) -> list[int]:
    """The strides a recipe asks for; none of a trunk that is kept whole.

    Raises:
        TrainError: the input is no multiple, or a detector has none.
    """
    if recipe.kind == "detector" and not recipe.backbone.strides:
        raise TrainError("backbone.strides: found none, expected one for each map that finds objects, such as [8, 16]")
    strides = recipe.backbone.strides or create_trunk(recipe.backbone.name, options=recipe.backbone.options).strides
    if recipe.input.width % max(strides) or recipe.input.height % max(strides):
        raise TrainError(
            f"input is {recipe.input.width}x{recipe.input.height}, expected multiples of the stride {max(strides)}"
        )
    return list(recipe.backbone.strides or [])
