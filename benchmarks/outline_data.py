"""Pictures of benchmarks/outline.py: synthetic ones with exact masks, and catalogue photos cut out of white."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from trainer.synthetic.items import Item

PHOTO_REPEATS = 5  # times that a catalogue photo is listed, because there are few
_BACKGROUND_TOLERANCE = 14  # grey levels


def write_training_data(work: Path, data: Path, seed: int = 41) -> Path:
    """Write `work/index.csv` of synthetic pictures and of catalogue photos, if there are any."""
    from trainer.synthetic.write_masked import write_masked

    if not (work / "synthetic/index.csv").exists():
        write_masked(work / "synthetic", seed, scenes=320, crops_per_item=16, looks_per_item=4)
    with (work / "synthetic/index.csv").open(newline="") as file:
        rows = [
            (f"synthetic/{row['path']}", f"synthetic/{row['mask']}", row["split"], row["category"], row["item"])
            for row in csv.DictReader(file)
        ]
    rows += [row for row in photo_cutouts(work, data) for _ in range(PHOTO_REPEATS)]
    with (work / "index.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "mask", "split", "category", "item"), *rows])
    return work / "index.csv"


def photo_cutouts(work: Path, data: Path) -> list[tuple[str, str, str, str, str]]:
    """Cut catalogue photos of groceries out of their white background, except white cartons, which merge with it."""
    from edge.imaging.image import encode_image, encode_mask, read_image, trim

    if not (data / "grocery/index.csv").exists():
        return []
    (work / "photos").mkdir(parents=True, exist_ok=True)
    rows = []
    with (data / "grocery/index.csv").open(newline="") as file:
        listed = [row for row in csv.DictReader(file) if row["split"] == "iconic"]
    for row in listed:
        if row["family"] == "Packages" and row["coarse"] != "Juice":
            continue
        picture = trim(read_image(data / row["path"]), 0.1)
        shrink = min(1.0, 240 / max(picture.shape[:2]))
        picture = np.asarray(cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), np.uint8)
        framed = cv2.copyMakeBorder(picture, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        ground = np.zeros((framed.shape[0] + 2, framed.shape[1] + 2), np.uint8)
        how = 8 | (255 << 8) | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY
        cv2.floodFill(framed, ground, (0, 0), 0, (_BACKGROUND_TOLERANCE,) * 3, (_BACKGROUND_TOLERANCE,) * 3, how)
        mask = np.asarray(cv2.morphologyEx(255 - ground[2:-2, 2:-2], cv2.MORPH_OPEN, np.ones((3, 3))), np.uint8)
        name = f"photos/{row['fine']}"
        (work / f"{name}.jpg").write_bytes(encode_image(picture, ".jpg"))
        (work / f"{name}.mask.png").write_bytes(encode_mask(mask))
        rows.append((f"{name}.jpg", f"{name}.mask.png", "train", row["coarse"], row["fine"]))
    return rows


CATALOGUE_PICTURES, GALLERY_CROPS, VAL_CROPS, TEST_CROPS = 6, 6, 12, 8  # numbers for each item
VAL_SEED, TEST_SEEDS = 101, (201, 202, 203)  # the demo was trained on seed 1, the localiser on 41


def render_retrieval(work: Path) -> None:
    """Render gallery, validation and test crops of every item with their masks; finished items are not repeated."""
    from trainer.synthetic.items import catalogue

    items = catalogue()
    for place, item in enumerate(items):
        folder = work / "retrieval" / item.category / item.item_id
        if (folder / "done").exists():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(
            CATALOGUE_PICTURES
        ):  # the demo's catalogue and training pictures: streams 3 and 2 of seed 1
            _save_catalogue_picture(folder / f"look-{number}", item, np.random.default_rng([1, 3, place, number]))
        parts = [("crop", 1, GALLERY_CROPS), ("val", VAL_SEED, VAL_CROPS)]
        parts += [(f"test{seed}", seed, TEST_CROPS) for seed in TEST_SEEDS]
        for part, seed, count in parts:
            for number in range(count):
                rng = np.random.default_rng([seed, 2, place, number])
                _save_crop(folder / f"{part}-{number}", item, items, rng)
        (folder / "done").write_text("")


def _save_crop(path: Path, item: Item, items: Sequence[Item], rng: np.random.Generator) -> None:
    from edge.imaging.image import encode_image, encode_mask
    from trainer.synthetic.crop import masked_crop

    picture, mask = masked_crop(item, items, rng, int(rng.integers(150, 177)))
    path.with_suffix(".jpg").write_bytes(encode_image(picture, ".jpg", 92))
    path.with_suffix(".mask.png").write_bytes(encode_mask(mask))


def _save_catalogue_picture(path: Path, item: Item, rng: np.random.Generator) -> None:
    """Write a catalogue picture, cropped as `edge-train embed` crops it."""
    from edge.imaging.image import crop, encode_image, encode_mask
    from trainer.synthetic.render import catalogue_picture

    picture, mask = catalogue_picture(item, rng)
    y, x = np.nonzero(mask)
    box = (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))
    path.with_suffix(".jpg").write_bytes(encode_image(crop(picture, box, 0.1), ".jpg", 95))
    path.with_suffix(".mask.png").write_bytes(encode_mask(crop(mask.astype(np.uint8) * np.uint8(255), box, 0.1)))
