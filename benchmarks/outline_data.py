"""The pictures of benchmarks/outline.py: synthetic ones with exact masks, and catalogue photos cut out of white."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

PHOTO_REPEATS = 5  # times that a catalogue photo is listed, for there are few
_GROUND = 14  # grey levels by which white ground may differ


def write_training_data(work: Path, data: Path, seed: int = 41) -> Path:
    """Write `work/index.csv` of synthetic pictures and, where there are any, of catalogue photos."""
    from trainer.synthetic.masked import write_masked

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
    """Cut groceries' catalogue photos out of their white ground; white cartons, which merge with it, are left out."""
    from edge.image import encode_image, encode_mask, read_image, trim

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
        cv2.floodFill(framed, ground, (0, 0), 0, (_GROUND,) * 3, (_GROUND,) * 3, how)
        mask = np.asarray(cv2.morphologyEx(255 - ground[2:-2, 2:-2], cv2.MORPH_OPEN, np.ones((3, 3))), np.uint8)
        name = f"photos/{row['fine']}"
        (work / f"{name}.jpg").write_bytes(encode_image(picture, ".jpg"))
        (work / f"{name}.mask.png").write_bytes(encode_mask(mask))
        rows.append((f"{name}.jpg", f"{name}.mask.png", "train", row["coarse"], row["fine"]))
    return rows
