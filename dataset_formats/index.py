"""Data sets of single objects: a CSV that lists pictures."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from dataset_formats.csv_table import Row, Table, read_table
from dataset_formats.notices import in_bulk
from dataset_formats.picture_names import PictureFinder, parts_of
from dataset_formats.records import Listing, Sample
from dataset_formats.splits import default_split, split_from_name
from dataset_formats.text_files import is_file
from edge.errors import DataError

INDEX_FILE = "index.csv"
_NEEDED = ("path", "category", "item")
_ALSO_CALLED = {"category": "coarse", "item": "fine"}
_CHANGE_THE_MEANING = re.compile(
    r"(bbox_?)?[xywh][012]?|[xy]_?(min|max)|left|top|right|bottom|b?box(es)?|segmentation|polygon|points|outline|"
    r"rotation|angle|(is_?)?crowd|isgroupof|ignore|difficult"
)
_ATTRIBUTE = "attribute:"  # how the name of a column of attributes begins
_NOTHING = ("", "0", "0.0", "false", "no")  # values of a flag that is not set
_TRIED = 100  # rows that decide which folder the paths start from


def read_index(file: Path, root: Path | None = None) -> Listing:
    """Read a CSV with columns path, split, category (or coarse), item (or fine), optionally label and camera.

    A column `attribute:NAME`, such as `attribute:colour`, tells an attribute of the object; empty: unknown. The column
    `also`, ids that an item had elsewhere, is only for `edge-sync gallery add`.

    If no row has a split, every fifth picture of an item is for validation. A picture that is listed twice with other
    items or splits is read twice and noticed.

    Args:
        file: the CSV, or the folder of an `index.csv`; see read_table for its form.
        root: folder of its paths; None: its own folder, or the one above if the first pictures are there.

    Raises:
        DataError: the file cannot be read, lacks a column, or no row can be used.
    """
    table = read_table(file / INDEX_FILE if file.is_dir() else file)
    for name, other in _ALSO_CALLED.items():
        if name not in table.columns and other in table.columns:
            table.rename(other, name)
    table.require(*_NEEDED)
    attributes = [name for name in table.columns if name.startswith(_ATTRIBUTE) and name != _ATTRIBUTE]
    table.noticed += _unused(table, {*_NEEDED, "split", "label", "also", "camera", *attributes})
    rows = complete_rows(table, table.rows, _NEEDED)
    samples = _without_repeats(table, _with_splits(table, rows), root)
    if not samples:
        raise DataError(table.why_empty())
    return Listing("index", samples, left_out=table.left_out, noticed=table.noticed)


def complete_rows(table: Table, rows: Iterable[Row], needed: Sequence[str]) -> list[Row]:
    """Return the rows that have a value in all needed columns, and leave out the others."""
    complete = []
    for line, values in rows:
        if empty := [name for name in needed if not values[name]]:
            table.leave_out(line, f"{', '.join(empty)} is empty")
        else:
            complete.append((line, values))
    return complete


def split_of(value: str) -> str:
    """Return the split that a value of the column `split` means; a name of one's own stays as written."""
    return split_from_name(value) or value


def root_of(table: Table, column: str) -> Path:
    """Return the folder that paths start from: the table's own, or the one above if only that has first pictures."""
    names = [values[column] for _, values in table.rows[:_TRIED] if values[column]]
    places = (table.file.parent, table.file.absolute().parent.parent)
    return next((place for place in places if any(is_file(_inside(place, name)) for name in names)), places[0])


def find_pictures(
    table: Table, rows: Iterable[Row], column: str, root: Path
) -> Iterator[tuple[int, dict[str, str], Path]]:
    """Yield the rows whose picture is there, with its file, and leave out the others."""
    finder = PictureFinder([root], root)
    moved = []
    for line, values in rows:
        name = values[column]
        path = root / name
        if not is_file(path):
            found = finder.find(name)
            if isinstance(found, str):
                table.leave_out(line, f"{name}: {found}; copy it there, or give its folder as root")
                continue
            if found != _inside(root, name):
                moved.append(f"{name} is {found}")
            path = found
        yield line, values, path
    table.noticed += in_bulk(f"{table.file}: pictures found by the end of their path", moved)


def _inside(root: Path, name: str) -> Path:
    """Return the path that a name means in a folder, whatever separators and drive it was written with."""
    return root.joinpath(*parts_of(name))


def _with_splits(table: Table, rows: list[Row]) -> list[Row]:
    """Return the rows with one of our split names; without any split, hold out every fifth picture of an item."""
    if any(values.get("split") for _, values in rows):
        rows = complete_rows(table, rows, ("split",))
        renamed = {}
        for _, values in rows:
            written = values["split"]
            values["split"] = split_of(written)
            if values["split"] != written:
                renamed[f"{written} is {values['split']}"] = True
        table.noticed += in_bulk(f"{table.file}: splits written otherwise", renamed)
        return rows
    if rows:
        table.noticed.append(f"{table.file}: has no splits; every fifth picture of an item is for validation")
    seen: Counter[tuple[str, str]] = Counter()
    for _, values in rows:
        of = values["category"], values["item"]
        values["split"] = default_split(seen[of])
        seen[of] += 1
    return rows


def _without_repeats(table: Table, rows: Iterable[Row], root: Path | None) -> list[Sample]:
    """Return the samples; drop rows that say the same again, and notice those that contradict or leak."""
    by_path: dict[Path, dict[Sample, None]] = defaultdict(dict)
    repeated, contradicting, leaking = [], [], []
    samples = []
    for line, values, path in find_pictures(table, rows, "path", root or root_of(table, "path")):
        sample = Sample(
            path,
            values["split"],
            values["category"],
            values["item"],
            values.get("label", ""),
            camera=values.get("camera", ""),
            attributes=_attributes_of(values),
        )
        others = by_path[path]
        same = [one for one in others if (one.category, one.item) == (sample.category, sample.item)]
        if any(one.split == sample.split for one in same):
            repeated.append(f"line {line}")
            continue
        if others and not same:
            first = next(iter(others))
            contradicting.append(f"{values['path']}: {first.category}/{first.item} and {sample.category}/{sample.item}")
        elif others:
            leaking.append(f"{values['path']}: {next(iter(same)).split} and {sample.split}")
        others[sample] = None
        samples.append(sample)
    for what, found in (
        ("rows that repeat another; read once", repeated),
        ("pictures with several items; read with each of them", contradicting),
        ("pictures in several splits; read in each of them", leaking),
    ):
        table.noticed += in_bulk(f"{table.file}: {what}", found)
    return samples


def _attributes_of(values: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return name and value of each attribute that a row tells."""
    columns = [name for name in values if name.startswith(_ATTRIBUTE) and name != _ATTRIBUTE]
    return tuple((name.removeprefix(_ATTRIBUTE).strip(), values[name]) for name in columns if values[name])


def _unused(table: Table, used: Collection[str]) -> list[str]:
    """Name the columns with values that nobody reads, those that may change the meaning first."""
    unused = [name for name in table.columns if name and name not in used]
    unused = [name for name in unused if any(values[name].casefold() not in _NOTHING for _, values in table.rows)]
    meaning = [name for name in unused if _CHANGE_THE_MEANING.fullmatch(name)]
    others = [name for name in unused if name not in meaning]
    lines = []
    if meaning:
        lines.append(
            f"{table.file}: columns {', '.join(meaning)} are not used: a row is a whole picture of one object; give "
            "boxes and flags as COCO, VOC, YOLO or CVAT"
        )
    return lines + ([f"{table.file}: columns {', '.join(others)} are not used"] if others else [])
