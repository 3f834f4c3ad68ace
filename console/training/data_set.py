"""Writes what people decided in sets as a data set that the trainers read. Pictures stay where they lie.

Rules this module keeps:
1. Where every object fills its picture, the data set is an index.csv; else COCO, with a box for each object.
2. Paths are absolute, so that sets of several folders fit into one file, and a missing picture is searched nowhere.
3. Splits that people gave are kept. Without pictures held out, whoever trains holds some out.
"""

from __future__ import annotations

import csv
import io
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from console.sets.sets import counted
from dataset_formats.coco.reader import write_coco
from dataset_formats.records import Annotation, NamedBox
from edge.durable import write_durably
from edge.types import Box

INDEX, COCO, LABELS = "index.csv", "coco.json", "labels.csv"
FEW_PER_ITEM = 5  # pictures of the middle item: `edge-train learn` trains nothing with fewer
_HELD_OUT = 0.2  # of the crops of each item that has three or more
_LEAST_TO_HOLD_OUT = 3
_VAL_EVERY = 5  # pictures with boxes
_CONFIRMED, _OTHERS = "'confirmed'", "'whole', 'none', 'proposed'"
Purpose = Literal["items", "boxes"]  # crops that people named, or pictures whose boxes they confirmed


@dataclass(frozen=True, slots=True)
class TrainingCrop:
    """One object that people named."""

    id: int
    picture_id: int
    path: Path
    size_px: tuple[int, int]  # of the picture
    box_px: Box | None  # None: it fills the picture
    category: str
    item: str
    label: str
    split: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What there is to learn from."""

    pictures: int = 0  # with something to learn
    objects: int = 0  # named crops, or confirmed boxes
    items: int = 0
    categories: int = 0
    alone: int = 0  # items with one picture
    median: float = 0.0  # pictures of the middle item
    held_out: int = 0  # objects in pictures of split val
    waiting: int = 0  # crops that nobody has named, or pictures without confirmed boxes

    @property
    def problem(self) -> str:
        """Say why nothing can be learned; empty: it can."""
        if self.objects == 0:
            return "nothing is decided yet: name crops in the review first"
        if self.objects < 2:
            return "one named crop is not enough: two are needed"
        if self.items < 2:
            return "there is one item, and telling items apart takes two: name crops of another item"
        return ""


def count_crops(rows: sqlite3.Connection, set_ids: Sequence[int]) -> Counts:
    """Count the named crops of sets."""
    marks = _marks(set_ids)
    named = rows.execute(
        "SELECT category, count(*) FROM crops"  # noqa: S608
        f" WHERE set_id IN ({marks}) AND state = 'item' GROUP BY category, item",
        tuple(set_ids),
    ).fetchall()
    per_item = sorted(row[1] for row in named)
    held_out = rows.execute(
        "SELECT count(*) FROM pictures CROSS JOIN crops ON picture_id = pictures.id"  # noqa: S608
        f" WHERE pictures.set_id IN ({marks}) AND split = 'val' AND state = 'item'",
        tuple(set_ids),
    ).fetchone()[0]
    waiting = sum(counted(rows, one, "crops").get("open", 0) for one in dict.fromkeys(set_ids))
    middle = (per_item[(len(per_item) - 1) // 2] + per_item[len(per_item) // 2]) / 2 if per_item else 0.0
    categories = len({row[0] for row in named})
    return Counts(
        objects=sum(per_item),
        items=len(per_item),
        categories=categories,
        alone=per_item.count(1),
        median=middle,
        held_out=held_out,
        waiting=waiting,
    )


def count_boxes(rows: sqlite3.Connection, set_ids: Sequence[int]) -> Counts:
    """Count the pictures of sets whose boxes people confirmed."""
    marks = _marks(set_ids)
    boxes = Counter[str]()
    for one in dict.fromkeys(set_ids):
        boxes.update(counted(rows, one, "boxes"))
    held_out = rows.execute(
        f"SELECT count(*) FROM pictures WHERE set_id IN ({marks}) AND boxes = 'confirmed' AND split = 'val'",  # noqa: S608
        tuple(set_ids),
    ).fetchone()[0]
    is_most = 2 * boxes["confirmed"] > boxes.total()
    objects = rows.execute(  # of the fewer pictures, for it takes a look for each
        "SELECT count(*) FROM pictures CROSS JOIN crops ON picture_id = pictures.id"  # noqa: S608
        f" WHERE pictures.set_id IN ({marks}) AND boxes IN ({_OTHERS if is_most else _CONFIRMED})"
        " AND state IN ('item', 'open', 'unknown')",
        tuple(set_ids),
    ).fetchone()[0]
    if is_most:
        states = [counted(rows, one, "crops") for one in dict.fromkeys(set_ids)]
        objects = sum(one.get(state, 0) for one in states for state in ("item", "open", "unknown")) - objects
    waiting = boxes["none"] + boxes["proposed"]
    return Counts(boxes["confirmed"], objects, held_out=held_out, waiting=waiting)


def named_crops(rows: sqlite3.Connection, set_ids: Sequence[int]) -> Iterator[TrainingCrop]:
    """Yield the named crops of sets, picture by picture."""
    found = rows.execute(
        "SELECT crops.*, sets.folder, pictures.name, pictures.width, pictures.height, pictures.split, boxes"  # noqa: S608
        " FROM crops JOIN pictures ON pictures.id = picture_id JOIN sets ON sets.id = pictures.set_id"
        f" WHERE crops.set_id IN ({_marks(set_ids)}) AND crops.state = 'item'"
        " AND crops.category IS NOT NULL AND crops.item IS NOT NULL ORDER BY picture_id, crops.id",
        tuple(set_ids),
    )
    for row in found:
        box = (row["x0"], row["y0"], row["x1"], row["y1"])
        fills = box == (0, 0, row["width"], row["height"])
        yield TrainingCrop(
            row["id"], row["picture_id"], Path(row["folder"], row["name"]), (row["width"], row["height"]),
            None if fills else box, row["category"], row["item"], row["label"] or "", row["split"],
        )  # fmt: skip


def hold_out(crops: Sequence[TrainingCrop]) -> list[TrainingCrop]:
    """Return crops of which some pictures of each item are of split val; those of people's own splits stay.

    A picture is held out with all that it shows. The last pictures of an item are taken, not every fifth: pictures that
    were taken one after the other look alike. No item loses more than a third of its crops.
    """
    if any(crop.split == "val" for crop in crops):
        return list(crops)
    per_item: dict[tuple[str, str], list[TrainingCrop]] = {}
    shown: dict[int, Counter[tuple[str, str]]] = {}
    for crop in crops:
        if crop.split != "test":
            per_item.setdefault((crop.category, crop.item), []).append(crop)
            shown.setdefault(crop.picture_id, Counter())[crop.category, crop.item] += 1
    held: set[int] = set()
    taken: Counter[tuple[str, str]] = Counter()
    for item, listed in sorted(per_item.items(), key=lambda one: (len(one[1]), one[0])):
        wanted = max(1, round(_HELD_OUT * len(listed))) if len(listed) >= _LEAST_TO_HOLD_OUT else 0
        for crop in reversed(listed):
            if taken[item] >= wanted:
                break
            beside = shown[crop.picture_id]
            if crop.picture_id not in held and all(
                taken[other] + times <= len(per_item[other]) // _LEAST_TO_HOLD_OUT for other, times in beside.items()
            ):
                held.add(crop.picture_id)
                taken.update(beside)
    return [replace(crop, split="val" if crop.picture_id in held else crop.split or "train") for crop in crops]


def file_of(crops: Sequence[TrainingCrop]) -> str:
    """Return the name of the file that `write_crops` writes."""
    return INDEX if all(crop.box_px is None for crop in crops) else COCO


def write_crops(crops: Sequence[TrainingCrop], folder: Path) -> None:
    """Write named crops as a data set, and their labels.

    Raises:
        OSError: the folder cannot be written.
        DataError: likewise.
    """
    splits = {crop.split for crop in crops}
    has_splits = {"train", "val"} <= splits

    def split_of(crop: TrainingCrop) -> str:
        return (crop.split or "train") if has_splits or crop.split == "test" else "train"

    _write_csv(folder / LABELS, ("category", "item", "label"), sorted({(c.category, c.item, c.label) for c in crops}))
    if file_of(crops) == INDEX:
        named = [(str(c.path), split_of(c), c.category, c.item, c.label) for c in crops]
        _write_csv(folder / INDEX, ("path", "split", "category", "item", "label"), named)
        return
    pictures: dict[int, list[TrainingCrop]] = {}
    for crop in crops:
        pictures.setdefault(crop.picture_id, []).append(crop)
    annotations = [
        Annotation(
            str(listed[0].path),
            tuple(NamedBox(one.box_px or (0, 0, *one.size_px), one.item, one.category) for one in listed),
            split_of(listed[0]),
            declared_size_px=listed[0].size_px,
        )
        for listed in pictures.values()
    ]
    write_coco(annotations, [], folder / COCO)


def write_boxes(rows: sqlite3.Connection, set_ids: Sequence[int], folder: Path) -> None:
    """Write the pictures of sets whose boxes people confirmed, also those without any.

    Raises:
        DataError: the folder cannot be written.
    """
    pictures = rows.execute(
        "SELECT pictures.*, sets.folder FROM pictures JOIN sets ON sets.id = set_id"  # noqa: S608
        f" WHERE set_id IN ({_marks(set_ids)}) AND boxes = 'confirmed' ORDER BY pictures.id",
        tuple(set_ids),
    ).fetchall()
    has_splits = {"train", "val"} <= Counter(row["split"] for row in pictures).keys()
    annotations = []
    for number, row in enumerate(pictures):
        made_up = "val" if number % _VAL_EVERY == _VAL_EVERY - 1 else "train"
        boxes = rows.execute(
            "SELECT x0, y0, x1, y1 FROM crops WHERE picture_id = ? AND state != 'nothing'", (row["id"],)
        )
        annotations.append(
            Annotation(
                str(Path(row["folder"], row["name"])),
                tuple(NamedBox(tuple(box), "object") for box in boxes),
                (row["split"] or "train") if has_splits else row["split"] or made_up,
                declared_size_px=(row["width"], row["height"]),
            )
        )
    write_coco(annotations, ["object"], folder / COCO)


def _write_csv(path: Path, head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(head)
    writer.writerows(lines)
    write_durably(path, text.getvalue().encode("utf-8", "surrogateescape"))


def _marks(set_ids: Sequence[int]) -> str:
    return ", ".join("?" * len(set_ids)) or "NULL"
