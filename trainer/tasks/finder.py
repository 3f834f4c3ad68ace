"""Training of the finder, which locates the object of a query picture in a scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge.errors import TrainError
from edge.finder.correlate import build_query, query_positions
from edge.finder.heat_map import VerifiedBox, connected_parts
from edge.finder.verify import verify_parts
from edge.inference.preprocess import placement_of
from edge.manifest.model import Preprocess
from edge.types import FloatArray, Image
from trainer.data.augment import canvases_to_input
from trainer.data.batches import plain_batches
from trainer.distributed import require_single_process
from trainer.loop.batch import Batch
from trainer.loop.training_loop import fit
from trainer.losses.finder_losses import double_margin, margins_of, pixel_l2
from trainer.metrics import Boxes, best_threshold, detection_map
from trainer.model_setup import card_of, preprocess_of, strides_of
from trainer.models.finder_network import Finder, RepresentationGenerator
from trainer.models.networks import ModelCard, build_model, freeze_parts, save_model
from trainer.recipe import FinderRecipe
from trainer.recipe_parts import Augment
from trainer.tasks.finder_scenes import Search, World, render_worlds, sample_search

_THRESHOLD_RANGE = (0.15, 0.8)  # hard bounds on the fitted score threshold
_MIN_SCORE = 0.05


class FinderTask:
    """Searches each scene for one of its objects, and every second scene also for an object that it does not show."""

    def __init__(self, recipe: FinderRecipe, train: World, val: World, model: Finder, spec: Preprocess) -> None:
        self.recipe, self.module, self.spec = recipe, model, spec
        self._train = train
        still = recipe.model_copy(update={"recolour": 0.0, "augment": _without_augmentation(recipe)})
        draw = np.random.default_rng((recipe.seed, 9))
        present = [sample_search(val, number, still, spec, draw) for number in range(len(val.scenes))]
        self._val = present + _absent_searches(present, [set(scene.items) for scene in val.scenes])
        self.plan: list[NDArray[np.int64]] = []

    def steps(self) -> int:
        """Return the number of batches in an epoch."""
        return max(1, len(self._train.scenes) // self.recipe.optimiser.batch)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that train at the trunk's own rate."""
        return [parameter for one in generators(self.module) for parameter in one.trunk.parameters()]

    def begin_epoch(self, epoch: int, rng: np.random.Generator) -> None:  # noqa: ARG002
        """Shuffle the scenes."""
        self.plan = plain_batches(len(self._train.scenes), self.recipe.optimiser.batch, rng)

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Sample the augmented searches of one batch, and the true map of each."""
        searches = [sample_search(self._train, int(i), self.recipe, self.spec, rng) for i in self.plan[step]]
        own = [(i, i) for i in range(len(searches))]
        items = [
            set(self._train.scenes[int(i)].items) | {s.item_id} for i, s in zip(self.plan[step], searches, strict=True)
        ]
        crossed = [(i, (i + 1) % len(searches)) for i in range(0, len(searches), 2)]
        absent = [(scene, query) for scene, query in crossed if searches[query].item_id not in items[scene]]
        nothing = np.zeros_like(searches[0].coverage)
        tensors = to_tensors(searches, self.spec, self.recipe) | {
            "pairs": torch.tensor(own + absent),
            "truth": torch.from_numpy(np.stack([s.coverage for s in searches] + [nothing] * len(absent))),
        }
        return Batch(tensors, [f"scene {i} for {s.item_id}" for i, s in zip(self.plan[step], searches, strict=True)])

    def loss(self, tensors: dict[str, Tensor], done: float) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the loss of all maps against their masks."""
        found = self.module(tensors["scenes"], tensors["queries"], tensors["cells"], tensors["pairs"])
        truth = tensors["truth"]
        if self.recipe.loss == "l2":
            return {"map": pixel_l2(found, truth)}
        margins = margins_of(truth, self.recipe.edge_band)
        return {"map": double_margin(found, (truth >= 0.5).float(), margins)}

    def evaluate(self, module: nn.Module) -> dict[str, float]:
        """Return the mAP50 of the boxes on the validation searches, half of which are for absent objects."""
        return validate_finder(module, self._val, self.spec, self.recipe)


def _absent_searches(searches: Sequence[Search], items: Sequence[set[str]]) -> list[Search]:
    """Make for each scene a search for an object that it does not show, where no box is right."""
    absent = []
    for number, search in enumerate(searches):
        for other in (*searches[number + 1 :], *searches[:number]):
            if other.item_id not in items[number]:
                absent.append(
                    replace(
                        other,
                        scene_rgb=search.scene_rgb,
                        coverage=np.zeros_like(search.coverage),
                        boxes_px=np.zeros((0, 4), np.float32),
                    )
                )
                break
    return absent


def generators(model: Finder) -> list[RepresentationGenerator]:
    """Return the representation generators: one shared, or one for scenes and one for queries."""
    return [one for one in (model.represent, model.represent_query) if one is not None]


def _without_augmentation(recipe: FinderRecipe) -> Augment:
    """Return the recipe's augmentation, switched off."""
    return recipe.augment.model_copy(
        update={"scale": (1.0, 1.0), "flip": False, "colour": 0.0, "blur": 0.0, "noise": 0.0, "erase": 0.0}
    )


