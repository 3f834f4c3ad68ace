"""Stanford Dogs (Khosla et al. 2011): 120 breeds with boxes."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from dataset_formats.boxes import box_of_sides
from dataset_formats.folders import contents_of, innermost_folder, subfolders
from dataset_formats.listings import finish
from dataset_formats.notices import in_bulk
from dataset_formats.published.class_disjoint import read_class_folders, split_by_class
from dataset_formats.published.matlab_file import read_matlab
from dataset_formats.records import Listing, Sample
from dataset_formats.splits import default_split
from dataset_formats.text_files import as_stored, is_file
from dataset_formats.xml_files import read_children
from edge.errors import DataError
from edge.types import Box

_CATEGORY = "dog"
_LISTS = {"train": "train_list.mat", "test": "test_list.mat"}
_PLACES = ("", "lists", "Lists", "lists/lists")
_IMAGES = ("Images", "images/Images", "images")
_ANNOTATIONS = ("Annotation", "annotations/Annotation", "annotation", "annotations")
_CLASS = re.compile(r"n\d{8}-(.+)")  # a synset of ImageNet and the name of the breed
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def looks_like_dogs(folder: Path) -> bool:
    """Return whether a folder holds Stanford Dogs: its lists, or folders of breeds named by synset."""
    pictures = _pictures_of(folder)
    named = pictures is not None and any(_CLASS.fullmatch(path.name) for path in subfolders(pictures)[:3])
    return named or (pictures is not None and _list(folder, _LISTS["train"]) is not None)


def read_dogs(folder: Path, *, published: bool = False) -> Listing:
    """Read Stanford Dogs with its true boxes; every breed is an item of the category `dog`.

    Args:
        folder: holds `Images` (or `images/Images`), and beside it `Annotation` and the lists train_list.mat and
            test_list.mat, or `lists` with them; or folders of breeds.
        published: train on the first 60 breeds by synset and test on the others; False: split by the lists. Without
            lists, every fifth picture of a breed is for validation.

    Raises:
        DataError: a list is broken, or no picture can be used.
    """
    pictures = _pictures_of(folder)
    if pictures is None:
        return read_class_folders(folder, "dogs", _CATEGORY, str, published=published)
    listing = Listing("dogs")
    annotations = next((folder / one for one in _ANNOTATIONS if (folder / one).is_dir()), None)
    if annotations is None:
        listing.noticed.append(f"{folder / _ANNOTATIONS[0]}: not found; whole pictures are used")
    several: list[str] = []
    for name, split in _names(folder, pictures, listing, published=published):
        path = as_stored(pictures / name)
        if not is_file(path):
            listing.left_out.append(f"{path}: not found; extract it again")
            continue
        item = path.parent.name
        found = _CLASS.fullmatch(item)
        label = (found.group(1) if found else item).replace("_", " ")
        box = _box(annotations / name, several) if annotations is not None else None
        listing.samples.append(Sample(path, split, _CATEGORY, item, label, box))
    listing.noticed += in_bulk("pictures of several dogs, or without a box that can be read; used whole", several)
    if published:
        split_by_class(listing, sorted({one.item for one in listing.samples}))
    return finish(listing, folder, "its lists are empty; extract them again")


def _pictures_of(folder: Path) -> Path | None:
    """Return the folder of the folders of breeds."""
    found = next((folder / one for one in _IMAGES if (folder / one).is_dir()), None)
    return None if found is None else innermost_folder(found)


def _list(folder: Path, name: str) -> Path | None:
    return next((folder / place / name for place in _PLACES if (folder / place / name).is_file()), None)


def _names(folder: Path, pictures: Path, listing: Listing, *, published: bool) -> list[tuple[str, str]]:
    """Return each picture's path in the folder of pictures, and its split."""
    files = {split: file for split, name in _LISTS.items() if (file := _list(folder, name)) is not None}
    if not files or (published and len(files) < len(_LISTS)):
        if files or not published:
            listing.noticed.append(f"{folder / _LISTS['train']} and {_LISTS['test']}: not found; the folders are read")
        breeds = [contents_of(path).pictures for path in subfolders(pictures)]
        return [(f"{p.parent.name}/{p.name}", default_split(n)) for breed in breeds for n, p in enumerate(breed)]
    listed = {split: _listed(file) for split, file in files.items()}
    both = set(listed.get("train", [])) & set(listed.get("test", []))
    listing.left_out += [f"{pictures / name}: is in both lists; keep it in one" for name in sorted(both)]
    return [(name, split) for split, names in listed.items() for name in names if name not in both]


def _listed(file: Path) -> list[str]:
    names = read_matlab(file, "file_list").get("file_list")
    if not isinstance(names, list) or not all(isinstance(one, str) and "/" in one for one in names):
        raise DataError(f"{file}: has no file_list of folder/picture; copy it again")
    return list(dict.fromkeys(names))


def _box(annotation: Path, several: list[str]) -> Box | None:
    """Return the box of the one dog of a picture; None for none or several, which are noted."""
    file = annotation.with_suffix("")
    boxes = []
    with suppress(DataError):  # a missing or broken file tells no box
        for node in read_children(file, "annotation"):
            edges: list[Any] = [node.findtext(f"bndbox/{side}") for side in _SIDES]
            if node.tag == "object" and (box := box_of_sides(edges)):
                boxes.append(box)
    if len(boxes) == 1:
        return boxes[0]
    several.append(file.name)
    return None
