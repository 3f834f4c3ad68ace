"""Which picture a name means: names that other tools wrote, matched to the pictures that are here.

A name matches the picture of the same path. Failing that, it matches the picture with the same file name that shares
the most folders at its end, if there is only one: tools write paths of other machines, with other separators, letter
case or Unicode form. A position or a part of a name never matches.
"""

from __future__ import annotations

import os
import unicodedata
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dataset_formats.decode import PICTURE_SUFFIXES
from dataset_formats.text_files import is_file


@dataclass(frozen=True, slots=True)
class Matches:
    """The pictures that names stand for."""

    found: dict[str, str]  # by name
    problems: dict[str, str]  # why each other name matches nothing, by name


def parts_of(name: str) -> tuple[str, ...]:
    """Return the folders and file name of a path that any system wrote: no drive, `.`, `..` or empty parts."""
    parts = [part for part in name.strip().replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return tuple(parts[1:] if parts and parts[0].endswith(":") else parts)


def is_picture_name(name: str) -> bool:
    """Return whether a name ends like that of a picture that can be read here."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def name_key(name: str) -> str:
    """Return a name in one Unicode form (macOS decomposes accents) and one letter case."""
    return unicodedata.normalize("NFC", name).casefold()


def _key(name: str) -> tuple[str, ...]:
    """Return the parts of a path from the file name up, each as its key."""
    return tuple(map(name_key, reversed(parts_of(name))))


class Index(Protocol):
    """Finds known pictures by name."""

    def match(self, name: str) -> list[str]:
        """Return the known pictures that a name may mean, the best ones only; one is a match."""


class NameIndex:
    """Known pictures by name; a look-up takes the same time however many pictures have the same file name."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = dict.fromkeys(known)
        keys = ((_key(name), name) for name in self._known)
        self._sorted = sorted(key for key in keys if key[0])
        self._matched: dict[tuple[tuple[str, ...], str], list[str]] = {}

    def match(self, name: str) -> list[str]:
        """Return the known pictures that a name may mean, the best ones only; one is a match."""
        if name in self._known:
            return [name]
        wanted = _key(name)
        at = bisect_left(self._sorted, (wanted, ""))
        shared = max((_common_head(wanted, key) for key, _ in self._sorted[max(0, at - 1) : at + 1]), default=0)
        if not shared:
            return []
        head, file = wanted[:shared], parts_of(name)[-1]
        if (head, file) not in self._matched:
            self._matched[head, file] = self._with_head(head, file)
        return self._matched[head, file]

    def _with_head(self, head: tuple[str, ...], file: str) -> list[str]:
        def head_of(key: tuple[tuple[str, ...], str]) -> tuple[str, ...]:
            return key[0][: len(head)]

        first = bisect_left(self._sorted, head, key=head_of)
        best = [name for _, name in self._sorted[first : bisect_right(self._sorted, head, first, key=head_of)]]
        exact = [one for one in best if parts_of(one)[-1] == file]  # a.jpg beside A.JPG
        return exact if len(exact) == 1 else best


def match_names(names: Iterable[str], index: Index) -> Matches:
    """Match names to known pictures, each picture to one name at most.

    If several names of different paths mean one picture, the one with its exact path keeps it, or else none does.
    """
    taken: dict[str, list[str]] = defaultdict(list)
    problems: dict[str, str] = {}
    for name in dict.fromkeys(names):
        candidates = index.match(name)
        if len(candidates) == 1:
            taken[candidates[0]].append(name)
        else:
            several = f"{len(candidates)} pictures have this name: {', '.join(candidates[:3])}; keep the folder in it"
            problems[name] = several if candidates else "no picture has this name"
    found: dict[str, str] = {}
    for picture, claims in taken.items():
        exact = [name for name in claims if parts_of(name) == parts_of(picture)]
        keeps = exact if len(exact) == 1 else claims if len(claims) == 1 else []
        found |= dict.fromkeys(keeps, picture)
        why = f"{len(claims)} names mean {picture} ({', '.join(claims[:3])}); keep one"
        problems |= {name: why for name in claims if name not in keeps}
    return Matches(found, problems)


def _common_head(first: Sequence[str], second: Sequence[str]) -> int:
    pairs = zip(first, second, strict=False)
    return next((number for number, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


@dataclass(slots=True)
class PictureFinder:
    """Finds the files of the pictures that an annotation file names."""

    places: Sequence[Path]  # folders that the names may be relative to, the likeliest first
    below: Path  # folder to search whole for a name that is in none of the places
    _index: NameIndex | None = field(default=None, init=False)

    def find(self, name: str) -> Path | str:
        """Return the file of a picture, or why there is none."""
        inner = Path(*parts_of(name)) if parts_of(name) else None
        if inner is None:
            return "the name is empty"
        for place in self.places:
            if is_file(place / inner):
                return place / inner
        if Path(name).is_absolute() and is_file(Path(name)):
            return Path(name)
        if self._index is None:
            self._index = NameIndex(_pictures_below(self.below))
        candidates = self._index.match(name)
        if len(candidates) == 1:
            return self.below / candidates[0]
        if candidates:
            return f"{len(candidates)} pictures below {self.below} have this name: {', '.join(candidates[:3])}"
        return f"not found in {self.places[0] if self.places else self.below}, nor by its name below {self.below}"


def _pictures_below(folder: Path) -> list[str]:
    """Return the paths of all pictures below a folder, relative to it."""
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(one for one in folders if one[0] != "." and one != "__MACOSX")
        inner = os.path.relpath(place, folder)
        found += [
            os.path.normpath(os.path.join(inner, name))  # noqa: PTH118 no object for each file
            for name in sorted(files)
            if is_picture_name(name) and name[:2] != "._"
        ]
    return found
