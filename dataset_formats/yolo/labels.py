"""Which text file describes a picture of a YOLO data set: the one of its name, in `labels` or beside it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_formats.picture_names import name_key

_IMAGES = ("images", "jpegimages")
_LABELS = ("labels", "Labels", "LABELS")
_OTHER_TEXTS = ("classes.txt", "readme", "._")  # how text files begin that describe no picture


@dataclass(slots=True)
class Labels:
    """The text files of pictures."""

    file_of: dict[Path, Path] = field(default_factory=dict)  # by picture; each file belongs to one picture
    contested: dict[Path, list[Path]] = field(default_factory=dict)  # text file: the pictures that it may belong to
    unused: list[str] = field(default_factory=list)  # text files that belong to no picture


class _Folder:
    """The text files of one folder, by their name without the suffix. Paths are text, as there may be many."""

    def __init__(self, path: str, ignored: Collection[str]) -> None:
        self.path = path
        self.files: dict[str, str] = {}
        if os.path.isdir(path):  # noqa: PTH112 see above
            with os.scandir(path) as entries:
                names = sorted(one.name for one in entries if one.name.lower().endswith(".txt") and one.is_file())
            files = ((name, os.path.join(path, name)) for name in names)  # noqa: PTH118
            # a.txt sorts behind a.TXT, so it is the one
            self.files = {name[:-4]: file for name, file in files if os.path.normpath(file) not in ignored}

    def in_other_spelling(self, used: Collection[str]) -> dict[str, list[str]]:
        """Return the files that no picture has, by the key of their names."""
        found = defaultdict(list)
        for stem, file in self.files.items():
            if file not in used:
                found[name_key(stem)].append(file)
        return found


def match_labels(pictures: Sequence[Path], root: Path, no_labels: Collection[Path]) -> Labels:
    """Find the text file of each picture: `a.jpg.txt` or `a.txt`, then one in another letter case or Unicode form.

    Args:
        pictures: may name one file twice.
        root: folder of the data set.
        no_labels: text files that describe no picture, as lists of pictures.
    """
    ignored = {os.path.normpath(one) for one in no_labels}
    folders: dict[str, _Folder] = {}
    places: dict[str, list[_Folder]] = {}
    claims: dict[str, dict[str, list[Path]]] = defaultdict(dict)  # text file: its pictures, by their normal path
    without = []
    for picture in pictures:
        parent, name = os.path.split(picture)
        if parent not in places:
            names = dict.fromkeys(str(one) for one in _places(Path(parent), root))
            folders |= {one: _Folder(one, ignored) for one in names if one not in folders}
            places[parent] = [folders[one] for one in names if folders[one].files]
        stem = os.path.splitext(name)[0]  # noqa: PTH122 see above
        file = next((f for folder in places[parent] if (f := folder.files.get(name) or folder.files.get(stem))), None)
        if file is None:
            without.append((picture, parent, stem))
        else:
            claims[file].setdefault(os.path.normpath(picture), []).append(picture)
    others = {one: folder.in_other_spelling(claims.keys()) for one, folder in folders.items()} if without else {}
    for picture, parent, stem in without:
        lists = (others[folder.path].get(name_key(stem), []) for folder in places[parent])
        files = next((files for files in lists if len(files) == 1), [])
        for file in files:
            claims[file].setdefault(os.path.normpath(picture), []).append(picture)
    labels = Labels()
    for file, claimants in claims.items():
        same = [picture for pictures in claimants.values() for picture in pictures]
        if len(claimants) == 1:
            labels.file_of |= dict.fromkeys(same, Path(file))
        else:
            labels.contested[Path(file)] = same
    used = claims.keys() | ignored
    labels.unused = sorted(file for file in _text_files(folders) if file not in used)
    return labels


def _places(parent: Path, root: Path) -> Iterator[Path]:
    """Yield the folders that may hold the text files of a folder's pictures, the likeliest first."""
    parts = parent.parts
    last = next((i for i in range(len(parts) - 1, -1, -1) if parts[i].lower() in _IMAGES), None)
    if last is not None:
        for name in _LABELS:
            yield Path(*parts[:last], name, *parts[last + 1 :])
    yield parent
    yield parent / "labels"
    if parent.is_relative_to(root):
        yield root / "labels" / parent.relative_to(root)


def _text_files(folders: Mapping[str, _Folder]) -> Iterator[str]:
    """Yield all text files that may describe a picture, in the given folders and in all folders below `labels`."""
    tops = set()
    for place, folder in folders.items():
        parts = Path(place).parts
        last = max((i for i, part in enumerate(parts) if part.lower() == "labels"), default=None)
        if last is None:
            yield from (file for file in folder.files.values() if _describes(os.path.basename(file)))  # noqa: PTH119
        else:
            tops.add(str(Path(*parts[: last + 1])))
    for top in tops:
        for inner, _, names in os.walk(top):
            texts = (name for name in names if name.lower().endswith(".txt") and _describes(name))
            yield from (os.path.join(inner, name) for name in texts)  # noqa: PTH118


def _describes(name: str) -> bool:
    return not name.lower().startswith(_OTHER_TEXTS)
