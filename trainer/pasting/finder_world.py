"""The training data of a finder from a user's own things: their cut-outs, pasted into scenes with every distortion.

The distortions are those of US 2018/0260664, in `trainer.pasting.distort` and `distort_frame`; other cut-outs and
clutter hide objects. The scenes are composed once, when training starts, and kept in the run folder.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.errors import TrainError
from edge.imaging.image import resize
from trainer.pasting.background import Background, drawn_background, photo_backgrounds
from trainer.pasting.cutouts import Cutout, read_cutouts
from trainer.pasting.distort import DistortionProbabilities, affine
from trainer.pasting.paste import SceneLayout, paste_scene
from trainer.recipe import FinderRecipe, FinderWorld
from trainer.synthetic.render import unpremultiply
from trainer.tasks.finder_scenes import (
    CUTOUT_PX,
    ITEMS_PER_SCENE,
    VAL_SEED,
    MaskedScene,
    World,
    index_occurrences,
    joined,
    masked_scene,
    read_scenes,
    render_worlds,
    save_scenes,
)

log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]
_OBJECTS = (1, 6)  # number of objects in a scene, smallest and largest
_SHARE = (0.15, 0.7)  # an object's longer side, relative to the frame's shorter one
_TURN_DEG = 30.0
_VAL_LOOKS = 3  # cut-outs of each item in the validation world
_TRIES = 20  # scenes composed until one shows enough of its item
ByItem = Mapping[str, Sequence[Cutout]]


def make_worlds(recipe: FinderRecipe, folder: Path) -> tuple[World, World]:
    """Make the training and the validation world of a recipe: from `world.cutouts`, or rendered without them.

    Args:
        recipe: with the cut-outs, the counts and the held-out items.
        folder: caches the scenes, for a run that resumes.

    Raises:
        DataError: the cut-outs cannot be read.
        TrainError: nothing can be cut out, fewer than two items are left, a name is unknown, or all scenes are
            rendered.
    """
    world = recipe.world
    if world.cutouts is None:
        return render_worlds(recipe, folder)
    by_item = read_items(world)
    background = drawn_background if world.backgrounds is None else photo_backgrounds(world.backgrounds)[0]
    of_val = min(world.val_scenes - 1, round(world.rendered * world.val_scenes))
    rendered = round(world.rendered * world.scenes), of_val
    counts = world.scenes - rendered[0], world.val_scenes - rendered[1]
    if not counts[0]:
        raise TrainError(f"world.rendered is {world.rendered:g}: that leaves no scene for your own things; give less")
    own = _pasted_worlds(recipe, folder, by_item, background, counts)
    if not rendered[0]:
        return own
    fewer = world.model_copy(update={"scenes": rendered[0], "val_scenes": max(1, of_val), "held_out": []})
    built_in = render_worlds(recipe.model_copy(update={"world": fewer}), folder / "rendered")
    return joined(own[0], built_in[0]), joined(own[1], built_in[1])


def read_items(world: FinderWorld) -> dict[str, list[Cutout]]:
    """Read the cut-outs of a recipe, by item as `category/item`, without those held out.

    Raises:
        DataError: the cut-outs cannot be read.
        TrainError: nothing can be cut out, fewer than two items are left, or a held-out name is unknown.
    """
    assert world.cutouts is not None
    taken = read_cutouts(world.cutouts, world.root, world.splits or None, per_item=world.per_item)
    if taken.skipped:
        log.warning("%d objects are not cut out; the first: %s", len(taken.skipped), taken.skipped[0])
    known = {name for one in taken.found for name in (one.category, one.item, f"{one.category}/{one.item}")}
    if unknown := sorted(set(world.held_out) - known):
        raise TrainError(f"world.held_out: {unknown} are neither items nor categories of {world.cutouts}")
    items: dict[str, list[Cutout]] = {}
    for one in taken.found:
        name = f"{one.category}/{one.item}"
        if not {one.category, one.item, name} & set(world.held_out):
            items.setdefault(name, []).append(one)
    if len(items) < 2:
        raise TrainError(
            f"{world.cutouts}: cut-outs of {len(items)} items are left; a finder learns to tell at least two apart"
        )
    return dict(sorted(items.items()))


def _pasted_worlds(
    recipe: FinderRecipe, folder: Path, by_item: ByItem, background: Background, counts: tuple[int, int]
) -> tuple[World, World]:
    world = recipe.world
    layout = SceneLayout(recipe.input.width, recipe.input.height, _OBJECTS, _SHARE, _TURN_DEG)
    probabilities = DistortionProbabilities().without(world.without)
    worlds = []
    for name, seed, count, looks in (
        ("train", world.seed, counts[0], world.looks),
        ("val", world.seed + VAL_SEED, counts[1], _VAL_LOOKS),
    ):
        path, key = folder / f"pasted-{name}.npz", f"{world.model_dump_json()} {layout} {_digest(by_item)}"
        scenes = read_scenes(path, key)
        if scenes is None:
            scenes = compose_scenes(by_item, background, layout, probabilities, count, seed)
            save_scenes(path, key, scenes)
        worlds.append(index_occurrences(scenes, query_pictures(by_item, looks, seed)))
    return worlds[0], worlds[1]


def _digest(by_item: ByItem) -> str:
    """Return a digest of the cut-outs, so that a changed picture makes other scenes."""
    digest = hashlib.sha256()
    for name, views in by_item.items():
        digest.update(name.encode())
        for view in views:
            digest.update(view.picture.tobytes())
    return digest.hexdigest()[:16]


def compose_scenes(
    by_item: ByItem,
    background: Background,
    layout: SceneLayout,
    probabilities: DistortionProbabilities,
    count: int,
    seed: int,
) -> list[MaskedScene]:
    """Paste scenes that each show at least one item well enough to search for it.

    Args:
        by_item: the cut-outs of each item.
        background: source of the picture they are pasted on.
        layout: sizes and counts.
        probabilities: probability of each distortion.
        count: number of scenes.
        seed: seed of everything random.
    """
    names = list(by_item)
    scenes: list[MaskedScene] = []
    for number in tqdm(range(count), desc="scenes", leave=False):
        rng = np.random.default_rng([seed, 33, number])
        for _ in range(_TRIES):
            wanted = names[int(rng.integers(len(names)))]
            drawn = [wanted, wanted, *(names[int(i)] for i in rng.integers(len(names), size=ITEMS_PER_SCENE - 1))]
            pasted = paste_scene(rng, [by_item[name] for name in drawn], background, layout, probabilities)
            one = masked_scene(pasted, with_category=True)
            if one.searchable_items:
                break
        scenes.append(one)
    return scenes


def query_pictures(by_item: ByItem, looks: int, seed: int) -> dict[str, list[Bytes]]:
    """Return pictures of each item to search by, (h, w, 4) RGBA: its cut-outs, turned and tilted if they are few."""
    rng = np.random.default_rng([seed, 34])
    pictures: dict[str, list[Bytes]] = {}
    for name, views in by_item.items():
        chosen = [views[int(i)] for i in rng.permutation(len(views))[:looks]]
        chosen += [views[int(i)] for i in rng.integers(len(views), size=looks - len(chosen))]
        pictures[name] = [unpremultiply(_sized(affine(one.picture, rng, CUTOUT_PX, 15.0))) for one in chosen]
    return pictures


def _sized(picture: Bytes) -> Bytes:
    """Return a picture with at least 16 pixels on each side."""
    high, wide = (max(16, side) for side in picture.shape[:2])
    return picture if (high, wide) == picture.shape[:2] else resize(picture, wide, high)
