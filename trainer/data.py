"""Data sets: which pictures there are, and their pixels, decoded once."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import CaptureError, TrainError
from edge.image import IMAGE_SUFFIXES, read_image, resize, trim
from edge.manifest import Preprocess
from edge.preprocess import to_canvas
from edge.types import FloatArray, Image

log = logging.getLogger(__name__)

_VAL_EVERY = 5  # of a folder without splits, the pictures of each item that are held out


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of one object."""

    path: Path
    split: str
    category: str
    item: str
    label: str = ""  # of the item, for people


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture with its boxes."""

    path: Path
    boxes_px: FloatArray  # (n, 4), x0 y0 x1 y1
    labels: NDArray[np.int64]  # (n,)


@dataclass(slots=True)
class Pictures:
    """Decoded pictures beside their samples."""

    samples: list[Any] = field(default_factory=list)  # Sample or Scene, only those that could be read
    images: list[Image] = field(default_factory=list)  # RGB, shrunk to what training needs
    scales: list[float] = field(default_factory=list)  # by which each was shrunk
    skipped: list[str] = field(default_factory=list)  # why each of the others could not be read


def read_samples(source: Path, root: Path | None = None) -> list[Sample]:
    """List a data set.

    Args:
        source: a CSV with columns path, split, category (or coarse), item (or fine), optionally label; a folder that
            holds such an `index.csv`; or a folder of category/item/picture, every fifth of an item `val`.
        root: that the CSV's paths are relative to; None: its folder.

    Raises:
        TrainError: missing, without a needed column, or empty.
    """
    if source.is_dir() and not (source / "index.csv").is_file():
        samples = _walk(source)
    else:
        table = source / "index.csv" if source.is_dir() else source
        samples = _read_table(table, root or table.parent)
    if not samples:
        raise TrainError(f"{source}: found no picture, expected an index.csv or category/item/picture")
    return samples


def _read_table(table: Path, root: Path) -> list[Sample]:
    try:
        with table.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainError(f"{table}: cannot read: {error}") from error
    found = set(rows[0]) if rows else set()
    category = "coarse" if "coarse" in found else "category"
    item = "fine" if "fine" in found else "item"
    if missing := {"path", "split", category, item} - found:
        raise TrainError(f"{table}: found columns {sorted(found)}, expected also {sorted(missing)}")
    return [Sample(root / row["path"], row["split"], row[category], row[item], row.get("label") or "") for row in rows]


def _walk(folder: Path) -> list[Sample]:
    samples = []
    for item in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        pictures = sorted(path for path in item.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if not pictures:
            raise TrainError(f"{item}: found no picture, expected at least one of this item")
        for number, path in enumerate(pictures):
            split = "val" if number % _VAL_EVERY == _VAL_EVERY - 1 else "train"
            samples.append(Sample(path, split, item.parent.name, item.name))
    return samples


def choose(samples: Iterable[Sample], splits: Sequence[str], categories: Sequence[str] | None = None) -> list[Sample]:
    """Those of certain splits and categories."""
    return [s for s in samples if s.split in splits and (categories is None or s.category in categories)]


def read_scenes(
    path: Path,
    root: Path | None = None,
    splits: Sequence[str] | None = None,
    *,
    class_agnostic: bool = True,
    least_visible: float = 0.0,
) -> tuple[list[Scene], list[str]]:
    """Read COCO style boxes.

    Args:
        path: JSON.
        root: of the file names; None: the JSON's folder.
        splits: read only images whose `split` is one of these, or that carry none; None: all.
        class_agnostic: everything is an `object`.
        least_visible: annotations whose `visible_fraction` is less are left out.

    Returns:
        the scenes, and the class names: `["object"]` when class-agnostic.

    Raises:
        TrainError: unreadable, or not COCO.
    """
    try:
        tree = json.loads(path.read_text())
        names = {entry["id"]: entry["name"] for entry in sorted(tree.get("categories", []), key=lambda e: e["id"])}
        position = {identity: 0 if class_agnostic else i for i, identity in enumerate(names)}
        boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in tree["images"]}
        labels: dict[int, list[int]] = {image["id"]: [] for image in tree["images"]}
        for entry in tree["annotations"]:
            if entry.get("visible_fraction", 1.0) < least_visible:
                continue
            x, y, width, height = entry["bbox"]
            boxes[entry["image_id"]].append([x, y, x + width, y + height])
            labels[entry["image_id"]].append(position.get(entry["category_id"], 0))
        scenes = [
            Scene(
                (root or path.parent) / image["file_name"],
                np.asarray(boxes[image["id"]], np.float32).reshape(-1, 4),
                np.asarray(labels[image["id"]], np.int64),
            )
            for image in tree["images"]
            if splits is None or image.get("split", splits[0]) in splits
        ]
    except OSError as error:
        raise TrainError(f"{path}: cannot read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TrainError(f"{path}: not COCO: {type(error).__name__} {error}") from error
    if not scenes:
        raise TrainError(f"{path}: found no image of the splits {splits}, expected at least one")
    return scenes, ["object"] if class_agnostic else list(names.values())


def load_pictures(
    samples: Sequence[Any], longest_px: int | None, trimmed: Sequence[str] = (), margin: float = 0.0
) -> Pictures:
    """Decode pictures once.

    One that cannot be read is named in the log, skipped and counted.

    Args:
        samples: Sample or Scene.
        longest_px: larger ones are shrunk until the longer side is this; None: none are.
        trimmed: splits whose pictures show one object on a plain ground, see `trim`.
        margin: for `trim`.

    Raises:
        TrainError: none could be read.
    """
    pictures = Pictures()
    for sample in samples:
        try:
            image = read_image(sample.path)
        except CaptureError as error:
            log.warning("skipped %s", error)
            pictures.skipped.append(str(error))
            continue
        if trimmed and sample.split in trimmed:
            image = trim(image, margin)
        shrink = 1.0 if longest_px is None else min(1.0, longest_px / max(image.shape[:2]))
        if shrink < 1.0:
            width, height = (max(1, round(size * shrink)) for size in (image.shape[1], image.shape[0]))
            image = resize(image, width, height, "area")
        pictures.samples.append(sample)
        pictures.images.append(image)
        pictures.scales.append(shrink)
    if samples and not pictures.samples:
        raise TrainError(f"none of {len(samples)} pictures could be read, the first: {pictures.skipped[0]}")
    return pictures


def load_canvases(
    samples: Sequence[Any], spec: Preprocess, trimmed: Sequence[str] = ()
) -> tuple[list[Any], NDArray[np.uint8], list[str]]:
    """Decode pictures into exactly what the device would feed the network.

    Args:
        samples: Sample or Scene.
        spec: of the network's input.
        trimmed: splits whose pictures show one object on a plain ground, see `trim`.

    Returns:
        the samples that could be read, their (n, h, w, 3) canvases, and why each other one could not.
    """
    pictures = load_pictures(samples, None, trimmed, spec.crop_margin)
    canvases = [to_canvas(spec, image)[0] for image in pictures.images]
    stacked = np.stack(canvases) if canvases else np.zeros((0, spec.height, spec.width, 3), np.uint8)
    return pictures.samples, stacked, pictures.skipped


def require_each(samples: Sequence[Sample], expected: Iterable[str], key: str, least: int, where: str) -> None:
    """Check that each category or item has pictures enough.

    Args:
        samples: as loaded.
        expected: names that must be there.
        key: `category` or `item`.
        least: pictures of each.
        where: named in the error.

    Raises:
        TrainError: names those with too few.
    """
    counts = Counter(getattr(sample, key) for sample in samples)
    if few := [f"{name} ({counts[name]})" for name in expected if counts[name] < least]:
        raise TrainError(f"{where}: found too few pictures of {', '.join(few[:5])}, expected at least {least} each")


def plain_batches(count: int, size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Cut a shuffle of all indices into batches; the rest that fills none is left for another epoch."""
    order = rng.permutation(count)
    size = min(size, count)
    return [order[start : start + size] for start in range(0, count - size + 1, size)]


def pair_batches(
    labels: NDArray[np.int64],
    classes: int,
    images: int,
    batches: int,
    rng: np.random.Generator,
    nearest: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Draw batches of `classes` sub-categories with `images` pictures each.

    Args:
        labels: (n,) sub-category of each picture, 0 and up.
        classes: of a batch; fewer when there are fewer.
        images: of each, without repetition as long as there are enough.
        batches: how many.
        rng: of the draw.
        nearest: (classes, classes) for each sub-category the others, most similar first: half of each batch is then
            the neighbourhood of one, so that the negatives are hard ones.
    """
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    drawn = []
    for _ in range(batches):
        order = rng.permutation(len(members))
        if nearest is not None and classes < len(members):
            near = np.concatenate([order[:1], nearest[order[0]][: classes // 2]])
            order = np.concatenate([near, order[~np.isin(order, near)]])
        rows = [rng.choice(members[label], images, replace=len(members[label]) < images) for label in order[:classes]]
        drawn.append(np.concatenate(rows))
    return drawn
