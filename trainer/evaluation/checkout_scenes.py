"""Checkout evaluation: how well a bundle reads the shopping lists of rendered scenes, in three levels of clutter.

The measures are those of RPC (Wei et al. 2019).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge.build import load_models
from edge.config.schema import EngineConfig
from edge.errors import TrainError
from edge.gallery.item_vectors import shrink_items_to_centroid
from edge.gallery.search import build_index
from edge.recognition.loaded_models import LoadedModels
from trainer.evaluation.reference_gallery import stored_items
from trainer.evaluation.shopping_lists import TrueObject, measure_lists, read_scene
from trainer.recipe_parts import LEAST_VISIBLE
from trainer.synthetic.items import Item, catalogue
from trainer.synthetic.scene import Scene, scene

LEVELS = {"easy": (2, 4), "medium": (5, 7), "hard": (8, 10)}  # objects of a scene, roughly
SIZE_PX = (640, 360)


def render_scenes(level: str, count: int, seed: int, items: tuple[Item, ...]) -> Iterator[Scene]:
    """Render the scenes of a level; the same seed gives the same scenes."""
    low, high = LEVELS[level]
    for number in range(count):
        rng = np.random.default_rng([seed, list(LEVELS).index(level), number])
        yield scene(rng, items, *SIZE_PX, count=int(rng.integers(low, high + 1)))


def evaluate_checkout(
    bundle: Path, gallery: Path, count: int, seed: int, left_out: Collection[str], engine: EngineConfig
) -> dict[str, Any]:
    """Read the shopping list of every scene and measure its accuracy.

    Args:
        bundle: folder of a bundle with a detector.
        gallery: folder of its gallery generation.
        count: scenes of each level.
        seed: seed of the scenes.
        left_out: items left out of the gallery for the outcomes; lists are read with the whole gallery.
        engine: settings of the engine that runs the bundle.

    Returns:
        by level: the measures of trainer.evaluation.shopping_lists.measure_lists.

    Raises:
        TrainError: the bundle has no detector, or its gallery holds none of the synthetic items.
        BundleError, GalleryError, EngineError: bundle or gallery is unusable.
    """
    models = load_models(bundle, gallery, engine)
    if models.stages.detector is None:
        raise TrainError(f"{bundle}: the bundle has no detector; --checkout needs one")
    gallery_items = _item_ids(bundle, gallery)
    items = tuple(item for item in catalogue() if item.item_id in gallery_items.get(item.category, ()))
    if not items:
        raise TrainError(f"{gallery}: the gallery holds none of the synthetic items; --checkout renders only those")
    models_reduced = replace(models, indexes=_indexes_without(bundle, gallery, left_out))
    return {
        level: _evaluate_level(level, count, seed, items, models, models_reduced, set(left_out)) for level in LEVELS
    }


def choose_left_out(bundle: Path, gallery: Path, share: float, seed: int) -> list[str]:
    """Draw the share of a gallery's items to leave out.

    Raises:
        BundleError, GalleryError: bundle or gallery is unusable.
    """
    listed = sorted(item for items in _item_ids(bundle, gallery).values() for item in items)
    return list(np.random.default_rng(seed).choice(listed, round(share * len(listed)), replace=False))


def _evaluate_level(
    level: str,
    count: int,
    seed: int,
    items: tuple[Item, ...],
    models: LoadedModels,
    models_reduced: LoadedModels,
    left_out: set[str],
) -> dict[str, Any]:
    read = []
    for rendered in render_scenes(level, count, seed, items):
        visible = [one for one in rendered.objects if one.visible_fraction >= LEAST_VISIBLE]
        shown = [TrueObject(one.box_px, one.item_id) for one in visible]
        read.append(read_scene(models, rendered.image_rgb, shown, models_reduced))
    known = {item.item_id for item in items} - left_out
    return measure_lists(read, known, seed)


def _item_ids(bundle: Path, gallery: Path) -> Mapping[str, tuple[str, ...]]:
    return {category: tuple(items.item_ids) for category, _, items in stored_items(bundle, gallery)}


def _indexes_without(bundle: Path, gallery: Path, left_out: Collection[str]) -> dict[str, Any]:
    """Build the search indexes of a gallery without some items."""
    indexes = {}
    for category, model, stored in stored_items(bundle, gallery):
        items = shrink_items_to_centroid(stored, model.gathering)
        kept = [i for i, item in enumerate(items.item_ids) if item not in left_out]
        rows = np.isin(items.row_item, kept)
        if not rows.any():
            continue
        position = np.full(len(items.item_ids), -1, np.int32)
        position[kept] = np.arange(len(kept))
        fewer = replace(
            items,
            item_ids=tuple(items.item_ids[i] for i in kept),
            labels=tuple(items.labels[i] for i in kept),
            negative=items.negative[kept],
            vectors_i8=items.vectors_i8[rows],
            scales=items.scales[rows],
            row_item=position[items.row_item[rows]],
        )
        indexes[category] = build_index(fewer)
    return indexes
