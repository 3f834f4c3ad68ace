"""Where the pictures of a YOLO data set are: in folders, or in text files that list them.

Exports name folders of the machine that wrote them. A path that is not here is looked for without its leading folders,
one after the other, but never without the folder of a split: `val/images` is not `images`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_formats.folders import contents_of
from dataset_formats.notices import in_bulk
from dataset_formats.picture_names import NameIndex, is_picture_name, match_names, parts_of
from dataset_formats.splits import default_split, split_from_name
from dataset_formats.text_files import exists, is_file, read_lines
from edge.errors import DataError

_OF_CVAT = re.compile(r"obj_(.+)_data", re.IGNORECASE)  # folder of the pictures of one split


@dataclass(slots=True)
class Places:
    """Collects the pictures of a data set, and the split of each."""

    root: Path  # folder of the data set
    pictures: list[tuple[Path, str]] = field(default_factory=list)  # split: empty if the data set names none
    lists: set[Path] = field(default_factory=set)  # text files that name pictures
    left_out: list[str] = field(default_factory=list)
    noticed: list[str] = field(default_factory=list)
    _lost: list[tuple[str, Path, str]] = field(default_factory=list)  # split, list, name of a picture not found yet
    _moved: list[str] = field(default_factory=list)  # names in lists that were found elsewhere

    def resolve(self, given: str, base: str = "") -> tuple[Path | None, bool]:
        """Return the file or folder that a path means, and whether it is not where the path says."""
        given, base = given.replace("\\", "/"), base.replace("\\", "/")
        for literal in (self.root / base / given, self.root / given):
            if exists(literal):
                return literal, False
        parts = (() if given.startswith("/") else parts_of(base)) + parts_of(given)
        for dropped in range(len(parts)):
            place = self.root.joinpath(*parts[dropped:])
            if _may_drop(parts, dropped) and exists(place):
                return place, dropped > 0
        return None, False

    def add(self, where: str, split: str, given: str, base: str = "") -> None:
        """Add the pictures of a folder, of a list, or one picture, as the field `where` of a file gives it."""
        place, elsewhere = self.resolve(given, base)
        if place is None:
            self.left_out.append(f"{where}: {given[:120]} is not there; add it or correct the path")
            return
        if elsewhere:
            self.noticed.append(f"{where}: {given} is not there; {place} was read")
        if os.path.realpath(place) in {os.path.realpath(one) for one in self.root.absolute().parents}:
            self.left_out.append(f"{where}: {given[:120]} holds the folder of the data set; name a folder in it")
        elif place.is_dir():
            self.pictures += [(picture, split) for picture in pictures_below(place, self.left_out)]
        elif is_picture_name(place.name):
            self.pictures.append((place, split))
        elif is_file(place):
            self.add_list(place, split, base)
        else:
            self.left_out.append(f"{where}: {place} is neither a folder nor a file; correct the path")

    def add_list(self, file: Path, split: str, base: str = "") -> None:
        """Add the pictures that a text file names, a line for each."""
        self.lists.add(file)
        try:
            names = read_lines(file)
        except DataError as error:
            self.left_out.append(str(error))
            return
        roots = list(dict.fromkeys((file.parent, self.root / base, self.root)))
        usual = 0  # leading folders to drop, as for the name before
        for name in names:
            literal = _first_file(roots, name.replace("\\", "/"))
            if literal is not None:
                self.pictures.append((literal, split))
                continue
            parts = parts_of(name)
            for dropped in dict.fromkeys((usual, *range(len(parts)))):
                rest = "/".join(parts[dropped:])
                found = _first_file(roots, rest) if rest and _may_drop(parts, dropped) else None
                if found is not None:
                    usual = dropped
                    self.pictures.append((found, split))
                    self._moved.append(f"{name} is {found}")
                    break
            else:
                self._lost.append((split, file, name))

    def finish(self, source: Path) -> list[tuple[Path, str]]:
        """Return each picture once for each of its splits, after looking for the names that no folder has.

        Raises:
            DataError: there is no picture.
        """
        if self._lost:
            self._match_lost()
        self.noticed += in_bulk("names of pictures that are not where their list says, but found", self._moved)
        once: dict[tuple[str, str], Path] = {}
        splits: dict[str, list[str]] = {}
        repeated = []
        for picture, split in self.pictures:
            key = os.path.normpath(picture)
            if (key, split) in once:
                repeated.append(picture)
            else:
                once[key, split] = picture
                splits.setdefault(key, []).append(split)
        self.noticed += in_bulk("pictures given twice for one split; each was read once", repeated)
        leaks = [f"{key}: {' and '.join(of)}" for key, of in splits.items() if len(of) > 1]
        self.noticed += in_bulk("pictures in several splits; results on them look too good", leaks)
        if not once:
            why = f" ({'; '.join(self.left_out[:3])})" if self.left_out else ""
            raise DataError(f"{source}: no picture is where train, val or images point{why}; export it with pictures")
        return self._with_splits([(picture, split) for (_, split), picture in once.items()])

    def notice_others(self) -> None:
        """Notice the pictures of the folder that nothing names."""
        named = {os.path.normpath(picture) for picture, _ in self.pictures}
        others = [one for one in pictures_below(self.root, []) if os.path.normpath(one) not in named]
        self.noticed += in_bulk("pictures in no list, or outside images; they were not read", others)

    def _match_lost(self) -> None:
        """Match names whose folders are not here to pictures that nothing else names."""
        taken = {os.path.normpath(picture) for picture, _ in self.pictures}
        below = {os.path.relpath(one, self.root): one for one in pictures_below(self.root, [])}
        free = {name: one for name, one in below.items() if os.path.normpath(one) not in taken}
        matches = match_names([name for _, _, name in self._lost], NameIndex(free))
        for split, file, name in self._lost:
            found = matches.found.get(name)
            problem = matches.problems.get(name, "")
            if found is not None and split_of(parts_of(found)) in ("", split_of(parts_of(name)) or split):
                self.pictures.append((free[found], split))
                self._moved.append(f"{name} is {free[found]}")
            else:
                why = problem if problem[:1].isdecimal() else "is not there"
                self.left_out.append(f"{file}: {name}: {why}; add the picture or delete the line")

    def _with_splits(self, pictures: list[tuple[Path, str]]) -> list[tuple[Path, str]]:
        """Handle pictures of no split beside others: without training pictures they are these, else left out."""
        splits = {split for _, split in pictures}
        if "" not in splits or len(splits) == 1:
            return pictures
        loose = [picture for picture, split in pictures if not split]
        kept = [(picture, split) for picture, split in pictures if split]
        if "train" in splits:
            self.left_out += [
                f"{one}: is in no split, but others are; move it into train, val or test" for one in loose
            ]
            return kept
        self.noticed += in_bulk("pictures outside the folders of splits; used for training and validation", loose)
        return kept + [(picture, default_split(number)) for number, picture in enumerate(loose)]


def split_of(parts: Iterable[str]) -> str:
    """Return the split that the first folder of a split stands for, as `val` or CVAT's `obj_Validation_data`; or ""."""
    for part in parts:
        of_cvat = _OF_CVAT.fullmatch(part)
        if split := split_from_name(of_cvat[1] if of_cvat else part):
            return split
    return ""


def pictures_below(folder: Path, left_out: list[str]) -> list[Path]:
    """Return all pictures of a folder and the folders in it; a folder that is linked twice counts once.

    Args:
        folder: to search.
        left_out: gets a line for each picture or folder that cannot be read.
    """
    found: list[Path] = []
    seen: set[str] = set()
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real not in seen:
            seen.add(real)
            contents = contents_of(place)
            found += contents.pictures
            left_out += contents.left_out
            waiting += reversed(contents.folders)
    return found


def _may_drop(parts: Sequence[str], count: int) -> bool:
    return not split_of(parts[:count]) or bool(split_of(parts[count:]))


def _first_file(roots: Sequence[Path], inner: str) -> Path | None:
    return next((root / inner for root in roots if is_file(root / inner)), None)
