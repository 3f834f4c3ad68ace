"""CVAT XML 1.1: one file for many pictures, or for the frames of a video."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from dataset_formats.cvat.records import SCORE, CvatReader
from dataset_formats.decode import PICTURE_SUFFIXES
from dataset_formats.listings import add_scenes, finish, settle_splits
from dataset_formats.picture_names import PictureFinder, is_picture_name
from dataset_formats.records import Annotation, Annotations, Listing, NamedBox
from dataset_formats.text_files import is_file, write_text
from dataset_formats.xml_files import escaped, read_children, root_tag, written
from edge.errors import DataError

_FILE = "annotations.xml"
_FIRST = 20  # XML files of a folder to look at
_SCORE_OF_LABEL = (
    f"<attribute><name>{SCORE}</name><mutable>False</mutable><input_type>text</input_type>"
    "<default_value></default_value><values></values></attribute>"
)


def parse_cvat(path: Path) -> Annotations:
    """Read an XML file, before anybody looks for the pictures.

    Outlines, ellipses, masks and rotated boxes are read as the box around them; other shapes are not read. The frames
    of a video are named `frame_000000`, as CVAT names them; only those are read in which a person placed an object.

    Args:
        path: the XML, or a folder with annotations.xml.

    Raises:
        DataError: the file is not CVAT XML.
    """
    files = _files(path)
    if len(files) > 1:
        raise DataError(f"{path}: holds {len(files)} CVAT files ({files[0].name}, {files[1].name}, …); give one")
    reader = CvatReader(files[0])
    for node in read_children(files[0], "annotations"):
        reader.add(node)
    return reader.finish()


def looks_like_cvat(path: Path) -> bool:
    """Return whether a file is CVAT XML, or a folder holds one."""
    return any(root_tag(file) == "annotations" for file in _files(path))


def _files(path: Path) -> list[Path]:
    """Return the XML that a path stands for; of a folder, annotations.xml, or else every CVAT XML in it."""
    if not path.is_dir():
        return [path]
    usual = [path / _FILE, path / "annotations" / _FILE]
    if found := next((file for file in usual if is_file(file)), None):
        return [found]
    others = sorted(path.glob("*.xml"))
    if not any(root_tag(file) == "annotations" for file in others[:_FIRST]):  # VOC has one for each picture
        return usual[:1]
    return [file for file in others if root_tag(file) == "annotations"]


def read_cvat(path: Path, root: Path | None) -> Listing:
    """Read the boxes of CVAT XML.

    Splits come from the subset of each picture; without any, every fifth picture is for validation.

    Args:
        path: the XML, or its folder.
        root: folder of the pictures; None: the folder of the XML, or `images` in it.

    Raises:
        DataError: a file is not CVAT XML, or none of its pictures is found.
    """
    listing = Listing("cvat")
    found: list[tuple[str, Annotation, Path | str]] = []
    for file in _files(path):
        read = parse_cvat(file)
        pictures = _Pictures(file, root)
        listing.names += [name for name in read.names if name not in listing.names]
        listing.left_out += read.left_out
        listing.noticed += read.noticed
        found += [(f"{file}: {one.name}", one, pictures.find(one.name)) for one in read.pictures]
    add_scenes(listing, found)
    settle_splits(listing)
    return finish(listing, path, "holds no image; export it with its images")


class _Pictures:
    """The pictures that one file may name."""

    def __init__(self, file: Path, root: Path | None) -> None:
        above = file.parent.parent if file.parent.name.casefold() == "annotations" else file.parent
        base = root or above
        self._finder = PictureFinder([base, base / "images", *([] if root else [file.parent])], base)
        self._suffixes: list[str] | None = None

    def find(self, name: str) -> Path | str:
        """Return a picture, or why there is none; CVAT names the frames of a video without suffix."""
        found = self._finder.find(name)
        if isinstance(found, Path) or is_picture_name(name):
            return found
        if self._suffixes is None:
            files = (file.lower() for _, _, files in os.walk(self._finder.below) for file in files)
            here = {os.path.splitext(file)[1] for file in files}  # noqa: PTH122 no object for each file
            self._suffixes = [suffix for suffix in PICTURE_SUFFIXES if suffix in here]
        spelled = (self._finder.find(name + suffix) for suffix in self._suffixes)
        others = list(dict.fromkeys(one for one in spelled if isinstance(one, Path)))
        if len(others) > 1:
            return f"{len(others)} pictures have this name: {', '.join(str(one) for one in others)}; keep one"
        return others[0] if others else found


def write_cvat(
    pictures: Sequence[Annotation], names: Sequence[str], path: Path, answered: Collection[str] | None = None
) -> None:
    """Write CVAT for images 1.1. Reading it gives the same boxes, names, scores and sizes, to the last digit.

    CVAT drops `state` and `sha256` of a picture, and the score of a box unless its label has the attribute `score`.

    Args:
        pictures: with the names and boxes to write; boxes with a score are marked as drawn by a model. Blanks around
            the name of a class are lost.
        names: of the classes, in their order; other classes of the boxes come after them.
        path: the XML to write; its folder is made if missing.
        answered: names of the pictures whose boxes a person drew or confirmed: `state` is `human`, else `proposed`;
            None: no `state`.

    Raises:
        DataError: a name has a character that XML cannot hold, or the file cannot be written.
    """
    classes = dict.fromkeys([*names, *(box.item for one in pictures for box in one.boxes)])
    scored = any(box.score is not None for one in pictures for box in one.boxes)
    attributes = f"<attributes>{_SCORE_OF_LABEL if scored else ''}</attributes>"
    labels = [f"<label><name>{escaped(name, 'the class')}</name>{attributes}</label>" for name in classes]
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        "<annotations>",
        "  <version>1.1</version>",
        f"  <meta><task><size>{len(pictures)}</size><mode>annotation</mode><labels>",
        *(f"    {label}" for label in labels),
        "  </labels></task></meta>",
    ]
    for number, one in enumerate(pictures):
        size = one.declared_size_px
        about = f' width="{size[0]}" height="{size[1]}"' if size else ""
        about += f' sha256="{one.sha256}"' if one.sha256 else ""
        if answered is not None:
            about += f' state="{"human" if one.name in answered else "proposed"}"'
        subset = f' subset="{escaped(one.split, "the split")}"' if one.split else ""
        lines.append(f'  <image id="{number}" name="{escaped(one.name, "the picture")}"{subset}{about}>')
        lines += [_box_line(box) for box in one.boxes]
        lines.append("  </image>")
    write_text(path, "\n".join([*lines, "</annotations>", ""]))


def _box_line(box: NamedBox) -> str:
    corners = zip(("xtl", "ytl", "xbr", "ybr"), box.box_px, strict=True)
    at = " ".join(f'{side}="{written(value)}"' for side, value in corners)
    source = "manual" if box.score is None else "auto"
    score = "" if box.score is None else f'<attribute name="{SCORE}">{written(box.score)}</attribute>'
    label = escaped(box.item, "the class")
    return f'    <box label="{label}" source="{source}" occluded="0" {at} z_order="0">{score}</box>'
