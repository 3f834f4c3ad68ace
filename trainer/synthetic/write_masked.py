"""Write synthetic pictures of single objects with their true masks, for the localiser.

    crops/ITEM/000.jpg     what a detector would cut out, some of it beside or behind other things
    scenes/00000-0.jpg     an object of a whole scene, cut out the same way
    looks/ITEM/0.png       on white
    *.mask.png             beside each: grey, 255 where the object is, 0 where it is not
    index.csv              path,mask,split,category,item; one of ten is val and one is test

Every file depends only on the seed and its own name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from edge.imaging.image import encode_image, encode_mask
from trainer.synthetic.crop import cut, masked_crop
from trainer.synthetic.items import Item, catalogue
from trainer.synthetic.render import catalogue_picture
from trainer.synthetic.scene import scene

Bytes = NDArray[np.uint8]
_SCENES, _CROPS, _ON_WHITE = 11, 12, 13  # streams of random numbers, different from those of `dataset`
_LEAST_VISIBLE = 0.5  # smallest visible fraction of an object in a scene
_SCENE_PX = (640, 384)
_LONGEST_PX = (120, 200)  # range of a picture's longest side


def write_masked(
    out: Path,
    seed: int,
    scenes: int,
    crops_per_item: int,
    looks_per_item: int,
    *,
    items: Sequence[Item] | None = None,
    progress: bool = True,
) -> Path:
    """Write a data set of pictures with masks; return the path of its index.

    Args:
        out: folder to write to, made if missing.
        seed: the same seed gives the same files.
        scenes: number of scenes; every object that is at least half visible is cut out.
        crops_per_item: pictures of each item in some place.
        looks_per_item: pictures of each item on white.
        items: which items; None: all.
        progress: whether to show a progress bar.
    """
    chosen = tuple(catalogue() if items is None else items)
    total = scenes + len(chosen) * (crops_per_item + looks_per_item)
    rows = []
    with tqdm(total=total, desc="pictures with masks", unit="picture", disable=not progress) as bar:
        for number in range(scenes):
            for place, (one, picture, mask) in enumerate(_of_scene(chosen, seed, number)):
                rows.append(_save(out, f"scenes/{number:05d}-{place}.jpg", number, one, picture, mask))
            bar.update()
        for item in chosen:
            for number in range(crops_per_item):
                picture, mask = _crop(item, chosen, seed, number)
                rows.append(_save(out, f"crops/{item.item_id}/{number:03d}.jpg", number, item, picture, mask))
                bar.update()
            for number in range(looks_per_item):
                picture, mask = _on_white(item, seed, number)
                rows.append(_save(out, f"looks/{item.item_id}/{number}.png", number, item, picture, mask))
                bar.update()
    with (out / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "mask", "split", "category", "item"])
        writer.writerows(rows)
    return out / "index.csv"


def _of_scene(items: Sequence[Item], seed: int, number: int) -> Iterator[tuple[Item, Bytes, Bytes]]:
    rng = np.random.default_rng([seed, _SCENES, number])
    picture = scene(rng, items, *_SCENE_PX, count=int(rng.integers(2, 7)))
    by_id = {item.item_id: item for item in items}
    for one in picture.objects:
        if one.visible_fraction >= _LEAST_VISIBLE:
            yield by_id[one.item_id], *cut(picture.image_rgb, one, rng, int(rng.integers(*_LONGEST_PX)))


def _crop(item: Item, neighbours: Sequence[Item], seed: int, number: int) -> tuple[Bytes, Bytes]:
    rng = np.random.default_rng([seed, _CROPS, catalogue().index(item), number])
    return masked_crop(item, neighbours, rng, int(rng.integers(*_LONGEST_PX)))


def _on_white(item: Item, seed: int, number: int) -> tuple[Bytes, Bytes]:
    """Render an item on white, cut as a device would cut it."""
    rng = np.random.default_rng([seed, _ON_WHITE, catalogue().index(item), number])
    picture, mask = catalogue_picture(item, rng)
    y, x = np.nonzero(mask)
    top, bottom, left, right = y.min(), y.max() + 1, x.min(), x.max() + 1
    up, down = rng.normal(0.1, 0.04, 2).clip(0.0) * (bottom - top)
    before, after = rng.normal(0.1, 0.04, 2).clip(0.0) * (right - left)
    rows = slice(max(0, round(top - up)), round(bottom + down))
    columns = slice(max(0, round(left - before)), round(right + after))
    return picture[rows, columns], mask[rows, columns].astype(np.uint8) * 255


def _save(out: Path, name: str, number: int, item: Item, picture: Bytes, mask: Bytes) -> tuple[str, ...]:
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_image(picture, ".jpg" if path.suffix == ".jpg" else ".png"))
    beside = path.with_suffix(".mask.png")
    beside.write_bytes(encode_mask(mask))
    split = {8: "val", 9: "test"}.get(number % 10, "train")
    return name, str(beside.relative_to(out)), split, item.category, item.item_id
