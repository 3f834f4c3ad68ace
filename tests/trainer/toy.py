"""Tiny data sets: coloured squares whose category is a colour and whose item is the place of a dot."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from edge.imaging.image import encode_image, encode_mask
from trainer.embedder_recipe import EmbedderRecipe
from trainer.recipe import ClassifierRecipe, DetectorRecipe, LocaliserRecipe

COLOURS = {"red": (220, 40, 40), "blue": (40, 40, 220)}
BACKBONE = {"name": "mobilenetv4_conv_small_050", "pretrained": "none", "strides": [8]}
INPUT = {"width": 32, "height": 32}


def write_crops(folder: Path, per_item: int = 6, items: int = 2) -> Path:
    """Write two categories of a few items each; the last third of each item's pictures is `val`."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for category, colour in COLOURS.items():
        for item in range(items):
            for number in range(per_item):
                image = np.full((40, 32, 3), rng.integers(90, 160), np.uint8)
                image[4:36, 4:28] = colour
                image[8 + 12 * item : 16 + 12 * item, 8:16] = 255
                name = f"{category}-{item}-{number}.png"
                (folder / name).write_bytes(encode_image(image, ".png"))
                split = "val" if number >= per_item - per_item // 3 else "train"
                rows.append((name, split, category, f"{category}-{item}"))
    write_index(folder, rows)
    return folder / "index.csv"


def write_index(folder: Path, rows: list[tuple[str, str, str, str]]) -> None:
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "category", "item"])
        writer.writerows(rows)


def write_scenes(folder: Path, count: int = 12) -> Path:
    """Write red rectangles on grey noise, as COCO JSON."""
    rng = np.random.default_rng(6)
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(count):
        image = rng.integers(100, 140, (64, 96, 3)).astype(np.uint8)
        width, height = (int(v) for v in rng.integers(16, 40, 2))
        x, y = int(rng.integers(0, 96 - width)), int(rng.integers(0, 64 - height))
        image[y : y + height, x : x + width] = (230, 30, 30)
        (folder / f"{number}.png").write_bytes(encode_image(image, ".png"))
        images.append({"id": number, "file_name": f"{number}.png"})
        annotations.append({"image_id": number, "category_id": 7, "bbox": [x, y, width, height]})
    tree = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "box"}]}
    (folder / "scenes.json").write_text(json.dumps(tree))
    return folder / "scenes.json"


# The defaults of an embedder fine-tune published weights; these train a small trunk from random ones.
FROM_SCRATCH = {"width": 16, "grid": 3, "scale": 16.0, "dropout": 0.0, "label_smoothing": 0.0, "centre_lr": 1.0} | {
    "augment": {"scale": (0.85, 1.2), "shift": 0.08, "stretch": 0.05, "flip": False},
}


def optimiser(epochs: int, batch: int = 8) -> dict:
    return {"epochs": epochs, "batch": batch, "lr": 5e-3, "evaluate_every": epochs, "ema": 0.9, "device": "cpu"}


def classifier_recipe(index: Path, epochs: int = 2, **changes) -> ClassifierRecipe:
    return ClassifierRecipe(
        kind="classifier",
        **{"data": {"index": index}, "backbone": BACKBONE, "input": INPUT, "width": 16, "optimiser": optimiser(epochs)}
        | changes,
    )


def embedder_recipe(index: Path, epochs: int = 2, **changes) -> EmbedderRecipe:
    return EmbedderRecipe(
        kind="embedder",
        data={"index": index},
        **{
            "backbone": BACKBONE,
            "input": INPUT,
            **FROM_SCRATCH,
            "dim": 8,
            "optimiser": optimiser(epochs),
            "heads": ["class", "local", "outline"],
            "pairs": 0.5,
            "pair_ramp": (0, 0.5),
        }
        | changes,
    )


def detector_recipe(scenes: Path, epochs: int = 2, **changes) -> DetectorRecipe:
    return DetectorRecipe(
        kind="detector",
        scenes={"train": scenes, "val": scenes},
        **{
            "backbone": BACKBONE | {"strides": [8, 16]},
            "input": {"width": 96, "height": 64, "crop_margin": 0.0},
            "width": 16,
            "optimiser": optimiser(epochs, 4),
        }
        | changes,
    )


def masked_picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright disc on grey noise, 40 high and 32 wide, and its mask."""
    y, x = np.mgrid[:40, :32]
    disc = np.hypot(x - rng.uniform(13, 19), y - rng.uniform(16, 24)) < rng.uniform(7, 11)
    picture = rng.integers(60, 110, (40, 32, 3)).astype(np.uint8)
    picture[disc] = (230, 200, 40)
    return picture, disc.astype(np.uint8) * 255


def write_masks(folder: Path, count: int = 12) -> Path:
    """Write pictures with masks; the last third is `val`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        picture, mask = masked_picture(np.random.default_rng(number))
        (folder / f"{number}.png").write_bytes(encode_image(picture, ".png"))
        (folder / f"{number}.mask.png").write_bytes(encode_mask(mask))
        rows.append((f"{number}.png", f"{number}.mask.png", "val" if number >= count - count // 3 else "train"))
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "mask", "split"), *rows])
    return folder / "index.csv"


def localiser_recipe(index: Path, epochs: int = 2, **changes) -> LocaliserRecipe:
    fields = {
        "input": {"width": 32, "height": 32, "resize": "letterbox"},
        "width": 4,
        "optimiser": optimiser(epochs, 4),
    }
    return LocaliserRecipe(kind="localiser", **{"data": {"index": index}} | fields | changes)
