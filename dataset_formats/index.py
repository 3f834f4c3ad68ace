"""Data sets of single objects: a CSV that lists pictures."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from dataset_formats.records import Listing, Sample
from dataset_formats.text_files import is_file, read_text
from edge.errors import DataError


def read_index(table: Path, root: Path | None) -> Listing:
    """Read a CSV with columns path, split, category (or coarse), item (or fine), optionally label.

    Args:
        table: the CSV, or the folder of an `index.csv`; columns are separated by comma, semicolon or tab.
        root: folder of its paths; None: its own folder, or the one above if the first picture is there.

    Raises:
        DataError: the file cannot be read, or a column or value is missing.
    """
    table = table / "index.csv" if table.is_dir() else table
    text = read_text(table)
    header = text.partition("\n")[0]
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count)))
    except csv.Error as error:
        raise DataError(f"{table}: cannot read: {error}") from error
    found = set(rows[0]) if rows else set()
    category = "coarse" if "coarse" in found else "category"
    item = "fine" if "fine" in found else "item"
    needed = ("path", "split", category, item)
    if missing := set(needed) - found:
        raise DataError(f"{table} lacks the columns {sorted(missing)}; it has {sorted(map(str, found))}")
    for number, row in enumerate(rows, 1):
        if empty := [key for key in needed if not row[key]]:
            raise DataError(f"{table}: row {number}: {empty[0]} is empty")
    if root is None:
        places = (table.parent, table.parent.parent)
        root = next((place for place in places if rows and is_file(place / rows[0]["path"])), table.parent)
    samples = [
        Sample(root / row["path"], row["split"], row[category], row[item], row.get("label") or "") for row in rows
    ]
    return Listing("index", samples)
