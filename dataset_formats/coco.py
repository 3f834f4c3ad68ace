"""COCO boxes: one JSON, the folders of COCO and of Roboflow, and the retail product checkout set (RPC).

RPC: Wei et al. 2019, "RPC: A Large-Scale Retail Product Checkout Dataset". It trains on single products, and validates
and tests on checkout scenes of three levels of clutter.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from dataset_formats.records import ONE_CATEGORY, AnnotatedPicture, Listing, NamedBox, split_from_name
from dataset_formats.text_files import BAD_DATA, as_text, is_file, read_data, read_text, require_file
from edge.errors import DataError

_ROBOFLOW = "_annotations.coco.json"
_RPC_SPLITS = ("train", "val", "test")


def read_coco(path: Path, root: Path | None) -> Listing:
    """Read a COCO JSON, or all COCO JSONs of a folder.

    Args:
        path: a JSON; or a folder with JSONs in it, in `annotations` or in a folder for each split.
        root: folder of the file names; None: where the pictures are, the JSON's folder first.

    Raises:
        DataError: a file cannot be read or is not COCO.
    """
    listing = Listing("coco")
    if path.is_file():
        tree = _tree(path)
        _add(path, tree, root or _root_of(path, tree), "", listing)
        return listing
    for file in coco_files(path):
        split = split_from_name(file.parent.name) if file.name == _ROBOFLOW else _split_in(file.stem)
        tree = _tree(file)
        _add(file, tree, root or _root_of(file, tree), split, listing)
    if not listing.scenes:
        raise DataError(f"{path}: holds no JSON with images and annotations, neither in it nor in annotations/")
    return listing


def coco_files(folder: Path) -> list[Path]:
    """Return the JSON files of a folder that look like COCO boxes."""
    files = sorted({*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob(f"*/{_ROBOFLOW}")})
    return [file for file in files if is_file(file) and looks_like_coco(file)]


def looks_like_coco(file: Path) -> bool:
    """Return whether a JSON file names images and annotations."""
    data = read_data(file)
    return b'"images"' in data and b'"annotations"' in data and b'"bbox"' in data


def read_rpc(folder: Path) -> Listing:
    """Read the retail product checkout set: instances_{train,val,test}2019.json beside {train,val,test}2019.

    Raises:
        DataError: all of these files are missing, or one lacks its pictures.
    """
    listing = Listing("rpc")
    files = {split: folder / f"instances_{split}2019.json" for split in _RPC_SPLITS}
    if not any(file.is_file() for file in files.values()):
        raise DataError(f"{files['train']}: not found; RPC needs its annotations")
    for split, file in files.items():
        if file.is_file():
            pictures = require_file(folder / f"{split}2019", f"the folder of RPC's {split} pictures")
            _add(file, _tree(file), pictures, split, listing)
        else:
            listing.left_out.append(f"{file}: not found; RPC is read without its {split} split")
    return listing


def _split_in(stem: str) -> str:
    found = re.search(r"train|val|test", stem.lower())
    return found.group() if found else ""


def _tree(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: not COCO: it holds a {type(tree).__name__}, not images and annotations")
    return tree


def _root_of(path: Path, tree: dict[str, Any]) -> Path:
    """Return the folder that holds the first picture: beside the JSON, or beside the JSON's folder."""
    try:
        name = as_text(tree["images"][0]["file_name"])
    except BAD_DATA:
        return path.parent
    year = path.stem.rpartition("_")[2]  # instances_val2017.json: val2017/
    places = [
        base / inner for base in (path.parent, path.parent.parent) for inner in ("", "images", year, f"images/{year}")
    ]
    return next((place for place in places if is_file(place / name)), path.parent)


def _add(path: Path, tree: dict[str, Any], root: Path, split: str, listing: Listing) -> None:
    """Add the pictures of one JSON; an image's own `split` overrides the file's."""
    record = "categories"
    try:
        entries = sorted(tree.get("categories", []), key=lambda e: e["id"])
        names = {entry["id"]: (str(entry["name"]), _meta(entry)) for entry in entries}
        boxes: dict[Any, list[NamedBox]] = defaultdict(list)
        record = "images"
        images = {image["id"] for image in tree["images"]}
        crowds = 0
        record = "annotations"
        for number, entry in enumerate(tree["annotations"], 1):
            record = f"annotation {number}"
            if entry.get("iscrowd"):
                crowds += 1
                continue
            if entry["image_id"] not in images:
                raise DataError(f"{path}: an annotation refers to image {entry['image_id']}, which is not listed")
            boxes[entry["image_id"]].append(_named(entry, names, path))
        for number, image in enumerate(tree["images"], 1):
            record = f"image {number}"
            sized = image.get("width") and image.get("height")
            listing.scenes.append(
                AnnotatedPicture(
                    root / as_text(image["file_name"]),
                    split if image.get("split") is None else as_text(image["split"]),
                    tuple(boxes[image["id"]]),
                    str(image.get("level") or ""),
                    (int(image["width"]), int(image["height"])) if sized else None,
                )
            )
    except BAD_DATA as error:
        raise DataError(f"{path}: {record}: not COCO: {type(error).__name__} {error}") from error
    if crowds:
        listing.left_out.append(f"{path}: left out {crowds} boxes of crowds")
    listing.names += [name for name, _ in names.values() if name not in listing.names]


def _meta(category: dict[str, Any]) -> str:
    meta = str(category.get("supercategory") or "none")
    return ONE_CATEGORY if meta.lower() == "none" else meta


def _named(entry: dict[str, Any], names: dict[Any, tuple[str, str]], path: Path) -> NamedBox:
    x, y, width, height = (float(value) for value in entry["bbox"])
    number = entry["category_id"]
    if names and number not in names:
        raise DataError(f"{path}: an annotation refers to category {number}; listed are {sorted(names)[:9]}")
    item, category = names.get(number, (ONE_CATEGORY, ONE_CATEGORY))
    return NamedBox((x, y, x + width, y + height), item, category, float(entry.get("visible_fraction", 1.0)))
