"""A recipe made short for a laptop: fewer epochs and, where a network learns from crops, smaller canvases.

The device's input stays: batch statistics are settled on it after training (Touvron et al. 2019, see trainer.data.crops).
What was shortened says so in its card, and is for trying out, not for shipping.
"""

from __future__ import annotations

import math

from trainer.recipe import AnyRecipe, ClassifierRecipe, EmbedderRecipe, Input, Own

EPOCHS = 0.5  # of the recipe's
SIDE = 0.75  # of the canvas: a bit more than half of its pixels
_COARSEST = 32  # pixels: canvases stay multiples of the recipe's stride, at most this
_LEAST = 32  # pixels of a canvas


def quickened(recipe: AnyRecipe) -> AnyRecipe:
    """The same recipe, shortened; where objects are found, the canvas stays, for they must not become smaller."""
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
            name: Own(
                input=None if own.input is None else _smaller(own.input, stride),
                epochs=None if own.epochs is None else _halved(own.epochs),
            )
            for name, own in recipe.each.items()
        }
    return recipe.model_copy(update=changes)


def _halved(epochs: int) -> int:
    return max(1, math.ceil(epochs * EPOCHS))


def _smaller(given: Input, stride: int) -> Input:
    """Canvases to learn from of three quarters of the side; those that a recipe chose itself stay."""
    if given.train_width is not None or given.train_height is not None:
        return given
    least = -(-_LEAST // stride) * stride
    sides = [max(least, round(side * SIDE / stride) * stride) for side in (given.width, given.height)]
    return given.model_copy(
        update={"train_width": min(sides[0], given.width), "train_height": min(sides[1], given.height)}
    )
