"""Detect the layout of a data set and list it with the reader of that layout. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar, get_args
from unicodedata import normalize

from dataset_formats.coco.reader import holds_coco, read_coco
from dataset_formats.coco.rpc import read_rpc
from dataset_formats.cvat.reader import looks_like_cvat, read_cvat
from dataset_formats.folders import contents_of, innermost_folder, read_folders
from dataset_formats.index import INDEX_FILE, read_index
from dataset_formats.label_studio.reader import looks_like_label_studio, read_label_studio
from dataset_formats.notices import in_bulk, printable
from dataset_formats.published.aircraft import looks_like_aircraft, read_aircraft
from dataset_formats.published.cars import find_cars, looks_like_cars, read_cars
from dataset_formats.published.cub import read_cub
from dataset_formats.published.dogs import looks_like_dogs, read_dogs
from dataset_formats.published.flowers import looks_like_flowers, read_flowers
from dataset_formats.published.pets import looks_like_pets, read_pets
from dataset_formats.published.sop import read_sop
from dataset_formats.published.vehicles import looks_like_vehicle_id, looks_like_veri, read_vehicle_id, read_veri
from dataset_formats.records import Layout, Listing, NamedBox, Sample
from dataset_formats.tags import looks_like_tags, read_tags
from dataset_formats.text_files import exists, is_file
from dataset_formats.voc.reader import looks_like_voc, read_voc
from dataset_formats.xml_files import root_tag
from dataset_formats.yolo.reader import looks_like_yolo, read_yolo
from edge.errors import DataError

BOXED: tuple[Layout, ...] = (
    "coco", "voc", "yolo", "tags", "rpc", "cub", "cars", "dogs", "aircraft", "label_studio", "cvat",
)  # have boxes  # fmt: skip
_ROOTED: tuple[Layout, ...] = ("index", "coco", "label_studio", "cvat")  # take the folder of their pictures
# Have a published split with classes that training does not have.
_PUBLISHED: tuple[Layout, ...] = ("cub", "cars", "sop", "dogs", "aircraft", "flowers", "pets", "veri", "vehicle_id")
_OF_ONE_SET: tuple[Layout, ...] = (*_PUBLISHED, "rpc")  # nothing else has their files
_BY_SUFFIX: dict[str, Layout] = {
    ".csv": "index",
    ".tsv": "index",
    ".yaml": "yolo",
    ".yml": "yolo",
    ".data": "yolo",
    ".mat": "cars",
}
_PACKED = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".xls", ".xlsx", ".ods")
_Named = TypeVar("_Named", Sample, NamedBox)
_INNER = 10  # folders in a folder that may be data sets of their own
_TRIED = 100  # JSON files of a folder that are opened to find tasks of Label Studio


def find_layout(path: Path, *, boxed: bool = False) -> Layout:
    """Detect the layout of a data set from its files: their names, their root tags and the structure of their JSON.

    Args:
        path: file or folder.
        boxed: consider only layouts with boxes, and ignore an index beside them.

    Raises:
        DataError: the path does not exist, or its layout is unknown.
    """
    return _fitting(path, boxed=boxed)[0]


def _fitting(path: Path, *, boxed: bool) -> list[Layout]:
    """Return the layouts that fit, the one to read first.

    Raises:
        DataError: see find_layout.
    """
    if not exists(path):
        raise DataError(f"{path}: not found; give a data set")
    fitting = [one for one in (_of_folder(path) if path.is_dir() else _of_file(path)) if one in BOXED or not boxed]
    if fitting == ["folders"] and (inner := next(_inner_sets(path), None)):
        raise DataError(
            f"{path}: has no layout, but {inner} in it has; give that folder, or state the layout folders if its "
            "folders are classes"
        )
    if not fitting and path.suffix.lower() in _PACKED:
        raise DataError(f"{path}: is an archive or a workbook; unpack it, or save it as CSV UTF-8")
    if not fitting:
        raise DataError(
            f"{path}: has {'no layout with boxes' if boxed else 'no known layout'}; known are "
            f"{', '.join(BOXED if boxed else get_args(Layout))}"
        )
    return fitting


def _inner_sets(folder: Path) -> Iterator[Path]:
    """Yield the first folders in a folder that are data sets with files that say so."""
    for inner in contents_of(folder).folders[:_INNER]:
        if _of_folder(inner) != ["folders"]:
            yield inner


def _of_file(path: Path) -> list[Layout]:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return ["label_studio" if looks_like_label_studio(path) else "tags" if looks_like_tags(path) else "coco"]
    if suffix == ".xml":
        by_root: dict[str, Layout] = {"annotations": "cvat", "annotation": "voc"}
        return [by_root[tag] for tag in [root_tag(path)] if tag in by_root]
    return [_BY_SUFFIX[suffix]] if suffix in _BY_SUFFIX else []


def _of_folder(folder: Path) -> list[Layout]:
    """Return the layouts that fit a folder; those with unmistakable file names come first, plain folders last."""

    def has(*names: str) -> bool:
        return any((folder / name).exists() for name in names)

    tests: dict[Layout, Callable[[], bool]] = {
        "index": lambda: has(INDEX_FILE),
        "cub": lambda: has("image_class_labels.txt", "CUB_200_2011"),
        "sop": lambda: has("Ebay_train.txt", "Ebay_test.txt", "Stanford_Online_Products"),
        "cars": lambda: looks_like_cars(folder),
        "dogs": lambda: looks_like_dogs(folder),
        "aircraft": lambda: looks_like_aircraft(folder),
        "flowers": lambda: looks_like_flowers(folder),
        "pets": lambda: looks_like_pets(folder),
        "veri": lambda: looks_like_veri(folder),
        "vehicle_id": lambda: looks_like_vehicle_id(folder),
        "rpc": lambda: has(*(f"instances_{split}2019.json" for split in ("train", "val", "test"))),
        "coco": lambda: holds_coco(folder),
        "tags": lambda: looks_like_tags(folder),
        "label_studio": lambda: any(_tasks_in(folder)),
        "cvat": lambda: looks_like_cvat(folder),
        "voc": lambda: looks_like_voc(folder),
        "yolo": lambda: looks_like_yolo(folder),
    }
    fitting = []
    for layout, fits in tests.items():
        with suppress(DataError):  # a file that cannot be read is no sign of a layout
            fitting += [layout] if fits() else []
    return [*fitting, "folders"]


def _tasks_in(folder: Path) -> Iterator[Path]:
    """Yield the JSON files of a folder that list tasks of Label Studio."""
    for file in islice(sorted(folder.glob("*.json")), _TRIED):
        if is_file(file):
            with file.open("rb") as opened:
                is_list = opened.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
            if is_list and looks_like_label_studio(file):
                yield file


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
        root: folder of the paths in an index, COCO, Label Studio or CVAT file; None: as the reader finds it.
        layout: None: detect it.
        published: split by the published class-disjoint protocol; the own splits of SOP, VeRi and VehicleID are such.
        boxed: the caller needs boxes.

    Raises:
        DataError: a file is missing or broken, or no record can be used; the message names it.
    """
    fitting = [layout] if layout else _fitting(path, boxed=boxed)
    layout = fitting[0]
    if not exists(path):
        raise DataError(f"{path}: not found; give a data set of layout {layout}")
    if published and layout not in _PUBLISHED:
        raise DataError(f"{path}: layout {layout} has no published split; only {', '.join(_PUBLISHED)} have one")
    if root is not None and layout not in _ROOTED:
        raise DataError(f"{path}: layout {layout} takes no root; only {', '.join(_ROOTED)} take one")
    listing = _read(path, root, layout, published=published)
    _compose_names(listing)
    others = [one for one in fitting[1:] if one != "folders"]
    if others and layout not in _OF_ONE_SET:
        listing.noticed.append(
            f"{path}: was read as {layout}; {', '.join(others)} fits, too; give its own file, or state the layout"
        )
    listing.noticed = [printable(line) for line in listing.noticed]
    listing.left_out = [printable(line) for line in listing.left_out]
    return listing


