"""The `--quick` option: shorten a recipe for a laptop, with fewer epochs and smaller training crops.

The device's input size stays: batch norm is recalibrated on it after training (Touvron et al. 2019, see
trainer.data.crops). The model card of a quick run says `quick`; use such a model to try things out, not to ship.
"""

from __future__ import annotations

import math
from typing import TypeVar

from trainer.embedder_recipe import CategoryOverrides, EmbedderRecipe
from trainer.recipe import AnyRecipe, ClassifierRecipe
from trainer.recipe_parts import Input

AnyInput = TypeVar("AnyInput", bound=Input)
EPOCHS = 0.5  # factor on the recipe's epochs
SIDE = 0.75  # factor on the side of the canvas: a bit more than half of its pixels
_COARSEST = 32  # pixels: canvases stay multiples of the recipe's stride, at most this
_MIN_SIDE = 32  # pixels, of a canvas


def shortened(recipe: AnyRecipe) -> AnyRecipe:
    """Return the recipe with half the epochs and, for crops, smaller canvases.

    A detector, a localiser or a finder keeps its canvas, because objects must not become smaller.
    """
    epochs = _halved(recipe.optimiser.epochs)
    every = min(recipe.optimiser.evaluate_every, epochs)
    changes: dict[str, object] = {
        "quick": True,
        "optimiser": recipe.optimiser.model_copy(update={"epochs": epochs, "evaluate_every": every}),
    }
    if not isinstance(recipe, ClassifierRecipe | EmbedderRecipe):
        return recipe.model_copy(update=changes)
    stride = max(recipe.backbone.strides or [_COARSEST])
    changes["input"] = _smaller(recipe.input, stride)
    if isinstance(recipe, EmbedderRecipe):
        changes["each"] = {
            name: CategoryOverrides(
                input=None if own.input is None else _smaller(own.input, stride),
                epochs=None if own.epochs is None else _halved(own.epochs),
            )
            for name, own in recipe.each.items()
        }
    return recipe.model_copy(update=changes)


def _halved(epochs: int) -> int:
    return max(1, math.ceil(epochs * EPOCHS))


def _smaller(given: AnyInput, stride: int) -> AnyInput:
    """Set training canvases of three quarters of the side, unless the recipe sets its own."""
    if given.train_width is not None or given.train_height is not None:
        return given
    least = -(-_MIN_SIDE // stride) * stride
    sides = [max(least, round(side * SIDE / stride) * stride) for side in (given.width, given.height)]
    return given.model_copy(
        update={"train_width": min(sides[0], given.width), "train_height": min(sides[1], given.height)}
    )
