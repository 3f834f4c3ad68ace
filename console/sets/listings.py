"""Lists what a folder on this server holds: pictures, and what a data set in it says of them.

Rules this module keeps:
1. A folder must lie below one that the console was started with, whatever links say.
2. Pictures stay where they lie. What leads out of the folder, or out of the permitted ones, is left out and named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from console.sets.crops import NewBox
from console.sets.pictures import Known
from console.sets.sets import Names
from dataset_formats.decode import PICTURE_SUFFIXES
from dataset_formats.layouts import read_listing
from dataset_formats.notices import printable
from dataset_formats.records import ONE_CATEGORY, Listing, NamedBox, Sample
from edge.errors import ConsoleError, DataError

MOST_PICTURES = 500_000
_MOST_LEFT_OUT = 200  # that are remembered
_IGNORED = frozenset(["__macosx", "@eadir", "$recycle.bin", "lost+found"])
BY_IMPORT = "import"


@dataclass(slots=True)
class Listed:
    """One picture of a folder, and what is known of it."""

    name: str  # path below the folder, with /
    known: Known = field(default_factory=Known)
    boxes: list[NewBox] | None = None  # None: nobody says where its objects are
    are_drawn: bool = True  # by people; else a model proposed some


@dataclass(slots=True)
class FolderListing:
    """What a folder holds."""

    pictures: dict[str, Listed] = field(default_factory=dict)  # by name
    layout: str = ""  # of the data set in it; "": only pictures
    left_out: list[str] = field(default_factory=list)  # what, and why


def permitted_folder(folders: Sequence[Path], text: str) -> Path:
    """Return a folder that a set may be made of, with all links followed.

    Raises:
        ConsoleError: it is not below a folder that the console was started with, or there is no such folder.
    """
    if not folders:
        raise ConsoleError("denied", "no folder of this server is open to sets; start the console with --folder DIR")
    if "\0" in text or not text.isprintable() or len(text) > 4000:
        raise ConsoleError("invalid", "folder: give a path of printable characters")
    try:
        folder = Path(os.path.realpath(folders[0] / text))  # an absolute text stands for itself
        is_permitted = is_below(folder, folders)
        is_folder = is_permitted and folder.is_dir()
    except (OSError, ValueError) as error:
        raise ConsoleError("invalid", "folder: the path cannot be used") from error
    if not is_permitted:
        shown = ", ".join(str(one) for one in folders)
        raise ConsoleError("denied", f"folder: must lie below {shown}; others are opened by --folder")
    if not is_folder:
        raise ConsoleError("not_found", f"{folder}: there is no such folder")
    return folder


def is_below(path: Path, folders: Sequence[Path]) -> bool:
    """Return whether a path lies in one of these folders, once all links are followed."""
    resolved = Path(os.path.realpath(path))
    return any(resolved.is_relative_to(os.path.realpath(one)) for one in folders)


def inner_folders(folder: Path, most: int = 500) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    try:
        with os.scandir(folder) as entries:
            found = [one.name for one in entries if one.is_dir() and not _is_ignored(one.name)]
    except OSError as error:
        raise ConsoleError("invalid", f"{folder}: cannot be read: {error.strerror}") from error
    return sorted(name for name in found if name.isprintable())[:most]


def list_folder(folder: Path, folders: Sequence[Path], names: Names, category: str | None) -> FolderListing:
    """List a folder: as a data set if it is one and names are read, else all pictures below it.

    Args:
        folder: of the set.
        folders: that the console was started with.
        names: what the names of a data set are worth.
        category: of all objects; None: as the data set says.

    Raises:
        ConsoleError: it holds too many pictures.
    """
    listing = FolderListing()
    if names != "ignore":
        try:
            found = read_listing(folder)
        except DataError as error:
            listing.left_out.append(f"read as pictures without names: {printable(error)}")
        else:
            _Translator(folder, names, category, listing).take(found)
            listing.layout = found.layout
            listing.left_out += [*found.left_out, *found.noticed]
    if not listing.layout or listing.layout == "folders":
        for name in _walk(folder, listing):
            listing.pictures.setdefault(name, Listed(name))
    _leave_out_links(folder, folders, listing)
    listing.left_out = listing.left_out[:_MOST_LEFT_OUT]
    if len(listing.pictures) > MOST_PICTURES:
        raise ConsoleError("too_large", f"{folder}: holds more than {MOST_PICTURES:,} pictures; make several sets")
    return listing


class _Translator:
    """Turns the records of a data set into pictures of a set."""

    def __init__(self, folder: Path, names: Names, category: str | None, listing: FolderListing) -> None:
        self._folder, self._category, self._listing = folder, category, listing
        self._decided_by = BY_IMPORT if names == "decide" else None

    def take(self, found: Listing) -> None:
        """Take all records."""
        for sample in found.samples:
            if (listed := self._picture(sample.path, sample.split)) is not None:
                self._add_sample(listed, sample)
        for scene in found.scenes:
            if (listed := self._picture(scene.path, scene.split)) is not None:
                listed.boxes = [self._box(one) for one in scene.boxes]
                listed.are_drawn = all(one.score is None for one in scene.boxes)

    def _picture(self, path: Path, split: str) -> Listed | None:
        name = os.path.relpath(path, self._folder)
        if name.startswith("..") or not name.isprintable():
            self._listing.left_out.append(
                printable(f"{path}: lies outside of the folder of the set, or has a bad name")
            )
            return None
        return self._listing.pictures.setdefault(name, Listed(name, Known(split=split)))

    def _add_sample(self, listed: Listed, sample: Sample) -> None:
        category, item, label = self._names(sample.category, sample.item, sample.label)
        if sample.box_px is not None:
            listed.boxes = [*(listed.boxes or []), self._new(sample.box_px, 1.0, "human", category, item, label)]
        else:
            listed.known = Known({}, category, item, label, sample.split, self._decided_by)

    def _box(self, one: NamedBox) -> NewBox:
        category, item, label = self._names(one.category, one.item_id or one.item, one.item)
        score, source = (1.0, "human") if one.score is None else (min(max(one.score, 0.0), 1.0), "import")
        return self._new(one.box_px, score, source, category, item, label)

    def _new(
        self, box: tuple[float, float, float, float], score: float, source: str, category: str, item: str, label: str
    ) -> NewBox:
        return NewBox(None, box, source, score, category, item, label, self._decided_by)

    def _names(self, category: str, item: str, label: str) -> tuple[str, str, str]:
        if self._category is not None and category in (ONE_CATEGORY, ""):
            category = self._category
        return category[:200], item[:200], (label or item)[:200]


def _walk(folder: Path, listing: FolderListing) -> Iterator[str]:
    """Yield the names of all pictures below a folder; linked folders are not followed."""

    def report(error: OSError) -> None:
        listing.left_out.append(printable(f"{error.filename}: cannot be read: {error.strerror}"))

    for where, folders, files in os.walk(folder, onerror=report):
        folders[:] = sorted(one for one in folders if not _is_ignored(one))
        below = os.path.relpath(where, folder)
        for name in sorted(files):
            if not name.lower().endswith(PICTURE_SUFFIXES) or name.startswith("."):
                continue
            path = name if below == "." else f"{below}/{name}"
            if path.isprintable():
                yield path
            else:
                listing.left_out.append(printable(f"{path!r}: its name has characters that cannot be shown; rename it"))


def _leave_out_links(folder: Path, folders: Sequence[Path], listing: FolderListing) -> None:
    """Leave out pictures that links lead to elsewhere."""
    is_inside = _InsideTest(folders)
    for name in list(listing.pictures):
        if not is_inside(folder, name):
            del listing.pictures[name]
            listing.left_out.append(f"{name}: a link leads out of the folders that are open to sets; copy the picture")


class _InsideTest:
    """Tells whether a picture lies in permitted folders; folders are resolved once."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._known: dict[str, bool] = {}

    def __call__(self, folder: Path, name: str) -> bool:
        path = folder / name
        if path.is_symlink():
            return is_below(path, self._folders)
        parent = str(path.parent)
        if parent not in self._known:
            self._known[parent] = is_below(path.parent, self._folders)
        return self._known[parent]


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _IGNORED
