"""Toy scenes for tests of `learn`: bright things on a grey ground, with their boxes, as COCO."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dataset_formats.coco.reader import write_coco
from dataset_formats.records import ONE_CATEGORY, Annotation, NamedBox
from edge.types import Detection, Image

SIZE_PX = (160, 120)
COLOURS = {  # RGB; an item of category `cup` is round, of `box` square
    ("cup", "red"): (220, 30, 30),
    ("cup", "green"): (30, 200, 30),
    ("box", "blue"): (40, 60, 230),
    ("box", "yellow"): (230, 220, 30),
}


def draw_scene(path: Path, seed: int) -> tuple[NamedBox, ...]:
    """Draw a picture with two things in it, one left and one right; return their boxes."""
    rng = np.random.default_rng(seed)
    picture = np.full((SIZE_PX[1], SIZE_PX[0], 3), 110, np.uint8) + rng.integers(0, 12, (120, 160, 3), np.uint8)
    boxes = []
    for left, (category, item) in zip((4, 84), rng.permutation(list(COLOURS))[:2].tolist(), strict=True):
        side = int(rng.integers(36, 60))
        x, y = left + int(rng.integers(0, 70 - side)), int(rng.integers(4, 116 - side))
        colour = COLOURS[category, item]
        if category == "cup":
            cv2.circle(picture, (x + side // 2, y + side // 2), side // 2, colour, cv2.FILLED)
        else:
            cv2.rectangle(picture, (x, y), (x + side - 1, y + side - 1), colour, cv2.FILLED)
        boxes.append(NamedBox((float(x), float(y), float(x + side), float(y + side)), item, category))
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 97])
    return tuple(boxes)


def write_scenes(folder: Path, count: int = 12, naming: str = "named", splits: tuple[str, ...] = ("",)) -> Path:
    """Write a data set.

    Args:
        folder: to write.
        count: of the pictures.
        naming: how much the names of the boxes say, see `learn.scene_set.Naming`.
        splits: of the pictures, in turns; empty: none.
    """
    pictures = []
    for number in range(count):
        boxes = draw_scene(folder / f"{number:02d}.jpg", number)
        if naming == "one_level":
            boxes = tuple(NamedBox(box.box_px, box.item) for box in boxes)
        elif naming == "unnamed":
            boxes = tuple(NamedBox(box.box_px, ONE_CATEGORY) for box in boxes)
        pictures.append(Annotation(f"{number:02d}.jpg", boxes, splits[number % len(splits)], "", SIZE_PX))
    write_coco(pictures, [], folder / "scenes.json")
    return folder / "scenes.json"


def find_bright(image_rgb: Image) -> list[Detection]:
    """Find the things: a detector that needs no training."""
    vivid = (image_rgb.max(axis=2).astype(int) - image_rgb.min(axis=2) > 60).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(vivid)
    boxes = [stats[row] for row in range(1, count) if stats[row][4] > 200]
    return [Detection((float(x), float(y), float(x + w), float(y + h)), 0.9, "object") for x, y, w, h, _ in boxes]
