"""Pascal VOC boxes: an XML file for each picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path, PurePosixPath

from dataset_formats.listings import class_names, drop_repeated_boxes, finish, settle_splits
from dataset_formats.notices import printable
from dataset_formats.picture_names import NameIndex, is_picture_name, parts_of
from dataset_formats.records import AnnotatedPicture, Annotation, Annotations, Listing
from dataset_formats.text_files import write_text
from dataset_formats.voc.places import Place, find_places, split_of_folders, splits_of, xml_below
from dataset_formats.voc.records import VocReader
from dataset_formats.xml_files import escaped, root_tag, written
from edge.errors import DataError

_FIRST = 100  # XML files of a folder to look at


def parse_voc(path: Path) -> Annotations:
    """Read an XML file, or all in and below a folder, before anybody looks for the pictures.

    A picture's name is the XML's `filename`, or else the XML's own. Boxes are taken as written.

    Raises:
        DataError: the file is not VOC, or none of the folder is.
    """
    files = xml_below(path) if path.is_dir() else {path.stem: path}
    if not files:
        raise DataError(f"{path}: holds no XML; give VOC annotations")
    reader = VocReader()
    named: dict[str, list[tuple[str, Annotation]]] = defaultdict(list)
    for inner, file in files.items():
        one = reader.read(file, inner)
        if one is not None:
            named[one.name].append((inner, one))
    if len(reader.refused) == len(files):
        raise DataError(reader.refused[0])
    found = Annotations(left_out=reader.notices.left_out, noticed=reader.notices.noticed())
    for name, claims in named.items():
        kept, lost = _of_one_name(name, claims)
        found.pictures += kept
        found.left_out += [printable(f"{files[one]}: another XML names {name}, too; keep one") for one in lost]
    found.pictures, repeated = drop_repeated_boxes(found.pictures)
    found.noticed += repeated
    found.names = class_names(found.pictures)
    return found


def _of_one_name(name: str, claims: list[tuple[str, Annotation]]) -> tuple[list[Annotation], list[str]]:
    """Return what to keep of XML files that name the same picture, and which are left out."""
    if len(claims) == 1:
        return [claims[0][1]], []
    own = [inner for inner, _ in claims if PurePosixPath(inner).name == _stem(name)]
    folders = [str(PurePosixPath(inner).parent) for inner, _ in claims]
    if len(own) != 1 and len(set(folders)) == len(claims):
        return [replace(one, name=f"{folder}/{name}") for folder, (_, one) in zip(folders, claims, strict=True)], []
    keeps = own if len(own) == 1 else []
    return [one for inner, one in claims if inner in keeps], [inner for inner, _ in claims if inner not in keeps]


def read_voc(folder: Path) -> Listing:
    """Read boxes of Pascal VOC.

    Splits come from ImageSets/Main, or from folders named train, val or test; without either, every fifth picture is
    for validation. Boxes are taken as written: the original counts pixels from 1, most tools from 0. A picture has the
    name of its XML, whatever the suffix; `filename` decides between several, and finds it where there is none.

    Args:
        folder: holds Annotations and JPEGImages, or folders that do; or XML files beside the pictures.

    Raises:
        DataError: there is no XML, or none has its picture.
    """
    listing = Listing("voc")
    reader = VocReader()
    claims: dict[Path, list[_Claim]] = defaultdict(list)
    finders = []
    for place in find_places(folder):
        finders.append(_Finder(place))
        _read_place(folder, finders[-1], reader, listing, claims)
    for path, given in claims.items():
        best = [one for one in given if one.rank == min(other.rank for other in given)]
        keeps = best if len(best) == 1 else []
        listing.scenes += [one.picture for one in keeps]
        others = [one for one in given if one not in keeps]
        reader.notices.left_out += [f"{c.file}: another XML describes {path}, too; keep one" for c in others]
    touched = {path for finder in finders for path in finder.touched}
    pictures = dict.fromkeys(path for finder in finders for paths in finder.by_stem.values() for path in paths)
    listing.left_out += [*reader.notices.left_out, *(f"{path}: has no XML" for path in pictures if path not in touched)]
    listing.noticed += reader.notices.noticed()
    listing.names = class_names(listing.scenes)
    settle_splits(listing)
    return finish(listing, folder, "holds no XML, in Annotations/ or beside pictures")


def looks_like_voc(folder: Path) -> bool:
    """Return whether a folder has annotations of Pascal VOC where read_voc looks for them."""
    if (folder / "Annotations").is_dir() and (folder / "JPEGImages").is_dir():
        return True
    for place in find_places(folder):
        if any(root_tag(file) == "annotation" for file in list(place.xml.values())[:_FIRST]):
            return True
    return False


@dataclass(frozen=True, slots=True)
class _Claim:
    """An XML that describes a picture."""

    file: Path
    rank: int  # how its picture was found: 0 by the same name, 1 in other letter case, 2 by `filename`
    picture: AnnotatedPicture


def _read_place(
    folder: Path, finder: _Finder, reader: VocReader, listing: Listing, claims: dict[Path, list[_Claim]]
) -> None:
    place = finder.place
    splits = splits_of(place.base, place.xml)
    if splits is not None:
        listing.left_out += splits.left_out
        listing.noticed += splits.noticed
    above = place.base.relative_to(folder).parts
    for inner, file in place.xml.items():
        one = None if splits is not None and inner not in splits.of else reader.read(file, inner)
        found, rank = finder.find(inner, one.name if one else "")
        if one is None:
            continue
        if isinstance(found, str):
            reader.notices.left_out.append(found)
            continue
        if rank == 2:
            reader.notices.notice("pictures found by `filename`, not by the name of the XML", file.name)
        elif parts_of(one.name)[-1:] != (found.name,) and finder.has(one.name):
            reader.notices.notice("XML whose `filename` is another picture; that of its own name was taken", file.name)
        if splits is None:
            split = split_of_folders((*above, *inner.split("/")[:-1]), finder.folders_of(found))
        else:
            split = splits.of[inner]
        picture = AnnotatedPicture(found, split, one.boxes, declared_size_px=one.declared_size_px)
        claims[found].append(_Claim(file, rank, picture))


class _Finder:
    """Finds the pictures of the XML files of one place."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.by_stem = place.pictures()
        self.touched: set[Path] = set()  # pictures that an XML names
        self._stems = NameIndex(self.by_stem)
        self._by_file = {f"{stem}{path.suffix}": path for stem, paths in self.by_stem.items() for path in paths}
        self._files = NameIndex(self._by_file)
        self._names = {path.name for path in self._by_file.values()}
        self._inner = {path: stem for stem, paths in self.by_stem.items() for path in paths}

    def find(self, inner: str, filename: str) -> tuple[Path | str, int]:
        """Return the picture of an XML, or why there is none; and how it was found, see _Claim."""
        found = [path for stem in self._stems.match(inner) for path in self.by_stem[stem]]
        by_name = bool(found)
        if len(found) > 1:
            found = [path for path in found if path.name == filename] or self._of_files(filename, found) or found
        if not by_name:
            found = self._of_files(inner) or self._of_files(filename)
        self.touched.update(found)
        if len(found) == 1:
            return found[0], 2 if not by_name else int(found[0].stem != inner.rpartition("/")[2])
        needed = self.place.folders[0] / inner
        if not found:
            return f"{needed}.jpg: not found; {needed.name}.xml needs its picture", 0
        names = ", ".join(str(path) for path in found[:3])
        return f"{needed.name}.xml: {len(found)} pictures have its name ({names}); keep one, or state its filename", 0

    def _of_files(self, name: str, among: Sequence[Path] = ()) -> list[Path]:
        found = [self._by_file[one] for one in self._files.match(name)] if name else []
        return [path for path in found if not among or path in among]

    def has(self, name: str) -> bool:
        """Return whether a name is that of a picture here."""
        return parts_of(name)[-1:] != () and parts_of(name)[-1] in self._names

    def folders_of(self, picture: Path) -> tuple[str, ...]:
        """Return the folders between the picture folder and a picture."""
        return tuple(self._inner[picture].split("/")[:-1])


