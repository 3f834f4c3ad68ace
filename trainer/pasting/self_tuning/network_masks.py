"""Masks that networks make and check: localisers trained on the pasted objects, and a finder's heat map.

In every round two localisers with different seeds are trained on the pasted scenes, whose masks are exact. One makes
the masks and the other checks them; or a finder checks them, by the heat map of the known cut-outs. The networks know
the look of the user's things, which a colour model does not.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from dataset_formats.coco.reader import read_coco
from dataset_formats.coco.rle import decode_rle
from dataset_formats.decode import read_image
from edge.errors import TrainError
from edge.finder.finder import Finder
from edge.finder.heat_map import resize_to_source
from edge.imaging.image import encode_image, encode_mask, resize
from edge.telemetry.timing import Timings
from edge.types import Box, Image
from trainer.models.localiser_network import MaskNetwork
from trainer.models.networks import load_model
from trainer.pasting.cutout_command import predict_mask
from trainer.pasting.cutouts import Cutout
from trainer.pasting.mask_sources import Mask, MaskSource, context_window, main_parts
from trainer.recipe import LocaliserRecipe
from trainer.recipe_parts import Augment, Input, MaskData, Optimiser
from trainer.synthetic.render import unpremultiply
from trainer.tasks.finder_torch import load_finder
from trainer.tasks.localiser import train_localiser

log = logging.getLogger(__name__)

_LEAST_VISIBLE = 0.6  # smallest visible fraction of a pasted object that is learned from
_WINDOW_PX = 160  # longest side of a written window
_LEAST_OBJECTS = 8  # pasted objects without which the localisers are not trained
_MOST_OBJECTS = 800  # pasted objects that the localisers learn from
_SHIFT = 0.1  # largest random shift of a window, as a share of the box: detectors' boxes are not exact
_FINDER_ITEMS = 8  # most items that a finder's heat map is the maximum of
_HOT = 0.5  # heat from which a pixel is the object


def default_localiser(index: Path) -> LocaliserRecipe:
    """Return the recipe of the localisers of a round, for one that is not given."""
    return LocaliserRecipe(
        kind="localiser",
        data=MaskData(index=index),
        input=Input(width=96, height=96, resize="stretch", crop_margin=0.0),
        augment=Augment(scale=(0.8, 1.25), shift=0.1, flip=True, erase=0.0),
        optimiser=Optimiser(epochs=8, batch=32, lr=4e-3, evaluate_every=8),
    )


def network_masks(
    scenes: Path, folder: Path, localiser: LocaliserRecipe | None, finder: Path | None, cutouts: Sequence[Cutout]
) -> tuple[MaskSource, MaskSource]:
    """Train the networks of a round; return the source that makes the masks, and the one that checks them.

    Args:
        scenes: COCO JSON of the round's pasted scenes, with masks.
        folder: of the round; trainings in it that are done are not repeated.
        localiser: recipe; its data is replaced. None: the default.
        finder: run folder of a finder that checks the masks; None: a second localiser does.
        cutouts: the known cut-outs, which the finder searches for.

    Raises:
        TrainError: there are too few pasted objects, a training failed, or the run is not a finder's.
    """
    index = write_masked_objects(scenes, folder / "masks")
    count = sum(1 for _ in (folder / "masks").glob("*.mask.png"))
    if count < _LEAST_OBJECTS:
        raise TrainError(
            f"{scenes}: shows {count} objects well enough to learn masks from; paste {_LEAST_OBJECTS} or more: "
            "give more --scenes"
        )
    recipe = default_localiser(index) if localiser is None else localiser
    recipe = recipe.model_copy(update={"data": MaskData(index=index)})
    sources = []
    for seed in range(1 if finder else 2):
        run = folder / f"localiser-{seed}"
        if not (run / "model.json").exists():
            train_localiser(recipe.model_copy(update={"seed": recipe.seed + seed}), run)
        sources.append(localiser_masks(run))
    teacher = finder_masks(load_finder(finder), cutouts) if finder else sources[1]
    return sources[0], teacher


def write_masked_objects(scenes: Path, folder: Path, most: int = _MOST_OBJECTS) -> Path:
    """Write the context window of each pasted object with its mask, as training of a localiser reads it.

    Args:
        scenes: COCO JSON with run lengths, as `expand` writes it; photos without masks are left out.
        folder: to write to.
        most: objects at most.

    Returns:
        the path of the CSV with path, mask, split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, str]] = []
    for number, picture in enumerate(read_coco(scenes, None, outlines=True).scenes):
        masked = [box for box in picture.boxes if isinstance(box.outline, dict) and box.visible >= _LEAST_VISIBLE]
        if not masked or len(rows) >= most:
            continue
        image_rgb = read_image(picture.path)
        for place, box in enumerate(masked):
            x0, y0, x1, y1 = box.box_px
            dx, dy = rng.uniform(-_SHIFT, _SHIFT, 2) * (x1 - x0, y1 - y0)
            rows_px, columns_px = context_window((x0 + dx, y0 + dy, x1 + dx, y1 + dy), image_rgb.shape)
            part, mask = image_rgb[rows_px, columns_px], decode_rle(box.outline)[rows_px, columns_px]
            if min(part.shape[:2]) < 16 or not mask.any():
                continue
            name = f"{number:05d}-{place}"
            _write(folder / name, part, mask)
            rows.append((f"{name}.jpg", f"{name}.mask.png", picture.split or "train"))
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "mask", "split"), *rows])
    return folder / "index.csv"


