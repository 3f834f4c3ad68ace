"""Where the files of a Pascal VOC data set lie: XML, pictures and the lists of its splits."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dataset_formats.decode import PICTURE_SUFFIXES
from dataset_formats.folders import subfolders
from dataset_formats.notices import in_bulk
from dataset_formats.picture_names import NameIndex
from dataset_formats.splits import split_from_name, splits_named
from dataset_formats.text_files import is_file, read_lines
from edge.errors import DataError

_ANNOTATIONS = {"annotations", "annotation", "annos", "anno", "xmls", "xml", "labels"}
_PICTURES = {"jpegimages", "images", "image", "imgs", "img", "pictures", "photos"}
_NO_PICTURES = {"segmentationclass", "segmentationobject", "imagesets", *_ANNOTATIONS}
_LISTS = ("train", "val", "test", "trainval")
_DEPTH = 2  # folders between the data set and the folder of its annotations: VOCdevkit/VOC2007


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of XML and the folders of its pictures."""

    base: Path
    xml: dict[str, Path]  # by path without suffix, relative to the folder of the XML
    folders: list[Path]  # of the pictures
    is_flat: bool  # the pictures lie beside the XML, and not in folders below

    def pictures(self) -> dict[str, list[Path]]:
        """Return the pictures by path without suffix, relative to their folder."""
        found: dict[str, list[Path]] = defaultdict(list)
        for folder in self.folders:
            for inner, path in _files(folder, PICTURE_SUFFIXES, _NO_PICTURES, is_flat=self.is_flat).items():
                found[inner].extend(path)
        return found


def find_places(folder: Path) -> Iterator[Place]:
    """Yield the folders of XML in a data set: Annotations beside JPEGImages, or XML beside pictures.

    Raises:
        DataError: a folder cannot be read.
    """
    return _find(folder, set(), 0)


def _find(folder: Path, seen: set[str], depth: int) -> Iterator[Place]:
    real = os.path.realpath(folder)
    if real in seen:  # a link to a folder that was read
        return
    seen.add(real)
    inner = subfolders(folder)
    pictures = [one for one in inner if one.name.casefold() in _PICTURES]
    named = {one: xml_below(one) for one in inner if one.name.casefold() in _ANNOTATIONS}
    named = {one: xml for one, xml in named.items() if xml}
    for one, xml in named.items():
        yield Place(folder, xml, pictures or [folder, one], is_flat=False)
    if loose := xml_below(folder, is_flat=True):
        beside = bool(_files(folder, PICTURE_SUFFIXES, is_flat=True))
        yield Place(folder, loose, [folder] if beside or not pictures else pictures, is_flat=beside)
    for one in inner if depth < _DEPTH else ():
        if one not in named and not (named and one in pictures):
            yield from _find(one, seen, depth + 1)


def xml_below(folder: Path, *, is_flat: bool = False) -> dict[str, Path]:
    """Return the XML files of a folder by path without suffix, relative to it; sorted.

    Raises:
        DataError: the folder cannot be read.
    """
    return {inner: paths[0] for inner, paths in sorted(_files(folder, (".xml",), is_flat=is_flat).items())}


def _files(
    folder: Path, suffixes: tuple[str, ...], skip: Collection[str] = (), *, is_flat: bool
) -> dict[str, list[Path]]:
    """Return files by path without suffix, relative to the folder."""
    found: dict[str, list[Path]] = defaultdict(list)

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot read: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [] if is_flat else sorted(n for n in folders if n[0] != "." and n.casefold() not in skip)
        inner = os.path.relpath(place, folder)
        for name in sorted(files):
            if name[0] != "." and name.lower().endswith(suffixes):
                stem = name.rpartition(".")[0]
                found[stem if inner == "." else f"{inner}/{stem}"].append(Path(place, name))
    return found


@dataclass(frozen=True, slots=True)
class Splits:
    """What the lists of ImageSets/Main say."""

    of: dict[str, str]  # split by path of the XML without suffix
    left_out: list[str]
    noticed: list[str]


def splits_of(base: Path, stems: Collection[str]) -> Splits | None:
    """Read the lists of a data set: train, val, test and trainval; those of single classes are not read.

    A picture of several lists is of test rather than val, and of val rather than train. Of train and val, the list
    that is missing is the rest of trainval.

    Args:
        base: the folder of ImageSets.
        stems: paths of the XML without suffix.

    Returns:
        None if there are no lists.

    Raises:
        DataError: a list cannot be read.
    """
    folder = base / "ImageSets" / "Main"
    lists: dict[str, dict[str, None]] = defaultdict(dict)
    unknown: dict[str, None] = {}
    index = NameIndex(stems)
    for file in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
        name = file.stem.strip().casefold()
        split = name if name == "trainval" else split_from_name(name)
        if split in _LISTS and is_file(file):
            for line in read_lines(file):
                stem = _stem(line, index)
                (lists[split] if stem else unknown)[stem or line] = None
    if not lists and not unknown:
        return None
    left_out = in_bulk(f"{folder}: lists pictures that have no XML, or several; left out", unknown)
    noticed: list[str] = []
    rest = {one: None for one in lists.pop("trainval", ()) if one not in lists["train"] and one not in lists["val"]}
    if not (lists["train"] and lists["val"]):
        lists["val" if lists["train"] else "train"] |= rest
    elif rest := {one: None for one in rest if one not in lists["test"]}:
        left_out += in_bulk(f"{folder}: trainval.txt has pictures that neither train.txt nor val.txt has", rest)
    found: dict[str, str] = {}
    for split in _LISTS[:3]:
        twice = [one for one in lists[split] if one in found]
        noticed += in_bulk(f"{folder}: pictures of {split} are also in another list; they count as {split}", twice)
        found |= dict.fromkeys(lists[split], split)
    named = set(found).union(rest)
    left_out += in_bulk(f"{folder}: no list has these pictures; left out", [one for one in stems if one not in named])
    return Splits(found, left_out, noticed)


def _stem(line: str, index: NameIndex) -> str:
    """Return the XML that a line of a list means: a stem or file name, perhaps with a flag; empty for none."""
    parts = line.rsplit(None, 1)
    spellings = [line, parts[0]] if parts[-1] in ("-1", "0", "1") and len(parts) > 1 else [line]
    for spelling in spellings:
        stem, _, suffix = spelling.rpartition(".")
        for one in (spelling, stem if f".{suffix.lower()}" in (*PICTURE_SUFFIXES, ".xml") else ""):
            if one and len(found := index.match(one)) == 1:
                return found[0]
    return ""


def split_of_folders(*paths: Iterable[str]) -> str:
    """Return the split of the innermost folder that is named for one; empty if none is."""
    names = [name for parts in paths for name in parts]
    return next(iter(splits_named(reversed(names))), "")
