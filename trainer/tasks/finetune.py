"""Fine-tuning: start training from a trained run, with its trunk, its heads, and the centres of its items.

A centre that the run lacks is imprinted: the mean of the normalised embeddings of the item's training pictures,
by the initial network (Qi et al. 2018, arXiv 1712.07136).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from edge.durable import write_durably
from edge.errors import TrainError
from trainer.data.crops import Crops, predict
from trainer.disk_errors import report_disk_errors
from trainer.distributed import is_rank0
from trainer.embedder_recipe import EmbedderRecipe
from trainer.models.networks import CARD_FILE, Embedder, ModelCard, load_model

log = logging.getLogger(__name__)

CENTRES_FILE = "centres.safetensors"


def finetune_recipe(recipe: EmbedderRecipe, base: Path | None, categories: list[str] | None) -> EmbedderRecipe:
    """Return the recipe changed to start from a base model and to train some categories only.

    Args:
        recipe: the recipe as read from its file.
        base: run of an embedder, or folder of such runs by category; None: keep the recipe's `init_from`.
        categories: categories to train, one embedder for each; None: keep the recipe's categories.
    """
    changes: dict[str, object] = {} if base is None else {"init_from": base}
    if categories is not None:
        changes |= {"one_per_category": True, "data": recipe.data.model_copy(update={"categories": categories})}
    return recipe.model_copy(update=changes)


def base_run_of(folder: Path, category: str) -> Path:
    """Return the run to start a category's embedder from: its own run below a folder of runs, else the folder."""
    own = folder / category
    return own if (own / CARD_FILE).is_file() else folder


def init_from_run(
    folder: Path, model: Embedder, card: ModelCard, centres: Mapping[str, nn.Parameter], crops: Crops
) -> None:
    """Load the weights of a trained run.

    Args:
        folder: run of a classifier, for the trunk, or of an embedder of the same shape, for all.
        model: the model to train; changed in place.
        card: card of the model.
        centres: centres (items, dim) by head name; changed in place if the run is an embedder's and the projection is
            trained.
        crops: training pictures that give the centres of items that the run lacks.

    Raises:
        TrainError: the run cannot be used, or has another shape.
    """
    source, source_card = load_model(folder)
    source.trunk.before = nn.Identity()  # a localiser that cuts the background out comes with the recipe
    keys = ["backbone", "backbone_options", "strides", "grey"]
    if source_card.kind == "embedder":
        keys += ["free", "heads", "projection", "width", "grid", "pool", "joint"]
    wrong = [key for key in keys if getattr(card, key) != getattr(source_card, key)]
    if card.preprocess.mean != source_card.preprocess.mean or card.preprocess.std != source_card.preprocess.std:
        wrong.append("mean and std")
    if source_card.kind == "detector":
        wrong.append("kind")
    if wrong:
        raise TrainError(f"init_from {folder}: this run differs from the recipe in {', '.join(wrong)}")
    if source_card.kind == "classifier" or model.is_deferred:
        model.trunk.load_state_dict(source.trunk.state_dict())
        return
    model.load_state_dict(source.state_dict())
    known = load_centres(folder)
    imprinted = imprint(model, crops)
    for head, rows in centres.items():
        values = [known.get(head, {}).get(item, imprinted[head][i]) for i, item in enumerate(crops.items)]
        with torch.no_grad():
            rows.copy_(torch.stack(values))
    new = [item for item in crops.items if item not in next(iter(known.values()), {})]
    log.info("%s: starting with %d known items and %d imprinted ones", folder, len(crops.items) - len(new), len(new))


def imprint(model: Embedder, crops: Crops) -> dict[str, Tensor]:
    """Return the mean direction of each item's training pictures: by centres (items, dim), rows of unit length."""
    was_training = model.training
    joint = torch.from_numpy(predict(model.eval(), crops.train_canvases(), crops.spec))
    model.train(was_training)
    items = torch.from_numpy(crops.item_indices(crops.train))
    dims = model.part_dims
    split = joint.split(list(dims.values()), dim=1)
    return {name: mean_directions(rows, items, len(crops.items)) for name, rows in zip(dims, split, strict=True)}


def imprint_centres(model: Embedder, centres: Mapping[str, nn.Parameter], crops: Crops) -> None:
    """Set the centres (items, dim) to the mean directions, with numbers of about one, as in centres that are drawn."""
    imprinted = imprint(model, crops)
    with torch.no_grad():
        for name, rows in centres.items():
            rows.copy_(imprinted[name] * math.sqrt(rows.shape[1]))


def fit_projection(
    model: Embedder, centres: Mapping[str, nn.Parameter], crops: Crops, dim: int
) -> Mapping[str, Tensor]:
    """Fit the projection of an embedder that was trained without one; change the model in place.

    Returns:
        the centres through the projection, by head name, (items, dim); unchanged if the projection was trained.
    """
    if not model.is_deferred:
        return centres
    (head,) = model.heads.values()
    head.fit_projection(torch.from_numpy(predict(model, crops.train_canvases(), crops.spec)), dim)
    model.to(next(model.parameters()).device)
    return {name: head.project(rows.detach()).detach() for name, rows in centres.items()}


def mean_directions(vectors: Tensor, items: Tensor, count: int) -> Tensor:
    """Return the normalised mean of the normalised rows of each item: (count, dim)."""
    sums = torch.zeros(count, vectors.shape[1]).index_add_(0, items, F.normalize(vectors, dim=1))
    return F.normalize(sums, dim=1)


def save_centres(folder: Path, centres: Mapping[str, Tensor], items: Sequence[str]) -> None:
    """Write the learned centres of an embedder to `centres.safetensors`, with the items in its metadata.

    Raises:
        TrainError: the disk is full or not writable.
    """
    if not is_rank0():
        return
    tensors = {head: rows.detach().cpu().contiguous() for head, rows in centres.items()}
    with report_disk_errors(f"{folder}: cannot save the centres"):
        write_durably(folder / CENTRES_FILE, save(tensors, {"items": json.dumps(list(items))}))


def load_centres(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Read the centres of a run, by head and item; empty if the run has none.

    Raises:
        TrainError: the file is damaged.
    """
    path = folder / CENTRES_FILE
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "pt") as file:
            items = json.loads(file.metadata()["items"])
            return {head: dict(zip(items, file.get_tensor(head), strict=True)) for head in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors raises its own
        raise TrainError(f"{path}: cannot read centres: {type(error).__name__}: {error}") from error