def _write(stem: Path, part: Image, mask: Mask) -> None:
    scale = min(1.0, _WINDOW_PX / max(part.shape[:2]))
    wide, high = (max(8, round(side * scale)) for side in part.shape[1::-1])
    small = resize(np.ascontiguousarray(part), wide, high, "area")
    white = cv2.resize(mask.astype(np.uint8) * 255, (wide, high), interpolation=cv2.INTER_AREA)
    stem.with_name(f"{stem.name}.jpg").write_bytes(encode_image(small, ".jpg", 92))
    stem.with_name(f"{stem.name}.mask.png").write_bytes(encode_mask(np.asarray(white, np.uint8)))


def localiser_masks(run: Path) -> MaskSource:
    """Return the mask source of a trained localiser: it masks the object in the context window of a box."""
    model, card = load_model(run)
    assert isinstance(model, MaskNetwork)
    return lambda image_rgb, box_px: _in_window(image_rgb, box_px, lambda part: predict_mask(model, card, part) >= 128)


def finder_masks(finder: Finder, cutouts: Sequence[Cutout]) -> MaskSource:
    """Return the mask source of a finder: the pixels where the heat map of any known item is hot.

    Args:
        finder: loaded.
        cutouts: known objects; one of each item is searched for, evenly chosen among the items if there are many.
    """
    by_item: dict[tuple[str, str], Cutout] = {}
    for one in cutouts:
        by_item.setdefault((one.category, one.item), one)
    known = list(by_item.values())
    chosen = known[:: max(1, -(-len(known) // _FINDER_ITEMS))]
    queries = []
    for one in chosen:
        picture = unpremultiply(one.picture)
        mask = (picture[..., 3] >= 128).astype(np.uint8)
        queries.append(finder.make_query(np.ascontiguousarray(picture[..., :3]), mask, Timings()))

    def hot(part: Image) -> Mask:
        features = finder.scene_features(np.ascontiguousarray(part), Timings())
        heats = [finder.heat_map(features, [query], Timings()) for query in queries]
        whole = resize_to_source(np.max(heats, axis=0), features.placed, finder.model.shape.map_stride)
        return np.asarray(whole >= _HOT)

    return lambda image_rgb, box_px: _in_window(image_rgb, box_px, hot)


def _in_window(image_rgb: Image, box_px: Box, segment: Callable[[Image], Mask]) -> Mask | None:
    """Segment the context window of a box; return the large parts as a mask of the picture, or None."""
    rows, columns = context_window(box_px, image_rgb.shape)
    part = np.ascontiguousarray(image_rgb[rows, columns])
    if min(part.shape[:2]) < 8:
        return None
    found = main_parts(segment(part))
    if found is None:
        return None
    mask = np.zeros(image_rgb.shape[:2], np.bool_)
    mask[rows, columns] = found
    return mask
