"""The training data of a finder: scenes and cut-outs with exact masks, and searches sampled from them.

The scenes here are rendered; `trainer.pasting.finder_world` pastes them from a user's own cut-outs.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.durable import write_durably
from edge.errors import TrainError
from edge.finder.query import lay_out_query
from edge.manifest.model import Preprocess
from edge.types import FloatArray, Image, Mask
from trainer.data.augment import augment_appearance
from trainer.recipe import FinderRecipe
from trainer.recipe_parts import Augment
from trainer.synthetic.items import CATEGORIES, Item, catalogue
from trainer.synthetic.render import render_object
from trainer.synthetic.scene import Scene, box_of, scene

_MIN_VISIBLE = 0.35  # smallest visible share of an object that is searched for
_MIN_VISIBLE_QUERY = 0.8  # smallest visible share of an object used as a query
ITEMS_PER_SCENE = 5  # items that a scene is drawn from; some appear twice
_GAP_PX = 7  # width of the gap between two touching objects of one item
CUTOUT_PX = 144  # height of a cut-out
VAL_SEED = 50_021  # added to the seed of the validation world


@dataclass(frozen=True, slots=True)
class MaskedScene:
    """A scene, and the object that each of its pixels belongs to."""

    image_rgb: Image
    owner: NDArray[np.uint8]  # (h, w), 0 for background, else the position in `items`, from 1
    items: tuple[str, ...]
    visible: tuple[float, ...]  # visible share of each object

    def owners(self, item_id: str, least: float = 0.0) -> list[int]:
        """Return the numbers of an item's objects whose visible share is at least `least`."""
        pairs = zip(self.items, self.visible, strict=True)
        return [number for number, (item, share) in enumerate(pairs, start=1) if item == item_id and share >= least]

    @property
    def searchable_items(self) -> list[str]:
        """Return the items that are visible enough to search for."""
        return sorted({item for item, share in zip(self.items, self.visible, strict=True) if share >= _MIN_VISIBLE})


@dataclass(frozen=True, slots=True)
class World:
    """The scenes and queries that a finder is trained or validated on."""

    scenes: list[MaskedScene]
    cutouts: dict[str, list[NDArray[np.uint8]]]  # by item, cut-outs (h, w, 4) RGBA
    occurrences: dict[str, list[tuple[int, int]]]  # by item, scene and owner number of each object that can be a query


def index_occurrences(scenes: list[MaskedScene], cutouts: dict[str, list[NDArray[np.uint8]]]) -> World:
    """List the occurrences of each item that can be queries."""
    occurrences: dict[str, list[tuple[int, int]]] = {}
    for number, one in enumerate(scenes):
        for owner, (item, share) in enumerate(zip(one.items, one.visible, strict=True), start=1):
            if share >= _MIN_VISIBLE_QUERY:
                occurrences.setdefault(item, []).append((number, owner))
    return World(scenes, cutouts, occurrences)


def joined(one: World, other: World) -> World:
    """Join two worlds with different items."""
    return index_occurrences([*one.scenes, *other.scenes], one.cutouts | other.cutouts)


def split_items(held_out: Sequence[str]) -> tuple[list[Item], list[Item]]:
    """Split the items into those to train on, and those held out by id or category.

    Raises:
        TrainError: a name is unknown, or fewer than two items are left.
    """
    known = {*CATEGORIES, *(item.item_id for item in catalogue())}
    if unknown := sorted(set(held_out) - known):
        raise TrainError(f"world.held_out: {unknown} are neither synthetic items nor categories")
    apart = [item for item in catalogue() if {item.item_id, item.category} & set(held_out)]
    kept = [item for item in catalogue() if item not in apart]
    if len(kept) < 2:
        raise TrainError(f"world.held_out: leaves {len(kept)} items; training needs at least two")
    return kept, apart


def render_scenes(
    items: Sequence[Item], among: Sequence[Item], count: int, size_px: tuple[int, int], seed: int
) -> list[MaskedScene]:
    """Render scenes that each show at least one of the items among others.

    Args:
        items: each scene shows enough of one of them.
        among: the other objects are drawn from these.
        count: number of scenes.
        size_px: width and height.
        seed: seed of everything random.
    """
    scenes: list[MaskedScene] = []
    wanted_ids = {item.item_id for item in items}
    for number in tqdm(range(count), desc="scenes", leave=False):
        rng = np.random.default_rng([seed, 31, number])
        one = None
        while one is None or not wanted_ids & set(one.searchable_items):
            one = _render_scene(items[int(rng.integers(len(items)))], among, size_px, rng)
        scenes.append(one)
    return scenes


