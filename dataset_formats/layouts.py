"""Detect the layout of a data set and list it with the reader of that layout. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import get_args

from dataset_formats.cars import looks_like_cars, read_cars
from dataset_formats.coco import coco_files, read_coco, read_rpc
from dataset_formats.cub import read_cub
from dataset_formats.folders import innermost_folder, read_folders
from dataset_formats.index import read_index
from dataset_formats.records import Layout, Listing
from dataset_formats.sop import read_sop
from dataset_formats.tags import read_tags
from dataset_formats.text_files import is_file, read_data
from dataset_formats.voc import looks_like_voc, read_voc
from dataset_formats.yolo import looks_like_yolo, read_yolo
from edge.errors import DataError

BOXED: tuple[Layout, ...] = ("coco", "voc", "yolo", "tags", "rpc", "cub", "cars")  # layouts with boxes
_BY_SUFFIX: dict[str, Layout] = {".csv": "index", ".yaml": "yolo", ".yml": "yolo", ".mat": "cars"}


def find_layout(path: Path, *, boxed: bool = False) -> Layout:
    """Detect the layout of a data set from the names of its files.

    Args:
        path: file or folder.
        boxed: consider only layouts with boxes, and ignore an index beside them.

    Raises:
        DataError: the path does not exist, or its layout is unknown.
    """
    if not path.exists():
        raise DataError(f"{path}: not found; give a data set")
    found = _of_folder(path, boxed=boxed) if path.is_dir() else _of_file(path)
    if found is None or (boxed and found not in BOXED):
        raise DataError(
            f"{path}: has {'no layout with boxes' if boxed else 'no known layout'}; known are "
            f"{', '.join(BOXED if boxed else get_args(Layout))}"
        )
    return found


def _of_file(path: Path) -> Layout | None:
    if path.suffix == ".json":
        return "tags" if _is_tags(path) else "coco"
    return _BY_SUFFIX.get(path.suffix.lower())


def _is_tags(path: Path) -> bool:
    data = read_data(path)
    return b'"files"' in data and b'"tags"' in data and b'"annotations"' not in data


def _of_folder(folder: Path, *, boxed: bool) -> Layout | None:
    """Return the first layout that fits, or None; layouts with unmistakable file names come first."""

    def has(*names: str) -> bool:
        return any((folder / name).exists() for name in names)

    tests: dict[Layout, Callable[[], bool]] = {
        "index": lambda: has("index.csv") and not boxed,
        "cub": lambda: has("image_class_labels.txt", "CUB_200_2011"),
        "sop": lambda: has("Ebay_train.txt", "Ebay_test.txt", "Stanford_Online_Products"),
        "cars": lambda: looks_like_cars(folder),
        "rpc": lambda: has(*(f"instances_{split}2019.json" for split in ("train", "val", "test"))),
        "coco": lambda: bool(coco_files(folder)),
        "tags": lambda: is_file(folder / "boxes.json") and _is_tags(folder / "boxes.json"),
        "voc": lambda: looks_like_voc(folder),
        "yolo": lambda: looks_like_yolo(folder),
        "folders": lambda: not boxed,
    }
    return next((layout for layout, fits in tests.items() if fits()), None)


def read_listing(
    path: Path,
    root: Path | None = None,
    layout: Layout | None = None,
    *,
    published: bool = False,
    boxed: bool = False,
) -> Listing:
    """List the contents of a data set.

    Args:
        path: file or folder.
        root: folder of the paths in an index or COCO JSON; None: as the reader finds it.
        layout: None: detect it.
        published: split by the published class-disjoint protocol (CUB, Cars; SOP's own splits are such).
        boxed: the caller needs boxes.

    Raises:
        DataError: a file is missing or broken; the message names it.
    """
    layout = layout or find_layout(path, boxed=boxed)
    if not path.exists():
        raise DataError(f"{path}: not found; give a data set of layout {layout}")
    if published and layout not in ("cub", "cars", "sop"):
        raise DataError(f"{path}: layout {layout} has no published split; only cub, cars and sop have one")
    if root is not None and layout not in ("index", "coco"):
        raise DataError(f"{path}: layout {layout} takes no root; only index and coco take one")
    folder = path if path.is_dir() else path.parent
    readers: dict[Layout, Callable[[], Listing]] = {
        "index": lambda: read_index(path, root),
        "folders": lambda: read_folders(folder),
        "coco": lambda: read_coco(path, root),
        "voc": lambda: read_voc(innermost_folder(folder)),
        "yolo": lambda: read_yolo(path),
        "tags": lambda: read_tags(path),
        "cub": lambda: read_cub(folder, published=published),
        "cars": lambda: read_cars(folder, published=published),
        "sop": lambda: read_sop(folder),
        "rpc": lambda: read_rpc(folder),
    }
    return readers[layout]()
