"""List a catalogue in object storage: a CSV index, or folders category/item/picture."""

from __future__ import annotations

import tempfile
from pathlib import Path

from dataset_formats.csv_table import read_table
from dataset_formats.decode import PICTURE_SUFFIXES
from dataset_formats.index import INDEX_FILE, complete_rows, split_of
from dataset_formats.records import ONE_CATEGORY, Sample
from dataset_formats.splits import split_from_name
from edge.errors import TrainError
from trainer.catalogue.storage import Folder, joined, tree_of

_SPLIT = "train"  # of pictures without one: all are embedded
_ALSO_CALLED = {"coarse": "category", "fine": "item"}


def list_url(url: str, root: str | None = None) -> list[Sample]:
    """List the pictures of a catalogue; whether each is there shows when it is read.

    Args:
        url: of a CSV with the columns path, category, item, and optionally split and label, or of a folder that holds
            `index.csv` or pictures in category/item or item, inside folders train, val, test, catalogue or not.
        root: folder or URL that paths in the CSV are relative to; None: that of the CSV.

    Returns:
        the samples; each path is a URL that went through Path, see storage.url_of.

    Raises:
        TrainError, DataError: it cannot be read, or lists no picture.
    """
    if url.casefold().endswith((".csv", ".tsv")):
        return _index(url, root)
    names = tree_of(url)
    if INDEX_FILE in names:
        return _index(joined(url, INDEX_FILE), root)
    samples = [one for name in names if (one := _in_folders(url, name)) is not None]
    if not samples:
        raise TrainError(f"{url}: holds no picture in category/item; give such a folder, or an index.csv")
    return samples


def _index(url: str, root: str | None) -> list[Sample]:
    folder, _, name = url.rpartition("/")
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, name)
        file.write_bytes(Folder(folder).read(name))
        table = read_table(file)
    for other, wanted in _ALSO_CALLED.items():
        if wanted not in table.columns and other in table.columns:
            table.rename(other, wanted)
    table.require("path", "category", "item")
    samples = [
        Sample(
            Path(joined(root or folder, values["path"])),
            split_of(values.get("split", "")) or _SPLIT,
            values["category"],
            values["item"],
            values.get("label", ""),
        )
        for _, values in complete_rows(table, table.rows, ("path", "category", "item"))
    ]
    if not samples:
        raise TrainError(f"{url}: {table.why_empty()}")
    return samples


def _in_folders(url: str, name: str) -> Sample | None:
    *folders, picture = name.split("/")
    if not folders or not picture.casefold().endswith(PICTURE_SUFFIXES) or picture.startswith("."):
        return None
    split = split_from_name(folders[0]) or ("catalogue" if folders[0] == "catalogue" else None)
    inside = folders[1:] if split and len(folders) > 1 else folders
    category, item = inside[-2:] if len(inside) > 1 else (ONE_CATEGORY, inside[0])
    return Sample(Path(joined(url, name)), split or _SPLIT, category, item)
