"""COCO boxes: a JSON, the folders of COCO, CVAT and Roboflow; and pictures with boxes, written as COCO."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from dataset_formats.coco.locate import Locator, splits_in
from dataset_formats.coco.merge import Part, both, merge_parts
from dataset_formats.coco.tree import annotations_of, holds_boxes
from dataset_formats.listings import finish
from dataset_formats.notices import in_bulk, printable
from dataset_formats.records import ONE_CATEGORY, AnnotatedPicture, Annotation, Annotations, Listing, NamedBox
from dataset_formats.splits import split_from_name
from dataset_formats.text_files import is_file, read_data, read_json, read_text, write_text
from edge.errors import DataError

_ROBOFLOW = "_annotations.coco.json"
_KEYS = ('"images"', '"annotations"', '"bbox"')


def parse_coco(path: Path) -> Annotations:
    """Read one COCO JSON: its pictures by the names that it writes; outlines are kept.

    Raises:
        DataError: the file cannot be read or is not COCO with boxes.
    """
    return annotations_of(read_json(path), path)


def read_coco(path: Path, root: Path | None, *, outlines: bool = False) -> Listing:
    """Read a COCO JSON, or all COCO JSONs of a folder.

    Args:
        path: a JSON; or a folder with JSONs in it, in `annotations` or in a folder for each split.
        root: folder of the file names; None: where the pictures are, the JSON's folder first.
        outlines: keep `segmentation`; it takes much memory.

    Raises:
        DataError: a file cannot be read or is not COCO with boxes, or no picture is left.
    """
    listing, locator = Listing("coco"), Locator(root)
    if path.is_file():
        parts = [found_part(path, annotations_of(read_json(path), path, outlines=outlines), locator, "")]
    else:
        parts = list(_parts(path, locator, listing, outlines=outlines))
    merge_parts(parts, listing)
    if not parts:
        first = f"; the first that is left out: {listing.left_out[0]}" if listing.left_out else ""
        what = "JSON with images and annotations, in it or in annotations/"
        raise DataError(printable(f"{path}: holds no {what}{first}"))
    return finish(listing, path, "lists no picture; add some")


def holds_coco(folder: Path) -> bool:
    """Return whether a folder has a JSON with COCO boxes."""
    return any(looks_like_coco(file) for file in _candidates(folder))


def looks_like_coco(file: Path) -> bool:
    """Return whether a JSON holds images and annotations with boxes, or would if it were not damaged."""
    try:
        text = read_text(file)
        return _KEYS[0] in text and holds_boxes(json.loads(text))
    except (DataError, ValueError, RecursionError):  # reading it says what is wrong
        data = read_data(file)
        return all(key.encode() in data for key in _KEYS)


def found_part(file: Path, read: Annotations, locator: Locator, split: str) -> Part:
    """Return the contents of one file with its pictures found; a missing picture is left out, named.

    Args:
        file: the JSON.
        read: its contents.
        locator: finds its pictures.
        split: of its pictures; an image's own `split` overrides it.
    """
    located = locator.locate(file, [one.name for one in read.pictures])
    part, twice = Part(file, read), []
    for one in read.pictures:
        if (path := located.found.get(one.name)) is None:
            read.left_out.append(f"{file}: image {one.name}: {located.missing[one.name]}")
            continue
        picture = AnnotatedPicture(path, one.split or split, one.boxes, one.level, one.declared_size_px)
        known = part.pictures.get(path)
        part.pictures[path] = picture if known is None else both(known, picture)
        if one.times > 1:
            part.times[path] = one.times
        if known is not None:
            twice.append(one.name)
    read.noticed += in_bulk(f"{file}: pictures found by the end of their path", located.elsewhere)
    read.noticed += in_bulk(
        f"{file}: names that mean the picture of another name; their boxes were put together", twice
    )
    return part


def _parts(folder: Path, locator: Locator, listing: Listing, *, outlines: bool) -> Iterator[Part]:
    """Yield the files of a folder that hold boxes, and name the others that describe pictures."""
    for file in _candidates(folder):
        try:
            text = read_text(file)
            tree = json.loads(text) if _KEYS[0] in text else None
            if not isinstance(tree, dict) or not isinstance(tree.get("images"), list):
                continue
            if not holds_boxes(tree):
                listing.left_out.append(f"{file}: it describes pictures, but has no boxes")
                continue
            read = annotations_of(tree, file, outlines=outlines)
        except DataError as error:
            listing.left_out.append(str(error))
            continue
        except (ValueError, RecursionError) as error:
            listing.left_out.append(f"{file}: not JSON: {str(error) or 'nested too deeply'}")
            continue
        del text, tree
        splits = splits_in(file.stem)
        if len(splits) > 1:
            read.noticed.append(f"{file}: its name has several splits, {', '.join(sorted(splits))}")
        split = splits.pop() if len(splits) == 1 else "" if splits else _split_of_folder(file, folder)
        part = found_part(file, read, locator, split)
        part.of_several_splits = "trainval" in file.stem.casefold()
        yield part


def _split_of_folder(file: Path, folder: Path) -> str:
    return "" if file.parent == folder else split_from_name(file.parent.name)


def _candidates(folder: Path) -> list[Path]:
    """Return the JSONs that may be COCO: in a folder, in its `annotations`, and in a folder for each split."""
    found: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                inner = folder / entry.name
                if not entry.is_dir():
                    found.append(inner)
                elif entry.name.casefold() == "annotations" or split_from_name(entry.name):
                    found += inner.iterdir()
                else:
                    found.append(inner / _ROBOFLOW)
    except OSError as error:
        raise DataError(printable(f"{folder}: cannot list: {error.strerror}")) from error
    jsons = (file for file in found if file.suffix.lower() == ".json" and file.name[:2] != "._")
    return sorted(file for file in jsons if is_file(file))


def write_coco(
    pictures: Sequence[Annotation], names: Sequence[str], path: Path, answered: Collection[str] | None = None
) -> None:
    """Write pictures with their boxes as one COCO JSON, on disk when this returns.

    Args:
        pictures: with the names to write.
        names: class names, in order; those of boxes that are missing here follow.
        path: the file to replace.
        answered: names of the pictures whose boxes a person drew or confirmed: `state` is `human`, else `proposed`;
            None: no `state`.

    Raises:
        DataError: the file cannot be written.
    """
    kinds = dict.fromkeys((box.item, box.category) for one in pictures for box in one.boxes)
    unused = [(name, ONE_CATEGORY) for name in names if name not in {item for item, _ in kinds}]
    position = {name: number for number, name in enumerate(names)}
    ordered = sorted([*kinds, *unused], key=lambda kind: position.get(kind[0], len(position)))
    identity = {kind: number for number, kind in enumerate(ordered, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, one in enumerate(pictures, 1):
        state = {} if answered is None else {"state": "human" if one.name in answered else "proposed"}
        images.append({"id": number} | image_record(one) | state)
        for box in one.boxes:
            kind = identity[box.item, box.category]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": kind} | annotation_record(box)
            )
    categories = [
        {"id": number, "name": name} | ({} if category == ONE_CATEGORY else {"supercategory": category})
        for (name, category), number in identity.items()
    ]
    tree = {"images": images, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(tree, separators=(",", ":")) + "\n", durably=True)


def image_record(one: Annotation) -> dict[str, Any]:
    """Return an entry of COCO's `images`, without its id."""
    width, height = one.declared_size_px or (None, None)
    about = {"file_name": one.name, "width": width, "height": height, "split": one.split, "level": one.level}
    about["sha256"] = one.sha256
    return {key: value for key, value in about.items() if value not in (None, "")}


def annotation_record(box: NamedBox) -> dict[str, Any]:
    """Return an entry of COCO's `annotations`, without its ids."""
    x0, y0, x1, y1 = box.box_px
    about = {
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
        "segmentation": box.outline,
        "visible_fraction": None if box.visible >= 1.0 else box.visible,
        "score": box.score,
        "item_id": box.item_id or None,
    }
    return {key: value for key, value in about.items() if value is not None}
