"""What describes a YOLO data set: a data.yaml, Darknet's and CVAT's obj.data, or a plain folder with class names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset_formats.folders import innermost_folder, subfolders
from dataset_formats.picture_names import is_picture_name
from dataset_formats.splits import split_from_name
from dataset_formats.text_files import is_file, read_data, read_text, read_yaml
from dataset_formats.yolo.lines import split_lines
from dataset_formats.yolo.places import Places, pictures_below, split_of
from edge.errors import DataError

_BESIDE_PICTURES = ("classes.txt", "_darknet.labels")  # class names, as labelImg and Roboflow write them for a split
_LARGEST_BYTES = 2**20  # of a description; other programs have large files that end in .data
_ID = re.compile(r"\d{1,9}", re.ASCII)
_NAMES_FIELD = re.compile(rb"""(?mi)(?:^|[{,]\s*)['"]?names['"]?\s*[:=]""")


@dataclass(slots=True)
class Description:
    """Class names by id, and where the pictures are."""

    source: Path
    places: Places
    names: dict[int, str] = field(default_factory=dict)  # as written: names may repeat, ids may have gaps
    keypoint_numbers: int = 0  # of a line; 0: none declared
    owns_folder: bool = False  # its folder holds nothing but the data set


def describe(path: Path) -> Description:
    """Read what describes a data set: a data.yaml, an obj.data, or a folder with one of them or with class names.

    Raises:
        DataError: there is no such file, or it names no class.
    """
    folder = innermost_folder(path) if path.is_dir() else path.parent
    found = [path] if path.is_file() else descriptions_in(folder)
    if not found:
        return _plain(folder)
    description = Description(found[0], Places(folder))
    description.places.noticed += [f"{other}: has names, too; {found[0].name} was read" for other in found[1:]]
    (_darknet if found[0].suffix.lower() == ".data" else _table)(description)
    if not description.names:
        why = "; ".join(description.places.left_out[:2]) or "names is missing or empty"
        raise DataError(f"{found[0]}: names no class ({why}); give names as a list, or as `id: name`")
    return description


def descriptions_in(folder: Path) -> list[Path]:
    """Return the files of a folder that name classes and places, the likeliest first: YAML, then Darknet's .data."""
    files = sorted(one for one in folder.glob("*") if one.suffix.lower() in (".yaml", ".yml", ".data"))
    usual = ("data.yaml", "dataset.yaml", "data.yml")
    files.sort(key=lambda one: (one.suffix.lower() == ".data", one.name.lower() not in usual))
    files = [one for one in files if is_file(one) and one.stat().st_size < _LARGEST_BYTES]
    return [one for one in files if _NAMES_FIELD.search(_ascii(read_data(one)))]


def name_files(folder: Path) -> list[Path]:
    """Return the files of class names of a folder without a description: its own, or those in folders of splits."""
    inner = [folder / name for name in ("labels", "images", "Labels", "Images")]
    found = [folder / "classes.txt", folder / "obj.names", *(one / "classes.txt" for one in inner)]
    for place in (folder, *(one for one in inner if one.is_dir())):
        splits = [one for one in subfolders(place) if split_of([one.name])]
        found += [one / name for one in splits for name in _BESIDE_PICTURES]
    return [one for one in dict.fromkeys(found) if is_file(one)]


def _ascii(data: bytes) -> bytes:
    """Return UTF-8 without its byte order mark, and UTF-16 without its zeros."""
    return data.replace(b"\0", b"").lstrip(b"\xef\xbb\xfe\xbf\xff")


def _table(description: Description) -> None:
    """Read a data.yaml."""
    file, places = description.source, description.places
    written = read_yaml(file)
    tree = {key.strip().casefold(): value for key, value in written.items()}
    description.names = _names(tree.get("names"), description)
    _check_count(tree.get("nc"), description)
    base = tree.get("path") or ""
    if not isinstance(base, str):
        places.left_out.append(f"{file}: path: {base!r:.60} is not text; write one folder")
        base = ""
    if "kpt_shape" in tree:
        shape = tree["kpt_shape"]
        counts = shape if isinstance(shape, list) and all(isinstance(one, str) for one in shape) else []
        if len(counts) == 2 and all(map(_ID.fullmatch, counts)):
            description.keypoint_numbers = int(counts[0]) * int(counts[1])
        else:
            places.noticed.append(f"{file}: kpt_shape: {shape!r:.60} is not [points, numbers of each]; it was not used")
    for key, given in written.items():
        split = split_from_name(key)
        for one in (given if isinstance(given, list) else [given]) if split else ():
            if isinstance(one, str):
                if one.strip():
                    places.add(f"{file}: {key}", split, one.strip(), base.strip())
            else:
                places.left_out.append(f"{file}: {key}: {one!r:.60} is not a path; name a folder or a list of pictures")
    if not any(split_from_name(key) and given for key, given in written.items()):
        _add_folders(places)


def _darknet(description: Description) -> None:
    """Read Darknet's obj.data, as CVAT's `YOLO 1.1` has it: lines `key = value`."""
    file, places = description.source, description.places
    fields = {}
    for line in split_lines(read_text(file)):
        key, mark, value = line.partition("=")
        if mark and not line.startswith("#"):
            fields[key.strip().casefold()] = value.strip()
    description.names = _names(fields.pop("names", None), description)
    _check_count(fields.pop("classes", None), description)
    for key, value in fields.items():
        if value and (split_from_name(key) or value.endswith(".txt")):
            places.add(f"{file}: {key}", split_from_name(key), value)
    description.owns_folder = True


def _plain(folder: Path) -> Description:
    """Describe a folder that has class names, and pictures in it, in `images`, or in lists."""
    files = name_files(folder)
    if not files:
        raise DataError(f"{folder / 'classes.txt'}: not found; add it, obj.names or data.yaml to name the classes")
    description = Description(folder, Places(folder), owns_folder=True)
    tables = sorted((_names_of_file(file) for file in files), key=len, reverse=True)
    description.names = tables[0]
    for file in files:
        if any(tables[0].get(number) != name for number, name in _names_of_file(file).items()):
            others = ", ".join(str(one) for one in files if one != file)
            raise DataError(f"{file}: names other classes than {others}; keep one of them")
    if not description.names:
        raise DataError(f"{files[0]}: names no class; write a name on each line")
    lists = [file for file in sorted(folder.glob("*.txt")) if split_from_name(file.stem) and _lists_pictures(file)]
    for file in lists:
        description.places.add_list(file, split_from_name(file.stem))
    if not lists:
        _add_folders(description.places)
    return description


def _lists_pictures(file: Path) -> bool:
    return is_file(file) and is_picture_name(next(filter(None, split_lines(read_text(file))), ""))


def _add_folders(places: Places) -> None:
    """Add all pictures of `images`, or else of the whole folder; folders of splits say what they are for."""
    images = next((one for one in subfolders(places.root) if one.name.lower() in ("images", "jpegimages")), places.root)
    places.pictures += [
        (one, split_of(one.relative_to(images).parts[:-1])) for one in pictures_below(images, places.left_out)
    ]


def _names(given: Any, description: Description) -> dict[int, str]:
    """Return class names by id, from a list, a mapping, or the file that a text names."""
    left_out, source = description.places.left_out, description.source
    if isinstance(given, str) and given.strip():
        file, elsewhere = description.places.resolve(given.strip())
        if file is None or not is_file(file):
            raise DataError(f"{source}: names: {given[:80]!r} is no file; give a list, a mapping `id: name`, or a file")
        if elsewhere:
            description.places.noticed.append(f"{source}: names: {given} is not there; {file} was read")
        return _names_of_file(file)
    if isinstance(given, list) and given and all(isinstance(one, dict) for one in given):
        pairs: Iterable[tuple[Any, Any]] = (pair for one in given for pair in one.items())  # `- 0: cola`
    elif isinstance(given, list):
        pairs = ((str(number), name) for number, name in enumerate(given))
    else:
        pairs = given.items() if isinstance(given, dict) else ()
    names: dict[int, str] = {}
    for key, name in pairs:
        if not _ID.fullmatch(key.strip()):
            left_out.append(f"{source}: names: {key[:40]!r} is not a whole number; write `id: name`")
        elif not isinstance(name, str) or not name.strip():
            left_out.append(f"{source}: names: class {key} is called {name!r:.40}; write a name")
        elif names.setdefault(int(key), name.strip()) != name.strip():
            raise DataError(f"{source}: names: class {int(key)} is called {names[int(key)]} and {name}; keep one")
    return names


def _names_of_file(file: Path) -> dict[int, str]:
    """Return class names by the number of their line, from 0; a blank line is an id without a name."""
    return {number: name for number, name in enumerate(split_lines(read_text(file))) if name}


def _check_count(given: Any, description: Description) -> None:
    """Notice a declared number of classes that does not fit the names."""
    names = description.names
    counts = {str(len(names)), str(max(names, default=-1) + 1)}
    if given is not None and str(given).strip() not in counts:
        description.places.noticed.append(
            f"{description.source}: declares {given!r:.20} classes, but names {len(names)}; the names were used"
        )


def merged_names(names: dict[int, str]) -> tuple[list[str], list[str]]:
    """Return the different names in the order of their ids, and what was noticed about repeated ones."""
    ids: dict[str, list[int]] = {}
    for number in sorted(names):
        ids.setdefault(names[number], []).append(number)
    several = ((name, ", ".join(map(str, numbers))) for name, numbers in ids.items() if len(numbers) > 1)
    return list(ids), [f"classes {numbers} are all called {name}; they were read as one" for name, numbers in several]
