"""Oxford Flowers-102 (Nilsback and Zisserman 2008)."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_formats.folders import innermost_folder
from dataset_formats.listings import finish
from dataset_formats.published.class_disjoint import read_class_folders, split_by_class
from dataset_formats.published.matlab_file import read_matlab
from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import as_stored, is_file, read_json, require_file
from edge.errors import DataError

_CATEGORY = "flower"
_LABELS, _SPLITS, _NAMES = "imagelabels.mat", "setid.mat", "cat_to_name.json"
_PLACES = ("", "flowers-102", "102flowers", "oxford-102-flowers")
_CLASSES = 102
_VARIABLES = {"trnid": "train", "valid": "val", "tstid": "test"}


def looks_like_flowers(folder: Path) -> bool:
    """Return whether a folder holds Flowers-102."""
    return any((folder / place / _LABELS).is_file() for place in _PLACES)


def read_flowers(folder: Path, *, published: bool = False) -> Listing:
    """Read Flowers-102; every class is an item of the category `flower`, named by its number, 1 to 102.

    Args:
        folder: holds imagelabels.mat, setid.mat and `jpg`, or a folder `flowers-102` that does; or folders of classes,
            named by number, such as train/1. A file cat_to_name.json beside them names the classes for people.
        published: train on the first 51 classes and test on the others; False: split by setid.mat, which trains on the
            smallest of its three parts, or by the folders.

    Raises:
        DataError: a file is missing or broken, or no picture can be used.
    """
    home = next((folder / place for place in _PLACES if (folder / place / _LABELS).is_file()), None)
    if home is None:
        listing = read_class_folders(folder, "flowers", _CATEGORY, _number, published=published)
        return _with_names(listing, folder)
    listing = Listing("flowers")
    labels = _whole_numbers(read_matlab(home / _LABELS, "labels").get("labels"), home / _LABELS, "labels")
    pictures = innermost_folder(require_file(home / "jpg", "the folder of the pictures"))
    splits = {} if published else _splits(home / _SPLITS, listing)
    for number, label in enumerate(labels, 1):
        path = as_stored(pictures / f"image_{number:05d}.jpg")
        split = "train" if published else splits.get(number, "")
        if not 1 <= label <= _CLASSES:
            listing.left_out.append(f"{home / _LABELS}: {path.name}: found class {label}, expected 1 to {_CLASSES}")
        elif not split:
            listing.left_out.append(f"{home / _SPLITS}: {path.name}: is in none of its splits, or in several")
        elif not is_file(path):
            listing.left_out.append(f"{path}: not found; extract it again")
        else:
            listing.samples.append(Sample(path, split, _CATEGORY, str(label)))
    if published:
        split_by_class(listing, [str(number) for number in range(1, _CLASSES + 1)])
    return finish(_with_names(listing, home), folder, "its labels are empty; copy them again")


def _number(name: str) -> tuple[int, str]:
    """Sort names of classes by their number; others come last."""
    return (int(name), name) if name.isdecimal() and len(name) < 9 else (_CLASSES + 1, name)


def _whole_numbers(found: Any, file: Path, name: str) -> list[int]:
    is_list = isinstance(found, list) and all(isinstance(one, (int, float)) for one in found)
    if not is_list or not all(float(one).is_integer() for one in found):
        raise DataError(f"{file}: has no list {name} of whole numbers; copy it again")
    return [int(one) for one in found]


def _splits(file: Path, listing: Listing) -> dict[int, str]:
    """Return the split of each picture that is in exactly one."""
    tree = read_matlab(require_file(file, "the splits of Flowers-102"), *_VARIABLES)
    named = [
        (number, split)
        for variable, split in _VARIABLES.items()
        for number in _whole_numbers(tree.get(variable), file, variable)
    ]
    times = Counter(number for number, _ in named)
    listing.noticed.append(f"{file}: trains on {sum(split == 'train' for _, split in named)} pictures, by design")
    return {number: split for number, split in named if times[number] == 1}


def _with_names(listing: Listing, folder: Path) -> Listing:
    """Label the classes by a file of names, as Kaggle and course copies have one."""
    places = (folder / _NAMES, folder.parent / _NAMES)
    file = next((one for one in places if one.is_file()), None)
    names = read_json(file) if file is not None else {}
    if isinstance(names, dict):
        labels = {number: label for number, label in names.items() if isinstance(label, str)}
        listing.samples = [replace(one, label=labels.get(one.item, one.label)) for one in listing.samples]
    return listing