def _render_scene(
    wanted: Item, among: Sequence[Item], size_px: tuple[int, int], rng: np.random.Generator
) -> MaskedScene:
    kin = [item for item in among if (item.category == "car") == (wanted.category == "car")]
    others = [kin[int(i)] for i in rng.integers(len(kin), size=ITEMS_PER_SCENE - 1)]
    found = scene(rng, [wanted, wanted, *others], *size_px, count=int(rng.integers(1, 7)))
    return masked_scene(found)


def masked_scene(composed: Scene, *, with_category: bool = False) -> MaskedScene:
    """Number the objects of a composed scene; `with_category` names each item `category/item`."""
    owner = np.zeros(composed.image_rgb.shape[:2], np.uint8)
    for place, one in enumerate(composed.objects, start=1):
        owner[one.mask] = place
    names = (f"{one.category}/{one.item_id}" if with_category else one.item_id for one in composed.objects)
    return MaskedScene(composed.image_rgb, owner, tuple(names), tuple(one.visible_fraction for one in composed.objects))


def render_cutouts(items: Sequence[Item], count: int, seed: int) -> dict[str, list[NDArray[np.uint8]]]:
    """Render cut-outs of each item in random views."""
    rng = np.random.default_rng([seed, 32])
    return {item.item_id: [render_object(item, rng, CUTOUT_PX) for _ in range(count)] for item in items}


def render_worlds(recipe: FinderRecipe, folder: Path) -> tuple[World, World]:
    """Render the training and the validation world of a recipe: different scenes and cut-outs of the same items.

    Args:
        recipe: recipe with the counts and the held-out items.
        folder: caches the scenes, for a run that resumes.
    """
    world = recipe.world
    kept, _ = split_items(world.held_out)
    size = (recipe.input.width, recipe.input.height)
    worlds = []
    for name, seed, scenes, per_item in (
        ("train", world.seed, world.scenes, world.looks),
        ("val", world.seed + VAL_SEED, world.val_scenes, 3),
    ):
        path, key = folder / f"scenes-{name}.npz", f"{world.model_dump_json()} {size}"
        rendered = read_scenes(path, key)
        if rendered is None:
            rendered = render_scenes(kept, kept, scenes, size, seed)
            save_scenes(path, key, rendered)
        worlds.append(index_occurrences(rendered, render_cutouts(kept, per_item, seed)))
    return worlds[0], worlds[1]


def save_scenes(path: Path, key: str, scenes: list[MaskedScene]) -> None:
    """Write the scenes of a run, under the key of the settings that made them."""
    buffer = io.BytesIO()
    named = json.dumps({"of": key, "objects": [[one.items, one.visible] for one in scenes]})
    images, owners = np.stack([one.image_rgb for one in scenes]), np.stack([one.owner for one in scenes])
    np.savez(buffer, named=np.frombuffer(named.encode(), np.uint8), images=images, owners=owners)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, buffer.getvalue())


def read_scenes(path: Path, key: str) -> list[MaskedScene] | None:
    """Read the cached scenes; None if there are none, or scenes of another recipe."""
    try:
        with np.load(path) as kept:
            named = json.loads(kept["named"].tobytes())
            if named["of"] != key:
                return None
            rows = zip(kept["images"], kept["owners"], named["objects"], strict=True)
            return [MaskedScene(image, owner, tuple(items), tuple(seen)) for image, owner, (items, seen) in rows]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


@dataclass(frozen=True, slots=True)
class Search:
    """One scene, one query, and the boxes of its object."""

    scene_rgb: Image  # on the canvas
    coverage: FloatArray  # (rows, columns) of the heat map, 0..1
    query_rgb: Image  # one canvas with the query at all sizes
    query_cells: FloatArray  # share of each cell that the object covers
    boxes_px: FloatArray  # (n, 4) on the canvas, of each object that is visible enough
    item_id: str


def sample_search(
    world: World, number: int, recipe: FinderRecipe, spec: Preprocess, rng: np.random.Generator
) -> Search:
    """Sample one augmented search in a scene; for an absent item if none is visible enough."""
    found, how = world.scenes[number], recipe.augment
    candidates = found.searchable_items or sorted(world.cutouts)
    item_id = candidates[int(rng.integers(len(candidates)))]
    picture, query_mask = _sample_query(world, item_id, number, rng)
    image_rgb, owner = found.image_rgb, np.where(np.isin(found.owner, found.owners(item_id)), found.owner, 0)
    if rng.random() < recipe.recolour:
        tint = _tint(rng)
        picture, image_rgb = _recolour(picture, query_mask, tint), _recolour(image_rgb, owner, tint)
    if how.flip and rng.random() < 0.5:
        picture, query_mask = np.ascontiguousarray(picture[:, ::-1]), np.ascontiguousarray(query_mask[:, ::-1])
        image_rgb, owner = np.ascontiguousarray(image_rgb[:, ::-1]), np.ascontiguousarray(owner[:, ::-1])
    image_rgb, owner = _zoom(image_rgb, owner, spec, how, rng)
    query_rgb, cells = lay_out_query(augment_appearance(picture, how, rng), query_mask, recipe.shape, spec)
    boxes = [box_of(owner == number) for number in found.owners(item_id, _MIN_VISIBLE) if (owner == number).any()]
    coverage = coverage_of(_mask_with_gaps(owner), recipe.shape.map_stride)
    boxes_px = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Search(augment_appearance(image_rgb, how, rng), coverage, query_rgb, cells, boxes_px, item_id)


