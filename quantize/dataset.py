"""Readers of the data sets that quantize uses: labelled crops in `index.csv`, scenes with boxes in COCO-style JSON."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.errors import QuantizeError
from edge.imaging.image import read_image, trim
from edge.types import FloatArray, Image
from quantize.network_spec import Spec

_MAX_BOX_PX = 1e6
_ALIASES = {"category": ("category", "coarse"), "item": ("item", "fine")}


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled crop."""

    path: Path
    name: str  # path as written in the index
    split: str
    category: str
    item: str
    plain: bool = False  # one object on a plain background; `crop` cuts it out

    def crop(self, margin: float) -> Image:
        """Return the picture as a device would crop it.

        Args:
            margin: how much a box grows, as a fraction of its size.

        Raises:
            CaptureError: the picture cannot be read.
        """
        picture = read_image(self.path)
        return trim(picture, margin) if self.plain else picture


@dataclass(frozen=True, slots=True)
class Scene:
    """One frame and its true boxes."""

    path: Path
    name: str
    split: str  # "" if the file gives none
    boxes_px: FloatArray  # (n, 4) x0 y0 x1 y1


def read_index(path: Path, root: Path | None = None, plain_splits: Collection[str] = ("catalogue",)) -> list[Sample]:
    """Read a CSV with columns path, split, category (or coarse), item (or fine).

    Args:
        path: the CSV.
        root: folder that its paths are relative to; default: the folder of the CSV.
        plain_splits: splits whose pictures show one object on a plain background.

    Raises:
        QuantizeError: the CSV cannot be read, lacks a column, or has no rows.
    """
    root = root or path.parent
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except OSError as error:
        raise QuantizeError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise QuantizeError(f"{path}: not a UTF-8 CSV file: {error}") from error
    if not rows:
        raise QuantizeError(f"{path} has no rows; list one crop in each row")
    header = list(reader.fieldnames or ())
    columns = {}
    for wanted in ("path", "split", "category", "item"):
        found = [name for name in _ALIASES.get(wanted, (wanted,)) if name in header]
        if not found:
            raise QuantizeError(f"{path} has no column {wanted!r}; it has {', '.join(header)}")
        columns[wanted] = found[0]
    for number, row in enumerate(rows, start=1):
        if empty := [name for name in columns.values() if row[name] is None]:
            raise QuantizeError(f"{path}: row {number} has no value in column {empty[0]!r}")
    return [
        Sample(
            root / row["path"],
            row["path"],
            row["split"],
            row[columns["category"]],
            row[columns["item"]],
            row["split"] in plain_splits,
        )
        for row in rows
    ]


def read_scenes(path: Path, root: Path | None = None) -> list[Scene]:
    """Read COCO-style boxes: `images` (id, file_name, split if any), `annotations` (image_id, bbox: x y width height).

    Raises:
        QuantizeError: the file cannot be read, or is not COCO-style JSON.
    """
    root = root or path.parent
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        boxes: dict[object, list[list[float]]] = defaultdict(list)
        for annotation in data["annotations"]:
            boxes[annotation["image_id"]].append(_corners(annotation["bbox"]))
        return [
            Scene(
                root / picture["file_name"],
                picture["file_name"],
                str(picture.get("split", "")),
                np.asarray(boxes[picture["id"]], np.float32).reshape(-1, 4),
            )
            for picture in data["images"]
        ]
    except OSError as error:
        raise QuantizeError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise QuantizeError(f"{path}: not COCO-style JSON with images and annotations: {error!r}") from error


def _corners(bbox: Sequence[float]) -> list[float]:
    x, y, width, height = bbox
    if not all(abs(value) <= _MAX_BOX_PX for value in bbox):
        raise ValueError(f"bbox {bbox} is not in pixels")
    return [x, y, x + width, y + height]


def of_splits(samples: Sequence[Sample], splits: Collection[str]) -> list[Sample]:
    """Return the samples of these splits."""
    return [sample for sample in samples if sample.split in splits]


def choose(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Choose samples evenly over the categories. The choice does not depend on their order in the index."""
    by_category: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: hashlib.sha256(s.name.encode()).digest()):
        by_category[sample.category].append(sample)
    chosen: list[Sample] = []
    for round_ in range(max((len(group) for group in by_category.values()), default=0)):
        chosen += [by_category[name][round_] for name in sorted(by_category) if round_ < len(by_category[name])]
    return chosen[:count]


def choose_scenes(scenes: Sequence[Scene], count: int) -> list[Scene]:
    """Choose scenes. The choice does not depend on their order."""
    return sorted(scenes, key=lambda s: hashlib.sha256(s.name.encode()).digest())[:count]


def _of_categories(samples: list[Sample], spec: Spec) -> list[Sample]:
    return [s for s in samples if spec.kind != "embedder" or s.category in spec.categories]


@dataclass(frozen=True, slots=True)
class Data:
    """The pictures that calibration, comparison and galleries use."""

    samples: list[Sample]
    scenes: list[Scene]
    calibration_split: str = "train"
    held_out_split: str = "val"
    gallery_splits: tuple[str, ...] = ("catalogue",)
    calibration_images: int = 200
    held_out_images: int = 1000

    def calibration_crops(self, spec: Spec) -> list[Sample]:
        """Return the calibration crops, evenly over the categories."""
        return choose(_of_categories(of_splits(self.samples, {self.calibration_split}), spec), self.calibration_images)

    def held_out_crops(self, spec: Spec) -> list[Sample]:
        """Return the crops that neither training nor calibration used."""
        return choose(_of_categories(of_splits(self.samples, {self.held_out_split}), spec), self.held_out_images)

    def gallery_crops(self, spec: Spec) -> list[Sample]:
        """Return the reference crops of the embedder's categories."""
        return _of_categories(of_splits(self.samples, self.gallery_splits), spec)

    def scenes_for(self, split: str) -> list[Scene]:
        """Return the scenes of a split; without splits in the file, the first calibrate and the rest are held out."""
        named = [scene for scene in self.scenes if scene.split == split]
        if any(scene.split for scene in self.scenes):
            count = self.calibration_images if split == self.calibration_split else self.held_out_images
            return choose_scenes(named, count)
        shuffled = choose_scenes(self.scenes, len(self.scenes))
        cut = min(self.calibration_images, len(shuffled) // 2)
        return shuffled[:cut] if split == self.calibration_split else shuffled[cut:][: self.held_out_images]