def to_tensors(searches: Sequence[Search], spec: Preprocess, recipe: FinderRecipe) -> dict[str, Tensor]:
    """Stack scenes, queries and the queries' cells; of the query canvas only the rows that hold queries."""
    places = zip(query_positions(recipe.shape, spec), recipe.shape.query_px, strict=True)
    deepest = max(recipe.backbone.strides or [recipe.shape.stride])
    rows = -(-max(y + px for (_, y), px in places) // deepest) * deepest
    canvases = np.stack([s.query_rgb[:rows] for s in searches])
    return {
        "scenes": canvases_to_input(np.stack([s.scene_rgb for s in searches]), spec),
        "queries": canvases_to_input(canvases, spec),
        "cells": torch.from_numpy(np.stack([s.query_cells[: rows // recipe.shape.stride] for s in searches])),
    }


def heat_maps_of(
    module: nn.Module, searches: Sequence[Search], spec: Preprocess, recipe: FinderRecipe, batch: int = 16
) -> list[FloatArray]:
    """Compute the heat map of each search."""
    device = next(module.parameters()).device
    maps: list[FloatArray] = []
    with torch.no_grad():
        for start in range(0, len(searches), batch):
            tensors = to_tensors(searches[start : start + batch], spec, recipe)
            found = module(*(tensors[key].to(device) for key in ("scenes", "queries", "cells")))
            maps += list(found.cpu().numpy())
    return maps


def validate_finder(
    module: nn.Module, searches: Sequence[Search], spec: Preprocess, recipe: FinderRecipe
) -> dict[str, float]:
    """Return the mAP50 of the boxes, and the score threshold with the best F1 at IoU 0.5."""
    found = []
    for search, heat in zip(searches, heat_maps_of(module, searches, spec, recipe), strict=True):
        boxes = _find_boxes(module, search, heat, spec, recipe)
        rows = np.array([one.box_px for one in boxes], np.float32).reshape(-1, 4)
        found.append(Boxes(rows, np.array([one.score for one in boxes], np.float32)))
    truths = [search.boxes_px for search in searches]
    threshold, f1 = best_threshold(found, truths)
    return {"map50": detection_map(found, truths)["map50"], "f1": f1, "score_threshold": threshold}


def _find_boxes(
    module: nn.Module, search: Search, heat: FloatArray, spec: Preprocess, recipe: FinderRecipe
) -> list[VerifiedBox]:
    """Return the boxes that a device finds by a heat map, before any threshold."""
    shape, device = recipe.shape, next(module.parameters()).device

    def represent(canvas: Image) -> FloatArray:
        generator = module.represent_query or module.represent
        with torch.no_grad():
            return np.asarray(generator(canvases_to_input(canvas[None], spec).to(device))[0][0].cpu())

    parts = connected_parts(
        heat, placement_of(spec, spec.width, spec.height), shape.map_stride, shape.levels, _MIN_SCORE
    )
    kernel = build_query(represent(search.query_rgb), search.query_cells, shape, spec).verify_kernel
    return verify_parts(represent, search.scene_rgb, parts, [kernel], shape, spec)


def train_finder(recipe: FinderRecipe, out: Path, worlds: tuple[World, World] | None = None) -> ModelCard:
    """Train, choose the score threshold, and save the model into `out`.

    Args:
        recipe: of the finder.
        out: folder of the run.
        worlds: to train and to validate on, from `trainer.pasting.finder_world`; None: rendered here.

    Raises:
        TrainError: the recipe is inconsistent, or training failed.
    """
    require_single_process("finder")
    _check_recipe(recipe, strides_of(recipe))
    if worlds is None and recipe.world.cutouts is not None:
        raise TrainError("world.cutouts: make the worlds with trainer.pasting.finder_world.make_worlds")
    train, val = worlds or render_worlds(recipe, out)
    torch.manual_seed(recipe.seed)
    data = {
        "source": "synthetic" if recipe.world.cutouts is None else "cut-outs",
        "train": len(train.scenes),
        "val": len(val.scenes),
        "items": sorted(train.cutouts),
        "held_out": recipe.world.held_out,
        "skipped": 0,
    }
    card = card_of(
        recipe,
        data,
        grey=False,  # input.grey does not apply: the second trunk of a finder would still see colours
        finder=recipe.shape,
        channels=recipe.channels,
        guide=recipe.guide,
        shared_trunk=recipe.shared_trunk,
    )
    model = build_model(card, recipe.backbone.pretrained)
    task = FinderTask(recipe, train, val, model, card.preprocess)
    frozen = freeze_parts(model, recipe.backbone)
    final = fit(task, recipe.optimiser, out, recipe.seed, recipe.model_dump_json(), frozen)
    metrics = task.evaluate(final)
    threshold = float(np.clip(metrics["score_threshold"], *_THRESHOLD_RANGE))
    card = card.model_copy(update={"metrics": metrics, "score_threshold": threshold})
    save_model(out, final, card)
    return card


def _check_recipe(recipe: FinderRecipe, strides: list[int]) -> None:
    """Check that the trunk has the maps that the finder needs, and that all sizes divide by the strides.

    Raises:
        TrainError: a map is missing, or a size does not divide.
    """
    shape = recipe.shape
    wanted = {shape.stride, *([shape.map_stride] if recipe.guide else [])}
    if not wanted <= set(strides):
        raise TrainError(f"backbone.strides is {strides}; shape needs {sorted(wanted)} among them")
    if odd := [px for px in shape.query_px if px % shape.stride]:
        raise TrainError(f"shape.query_px: {odd} are not multiples of the stride {shape.stride}")
    whole = 8 * shape.map_stride  # the conversion goes down three octaves
    if recipe.input.width % whole or recipe.input.height % whole:
        raise TrainError(f"input is {recipe.input.width}x{recipe.input.height}, expected multiples of {whole}")
    try:
        query_positions(shape, preprocess_of(recipe))
    except ValueError as error:
        raise TrainError(f"shape: {error}") from error
