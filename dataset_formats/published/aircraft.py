"""FGVC-Aircraft (Maji et al. 2013): 100 variants of aircraft, each of a family and a manufacturer, with boxes.

The last 20 rows of each picture are a banner with the photographer's name: the true boxes leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dataset_formats.boxes import box_of_sides
from dataset_formats.csv_table import read_table
from dataset_formats.folders import innermost_folder
from dataset_formats.listings import finish
from dataset_formats.published.class_disjoint import read_class_folders, split_by_class
from dataset_formats.records import Listing, Sample
from dataset_formats.splits import split_from_name
from dataset_formats.text_files import as_stored, is_file, read_lines, require_file
from edge.types import Box

_CATEGORY = "aircraft"
_PLACES = ("", "data", "fgvc-aircraft-2013b/data", "fgvc-aircraft-2013b/fgvc-aircraft-2013b/data")
_SPLITS = ("train", "val", "test")
_TABLE = "images_{}_{}.txt"
_BANNER = "pictures end in a banner of 20 rows with a name, which shows what they have in common; set cut_to_box: true"


def looks_like_aircraft(folder: Path) -> bool:
    """Return whether a folder holds FGVC-Aircraft."""
    return _data_of(folder) is not None


def read_aircraft(folder: Path, *, published: bool = False) -> Listing:
    """Read FGVC-Aircraft with its true boxes; every variant is an item of the category `aircraft`.

    A sample has the attributes `manufacturer` and `family` where their tables are there.

    Args:
        folder: holds `images` and images_variant_train.txt, or `data` (or `fgvc-aircraft-2013b/data`) that does, or
            train.csv with the columns filename and Classes; or folders of variants.
        published: train on the first 50 variants and test on the others; False: split by the tables.

    Raises:
        DataError: a table is missing or broken, or no picture can be used.
    """
    data = _data_of(folder)
    if data is None and not (folder / "train.csv").is_file():
        return read_class_folders(folder, "aircraft", _CATEGORY, str, published=published)
    listing = Listing("aircraft")
    data = folder if data is None else data
    names = _variants(data, listing) or _of_csv(folder, listing)
    pictures = innermost_folder(require_file(_images_of(data), "the folder of the pictures"))
    boxes = _boxes(data / "images_box.txt", listing)
    further = {key: _words(data, key, listing) for key in ("manufacturer", "family")}
    for number, (split, variant) in names.items():
        path = as_stored(pictures / (number if number.endswith(".jpg") else f"{number}.jpg"))
        if not is_file(path):
            listing.left_out.append(f"{path}: not found; extract it again")
            continue
        attributes = tuple((key, of[number]) for key, of in further.items() if number in of)
        listing.samples.append(
            Sample(path, split, _CATEGORY, variant, variant, boxes.get(path.stem), attributes=attributes)
        )
    listing.noticed.append(_BANNER)
    if published:
        split_by_class(listing, sorted({one.item for one in listing.samples}))
    return finish(listing, folder, "its tables are empty; extract them again")


def _data_of(folder: Path) -> Path | None:
    places = (folder / place for place in _PLACES)
    return next((one for one in places if (one / _TABLE.format("variant", "train")).is_file()), None)


def _images_of(data: Path) -> Path:
    """Return the folder of the pictures: beside the tables, or where Kaggle's copy has them."""
    places = (data / place / "images" for place in _PLACES)
    return next((one for one in places if one.is_dir()), data / "images")


def _variants(data: Path, listing: Listing) -> dict[str, tuple[str, str]]:
    """Return the split and the variant of each picture, by its number."""
    found: dict[str, tuple[str, str]] = {}
    for split in _SPLITS:
        file = data / _TABLE.format("variant", split)
        if split == "train" and not file.is_file():
            return {}
        if not file.is_file():
            listing.left_out.append(f"{file}: not found; FGVC-Aircraft is read without its {split} split")
            continue
        for number, variant in _rows(file, listing).items():
            if number in found:
                listing.left_out.append(f"{file}: {number}: is in another split, too; keep it in one")
            found.setdefault(number, (split, variant))
    return found


def _of_csv(folder: Path, listing: Listing) -> dict[str, tuple[str, str]]:
    """Return the same from the tables of Kaggle's copy: filename, Classes."""
    found: dict[str, tuple[str, str]] = {}
    for file in sorted(folder.glob("*.csv")):
        if not (split := split_from_name(file.stem)):
            continue
        table = read_table(file)
        table.require("filename", "classes")
        listing.left_out += table.left_out
        for _, row in table.rows:
            if row["filename"] and row["classes"]:
                found.setdefault(row["filename"], (split, row["classes"]))
    return found


def _words(data: Path, key: str, listing: Listing) -> dict[str, str]:
    """Return a property of each picture, from the tables of all splits."""
    files = [data / _TABLE.format(key, split) for split in _SPLITS]
    return {number: word for file in files if file.is_file() for number, word in _rows(file, listing).items()}


def _rows(file: Path, listing: Listing) -> Mapping[str, str]:
    """Return the rows `number words` of a table by number."""
    found: dict[str, str] = {}
    for line in read_lines(file):
        number, _, words = line.partition(" ")
        if words.strip():
            found[number] = words.strip()
        else:
            listing.left_out.append(f"{file}: found {line[:60]!r}, expected a number and a name")
    return found


def _boxes(file: Path, listing: Listing) -> dict[str, Box]:
    """Return the box of each picture; pixels count from 1 in the table."""
    if not file.is_file():
        listing.noticed.append(f"{file}: not found; whole pictures are used")
        return {}
    found: dict[str, Box] = {}
    for number, words in _rows(file, listing).items():
        box = box_of_sides(words.split())
        if box is None:
            listing.noticed.append(f"{file}: {number}: found {words[:40]!r}, expected x1 y1 x2 y2; used whole")
        else:
            found[number] = (box[0] - 1, box[1] - 1, box[2], box[3])
    return found
