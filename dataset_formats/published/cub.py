"""CUB-200-2011: 200 birds with boxes (Wah et al. 2011)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset_formats.boxes import box_of_size
from dataset_formats.listings import finish
from dataset_formats.notices import in_bulk
from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import as_stored, is_file, read_text, require_file

CUB_TRAIN_CLASSES = 100  # of 200, in the class-disjoint protocol of Song et al. 2016


@dataclass(frozen=True, slots=True)
class _Tables:
    """The rows of the tables by id: of the picture, or of the class."""

    paths: Mapping[str, str]
    classes: Mapping[str, str]
    names: Mapping[str, str]
    is_train: Mapping[str, str] | None  # None: the classes decide
    boxes: Mapping[str, str] | None  # None: the data set has none


def read_cub(folder: Path, *, published: bool = False) -> Listing:
    """Read CUB-200-2011 with its true boxes; every class is an item of the category `bird`.

    Args:
        folder: holds images.txt, or a folder CUB_200_2011 that does.
        published: train on the first 100 classes and test on the others; False: split by train_test_split.txt.

    Raises:
        DataError: a table is missing, or no picture can be used.
    """
    if not (folder / "images.txt").is_file() and (folder / "CUB_200_2011").is_dir():
        folder = folder / "CUB_200_2011"
    pictures = require_file(folder / "images", "the folder of CUB's pictures")
    listing = Listing("cub")
    has_boxes = (folder / "bounding_boxes.txt").is_file()
    tables = _Tables(
        paths=_table(folder / "images.txt", listing),
        classes=_table(folder / "image_class_labels.txt", listing),
        names=_table(folder / "classes.txt", listing),
        is_train=None if published else _table(folder / "train_test_split.txt", listing),
        boxes=_table(folder / "bounding_boxes.txt", listing) if has_boxes else None,
    )
    if not has_boxes:
        listing.noticed.append(f"{folder / 'bounding_boxes.txt'}: not found; whole pictures are used")
    ids = Counter(tables.paths.values())
    for number, path in tables.paths.items():
        sample = _sample(number, tables, pictures) if ids[path] == 1 else f"{path}: other ids mean it, too; keep one"
        if isinstance(sample, Sample):
            listing.samples.append(sample)
        else:
            listing.left_out.append(f"{folder / 'images.txt'}: image {number}: {sample}")
    for number in tables.classes:
        if number not in tables.paths:
            listing.left_out.append(f"{folder / 'image_class_labels.txt'}: image {number}: is not in images.txt")
    return finish(listing, folder, "its tables are empty; extract them again")


def _sample(number: str, tables: _Tables, pictures: Path) -> Sample | str:
    """Return the sample of a picture, or why it has none."""
    of = tables.classes.get(number)
    if of is None:
        return "has no row of its own in image_class_labels.txt"
    if of not in tables.names:
        return f"found class {of}, which classes.txt does not list once"
    if tables.is_train is None:
        flag = str(int(int(of) <= CUB_TRAIN_CLASSES)) if of.isdecimal() and len(of) < 9 else of
    else:
        flag = tables.is_train.get(number, "")
    if flag not in ("0", "1"):
        return f"found {flag!r} for its split, expected one row with 1 (train) or 0 (test)"
    box = None
    if tables.boxes is not None:
        box = box_of_size(tables.boxes.get(number, "").split())
        if box is None:
            return f"found the box {tables.boxes.get(number, '')!r}, expected one row with x y width height"
    path = as_stored(pictures / tables.paths[number])
    if not is_file(path):
        return f"{path}: not found; extract it again"
    item = tables.names[of]
    return Sample(path, "train" if flag == "1" else "test", "bird", item, item.partition(".")[2].replace("_", " "), box)


def _table(file: Path, listing: Listing) -> dict[str, str]:
    """Return the rows `id rest` of a file by id; leave out broken rows, and ids that stand for several things."""
    found: dict[str, set[str]] = defaultdict(set)
    repeated = []
    for number, line in enumerate(read_text(require_file(file, "a table of CUB-200-2011")).split("\n"), 1):
        key, *rest = line.split(maxsplit=1) or [""]
        if rest:
            value = rest[0].strip()
            repeated += [key] * (value in found[key])
            found[key].add(value)
        elif key:
            listing.left_out.append(f"{file}: line {number}: found {line.strip()[:60]!r}, expected an id and its value")
    listing.noticed += in_bulk(f"{file}: rows that repeat another; read once", repeated)
    for key, values in found.items():
        if len(values) > 1:
            listing.left_out.append(f"{file}: id {key}: has {len(values)} different rows; keep the right one")
    return {key: values.pop() for key, values in found.items() if len(values) == 1}
