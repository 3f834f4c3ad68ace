"""Export of proposals and labels to other tools: COCO, Pascal VOC, YOLO, CVAT and Label Studio."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath
from typing import Literal

from dataset_formats.coco.reader import write_coco
from dataset_formats.cvat.reader import write_cvat
from dataset_formats.exported_names import ExportedNames
from dataset_formats.label_studio.reader import write_label_studio
from dataset_formats.records import Annotation, NamedBox
from dataset_formats.voc.reader import write_voc
from dataset_formats.yolo.reader import write_yolo
from edge.durable import write_durably
from edge.errors import DataError, TrainError
from trainer.labelling.label_file import LabelledPicture
from trainer.labelling.label_store import OWN_FILES, LabelStore

ExportFormat = Literal["coco", "voc", "yolo", "cvat", "label-studio"]
STATES_FILE = "states.csv"  # says which pictures of a folder are confirmed, where the format cannot


def export_labels(store: LabelStore, kind: ExportFormat, target: Path) -> dict[str, object]:
    """Write all pictures of a store with their boxes.

    Args:
        store: the labels.
        kind: the format.
        target: the file to write; for VOC and YOLO, a folder.

    Returns:
        counts of pictures, boxes, and confirmed pictures.

    Raises:
        TrainError: there is no picture.
        DataError: a file cannot be written.
    """
    if not store.pictures:
        raise TrainError(f"{store.folder}: holds no labels to export; propose boxes first")
    if target.resolve() in (store.folder.resolve(), *((store.folder / name).resolve() for name in OWN_FILES)):
        raise TrainError(f"{target}: belongs to the label folder; export to another place")
    name_of = short_names(store.pictures)
    listed = list(store.pictures.values())
    splits = store.splits()
    pictures = [_annotation(one, name_of[one.name], splits.get(one.name, "")) for one in listed]
    names = sorted({box.item for one in pictures for box in one.boxes})
    confirmed = {name_of[one.name] for one in listed if one.state == "human"}
    writers: dict[ExportFormat, Callable[[], object]] = {
        "coco": lambda: write_coco(pictures, names, target, confirmed),
        "voc": lambda: write_voc(pictures, target),
        "yolo": lambda: write_yolo(pictures, names, target),
        "cvat": lambda: write_cvat(pictures, names, target),
        "label-studio": lambda: write_label_studio(pictures, target, confirmed),
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        writers[kind]()
        if target.is_dir():
            write_durably(target / STATES_FILE, _states(pictures, confirmed).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise DataError(f"{target}: cannot write: {error.strerror}") from error
    boxes = sum(len(one.boxes) for one in pictures)
    return {"pictures": len(pictures), "boxes": boxes, "confirmed": len(confirmed), "to": str(target)}


def short_names(names: Collection[str]) -> dict[str, str]:
    """Return a name for each picture that an import matches to it: its path below the folder that all share.

    Where that would be ambiguous, the name keeps one shared folder, or all.
    """
    parts = {name: PurePosixPath(name).parts for name in names}
    shared = len(PurePosixPath(os.path.commonpath([PurePosixPath(name).parent for name in names])).parts)
    known = ExportedNames(names)
    for depth in (shared, shared - 1):
        found = {name: "/".join(one[max(0, depth) :]) for name, one in parts.items()}
        if all(".." not in short.split("/") and known.match(short) == [name] for name, short in found.items()):
            return found
    return {name: name for name in names}


def _annotation(one: LabelledPicture, name: str, split: str) -> Annotation:
    proposed = one.state == "proposed"
    boxes = [NamedBox(box.box_px, box.category, score=round(box.score, 4) if proposed else None) for box in one.boxes]
    return Annotation(name, tuple(boxes), split, declared_size_px=(one.width, one.height))


def _states(pictures: list[Annotation], confirmed: set[str]) -> str:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["picture", "state"])
    writer.writerows([one.name, "confirmed" if one.name in confirmed else "proposed"] for one in pictures)
    return table.getvalue()
