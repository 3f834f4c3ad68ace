"""The pictures of one COCO file: which files its names mean.

Rules this module keeps:
1. A name that is right as it stands means that file.
2. Where other names of the file are right as they stand, a name with a folder means no picture of another folder:
   `val/1.jpg` is missing, though there is a `train/1.jpg`.
   Where none is, no picture in the folder of another split than the file's own is taken.
3. A file that several names mean belongs to the name that is right as it stands, or else to none.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

from dataset_formats.exported_names import path_in_url
from dataset_formats.picture_names import PictureFinder, name_key, parts_of
from dataset_formats.splits import splits_named

_WORDS = re.compile(r"[\W_]+")
_TRIED = 32  # names that are tried in each folder, to find out where the pictures are


@dataclass(slots=True)
class Located:
    """The files of pictures."""

    found: dict[str, Path] = field(default_factory=dict)  # by name
    missing: dict[str, str] = field(default_factory=dict)  # why each other name means none, by name
    elsewhere: list[str] = field(default_factory=list)  # names that were not right as they stand


class Locator:
    """Finds the pictures of the COCO files of one data set."""

    def __init__(self, root: Path | None) -> None:
        """Search in a folder; None: where the pictures are, the JSON's folder first."""
        self._root = root
        self._finders: dict[Path, PictureFinder] = {}

    def locate(self, file: Path, names: Sequence[str]) -> Located:
        """Find the pictures of one file by their names."""
        places, below, has_hits = self._places(file, names)
        splits = splits_in(file.stem) if self._root is None else set()
        located = Located()
        claims: dict[Path, list[str]] = defaultdict(list)
        for name in names:
            path = _as_written([self._root or file.parent, *places], name) or self._by_its_end(
                name, below, set() if has_hits else splits, certain=has_hits and "://" not in name
            )
            if isinstance(path, str):
                located.missing[name] = path
            else:
                claims[path].append(name)
        for path, given in claims.items():
            exact = [name for name in given if _ends_with(path, name)]
            kept = given if len(given) == 1 else exact
            located.found |= dict.fromkeys(kept, path)
            located.elsewhere += [name for name in kept if name not in exact]
            located.missing |= {name: f"{len(given)} names mean {path}; keep one" for name in given if name not in kept}
        return located

    def _places(self, file: Path, names: Sequence[str]) -> tuple[list[Path], Path, bool]:
        """Return the folders of the names, the folder to search, and whether some names are right as they stand."""
        home = file.parent
        set_of = file.stem.rpartition("_")[2]  # instances_val2017.json: val2017/
        inner = ("", f"images/{set_of}", set_of, "images", "data")
        groups = [[base / one for one in inner] for base in (home, home.parent)]
        tried = names[:: 1 + len(names) // _TRIED]
        for group in groups if self._root is None else [[self._root]]:
            hits = {place: sum(_as_written([place], name) is not None for name in tried) for place in group}
            if any(hits.values()):
                places = sorted((place for place in group if hits[place]), key=lambda place: -hits[place])
                return places, places[0], True
        beside = home.parent if home.name.casefold() == "annotations" else home
        return [], self._root or beside, False

    def _by_its_end(self, name: str, below: Path, splits: set[str], *, certain: bool) -> Path | str:
        """Return the picture whose path ends like a name, or why there is none.

        Args:
            name: of the picture.
            below: folder to search.
            splits: of the file; empty: it states none.
            certain: the names are relative to this folder; one with a folder means no picture of another folder.
        """
        path = self._finders.setdefault(below, PictureFinder((), below)).find(path_in_url(name))
        if isinstance(path, str):
            return path
        if certain and not _is_foreign(name) and not _ends_with(path, name):
            return f"not found in {below}"
        others = _splits_of_folders(path, below)
        return f"not found; {path} is of another split" if splits and others and not splits & others else path


def splits_in(stem: str) -> set[str]:
    """Return the splits that a file's name states, as whole words: `latest` states none."""
    return set(splits_named(_WORDS.split(stem)))


def _splits_of_folders(path: Path, below: Path) -> set[str]:
    return set(splits_named(path.relative_to(below).parts[:-1]))


def _as_written(places: Sequence[Path], name: str) -> Path | None:
    """Return the picture of a name in the first of some folders that has it."""
    spellings = dict.fromkeys((name, "/".join(parts_of(path_in_url(name)))))  # as it is; without drive, with slashes
    for place in places:
        for spelling in spellings:
            path = os.path.normpath(os.path.join(place, spelling))  # noqa: PTH118 no objects for those that are missing
            if os.path.isfile(path):  # noqa: PTH113 likewise
                return Path(path)
    return None


def _is_foreign(name: str) -> bool:
    """Return whether a name is a path of another machine, whose folders mean nothing here."""
    return PurePosixPath(name).is_absolute() or bool(PureWindowsPath(name).drive) or ".." in PureWindowsPath(name).parts


def _ends_with(path: Path, name: str) -> bool:
    """Return whether a path ends as a name does, in any letter case and Unicode form."""
    parts = parts_of(path_in_url(name))
    tail = path.parts[-len(parts) :]
    return tail == parts or list(map(name_key, tail)) == list(map(name_key, parts))
