"""Cuts objects out of scenes by a detector, and names them by the true boxes that they overlap.

A network that names what a detector cuts out has to learn from what that detector cuts out: its boxes are off, clip
caps and keep background (US 12,386,883, claim 6: the trained detector extracts what the coarse model is trained on).
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dataset_formats.decode import read_picture
from dataset_formats.records import AnnotatedPicture, NamedBox, Sample
from edge.durable import write_durably
from edge.errors import CaptureError, TrainError
from edge.imaging.image import crop, encode_image, shrink
from edge.types import Box, Detection, Image
from learn.box_matches import LEAST_IOU, match_boxes
from learn.open_detector import Detect
from trainer.recipe_parts import LEAST_VISIBLE

INDEX_FILE, BOXES_FILE, REPORT_FILE, PICTURES = "index.csv", "boxes.csv", "crops.json", "crops"
MARGIN = 0.1  # of a crop, as a share of its box: the default of the networks on the device
_LONGEST_PX, _QUALITY = 640, 95

# matched: found and named; added: a true box that was missed, cut out as drawn; missed; doubled: found again;
# unmatched: shows no true object; hidden: shows an object that is mostly hidden
Kind = Literal["matched", "added", "missed", "doubled", "unmatched", "hidden"]


@dataclass(frozen=True, slots=True)
class CropOptions:
    """How crops are cut."""

    least_iou: float = LEAST_IOU
    margin: float = MARGIN
    add_missed: tuple[str, ...] = ()  # splits in which true boxes that the detector missed are cut out, too


@dataclass(frozen=True, slots=True)
class CropRow:
    """What became of one box."""

    kind: Kind
    scene: Path
    split: str
    true: NamedBox | None  # None: unmatched
    number: int = -1  # of the true box in its picture
    found_px: Box | None = None  # None: missed, added
    score: float | None = None
    iou: float | None = None
    crop: Path | None = None  # the picture that was cut out


@dataclass(frozen=True, slots=True)
class CutScenes:
    """All boxes of all scenes."""

    rows: list[CropRow]
    unreadable: list[str] = field(default_factory=list)

    @property
    def samples(self) -> list[Sample]:
        """Return the crops with a name."""
        return [
            Sample(row.crop, row.split, row.true.category, row.true.item)
            for row in self.rows
            if row.crop is not None and row.true is not None
        ]

    def counts(self, split: str | None = None) -> dict[str, int]:
        """Return the number of boxes of each kind; of one split, or of all."""
        found = Counter(row.kind for row in self.rows if split in (None, row.split))
        return {kind: found[kind] for kind in get_args(Kind)}


def rows_of(picture: AnnotatedPicture, found: list[Detection], options: CropOptions) -> Iterator[CropRow]:
    """Yield what became of each box of one picture: a pure decision."""
    scene, split = picture.path, picture.split
    found_px = np.asarray([one.box_px for one in found], np.float32).reshape(-1, 4)
    true_px = np.asarray([box.box_px for box in picture.boxes], np.float32).reshape(-1, 4)
    matches = match_boxes(found_px, np.asarray([one.score for one in found]), true_px, options.least_iou)
    for kind, group in ("matched", matches.matched), ("doubled", matches.doubled):
        for one in group:
            true, own = picture.boxes[one.true], found[one.found]
            seen: Any = kind if true.visible >= LEAST_VISIBLE else "hidden"
            yield CropRow(seen, scene, split, true, one.true, own.box_px, own.score, one.iou)
    for row in matches.unmatched:
        yield CropRow("unmatched", scene, split, None, -1, found[row].box_px, found[row].score)
    for row in matches.missed:
        true = picture.boxes[row]
        missed: Kind = "added" if split in options.add_missed else "missed"
        yield CropRow(missed if true.visible >= LEAST_VISIBLE else "hidden", scene, split, true, row)


def cut_scenes(
    pictures: Iterable[AnnotatedPicture],
    detect: Detect,
    out: Path,
    options: CropOptions | None = None,
    labels: Mapping[tuple[str, str], str] | None = None,
) -> CutScenes:
    """Cut the objects out of pictures, and write crops, index, list of boxes and report.

    Args:
        pictures: whole pictures with named boxes.
        detect: the detector.
        out: folder to write; `index.csv` in it lists the crops, and comes last.
        options: how crops are cut.
        labels: by category and item: the name for people.

    Raises:
        TrainError: no picture can be read.
        EngineError: the detector failed.
    """
    options, labels = options or CropOptions(), labels or {}
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    rows: list[CropRow] = []
    unreadable: list[str] = []
    read = 0
    for number, picture in enumerate(pictures):
        try:
            image_rgb = read_picture(picture.path)[0]
        except CaptureError as error:
            unreadable.append(str(error))
            continue
        read += 1
        for row in rows_of(picture, detect(image_rgb), options):
            rows.append(_cut(row, image_rgb, out / PICTURES / f"{number:05d}-{len(rows):06d}.jpg", options.margin))
    if not read:
        raise TrainError(f"no picture can be read{f'; the first: {unreadable[0]}' if unreadable else ''}")
    cut = CutScenes(rows, unreadable)
    _write(cut, out, labels)
    return cut


def _cut(row: CropRow, image_rgb: Image, path: Path, margin: float) -> CropRow:
    """Write the crop of a box that names an object."""
    if row.kind not in ("matched", "added") or row.true is None:
        return row
    box_px = row.found_px or row.true.box_px
    write_durably(path, encode_image(shrink(crop(image_rgb, box_px, margin), _LONGEST_PX), ".jpg", _QUALITY))
    return replace(row, crop=path)


def report_of(cut: CutScenes) -> dict[str, Any]:
    """Return the counts: of all boxes, by split and by item, and the items that were never found."""
    by_item: dict[tuple[str, str], Counter[str]] = {}
    for row in cut.rows:
        if row.true is not None:
            by_item.setdefault((row.true.category, row.true.item), Counter())[row.kind] += 1
    overlaps = [row.iou for row in cut.rows if row.kind == "matched" and row.iou is not None]
    return {
        "boxes": cut.counts(),
        "splits": {split: cut.counts(split) for split in sorted({row.split for row in cut.rows})},
        "mean_iou": float(np.mean(overlaps)) if overlaps else None,
        "items": [
            {"category": category, "item": item, **counts} for (category, item), counts in sorted(by_item.items())
        ],
        "never_found": [item for (_, item), counts in sorted(by_item.items()) if not counts["matched"]],
        "unreadable": cut.unreadable,
    }


def _write(cut: CutScenes, out: Path, labels: Mapping[tuple[str, str], str]) -> None:
    write_durably(out / BOXES_FILE, _boxes_csv(cut.rows, out).encode("utf-8"))
    report = json.dumps(report_of(cut), indent=1, ensure_ascii=False)
    write_durably(out / REPORT_FILE, report.encode("utf-8"))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("path", "split", "category", "item", "label"))
    for one in cut.samples:
        label = labels.get((one.category, one.item), "")
        writer.writerow((one.path.relative_to(out).as_posix(), one.split, one.category, one.item, label))
    write_durably(out / INDEX_FILE, text.getvalue().encode("utf-8"))


def _boxes_csv(rows: Iterable[CropRow], out: Path) -> str:
    """Return the list of all boxes: what became of each, and where it is in its scene."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    sides = [f"{of}_{side}" for of in ("found", "true") for side in ("x0", "y0", "x1", "y1")]
    writer.writerow(("kind", "scene", "split", "category", "item", "score", "iou", "crop", *sides))
    for row in rows:
        named = ("", "") if row.true is None else (row.true.category, row.true.item)
        numbers = [f"{value:.4f}" if value is not None else "" for value in (row.score, row.iou)]
        path = "" if row.crop is None else row.crop.relative_to(out).as_posix()
        boxes = (row.found_px, None if row.true is None else row.true.box_px)
        writer.writerow((row.kind, row.scene, row.split, *named, *numbers, path, *_sides(boxes)))
    return text.getvalue()


def _sides(boxes: Iterable[Box | None]) -> list[str]:
    return [text for box in boxes for text in ([""] * 4 if box is None else [f"{side:.1f}" for side in box])]
