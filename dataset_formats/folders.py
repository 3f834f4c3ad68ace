"""Data sets of single objects: a folder for each class."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dataset_formats.decode import PICTURE_SUFFIXES
from dataset_formats.notices import in_bulk, printable
from dataset_formats.records import ONE_CATEGORY, Listing, Sample
from dataset_formats.splits import default_split, split_from_name
from edge.errors import DataError
from edge.extras import install_command

_IGNORED = frozenset(["__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"])
_OTHER_PICTURES = re.compile(
    r"arw|avif|cr[23]|dng|hei[cf]|hif|jfif|jp2|jpe|jxl|mov|mp4|nef|orf|p[bgn]m|psd|raf|raw|rw2|svg"
)
_RECORDS = re.compile(r"7z|csv|gz|json|jsonl|mat|ndjson|parquet|rar|tar|tfrecord|tsv|txt|xlsx?|xml|ya?ml|zip")
_ABOUT = ("licence", "license", "readme")  # files for people


@dataclass(slots=True)
class Contents:
    """What lies directly in a folder, without hidden files and those of file managers."""

    path: Path
    folders: list[Path] = field(default_factory=list)  # sorted, as are the pictures
    pictures: list[Path] = field(default_factory=list)  # their suffix decides
    left_out: list[str] = field(default_factory=list)  # which picture or folder cannot be read, and why
    records: list[Path] = field(default_factory=list)  # files that may say more about the pictures: JSON, XML, CSV, ...


@dataclass(slots=True)
class _Class:
    """A folder of pictures, or of items."""

    split: str
    contents: Contents
    items: list[Contents]


def read_folders(folder: Path, category: str = ONE_CATEGORY) -> Listing:
    """Read folders of class/picture or category/item/picture, inside folders train, val and test or not.

    The level with more pictures decides; pictures of another level are left out, as are folders beside splits.

    Args:
        folder: may hold a single folder of its own name, as archives do.
        category: of all items, if there is one level.

    Raises:
        DataError: no picture is where a class or item would have it.
    """
    whole = _whole(innermost_folder(folder))
    listing = Listing("folders")
    tops = _tops(whole, listing)
    classes = [_Class(split, contents_of(path), []) for split, top in tops for path in _classes_of(top, listing)]
    for one in classes:
        one.items = [contents_of(path) for path in one.contents.folders]
    flat = sum(len(one.contents.pictures) for one in classes)
    deep = sum(len(item.pictures) for one in classes for item in one.items)
    has_items = deep >= flat and any(one.items for one in classes)
    for one in classes:
        if has_items:
            _add_category(one, listing)
        else:
            _add_pictures(one.contents, one.split, category, listing)
    items = [item for one in classes for item in one.items]
    seen = {one.path: one for one in (whole, *(top for _, top in tops), *(one.contents for one in classes), *items)}
    seen |= {path: contents_of(path) for path in whole.folders if path not in seen}
    unread = [path for contents in seen.values() for path in contents.records]
    if not listing.samples:
        first = f"; the first that is left out: {listing.left_out[0]}" if listing.left_out else ""
        if unread:
            first = f"; {unread[0].name} is of no known layout: give COCO, VOC, CVAT, or YOLO with its classes.txt"
        raise DataError(printable(f"{whole.path}: holds no picture in class/picture or category/item/picture{first}"))
    names = dict.fromkeys(name for one in listing.samples for name in (one.category, one.item))
    like_splits = [name for name in names if split_from_name(name)]
    listing.noticed += in_bulk("classes that are called like a split", like_splits)
    listing.noticed += in_bulk("files of no known layout, not read; only folders name the classes", unread)
    return listing


def innermost_folder(folder: Path) -> Path:
    """Skip folders that hold nothing but one folder of the same name; return the innermost."""
    while True:
        contents = contents_of(folder)
        if contents.pictures or [path.name for path in contents.folders] != [folder.name]:
            return folder
        folder = folder / folder.name


def _whole(folder: Path) -> Contents:
    """Return what lies in a folder, or in the only folder in it if that holds the splits."""
    contents = contents_of(folder)
    if len(contents.folders) == 1 and not contents.pictures:
        inner = contents_of(contents.folders[0])
        if _are_splits({path: split_from_name(path.name) for path in inner.folders}):
            return inner
    return contents


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, see contents_of."""
    return contents_of(folder).folders


