"""Pascal VOC boxes: an XML file for each picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

from dataset_formats.folders import pictures_in, subfolders
from dataset_formats.records import AnnotatedPicture, Listing, NamedBox, default_split, split_from_name
from dataset_formats.text_files import is_file, read_data, read_lines, require_file
from edge.errors import DataError
from edge.types import Box

_SETS = ("train", "val", "test")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(folder: Path) -> Listing:
    """Read boxes of Pascal VOC.

    Splits come from ImageSets/Main, or from folders named train, val or test; without either, every fifth picture is
    for validation. Boxes are taken as written: the original counts pixels from 1, most tools from 0.

    Args:
        folder: holds Annotations and JPEGImages; or XML files beside the pictures, in it or in folders of splits.

    Raises:
        DataError: there is no XML, one is broken, or none has its picture.
    """
    listing = Listing("voc")
    if (folder / "Annotations").is_dir():
        pictures = require_file(folder / "JPEGImages", "the folder of the pictures of Annotations")
        of = _image_sets(folder / "ImageSets" / "Main")
        _add(folder / "Annotations", pictures, of, listing)
        if of:
            listing.left_out += [f"{s.path}: is in no list of ImageSets/Main" for s in listing.scenes if not s.split]
            listing.scenes = [scene for scene in listing.scenes if scene.split]
    else:
        for place in [folder, *subfolders(folder)]:
            _add(place, place, {}, listing, split_from_name(place.name) if place != folder else "")
    if not listing.scenes:
        raise DataError(
            listing.left_out[0]
            if listing.left_out
            else f"{folder}: holds no XML, neither in Annotations/ nor beside pictures"
        )
    if not any(scene.split for scene in listing.scenes):
        listing.scenes = [replace(one, split=default_split(number)) for number, one in enumerate(listing.scenes)]
    listing.names = sorted({box.item for scene in listing.scenes for box in scene.boxes})
    return listing


def looks_like_voc(folder: Path) -> bool:
    """Return whether a folder has annotations of Pascal VOC where read_voc looks for them."""
    if (folder / "Annotations").is_dir():
        return True
    files = (file for place in [folder, *subfolders(folder)] for file in sorted(place.glob("*.xml"))[:1])
    return any(b"annotation" in read_data(file).replace(b"\0", b"") for file in files if is_file(file))  # UTF-16: zeros


def _image_sets(folder: Path) -> dict[str, str]:
    """Return the split of each picture's stem, from train.txt, val.txt and test.txt."""
    found: dict[str, str] = {}
    for split in _SETS:
        if (folder / f"{split}.txt").is_file():
            found |= {line.split()[0]: split for line in read_lines(folder / f"{split}.txt")}
    return found


def _add(annotations: Path, pictures: Path, split_of: dict[str, str], listing: Listing, split: str = "") -> None:
    """Add every XML of one folder; its picture has the same stem, whatever the suffix and case."""
    files = sorted(annotations.glob("*.xml"))
    if not files:
        return
    by_stem = {path.stem.lower(): path for path in pictures_in(pictures)}
    for file in files:
        picture = by_stem.get(file.stem.lower())
        if picture is None:
            listing.left_out.append(f"{pictures / file.stem}.jpg: not found; {file.name} needs its picture")
            continue
        root = _parse(file)
        listing.scenes.append(
            AnnotatedPicture(picture, split_of.get(file.stem, split), _boxes(root, file), declared_size_px=_size(root))
        )
    stems = {file.stem.lower() for file in files}
    listing.left_out += [f"{path}: has no XML" for stem, path in by_stem.items() if stem not in stems]


def _parse(file: Path) -> ET.Element:
    try:
        return ET.parse(file).getroot()  # noqa: S314, expat refuses bombs; a data set is its owner's choice
    except OSError as error:
        raise DataError(f"{file}: cannot read: {error.strerror}") from error
    except (ET.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file}: not XML in its declared encoding: {error}") from error


def _boxes(root: ET.Element, file: Path) -> tuple[NamedBox, ...]:
    try:
        return tuple(NamedBox(_box(node), _name(node, file)) for node in root.iter("object"))
    except ValueError as error:
        raise DataError(f"{file}: a box side is not a number: {error}") from error


def _size(root: ET.Element) -> tuple[int, int] | None:
    width, height = (root.findtext(f"size/{side}") or "" for side in ("width", "height"))
    try:
        size = int(width), int(height)
    except ValueError:
        return None
    return size if min(size) > 0 else None


def _box(node: ET.Element) -> Box:
    x0, y0, x1, y1 = (float(node.findtext(f"bndbox/{side}") or "nan") for side in _SIDES)
    return x0, y0, x1, y1


def _name(node: ET.Element, file: Path) -> str:
    name = (node.findtext("name") or "").strip()
    if not name:
        raise DataError(f"{file}: an object has no name")
    return name
