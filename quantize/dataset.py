"""Data sets as the quantiser reads them: labelled crops in `index.csv`, boxed scenes in a COCO-style JSON."""

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

_ALIASES = {"category": ("category", "coarse"), "item": ("item", "fine")}


@dataclass(frozen=True, slots=True)
class Sample:
    """One crop of one known item."""

    path: Path
    name: str  # as the index writes it
    split: str
    category: str
    item: str
    plain: bool = False  # one object on a plain ground, to be cut out before it is used

    def crop(self, margin: float) -> Image:
        """The picture as a device would have cut it out.

        Args:
            margin: by which a box grows, in its sizes.

        Raises:
            CaptureError: it cannot be read.
        """
        picture = read_image(self.path)
        return trim(picture, margin) if self.plain else picture


@dataclass(frozen=True, slots=True)
class Scene:
    """One frame and the objects in it."""

    path: Path
    name: str
    split: str  # "" where the file names none
    boxes_px: FloatArray  # (n, 4) x0 y0 x1 y1


def read_index(path: Path, root: Path | None = None, plain_splits: Collection[str] = ("catalogue",)) -> list[Sample]:
    """Read a CSV with columns path, split, category (or coarse), item (or fine).

    Args:
        path: the CSV.
        root: what its paths are relative to; its own folder by default.
        plain_splits: whose pictures show one object on a plain ground.

    Raises:
        QuantizeError: unreadable, a column missing, or no rows.
    """
    root = root or path.parent
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise QuantizeError(f"{path}: cannot read: {error.strerror}") from error
    if not rows:
        raise QuantizeError(f"{path}: found no rows, expected one per crop")
    columns = {}
    for wanted in ("path", "split", "category", "item"):
        found = [name for name in _ALIASES.get(wanted, (wanted,)) if name in rows[0]]
        if not found:
            raise QuantizeError(f"{path}: found columns {sorted(rows[0])}, expected {wanted!r} among them")
        columns[wanted] = found[0]
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
        QuantizeError: unreadable, or of another form.
    """
    root = root or path.parent
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        boxes: dict[object, list[list[float]]] = defaultdict(list)
        for annotation in data["annotations"]:
            x, y, width, height = annotation["bbox"]
            boxes[annotation["image_id"]].append([x, y, x + width, y + height])
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
    except (ValueError, KeyError, TypeError) as error:
        raise QuantizeError(f"{path}: found no COCO-style images and annotations: {error!r}") from error


def of_splits(samples: Sequence[Sample], splits: Collection[str]) -> list[Sample]:
    """The samples of some splits."""
    return [sample for sample in samples if sample.split in splits]


def choose(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Choose samples evenly over the categories; the same ones every time, whatever their order in the index."""
    by_category: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: hashlib.sha256(s.name.encode()).digest()):
        by_category[sample.category].append(sample)
    chosen: list[Sample] = []
    for round_ in range(max((len(group) for group in by_category.values()), default=0)):
        chosen += [by_category[name][round_] for name in sorted(by_category) if round_ < len(by_category[name])]
    return chosen[:count]


def choose_scenes(scenes: Sequence[Scene], count: int) -> list[Scene]:
    """Choose scenes; the same ones every time."""
    return sorted(scenes, key=lambda s: hashlib.sha256(s.name.encode()).digest())[:count]


def _served(samples: list[Sample], spec: Spec) -> list[Sample]:
    return [s for s in samples if spec.kind != "embedder" or s.category in spec.categories]


@dataclass(frozen=True, slots=True)
class Data:
    """The pictures a bundle is built on."""

    samples: list[Sample]
    scenes: list[Scene]
    calibration_split: str = "train"
    held_out_split: str = "val"
    gallery_splits: tuple[str, ...] = ("catalogue",)
    calibration_images: int = 200
    held_out_images: int = 1000

    def calibration_crops(self, spec: Spec) -> list[Sample]:
        """Crops to calibrate on, even over the categories."""
        return choose(_served(of_splits(self.samples, {self.calibration_split}), spec), self.calibration_images)

    def held_out_crops(self, spec: Spec) -> list[Sample]:
        """Crops that neither training nor calibration saw."""
        return choose(_served(of_splits(self.samples, {self.held_out_split}), spec), self.held_out_images)

    def gallery_crops(self, spec: Spec) -> list[Sample]:
        """Reference crops of the categories an embedder serves."""
        return _served(of_splits(self.samples, self.gallery_splits), spec)

    def scenes_for(self, split: str) -> list[Scene]:
        """Scenes of a split; where the file names none, the first go to calibration and the rest are held out."""
        named = [scene for scene in self.scenes if scene.split == split]
        if any(scene.split for scene in self.scenes):
            count = self.calibration_images if split == self.calibration_split else self.held_out_images
            return choose_scenes(named, count)
        shuffled = choose_scenes(self.scenes, len(self.scenes))
        cut = min(self.calibration_images, len(shuffled) // 2)
        return shuffled[:cut] if split == self.calibration_split else shuffled[cut:][: self.held_out_images]