def contents_of(folder: Path) -> Contents:
    """List a folder; say which pictures and folders in it cannot be read."""
    contents = Contents(folder)
    try:
        with os.scandir(folder) as entries:  # no object for each file
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        contents.left_out.append(printable(f"{folder}: cannot read: {error.strerror}"))
        return contents
    for entry in found:
        name = entry.name.casefold()
        suffix = name.rpartition(".")[2]
        is_picture = name.endswith(PICTURE_SUFFIXES)
        is_folder = _is(entry.is_dir)
        if name[0] != "." and _RECORDS.fullmatch(suffix) and not is_folder and not name.startswith(_ABOUT):
            contents.records.append(folder / entry.name)
        if name[0] == "." or name in _IGNORED or not (is_folder or is_picture or _OTHER_PICTURES.fullmatch(suffix)):
            continue
        if why := _why_unread(entry, is_folder=is_folder, is_picture=is_picture):
            contents.left_out.append(printable(f"{folder / entry.name}: {why}"))
        else:
            (contents.folders if is_folder else contents.pictures).append(folder / entry.name)
    return contents


def _why_unread(entry: os.DirEntry[str], *, is_folder: bool, is_picture: bool) -> str:
    """Return why a picture or folder cannot be read; empty if it can."""
    if is_folder and entry.is_symlink() and _holds(entry.path):
        return "is a link to a folder that holds it; remove it"
    if not is_folder and not _is(entry.is_file):
        return "is a broken link, or no file; copy the picture here"
    if not is_folder and not is_picture:
        extra = f", or run: {install_command('heic')}" if re.search("[.](hei[cf]|hif)$", entry.name.lower()) else ""
        return f"is of no format that is read here ({', '.join(PICTURE_SUFFIXES)}); convert it{extra}"
    return "" if entry.name.isascii() or entry.name == printable(entry.name) else "its name is not UTF-8; rename it"


def _is(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # links that lead to each other
        return False


def _holds(link: str) -> bool:
    """Return whether a link leads to one of the folders above it."""
    above = Path(link).absolute().parents
    return os.path.realpath(link) in {os.path.realpath(one) for one in above}


def _tops(contents: Contents, listing: Listing) -> list[tuple[str, Contents]]:
    """Return the folders of splits, or the folder itself, which is of no split."""
    splits = {path: split_from_name(path.name) for path in contents.folders}
    if any(splits.values()):  # a folder without pictures, such as `annotations`, is no class
        splits = {path: split for path, split in splits.items() if split or _count_below(path)}
    if not _are_splits(splits):
        return [("", contents)]
    listing.left_out += contents.left_out
    listing.left_out += [f"{path}: lies beside the folders of splits; move it into one" for path in contents.pictures]
    listing.left_out += [
        f"{path}: lies beside the folders of splits, with {_count_below(path)} pictures; move it into one"
        for path, split in splits.items()
        if not split
    ]
    for split in sorted({split for split in splits.values() if split}):
        same = [path.name for path, of in splits.items() if of == split]
        if len(same) > 1:
            listing.noticed.append(f"{contents.path}: {', '.join(same)} are all the split {split}")
    return [(split, contents_of(path)) for path, split in splits.items() if split]


def _are_splits(splits: Mapping[Path, str]) -> bool:
    """Return whether folders are splits: all of them are named so, or several, or one that has folders of classes.

    A class may be named `train`, among others.
    """
    named = {split: path for path, split in splits.items() if split}
    if not named or len(named) > 1 or all(splits.values()):
        return bool(named)
    return "train" in named and bool(subfolders(named["train"]))


def _classes_of(top: Contents, listing: Listing) -> list[Path]:
    listing.left_out += top.left_out
    listing.left_out += [f"{path}: lies beside the folders of classes; move it into one" for path in top.pictures]
    return top.folders


def _add_category(one: _Class, listing: Listing) -> None:
    """Add category/item/picture."""
    listing.left_out += one.contents.left_out
    listing.left_out += [
        f"{path}: lies beside the folders of items; move it into one" for path in one.contents.pictures
    ]
    if not one.items and not one.contents.pictures:
        listing.left_out.append(f"{one.contents.path}: holds no item; remove it or add one")
    for item in one.items:
        _add_pictures(item, one.split, one.contents.path.name, listing)


def _add_pictures(item: Contents, split: str, category: str, listing: Listing) -> None:
    listing.left_out += item.left_out
    listing.left_out += [
        f"{path}: lies inside an item, with {_count_below(path)} pictures; use one level (class/picture) or two "
        "(category/item/picture)"
        for path in item.folders
    ]
    if not item.pictures:
        listing.left_out.append(f"{item.path}: holds no picture; every item needs one")
    listing.samples += [
        Sample(path, split or default_split(number), category, item.path.name)
        for number, path in enumerate(item.pictures)
    ]


def _count_below(folder: Path) -> int:
    return sum(name.lower().endswith(PICTURE_SUFFIXES) for _, _, files in os.walk(folder) for name in files)
