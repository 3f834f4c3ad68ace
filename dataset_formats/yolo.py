"""YOLO: a text file for each picture, with boxes as fractions of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from dataset_formats.decode import upright_size
from dataset_formats.folders import pictures_in
from dataset_formats.records import AnnotatedPicture, Listing, NamedBox, default_split, split_from_name
from dataset_formats.text_files import (
    as_text,
    exists,
    is_file,
    read_data,
    read_lines,
    read_yaml,
)
from edge.errors import CaptureError, DataError


def read_yolo(path: Path) -> Listing:
    """Read YOLO boxes: a line `class x y width height` for each object, centre and size as fractions of the picture.

    A line with more numbers is an outline; its bounding box is used. A picture without a text file shows no object.

    Args:
        path: data.yaml (names, train, val, test, optionally path) or its folder; or a folder with classes.txt or
            obj.names and the pictures, in it or in `images`, with text files beside them or in `labels`.

    Raises:
        DataError: a file is missing, or a line is broken or names an unknown class.
    """
    listing = Listing("yolo")
    table = path if path.is_file() else _table_in(path)
    if table is not None:
        listing.names, places = _table(table)
    else:
        listing.names, places = _plain(path)
    for split, pictures in places:
        for picture in pictures:
            _add(picture, split, listing)
    if not listing.scenes:
        raise DataError(f"{path}: holds no picture where train, val or images point")
    if not any(scene.split for scene in listing.scenes):
        listing.scenes = [replace(one, split=default_split(number)) for number, one in enumerate(listing.scenes)]
    return listing


def _table(table: Path) -> tuple[list[str], list[tuple[str, list[Path]]]]:
    """Return class names and the pictures of each split from a data.yaml."""
    tree = read_yaml(table)
    names = tree.get("names")
    if isinstance(names, dict):
        try:
            names = [names[key] for key in sorted(names)]
        except TypeError as error:
            raise DataError(f"{table}: names: the keys must be numbers: {error}") from error

    if not isinstance(names, list) or not names:
        raise DataError(f"{table}: names is {tree.get('names')!r:.80}; give a list of class names")
    places: list[tuple[str, list[Path]]] = []
    for split in ("train", "val", "valid", "test"):
        given = tree.get(split) or []
        for one in given if isinstance(given, list) else [given]:
            try:
                base, path = as_text(tree.get("path") or ""), Path(as_text(one))
            except TypeError as error:
                raise DataError(f"{table}: path or {split}: {error}") from error
            places.append((split_from_name(split), _listed(table, base, path)))
    return [str(name) for name in names], places


def _listed(table: Path, base: str, given: Path) -> list[Path]:
    """Return the pictures of a folder, or of a text file that lists them.

    Exports name folders relative to their training script (`../train/images`), so this tries the path without `..`,
    too.
    """
    inner = Path(*[part for part in given.parts if part != ".."]) if not given.is_absolute() else given
    tried = [table.parent / base / given, table.parent / given, table.parent / inner]
    place = next((path for path in tried if exists(path)), None)
    if place is None:
        raise DataError(f"{tried[0]}: not found; {table.name} names it as the folder or list of pictures")
    if place.is_dir():
        return pictures_in(place if pictures_in(place) or not (place / "images").is_dir() else place / "images")
    return [(place.parent / line) if not Path(line).is_absolute() else Path(line) for line in read_lines(place)]


def _plain(folder: Path) -> tuple[list[str], list[tuple[str, list[Path]]]]:
    """Return class names and the pictures of each split of a folder without a data.yaml."""
    found = [folder / inner for inner in ("classes.txt", "labels/classes.txt", "obj.names", "images/classes.txt")]
    names = next((path for path in found if path.is_file()), None)
    if names is None:
        raise DataError(f"{folder / 'classes.txt'}: not found; add it, obj.names or data.yaml to name the classes")
    images = folder / "images" if (folder / "images").is_dir() else folder
    splits = [path for path in sorted(images.iterdir()) if path.is_dir() and split_from_name(path.name)]
    places = [(split_from_name(path.name), pictures_in(path)) for path in splits]
    return read_lines(names), places or [("", pictures_in(images))]


def looks_like_yolo(folder: Path) -> bool:
    """Return whether a folder has a data.yaml, or names of classes, or a folder of labels."""
    if _table_in(folder) is not None:
        return True
    return (folder / "labels").is_dir() or any((folder / name).is_file() for name in ("classes.txt", "obj.names"))


def _table_in(folder: Path) -> Path | None:
    """Return the YAML of a folder that names classes, or None."""
    files = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))
    return next((file for file in files if is_file(file) and re.search(rb"(?m)^names\s*:", read_data(file))), None)


def _label_file(picture: Path) -> Path:
    """Return the text file of a picture: in `labels` if the picture is in `images`, or beside it."""
    parts = list(picture.parts[:-1])
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
        file = Path(*parts) / f"{picture.stem}.txt"
        if is_file(file):
            return file
    return picture.parent / f"{picture.stem}.txt"


def _add(picture: Path, split: str, listing: Listing) -> None:
    file = _label_file(picture)
    boxes = []
    if is_file(file):
        try:
            width, height = upright_size(picture)
        except CaptureError as error:
            listing.left_out.append(f"left out {error}")
            return
        for number, line in enumerate(read_lines(file), 1):
            name, (x0, y0, x1, y1) = _parse(line, f"{file}: line {number}", listing.names)
            boxes.append(NamedBox((x0 * width, y0 * height, x1 * width, y1 * height), name))
    listing.scenes.append(AnnotatedPicture(picture, split, tuple(boxes)))


def _parse(line: str, where: str, names: list[str]) -> tuple[str, tuple[float, float, float, float]]:
    """Return the class name and the box as fractions x0, y0, x1, y1."""
    try:
        number, *numbers = (float(part) for part in line.split())
    except ValueError:
        raise DataError(f"{where}: {line[:60]!r} is not a line of numbers: class x y width height") from None
    if len(numbers) not in (4, 5) and (len(numbers) < 6 or len(numbers) % 2):  # 5: a score at the end
        raise DataError(f"{where}: found {len(numbers) + 1} numbers, expected 5: class x y width height")
    if not number.is_integer() or not 0 <= number < len(names):
        raise DataError(f"{where}: found class {number:g}, expected 0 to {len(names) - 1}")
    name = names[int(number)]
    if len(numbers) > 5:
        across, down = numbers[::2], numbers[1::2]
        return name, (min(across), min(down), max(across), max(down))
    x, y, width, height = numbers[:4]
    return name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
