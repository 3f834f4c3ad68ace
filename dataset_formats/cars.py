"""Stanford Cars (Krause et al. 2013), 196 cars with boxes.

Its class-disjoint protocol covers all 16,185 pictures with the class numbers of cars_annos.mat, whose `car_ims` merges
the devkit's two folders. This module is the only one that imports scipy, which reads MATLAB files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from dataset_formats.folders import innermost_folder, read_folders
from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import require_file
from edge.errors import DataError

CARS_TRAIN_CLASSES = 98  # of 196
_CATEGORY = "car"
_MERGED = "cars_annos.mat"
_DEVKIT = ("cars_train_annos.mat", "cars_test_annos_withlabels.mat")
# Errors of scipy for a truncated file, or one that is not a MATLAB file. Changed bytes in the middle may crash it.
_BROKEN = (
    ArithmeticError,
    EOFError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
    ValueError,
    scipy.io.matlab.MatReadError,
    zlib.error,
)
_PLACES = ("", "devkit", "car_devkit", "car_devkit/devkit", "cars_devkit", "cars_devkit/devkit")


def looks_like_cars(folder: Path) -> bool:
    """Return whether a folder holds annotations of Stanford Cars."""
    return any(_find(folder, name) is not None for name in (_MERGED, *_DEVKIT, "cars_test_annos.mat"))


def read_cars(folder: Path, *, published: bool = False) -> Listing:
    """Read Stanford Cars with its true boxes; every class is an item of the category `car`.

    Args:
        folder: holds cars_annos.mat and car_ims; or the devkit's files beside cars_train and cars_test, which may be
            nested in folders of their own name; or folders of classes.
        published: train on the first 98 classes and test on the others; False: split by the annotations.

    Raises:
        DataError: a file or folder is missing or broken.
    """
    merged = _find(folder, _MERGED)
    if published and merged is None:
        raise DataError(f"{folder / _MERGED}: not found; the published class-disjoint split needs it")
    if merged is not None and (published or (folder / "car_ims").is_dir()):
        return _read_merged(folder, merged, published=published)
    if not looks_like_cars(folder):
        listing = read_folders(folder, _CATEGORY)
        listing.layout = "cars"
        return listing
    return _read_devkit(folder)


def _find(folder: Path, name: str) -> Path | None:
    return next((folder / place / name for place in _PLACES if (folder / place / name).is_file()), None)


def _read_merged(folder: Path, file: Path, *, published: bool) -> Listing:
    require_file(folder / "car_ims", f"the folder of the pictures of {_MERGED}")
    tree = _load(file)
    names = _names(tree, file)
    listing = Listing("cars")
    for row in _rows(tree, file, ("relative_im_path", "class", "test")):
        train = int(row["class"]) <= CARS_TRAIN_CLASSES if published else not int(row["test"])
        listing.samples.append(_sample(folder / str(row["relative_im_path"]), row, names, file, train=train))
    return listing


def _read_devkit(folder: Path) -> Listing:
    """Read the devkit's two files; the first published test file has no classes and cannot be used."""
    meta = _find(folder, "cars_meta.mat")
    if meta is None:
        raise DataError(f"{folder / 'devkit/cars_meta.mat'}: not found; it names the classes")
    names = _names(_load(meta), meta)
    listing = Listing("cars")
    for split, name in zip(("train", "test"), _DEVKIT, strict=True):
        file = _find(folder, name)
        if file is None:
            listing.left_out.append(f"{folder / 'devkit' / name}: not found; Cars is read without its {split} split")
            continue
        pictures = innermost_folder(require_file(folder / f"cars_{split}", f"the folder of the pictures of {name}"))
        for row in _rows(_load(file), file, ("fname", "class")):
            listing.samples.append(_sample(pictures / str(row["fname"]), row, names, file, train=split == "train"))
    return listing


def _load(file: Path) -> dict[str, Any]:
    try:
        return dict(scipy.io.loadmat(file, squeeze_me=True))
    except OSError as error:
        raise DataError(f"{file}: cannot read: {error.strerror or error}") from error
    except _BROKEN as error:
        raise DataError(f"{file}: not a MATLAB file: {error}") from error


def _names(tree: dict[str, Any], file: Path) -> list[str]:
    if "class_names" not in tree:
        raise DataError(f"{file} has no class_names; it has {_keys(tree)}")
    return [str(name) for name in np.atleast_1d(tree["class_names"])]


def _rows(tree: dict[str, Any], file: Path, needed: tuple[str, ...]) -> Iterator[Any]:
    rows = np.atleast_1d(tree.get("annotations", np.zeros(0)))
    needed = (*needed, "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    if missing := set(needed) - set(rows.dtype.names or ()):
        raise DataError(f"{file} lacks {sorted(missing)}; it has {rows.dtype.names or _keys(tree)}")
    yield from rows


def _keys(tree: dict[str, Any]) -> list[str]:
    return sorted(key for key in tree if not key.startswith("__"))


def _sample(path: Path, row: Any, names: list[str], file: Path, *, train: bool) -> Sample:
    number = int(row["class"])
    if not 1 <= number <= len(names):
        raise DataError(f"{file}: {path.name}: found class {number}, expected 1 to {len(names)}")
    x0, y0, x1, y1 = (float(row[f"bbox_{side}"]) for side in ("x1", "y1", "x2", "y2"))
    box = (x0 - 1, y0 - 1, x1, y1)  # MATLAB counts pixels from 1
    return Sample(path, "train" if train else "test", _CATEGORY, names[number - 1], names[number - 1], box)