def _compose_names(listing: Listing) -> None:
    """Write class names in one Unicode form: macOS decomposes accents, and both spellings are one class."""
    boxes = [box for scene in listing.scenes for box in scene.boxes]
    named: list[Sample | NamedBox] = [*listing.samples, *boxes]
    names = {name for one in named for name in (one.category, one.item)}
    composed = {name: normalize("NFC", name) for name in sorted(names.union(listing.names))}
    composed = {name: other for name, other in composed.items() if name != other}
    if not composed:
        return

    def one_form(one: _Named) -> _Named:
        return replace(one, category=composed.get(one.category, one.category), item=composed.get(one.item, one.item))

    listing.samples = list(map(one_form, listing.samples))
    listing.scenes = [replace(scene, boxes=tuple(map(one_form, scene.boxes))) for scene in listing.scenes]
    listing.names = list(dict.fromkeys(composed.get(name, name) for name in listing.names))
    listing.noticed += in_bulk("class names whose accents are written as letters of their own, now composed", composed)


def _read(path: Path, root: Path | None, layout: Layout, *, published: bool) -> Listing:
    folder = path if path.is_dir() else path.parent
    readers: dict[Layout, Callable[[], Listing]] = {
        "index": lambda: read_index(path, root),
        "folders": lambda: read_folders(folder),
        "coco": lambda: read_coco(path, root),
        "voc": lambda: _read_voc(path),
        "yolo": lambda: read_yolo(path),
        "tags": lambda: read_tags(path),
        "cub": lambda: read_cub(folder, published=published),
        "cars": lambda: read_cars(path if path.is_dir() else find_cars(path), published=published),
        "sop": lambda: read_sop(folder),
        "dogs": lambda: read_dogs(folder, published=published),
        "aircraft": lambda: read_aircraft(folder, published=published),
        "flowers": lambda: read_flowers(folder, published=published),
        "pets": lambda: read_pets(folder, published=published),
        "veri": lambda: read_veri(folder),
        "vehicle_id": lambda: read_vehicle_id(folder),
        "rpc": lambda: read_rpc(folder),
        "label_studio": lambda: _read_tasks(path, root),
        "cvat": lambda: read_cvat(path, root),
    }
    return readers[layout]()


def _read_voc(path: Path) -> Listing:
    if path.is_file():
        raise DataError(f"{path}: is Pascal VOC of one picture; give the folder of all XML files and pictures")
    return read_voc(innermost_folder(path))


def _read_tasks(path: Path, root: Path | None) -> Listing:
    """Read an export of Label Studio, or the first one of a folder; name the others."""
    if path.is_file():
        return read_label_studio(path, root)
    files = list(_tasks_in(path))
    if not files:
        raise DataError(f"{path}: holds no JSON file with tasks of Label Studio; give the file")
    listing = read_label_studio(files[0], root)
    listing.left_out += [f"{file}: {files[0].name} was read; give this file to read it" for file in files[1:]]
    return listing
