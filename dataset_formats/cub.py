"""CUB-200-2011: 200 birds with boxes (Wah et al. 2011)."""

from __future__ import annotations

from pathlib import Path

from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import read_lines, require_file
from edge.errors import DataError

CUB_TRAIN_CLASSES = 100  # of 200, in the class-disjoint protocol of Song et al. 2016


def read_cub(folder: Path, *, published: bool = False) -> Listing:
    """Read CUB-200-2011 with its true boxes; every class is an item of the category `bird`.

    Args:
        folder: holds images.txt, or a folder CUB_200_2011 that does.
        published: train on the first 100 classes and test on the others; False: split by train_test_split.txt.

    Raises:
        DataError: a table is missing, broken or does not fit the others.
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
        raise DataError(f"{folder}: image or class {error} is in one table only; all tables need it") from None
    except ValueError as error:
        raise DataError(f"{folder}: a table holds a broken number: {error}") from None
    return listing


def _table(file: Path) -> dict[str, str]:
    """Return the rows `id rest` of a file."""
    require_file(file, "a table of CUB-200-2011")
    return {key: rest for key, _, rest in (line.partition(" ") for line in read_lines(file))}