def _mask_with_gaps(owner: NDArray[np.uint8]) -> Mask:
    """Return the mask of all objects, with a gap where two touch, so that a heat map separates them."""
    numbers = [int(number) for number in np.unique(owner) if number]
    mask = (owner > 0).astype(np.uint8)
    if len(numbers) > 1:
        near = sum(cv2.dilate((owner == number).astype(np.uint8), np.ones((_GAP_PX, _GAP_PX))) for number in numbers)
        mask[np.asarray(near) > 1] = 0
    return mask


def coverage_of(mask: Mask, stride: int) -> FloatArray:
    """Return the share of each cell that a mask covers."""
    rows, columns = mask.shape[0] // stride, mask.shape[1] // stride
    cells = mask[: rows * stride, : columns * stride].reshape(rows, stride, columns, stride)
    return np.asarray(cells.mean(axis=(1, 3)), np.float32)


def _sample_query(world: World, item_id: str, elsewhere: int, rng: np.random.Generator) -> tuple[Image, Mask]:
    """Sample a picture of an item and its mask: a cut-out, or an object of another scene, maybe with surroundings."""
    occurrences = [occurrence for occurrence in world.occurrences.get(item_id, []) if occurrence[0] != elsewhere]
    if not occurrences or rng.random() < 0.5:
        cutouts = world.cutouts[item_id]
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        return np.ascontiguousarray(cutout[..., :3]), (cutout[..., 3] >= 128).astype(np.uint8)
    number, owner = occurrences[int(rng.integers(len(occurrences)))]
    seen = world.scenes[number]
    mask = (seen.owner == owner).astype(np.uint8)
    y, x = np.nonzero(mask)
    cut = slice(int(y.min()), int(y.max()) + 1), slice(int(x.min()), int(x.max()) + 1)
    if rng.random() < 0.4:  # a query that is known by its box only
        mask = np.ones_like(mask)
    return np.ascontiguousarray(seen.image_rgb[cut]), np.ascontiguousarray(mask[cut])


def _tint(rng: np.random.Generator) -> NDArray[np.float64]:
    """Sample a rotation of the hues about grey, with a gain for each channel: (3, 3)."""
    angle, third = rng.uniform(0.6, 2 * np.pi - 0.6), 1 / 3
    cosine, sine = np.cos(angle), np.sin(angle) * np.sqrt(third)
    same, before, after = cosine + (1 - cosine) * third, (1 - cosine) * third - sine, (1 - cosine) * third + sine
    turn = np.array([[same, before, after], [after, same, before], [before, after, same]])
    return np.asarray(rng.uniform(0.55, 1.15, 3)[:, None] * turn)


def _recolour(image_rgb: Image, mask: Mask, tint: NDArray[np.float64]) -> Image:
    return np.where(mask[..., None] > 0, cv2.transform(image_rgb, tint), image_rgb).astype(np.uint8)


def _zoom(
    image_rgb: Image, owner: NDArray[np.uint8], spec: Preprocess, how: Augment, rng: np.random.Generator
) -> tuple[Image, NDArray[np.uint8]]:
    """Place a part of a scene on the canvas, or all of it with a grey border."""
    height, width = owner.shape
    scale = min(spec.width / width, spec.height / height) / rng.uniform(*how.scale)
    free = np.array([spec.width - width * scale, spec.height - height * scale]) * rng.uniform(0, 1, 2)
    matrix = np.array([[scale, 0, free[0]], [0, scale, free[1]]])
    size = (spec.width, spec.height)
    fill = (spec.fill,) * 3
    seen = cv2.warpAffine(image_rgb, matrix, size, flags=cv2.INTER_LINEAR, borderValue=fill)
    return np.asarray(seen, np.uint8), np.asarray(
        cv2.warpAffine(owner, matrix, size, flags=cv2.INTER_NEAREST), np.uint8
    )
