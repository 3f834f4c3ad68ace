"""An embedder without training: a published trunk whose maps are aggregated, such as SCDA, see trainer.models."""

from __future__ import annotations

from pathlib import Path

import torch

from edge.errors import TrainError
from edge.manifest.embedder import Head
from trainer.data.crops import Crops, load_crops, predict
from trainer.data.cut_background import install_cut
from trainer.data.run_data_card import write_crops_card
from trainer.embedder_recipe import EmbedderRecipe
from trainer.model_setup import card_of, preprocess_of
from trainer.models.free_methods import FreeMethod
from trainer.models.networks import ModelCard, build_model, save_model
from trainer.models.scda_network import FreeEmbedder
from trainer.tasks.embedder import runs_by_category
from trainer.tasks.embedder_metrics import validate_embedder

_OF_TRAINING = ("init_from", "compatible_with", "teacher", "shorter_dims")  # keys that would change the vector


def make_free_embedders(
    recipe: EmbedderRecipe, method: FreeMethod, out: Path, dim: int | None = None
) -> list[ModelCard]:
    """Write the run folder of an embedder of all categories, from published weights.

    With `one_per_category`, one for each category is written into `out/<category>`, as training does.

    Args:
        recipe: its data, input and backbone. A whole trunk (`backbone.strides` null) has the best features.
        method: the aggregation.
        out: run folder.
        dim: numbers to compress the vectors to, by SVD and whitening over the training pictures; None: keep all.

    Raises:
        TrainError: the recipe asks for what only training gives, the data or the weights are unusable, the backbone
            has no second map that `scda+` reads, or there are no more training pictures than `dim`.
    """
    _require_free(recipe)
    crops = load_crops(recipe.data, preprocess_of(recipe))
    if not recipe.one_per_category:
        return [_make_one(recipe, crops, method, out, dim)]
    runs = runs_by_category(recipe, crops, load_crops, out)
    return [_make_one(own, chosen, method, folder, dim) for own, chosen, folder in runs]


def _require_free(recipe: EmbedderRecipe) -> None:
    if recipe.backbone.pretrained == "none":
        raise TrainError(
            "an embedder without training needs published weights; set backbone.pretrained, or --weights of a table"
        )
    asked = [key for key in _OF_TRAINING if getattr(recipe, key)]
    asked += ["heads"] * (recipe.heads != ["class"]) + ["loss"] * (recipe.loss != "softmax")
    if asked:
        raise TrainError(f"--free trains nothing: {', '.join(asked)} of the recipe would have no effect; remove them")
    if recipe.dim and recipe.dim != EmbedderRecipe.model_fields["dim"].default:
        raise TrainError(f"--free trains no projection: remove dim {recipe.dim} from the recipe, or give it as --dim")


def _make_one(recipe: EmbedderRecipe, crops: Crops, method: FreeMethod, out: Path, dim: int | None) -> ModelCard:
    write_crops_card(out, crops, recipe.data)
    heads = [] if dim is None else [Head(name="class", dim=dim)]
    card = card_of(recipe, crops.summary(recipe.data), width=0, categories=crops.categories, heads=heads, free=method)
    model = build_model(card, recipe.backbone.pretrained).eval()
    assert isinstance(model, FreeEmbedder)
    if model.axes is not None:
        model.fit_whitening(_aggregated(model, crops))
    metrics = {key: float(values.mean()) for key, values in validate_embedder(model, crops).items()}
    heads = [Head(name="class", dim=dim or model.inputs)]
    card = card.model_copy(update={"heads": heads, "metrics": metrics | {"images": len(crops.val)}})
    card = install_cut(crops.cut, model, card)
    save_model(out, model, card)
    return card


def _aggregated(model: FreeEmbedder, crops: Crops) -> torch.Tensor:
    """Return the vectors of the training pictures before whitening, (n, inputs)."""
    return torch.from_numpy(predict(_Aggregate(model), crops.train_canvases(), crops.spec))


class _Aggregate(torch.nn.Module):
    def __init__(self, model: FreeEmbedder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 3, h, w) to (n, inputs)."""
        return self.model.aggregate(x)