def write_voc(pictures: Sequence[Annotation], folder: Path) -> None:
    """Write an XML for each picture. Reading them gives the same boxes, names and sizes, to the last digit.

    The XML of `can/a.jpg` is `can/a.xml`; beside it, that of `can/a.png` is `can/a.png.xml`.

    Args:
        pictures: with the names and boxes to write; blanks around a name are lost.
        folder: made if missing.

    Raises:
        DataError: a name has a character that XML cannot hold (nothing is written), or a file cannot be written.
    """
    texts: dict[str, str] = {}
    taken: set[str] = set()
    for one in pictures:
        inner = "/".join(parts_of(one.name)) or "picture"
        tries = chain((_stem(inner), inner), (f"{inner}-{number}" for number in count(2)))
        chosen = next(name for name in tries if name.casefold() not in taken)
        taken.add(chosen.casefold())
        texts[chosen] = _xml(one)
    for inner, text in texts.items():
        write_text(folder / f"{inner}.xml", text)


def _stem(name: str) -> str:
    """Return a path without the suffix of a picture."""
    last = parts_of(name)[-1] if parts_of(name) else ""
    return name[: name.rindex(".")] if is_picture_name(last) else name


def _xml(one: Annotation) -> str:
    lines = ["<annotation>", f"  <filename>{escaped(one.name, 'the picture')}</filename>"]
    if one.declared_size_px:
        width, height = one.declared_size_px
        lines.append(f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>")
    if one.sha256:
        lines.append(f"  <sha256>{one.sha256}</sha256>")
    for box in one.boxes:
        sides = "".join(
            f"<{side}>{written(value)}</{side}>"
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), box.box_px, strict=True)
        )
        score = "" if box.score is None else f"<confidence>{written(box.score)}</confidence>"
        lines += [
            "  <object>",
            f"    <name>{escaped(box.item, 'the class')}</name>{score}",
            f"    <truncated>0</truncated><difficult>0</difficult><bndbox>{sides}</bndbox>",
            "  </object>",
        ]
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', *lines, "</annotation>", ""])
