"""Stanford Cars (Krause et al. 2013): annotations of MATLAB, or folders of classes; the scipy door.

The class-disjoint protocol is over all 16,185 pictures with the class numbers of cars_annos.mat, whose `car_ims` merges
the devkit's two folders.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from edge.errors import TrainError
from trainer.data.format_folders import read_folders, unwrap
from trainer.sample import Listing, Sample
from trainer.text_files import require_file

CARS_TRAIN_CLASSES = 98  # of 196
_CATEGORY = "car"
_MERGED = "cars_annos.mat"
_DEVKIT = ("cars_train_annos.mat", "cars_test_annos_withlabels.mat")
# What scipy trips over in a file that is cut off or no MATLAB file. Bytes changed in the middle may end the process.
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
    """Whether annotations of Stanford Cars lie in a folder."""
    return any(_find(folder, name) is not None for name in (_MERGED, *_DEVKIT, "cars_test_annos.mat"))


def read_cars(folder: Path, *, published: bool = False) -> Listing:
    """Read Stanford Cars, every class an item of the category `car`, with its true boxes.

    Args:
        folder: with cars_annos.mat and car_ims; or with the devkit's files beside cars_train and cars_test, which may
            be nested in folders of their own name; or with folders of classes.
        published: train on the first 98 classes, test on the others; else by the split of the annotations.

    Raises:
        TrainError: a file or folder is missing, or is no such annotation.
    """
    merged = _find(folder, _MERGED)
    if published and merged is None:
        raise TrainError(f"{folder / _MERGED}: not found, expected it for the published class-disjoint split")
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
    """Read the devkit's two files; the test file that was published first has no classes and is of no use."""
    meta = _find(folder, "cars_meta.mat")
    if meta is None:
        raise TrainError(f"{folder / 'devkit/cars_meta.mat'}: not found, expected the names of the classes")
    names = _names(_load(meta), meta)
    listing = Listing("cars")
    for split, name in zip(("train", "test"), _DEVKIT, strict=True):
        file = _find(folder, name)
        if file is None:
            listing.notes.append(f"{folder / 'devkit' / name}: not found, Cars is read without its {split} split")
            continue
        pictures = unwrap(require_file(folder / f"cars_{split}", f"the folder of the pictures of {name}"))
        for row in _rows(_load(file), file, ("fname", "class")):
            listing.samples.append(_sample(pictures / str(row["fname"]), row, names, file, train=split == "train"))
    return listing


def _load(file: Path) -> dict[str, Any]:
    try:
        return dict(scipy.io.loadmat(file, squeeze_me=True))
    except OSError as error:
        raise TrainError(f"{file}: cannot read: {error.strerror or error}") from error
    except _BROKEN as error:
        raise TrainError(f"{file}: no MATLAB file: {error}") from error


def _names(tree: dict[str, Any], file: Path) -> list[str]:
    if "class_names" not in tree:
        raise TrainError(f"{file}: found {_told(tree)}, expected class_names")
    return [str(name) for name in np.atleast_1d(tree["class_names"])]


def _rows(tree: dict[str, Any], file: Path, needed: tuple[str, ...]) -> Iterator[Any]:
    rows = np.atleast_1d(tree.get("annotations", np.zeros(0)))
    needed = (*needed, "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    if missing := set(needed) - set(rows.dtype.names or ()):
        raise TrainError(f"{file}: found {rows.dtype.names or _told(tree)}, expected also {sorted(missing)}")
    yield from rows


def _told(tree: dict[str, Any]) -> list[str]:
    return sorted(key for key in tree if not key.startswith("__"))


def _sample(path: Path, row: Any, names: list[str], file: Path, *, train: bool) -> Sample:
    number = int(row["class"])
    if not 1 <= number <= len(names):
        raise TrainError(f"{file}: found class {number} of {path.name}, expected 1 to {len(names)}")
    x0, y0, x1, y1 = (float(row[f"bbox_{side}"]) for side in ("x1", "y1", "x2", "y2"))
    box = (x0 - 1, y0 - 1, x1, y1)  # MATLAB counts pixels from 1
    return Sample(path, "train" if train else "test", _CATEGORY, names[number - 1], names[number - 1], box)
