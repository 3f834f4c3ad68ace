"""Stanford Online Products (Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature Embedding").

Its 12 super-classes are the categories, and its two splits share no class.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from dataset_formats.listings import finish
from dataset_formats.notices import in_bulk
from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import as_stored, is_file, read_text, require_file
from edge.errors import DataError

_COLUMNS = ["image_id", "class_id", "super_class_id", "path"]


def read_sop(folder: Path) -> Listing:
    """Read Stanford Online Products: Ebay_train.txt and Ebay_test.txt, which share no class.

    Raises:
        DataError: a table is missing or has other columns, or no picture can be used.
    """
    if not (folder / "Ebay_train.txt").is_file() and (folder / "Stanford_Online_Products").is_dir():
        folder = folder / "Stanford_Online_Products"
    listing = Listing("sop")
    rows: dict[Path, dict[tuple[str, ...], str]] = defaultdict(dict)  # by picture: each thing said, and where
    line_of: dict[str, str] = {}
    repeated = []
    for split in ("train", "test"):
        file = folder / f"Ebay_{split}.txt"
        for number, columns in _rows(file, listing):
            image, item, category, name = columns
            where = f"{file}: line {number}"
            if image in line_of:
                repeated.append(f"image_id {image} in {where} and {line_of[image]}")
            line_of.setdefault(image, where)
            rows[folder / name].setdefault((split, category, item), where)
    listing.noticed += in_bulk("ids of several rows; the paths decide", repeated)
    for path, said in rows.items():
        if len(said) > 1:
            listing.left_out += [
                f"{where}: {path}: other rows give it another class or split" for where in said.values()
            ]
        elif not is_file(path := as_stored(path)):
            listing.left_out.append(f"{next(iter(said.values()))}: {path}: not found; extract it again")
        else:
            ((split, category, item),) = said
            listing.samples.append(Sample(path, split, category, item))
    finish(listing, folder, "its tables are empty; extract them again")
    splits: dict[str, set[str]] = defaultdict(set)
    for sample in listing.samples:
        splits[sample.item].add(sample.split)
    listing.noticed += in_bulk("classes in both splits", [item for item, of in splits.items() if len(of) > 1])
    return _with_category_names(listing)


def _rows(file: Path, listing: Listing) -> list[tuple[int, list[str]]]:
    """Return the rows of a table with their line numbers; leave out broken ones."""
    lines = read_text(require_file(file, "the table of the products of one split")).split("\n")
    if lines[0].split() != _COLUMNS:
        raise DataError(f"{file}: found columns {lines[0].split()[:9]}, expected {_COLUMNS}")
    rows = []
    for number, line in enumerate(lines[1:], 2):
        columns = line.split(maxsplit=3)
        if len(columns) == len(_COLUMNS) and all(one.isdecimal() for one in columns[:3]):
            rows.append((number, [*columns[:3], columns[3].strip()]))
        elif columns:
            listing.left_out.append(
                f"{file}: line {number}: found {line.strip()[:60]!r}, expected three ids and a path"
            )
    return rows


def _with_category_names(listing: Listing) -> Listing:
    """Name each super-class as the one folder of its pictures is named."""
    folders: dict[str, set[str]] = defaultdict(set)
    for sample in listing.samples:
        folders[sample.category].add(sample.path.parent.name.removesuffix("_final"))
    names = {number: found.pop() if len(found) == 1 else f"super-class {number}" for number, found in folders.items()}
    listing.samples = [replace(sample, category=names[sample.category]) for sample in listing.samples]
    return listing
