"""Data sets of single objects: a folder for each class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from dataset_formats.records import ONE_CATEGORY, Listing, Sample, default_split, split_from_name
from edge.errors import DataError
from edge.imaging.image import IMAGE_SUFFIXES


def read_folders(folder: Path, category: str = ONE_CATEGORY) -> Listing:
    """Read folders of class/picture or category/item/picture, inside folders train, val and test or not.

    Args:
        folder: may hold a single folder of its own name, as archives do.
        category: of all items, if there is one level.

    Raises:
        DataError: an item has no pictures, one and two levels are mixed, or classes lie beside splits.
    """
    folder = innermost_folder(folder)
    inner = subfolders(folder)
    splits = [split_from_name(path.name) for path in inner]
    listing = Listing("folders")
    if "train" not in splits:
        _walk(folder, "", category, listing)
        return listing
    for path, split in zip(inner, splits, strict=True):
        if not split:
            raise DataError(f"{path}: lies beside a folder of training pictures; move it into the folder of a split")
        _walk(path, split, category, listing)
    return listing


def innermost_folder(folder: Path) -> Path:
    """Skip folders that hold nothing but one folder of the same name; return the innermost."""
    while [path.name for path in subfolders(folder)] == [folder.name] and not pictures_in(folder):
        folder = folder / folder.name
    return folder


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if e.is_dir() and e.name[0] != "." and e.name != "__MACOSX")


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder, sorted; their suffix decides."""
    names = (name for name in _names(folder) if name.lower().endswith(IMAGE_SUFFIXES) and name[:2] != "._")
    return sorted(folder / name for name in names)


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:  # no object for each file
        return [entry.name for entry in entries]


def _walk(folder: Path, split: str, category: str, listing: Listing) -> None:
    """Add the pictures of one split."""
    flat = [path for path in subfolders(folder) if pictures_in(path)]
    deep = [path for path in subfolders(folder) if subfolders(path)]
    if flat and deep:
        raise DataError(
            f"{folder}: {flat[0].name} holds pictures and {deep[0].name} holds folders; use one level (class/picture) "
            "or two (category/item/picture)"
        )
    items = [item for path in deep for item in subfolders(path)] if deep else subfolders(folder)
    for item in items:
        pictures = pictures_in(item)
        listing.left_out += _others(item)
        if not pictures:
            raise DataError(f"{item}: holds no picture; every item needs one")
        for number, path in enumerate(pictures):
            of = item.parent.name if deep else category
            listing.samples.append(Sample(path, split or default_split(number), of, item.name))


def _others(folder: Path) -> list[str]:
    """Return notes about files that are pictures, but of a format that is not read."""
    suffixes = Counter(name.lower().rpartition(".")[2] for name in _names(folder) if "." in name)
    ignored = {suffix: n for suffix, n in suffixes.items() if suffix in {"gif", "heic", "heif", "avif", "jp2"}}
    expected = ", ".join(IMAGE_SUFFIXES)
    return [f"{folder}: left out {n} files .{suffix}; pictures are {expected}" for suffix, n in ignored.items()]
