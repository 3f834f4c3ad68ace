"""Data sets of single objects: a folder for each class, or a CSV index."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from pathlib import Path

from edge.errors import TrainError
from edge.imaging.image import IMAGE_SUFFIXES
from trainer.sample import ONE_CATEGORY, Listing, Sample, default_split, split_from_name
from trainer.text_files import is_file, read_text


def read_index(table: Path, root: Path | None) -> Listing:
    """Read a CSV with columns path, split, category (or coarse), item (or fine), optionally label.

    Args:
        table: the CSV, or the folder of an `index.csv`; columns are separated by comma, semicolon or tab.
        root: folder of its paths; None: its own folder, or the one above if the first picture is there.

    Raises:
        TrainError: the file cannot be read, or a column or value is missing.
    """
    table = table / "index.csv" if table.is_dir() else table
    text = read_text(table)
    header = text.partition("\n")[0]
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count)))
    except csv.Error as error:
        raise TrainError(f"{table}: cannot read: {error}") from error
    found = set(rows[0]) if rows else set()
    category = "coarse" if "coarse" in found else "category"
    item = "fine" if "fine" in found else "item"
    needed = ("path", "split", category, item)
    if missing := set(needed) - found:
        raise TrainError(f"{table} lacks the columns {sorted(missing)}; it has {sorted(map(str, found))}")
    for number, row in enumerate(rows, 1):
        if empty := [key for key in needed if not row[key]]:
            raise TrainError(f"{table}: row {number}: {empty[0]} is empty")
    if root is None:
        places = (table.parent, table.parent.parent)
        root = next((place for place in places if rows and is_file(place / rows[0]["path"])), table.parent)
    samples = [
        Sample(root / row["path"], row["split"], row[category], row[item], row.get("label") or "") for row in rows
    ]
    return Listing("index", samples)


def read_folders(folder: Path, category: str = ONE_CATEGORY) -> Listing:
    """Read folders of class/picture or category/item/picture, inside folders train, val and test or not.

    Args:
        folder: may hold a single folder of its own name, as archives do.
        category: of all items, if there is one level.

    Raises:
        TrainError: an item has no pictures, one and two levels are mixed, or classes lie beside splits.
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
            raise TrainError(f"{path}: lies beside a folder of training pictures; move it into the folder of a split")
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
        raise TrainError(
            f"{folder}: {flat[0].name} holds pictures and {deep[0].name} holds folders; use one level (class/picture) "
            "or two (category/item/picture)"
        )
    items = [item for path in deep for item in subfolders(path)] if deep else subfolders(folder)
    for item in items:
        pictures = pictures_in(item)
        listing.notes += _others(item)
        if not pictures:
            raise TrainError(f"{item}: holds no picture; every item needs one")
        for number, path in enumerate(pictures):
            of = item.parent.name if deep else category
            listing.samples.append(Sample(path, split or default_split(number), of, item.name))


def _others(folder: Path) -> list[str]:
    """Return notes about files that are pictures, but of a format that is not read."""
    suffixes = Counter(name.lower().rpartition(".")[2] for name in _names(folder) if "." in name)
    ignored = {suffix: n for suffix, n in suffixes.items() if suffix in {"gif", "heic", "heif", "avif", "jp2"}}
    expected = ", ".join(IMAGE_SUFFIXES)
    return [f"{folder}: left out {n} files .{suffix}; pictures are {expected}" for suffix, n in ignored.items()]
