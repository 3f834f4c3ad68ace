"""Writes the boxes and identities of a set in the format of a labelling tool.

Rules this module keeps:
1. The names of pictures are those of the set: paths below its folder, which an import finds again.
2. What no person confirmed is marked: by `state` in COCO and CVAT, `source` in CVAT, predictions in Label Studio, and a
   table of states in the archives of VOC and YOLO.
3. Each picture comes with the hash of its file, so that an import finds it under any name.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
import sqlite3
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from console.sets.sets import find_set
from console.settings import Settings
from console.storage.database import Database
from dataset_formats.coco.reader import write_coco
from dataset_formats.cvat.reader import write_cvat
from dataset_formats.label_studio.reader import write_label_studio
from dataset_formats.records import ONE_CATEGORY, Annotation, NamedBox
from dataset_formats.voc.reader import write_voc
from dataset_formats.yolo.reader import write_yolo
from edge.errors import ConsoleError

Form = Literal["coco", "voc", "yolo", "cvat", "label-studio"]
Names = Literal["class", "identity"]  # what the names of boxes say
FORMS: Mapping[Form, str] = {
    "coco": "COCO (JSON)",
    "cvat": "CVAT for images 1.1 (XML)",
    "label-studio": "Label Studio (JSON)",
    "voc": "Pascal VOC (zip of XML)",
    "yolo": "YOLO (zip of text)",
}
STATES_FILE = "states.csv"  # which pictures of an archive are confirmed
_SUFFIX: Mapping[Form, str] = {"coco": ".json", "cvat": ".xml", "label-studio": ".json", "voc": ".zip", "yolo": ".zip"}
_KEEP_S = 86_400.0
TYPES = {".json": "application/json", ".xml": "application/xml", ".zip": "application/zip"}


@dataclass(frozen=True, slots=True)
class Exported:
    """A file to save."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Contents:
    """The pictures of a set with their boxes."""

    pictures: list[Annotation]
    answered: set[str]  # names of pictures that a person confirmed
    names: list[str]  # of the boxes, sorted


def export_set(rows: sqlite3.Connection, set_id: int, form: Form, names: Names) -> Exported:
    """Return a set in a format.

    Raises:
        ConsoleError: there is no such set, or it has no picture.
        DataError: a name cannot be written in this format.
    """
    name = find_set(rows, set_id).name
    contents = read_contents(rows, set_id, names)
    if not contents.pictures:
        raise ConsoleError("invalid", f"{name} has no picture; add some first")
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or f"set-{set_id}"
    suffix = _SUFFIX[form]
    with tempfile.TemporaryDirectory(prefix="finesight-export-") as folder:
        target = Path(folder) / ("out" if suffix == ".zip" else f"out{suffix}")
        writers: dict[Form, Callable[[], object]] = {
            "coco": lambda: write_coco(contents.pictures, contents.names, target, contents.answered),
            "voc": lambda: write_voc(contents.pictures, target),
            "yolo": lambda: write_yolo(contents.pictures, contents.names, target),
            "cvat": lambda: write_cvat(contents.pictures, contents.names, target, contents.answered),
            "label-studio": lambda: write_label_studio(contents.pictures, target, contents.answered),
        }
        writers[form]()
        data = _zipped(target, contents) if target.is_dir() else target.read_bytes()
    return Exported(f"{stem}-{form}{suffix}", TYPES[suffix], data)


def write_export(
    database: Database, settings: Settings, now_s: float, set_id: int, export_id: str, form: Form, names: Names
) -> str:
    """Write a set into the folder of exports, for a download later; old ones are deleted. Return what it wrote.

    Raises:
        ConsoleError: see export_set, or it cannot be written.
        DataError: see export_set.
    """
    folder = settings.data / "exports"
    with database.read() as rows:
        made = export_set(rows, set_id, form, names)
    try:
        for old in folder.iterdir() if folder.is_dir() else ():
            if now_s - old.stat().st_mtime > _KEEP_S:
                shutil.rmtree(old, ignore_errors=True)
        (folder / f"{set_id}-{export_id}").mkdir(parents=True)
        (folder / f"{set_id}-{export_id}" / made.name).write_bytes(made.data)
    except OSError as error:
        raise ConsoleError("storage", f"the export cannot be written: {error.strerror}") from error
    return f"{made.name}, {len(made.data) / 1e6:,.1f} MB"


def find_export(settings: Settings, set_id: int, export_id: str) -> Path:
    """Return the file of an export of a set.

    Raises:
        ConsoleError: there is none any more.
    """
    folder = settings.data / "exports" / f"{set_id}-{export_id}"
    files = list(folder.iterdir()) if export_id.isalnum() and folder.is_dir() else []
    if not files:
        raise ConsoleError("not_found", "there is no such export any more; export again")
    return files[0]


def read_contents(rows: sqlite3.Connection, set_id: int, names: Names) -> Contents:
    """Return the pictures of a set with their boxes, but without those that show nothing."""
    boxes: dict[int, list[sqlite3.Row]] = defaultdict(list)
    query = (
        "SELECT picture_id, x0, y0, x1, y1, box_score, state, crops.category, item, sets.category AS of_set "
        "FROM crops JOIN sets ON sets.id = set_id WHERE set_id = ? AND state != 'nothing' ORDER BY crops.id"
    )
    for row in rows.execute(query, (set_id,)):
        boxes[row["picture_id"]].append(row)
    pictures, answered = [], set()
    query = "SELECT id, name, sha256, width, height, boxes, split FROM pictures WHERE set_id = ? ORDER BY name"
    for one in rows.execute(query, (set_id,)):
        is_answered = one["boxes"] in ("confirmed", "whole")
        listed = tuple(_named_box(row, names, is_answered=is_answered) for row in boxes[one["id"]])
        size_px = (one["width"], one["height"])
        pictures.append(Annotation(one["name"], listed, one["split"], declared_size_px=size_px, sha256=one["sha256"]))
        if is_answered:
            answered.add(one["name"])
    return Contents(pictures, answered, sorted({box.item for one in pictures for box in one.boxes}))


def _named_box(row: sqlite3.Row, names: Names, *, is_answered: bool) -> NamedBox:
    category = row["category"] or row["of_set"] or ONE_CATEGORY
    box_px = (row["x0"], row["y0"], row["x1"], row["y1"])
    score = None if is_answered else min(1.0, max(0.0, round(row["box_score"], 4)))
    known = row["item"] if row["state"] != "unknown" else None
    if names == "identity" and known:
        return NamedBox(box_px, known, category, score=score)
    return NamedBox(box_px, category, score=score, item_id=known or "")


def _zipped(folder: Path, contents: Contents) -> bytes:
    """Return the files of a folder as an archive, with a table of the pictures' states."""
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["picture", "state"])
    writer.writerows(
        [one.name, "confirmed" if one.name in contents.answered else "proposed"] for one in contents.pictures
    )
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(STATES_FILE, table.getvalue())
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return data.getvalue()
