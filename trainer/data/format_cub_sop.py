"""Fine-grained benchmarks of text tables: CUB-200-2011 and Stanford Online Products.

CUB: Wah et al. 2011; 200 birds. SOP: Song et al. 2016, "Deep Metric Learning via Lifted Structured Feature Embedding":
its 12 super-classes are the meta-categories, and its two splits share no class.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from edge.errors import TrainError
from trainer.sample import Listing, Sample
from trainer.text_files import read_lines, require_file

CUB_TRAIN_CLASSES = 100  # of 200, in the class-disjoint protocol of Song et al. 2016
_SOP_COLUMNS = ["image_id", "class_id", "super_class_id", "path"]


def read_cub(folder: Path, *, published: bool = False) -> Listing:
    """Read CUB-200-2011, every class an item of the category `bird`, with its true boxes.

    Args:
        folder: with images.txt, or with a folder CUB_200_2011 that has it.
        published: train on the first 100 classes, test on the others; else by train_test_split.txt.

    Raises:
        TrainError: a table is missing or does not fit the others.
    """
    if not (folder / "images.txt").is_file() and (folder / "CUB_200_2011").is_dir():
        folder = folder / "CUB_200_2011"
    pictures = require_file(folder / "images", "the folder of CUB's pictures")
    paths, classes, names = (_table(folder / f"{n}.txt") for n in ("images", "image_class_labels", "classes"))
    is_train = {} if published else _table(folder / "train_test_split.txt")
    boxes = _table(folder / "bounding_boxes.txt") if (folder / "bounding_boxes.txt").is_file() else {}
    listing = Listing("cub")
    try:
        for number, path in paths.items():
            of = classes[number]
            train = int(of) <= CUB_TRAIN_CLASSES if published else is_train[number] == "1"
            box = None
            if number in boxes:
                x, y, width, height = (float(value) for value in boxes[number].split())
                box = (x, y, x + width, y + height)
            item = names[of]
            label = item.partition(".")[2].replace("_", " ")
            listing.samples.append(Sample(pictures / path, "train" if train else "test", "bird", item, label, box))
    except KeyError as error:
        raise TrainError(f"{folder}: found image or class {error} in one table only, expected it in all") from None
    except ValueError as error:
        raise TrainError(f"{folder}: found a broken number in a table: {error}") from None
    return listing


def _table(file: Path) -> dict[str, str]:
    """The rows `id rest` of a file."""
    require_file(file, "a table of CUB-200-2011")
    return {key: rest for key, _, rest in (line.partition(" ") for line in read_lines(file))}


def read_sop(folder: Path) -> Listing:
    """Read Stanford Online Products: Ebay_train.txt and Ebay_test.txt, which share no class.

    Raises:
        TrainError: a table is missing or of other columns.
    """
    if not (folder / "Ebay_train.txt").is_file() and (folder / "Stanford_Online_Products").is_dir():
        folder = folder / "Stanford_Online_Products"
    listing = Listing("sop")
    folders: dict[str, set[str]] = defaultdict(set)  # of each super-class: one, whose name is the super-class's
    for split in ("train", "test"):
        file = require_file(folder / f"Ebay_{split}.txt", "the table of the products of one split")
        header, *lines = read_lines(file) or [""]
        if header.split() != _SOP_COLUMNS:
            raise TrainError(f"{file}: found columns {header.split()}, expected {_SOP_COLUMNS}")
        for number, line in enumerate(lines, 2):
            columns = line.split()
            if len(columns) != len(_SOP_COLUMNS):
                raise TrainError(f"{file}: line {number}: found {len(columns)} columns, expected {len(_SOP_COLUMNS)}")
            path = folder / columns[3]
            folders[columns[2]].add(path.parent.name.removesuffix("_final"))
            listing.samples.append(Sample(path, split, columns[2], columns[1]))
    names = {number: found.pop() if len(found) == 1 else f"super-class {number}" for number, found in folders.items()}
    listing.samples = [replace(sample, category=names[sample.category]) for sample in listing.samples]
    return listing
