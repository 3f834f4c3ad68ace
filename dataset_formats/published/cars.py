"""Stanford Cars (Krause et al. 2013), 196 cars with boxes.

Its class-disjoint protocol covers all 16,185 pictures with the class numbers of cars_annos.mat, whose `car_ims` merges
the devkit's two folders.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from dataset_formats.boxes import box_of_sides
from dataset_formats.folders import innermost_folder, read_folders
from dataset_formats.listings import finish
from dataset_formats.published.matlab_file import read_matlab
from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import as_stored, is_file, require_file
from edge.errors import DataError

CARS_TRAIN_CLASSES = 98  # of 196
_CATEGORY = "car"
_MERGED = "cars_annos.mat"
_DEVKIT = ("cars_train_annos.mat", "cars_test_annos_withlabels.mat")
_PLACES = ("", "devkit", "car_devkit", "car_devkit/devkit", "cars_devkit", "cars_devkit/devkit")
_SIDES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def looks_like_cars(folder: Path) -> bool:
    """Return whether a folder holds annotations of Stanford Cars."""
    return any(_find(folder, name) is not None for name in (_MERGED, *_DEVKIT, "cars_test_annos.mat"))


def find_cars(file: Path) -> Path:
    """Return the folder of the data set that one of its MATLAB files belongs to: its own, or one above."""
    return next(
        (folder for folder in file.parents[:3] if (folder / "car_ims").is_dir() or (folder / "cars_train").is_dir()),
        file.parent,
    )


def read_cars(folder: Path, *, published: bool = False) -> Listing:
    """Read Stanford Cars with its true boxes; every class is an item of the category `car`.

    Args:
        folder: holds cars_annos.mat and car_ims; or the devkit's files beside cars_train and cars_test, which may be
            nested in folders of their own name; or folders of classes.
        published: train on the first 98 classes and test on the others; False: split by the annotations.

    Raises:
        DataError: a file or folder is missing or broken, or no picture can be used.
    """
    merged = _find(folder, _MERGED)
    if published and merged is None:
        raise DataError(f"{folder / _MERGED}: not found; the published class-disjoint split needs it")
    if merged is not None and (published or (folder / "car_ims").is_dir()):
        listing = _read_merged(folder, merged, published=published)
    elif looks_like_cars(folder):
        listing = _read_devkit(folder)
    else:
        listing = read_folders(folder, _CATEGORY)
        listing.layout = "cars"
    return finish(listing, folder, "its tables are empty; extract them again")


def _find(folder: Path, name: str) -> Path | None:
    return next((folder / place / name for place in _PLACES if (folder / place / name).is_file()), None)


def _read_merged(folder: Path, file: Path, *, published: bool) -> Listing:
    require_file(folder / "car_ims", f"the folder of the pictures of {_MERGED}")
    tree = read_matlab(file, "class_names", "annotations")
    names = _names(tree, file)
    listing = Listing("cars")
    for row in _rows(tree, file, ("relative_im_path", "class", "test"), listing):
        if published:
            split = "train" if _number(row["class"]) <= CARS_TRAIN_CLASSES else "test"
        else:
            split = {0: "train", 1: "test"}.get(_number(row["test"]), "")
        _add(folder / row["relative_im_path"], row, names, file, split, listing)
    return listing


def _read_devkit(folder: Path) -> Listing:
    """Read the devkit's two files; the first published test file has no classes and cannot be used."""
    meta = _find(folder, "cars_meta.mat")
    if meta is None:
        raise DataError(f"{folder / 'devkit/cars_meta.mat'}: not found; it names the classes")
    names = _names(read_matlab(meta, "class_names"), meta)
    listing = Listing("cars")
    for split, name in zip(("train", "test"), _DEVKIT, strict=True):
        file = _find(folder, name)
        if file is None:
            listing.left_out.append(f"{folder / 'devkit' / name}: not found; Cars is read without its {split} split")
            continue
        pictures = innermost_folder(require_file(folder / f"cars_{split}", f"the folder of the pictures of {name}"))
        for row in _rows(read_matlab(file, "annotations"), file, ("fname", "class"), listing):
            _add(pictures / row["fname"], row, names, file, split, listing)
    return listing


def _names(tree: dict[str, Any], file: Path) -> list[str]:
    names = tree.get("class_names")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} has no class_names; copy it again")
    return names


def _rows(tree: dict[str, Any], file: Path, needed: tuple[str, ...], listing: Listing) -> list[dict[str, Any]]:
    """Return the rows of the annotations that name a picture of their own; the first needed column names it."""
    found = tree.get("annotations")
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    if missing := {*needed, *_SIDES}.difference(*rows[:1]):
        raise DataError(f"{file} lacks {sorted(missing)}; it has {sorted(rows[0]) if rows else 'no annotations'}")
    times = Counter(str(row[needed[0]]) for row in rows)
    kept = []
    for number, row in enumerate(rows, 1):
        name = row[needed[0]]
        if not isinstance(name, str) or not name:
            listing.left_out.append(f"{file}: annotation {number}: names no picture")
        elif times[name] > 1:
            listing.left_out.append(f"{file}: annotation {number}: {times[name]} rows name {name}; keep the right one")
        else:
            kept.append(row)
    return kept


def _number(value: Any) -> int:
    """Return a whole number; -1 for anything else."""
    return int(value) if isinstance(value, (bool, int, float)) and float(value).is_integer() else -1


def _add(path: Path, row: dict[str, Any], names: list[str], file: Path, split: str, listing: Listing) -> None:
    path = as_stored(path)
    number, box = _number(row["class"]), box_of_sides([row[side] for side in _SIDES])
    if not 1 <= number <= len(names):
        why = f"found class {row['class']}, expected 1 to {len(names)}"
    elif box is None:
        why = f"found the box {[row[side] for side in _SIDES]}, expected x1 y1 x2 y2 of an area"
    elif not split:
        why = f"found {row['test']!r} for test, expected 0 or 1"
    elif not is_file(path):
        why = "not found; extract it again"
    else:
        x0, y0, x1, y1 = box
        item = names[number - 1]
        box = (x0 - 1, y0 - 1, x1, y1)  # MATLAB's first pixel is 1
        listing.samples.append(Sample(path, split, _CATEGORY, item, item, box))
        return
    listing.left_out.append(f"{file}: {path}: {why}")
