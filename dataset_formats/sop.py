"""Stanford Online Products (Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature Embedding").

Its 12 super-classes are the categories, and its two splits share no class.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import read_lines, require_file
from edge.errors import DataError

_SOP_COLUMNS = ["image_id", "class_id", "super_class_id", "path"]


def read_sop(folder: Path) -> Listing:
    """Read Stanford Online Products: Ebay_train.txt and Ebay_test.txt, which share no class.

    Raises:
        DataError: a table is missing or has other columns.
    """
    if not (folder / "Ebay_train.txt").is_file() and (folder / "Stanford_Online_Products").is_dir():
        folder = folder / "Stanford_Online_Products"
    listing = Listing("sop")
    folders: dict[str, set[str]] = defaultdict(set)  # by super-class: one folder, which has its name
    for split in ("train", "test"):
        file = require_file(folder / f"Ebay_{split}.txt", "the table of the products of one split")
        header, *lines = read_lines(file) or [""]
        if header.split() != _SOP_COLUMNS:
            raise DataError(f"{file}: found columns {header.split()}, expected {_SOP_COLUMNS}")
        for number, line in enumerate(lines, 2):
            columns = line.split()
            if len(columns) != len(_SOP_COLUMNS):
                raise DataError(f"{file}: line {number}: found {len(columns)} columns, expected {len(_SOP_COLUMNS)}")
            path = folder / columns[3]
            folders[columns[2]].add(path.parent.name.removesuffix("_final"))
            listing.samples.append(Sample(path, split, columns[2], columns[1]))
    names = {number: found.pop() if len(found) == 1 else f"super-class {number}" for number, found in folders.items()}
    listing.samples = [replace(sample, category=names[sample.category]) for sample in listing.samples]
    return listing
