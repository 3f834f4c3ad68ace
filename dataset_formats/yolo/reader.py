"""YOLO: a text file for each picture, with boxes as fractions of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dataset_formats.decode import upright_size
from dataset_formats.folders import innermost_folder
from dataset_formats.listings import finish, settle_splits
from dataset_formats.notices import Notices, in_bulk, lost_all, printable
from dataset_formats.picture_names import parts_of
from dataset_formats.records import AnnotatedPicture, Annotation, Listing, NamedBox
from dataset_formats.splits import default_split
from dataset_formats.text_files import read_text, write_text, yaml_text
from dataset_formats.yolo.labels import match_labels
from dataset_formats.yolo.lines import KINDS, Forms, Line, parse_lines
from dataset_formats.yolo.sets import Description, describe, descriptions_in, merged_names, name_files
from edge.errors import CaptureError, DataError


def read_yolo(path: Path) -> Listing:
    """Read YOLO boxes: a line `class x y width height` for each object, centre and size as fractions of the picture.

    Outlines, four corners and keypoints are read as upright boxes, and counted. A picture without a text file shows no
    object. A picture whose lines were all left out is left out itself.

    Args:
        path: data.yaml (names, train, val, test, optionally path), Darknet's and CVAT's obj.data, or a folder with
            either; or a folder with classes.txt or obj.names and the pictures, in it or in `images`, with text files
            beside them or in `labels`.

    Raises:
        DataError: there are no class names, no pictures, no text files, or no picture that can be read.
    """
    listing = Listing("yolo")
    try:
        description = describe(path)
        _read(description, listing)
    except OSError as error:
        raise DataError(printable(f"{path}: cannot read: {error}")) from error
    except DataError as error:
        raise DataError(printable(error)) from error
    places = description.places
    listing.left_out = [*places.left_out, *listing.left_out]
    listing.noticed = [*places.noticed, *listing.noticed]
    return finish(listing, path, "lists no picture; add some")


def looks_like_yolo(folder: Path) -> bool:
    """Return whether a folder has a data.yaml or an obj.data, or names of classes, or a folder of labels."""
    folder = innermost_folder(folder)
    return (folder / "labels").is_dir() or bool(descriptions_in(folder) or name_files(folder))


def _read(description: Description, listing: Listing) -> None:
    places = description.places
    pictures = places.finish(description.source)
    if description.owns_folder:
        places.notice_others()
    listing.names, repeated = merged_names(description.names)
    listing.noticed += [f"{description.source}: {text}" for text in repeated]
    no_labels = {*places.lists, *name_files(places.root)}
    labels = match_labels([picture for picture, _ in pictures], places.root, no_labels)
    if not labels.file_of and not labels.contested:
        raise DataError(
            f"{description.source}: none of the {len(pictures)} pictures has a text file, as {pictures[0][0]}; put "
            "labels/a.txt beside images/a.jpg, or a.txt beside a.jpg"
        )
    boxes = _all_boxes(labels.file_of, description, listing)
    for file, several in labels.contested.items():
        listing.left_out += [f"{one}: {file} may belong to {len(several)} pictures; rename them" for one in several]
    described = {*labels.file_of, *(one for several in labels.contested.values() for one in several)}
    plain = dict.fromkeys(picture for picture, _ in pictures if picture not in described)
    listing.noticed += in_bulk("pictures without a text file, which show no object by YOLO's convention", plain)
    listing.noticed += in_bulk("text files that belong to no picture that was read", labels.unused)
    listing.scenes = [
        AnnotatedPicture(picture, split, boxes.get(picture, ()))
        for picture, split in pictures
        if picture in boxes or picture in plain
    ]
    settle_splits(listing)


def _all_boxes(
    file_of: dict[Path, Path], description: Description, listing: Listing
) -> dict[Path, tuple[NamedBox, ...]]:
    """Return the boxes of the pictures that have a text file, without pictures that lost all of their lines."""
    forms = Forms(description.keypoint_numbers)
    notices = Notices()
    lines_of: dict[Path, list[Line]] = {}
    used: set[int] = set()
    for picture, file in file_of.items():
        try:
            lines, problems, ids = parse_lines(read_text(file), description.names)
        except DataError as error:
            notices.left_out.append(f"{error}; its picture {picture.name} was left out")
            continue
        notices.left_out += [f"{file}: {problem}" for problem in problems]
        if problems and not lines:
            notices.leave_out(f"{picture}", lost_all(f"lines in {file.name}"))
            continue
        lines_of[picture] = lines
        forms.add(lines)
        used |= ids
    if 0 in description.names and 0 not in used and max(description.names) + 1 in used:
        listing.noticed.append(
            f"{description.source}: class 0 is never used, and class {max(description.names) + 1} has no name: if the "
            "ids count from 1, all names are wrong by one"
        )
    found = {
        picture: _boxes(picture, file_of[picture], lines, forms, description.names, notices)
        for picture, lines in lines_of.items()
    }
    listing.left_out += notices.left_out
    listing.noticed += notices.noticed()
    return {picture: boxes for picture, boxes in found.items() if boxes is not None}


def _boxes(
    picture: Path,
    file: Path,
    lines: Sequence[Line],
    forms: Forms,
    names: dict[int, str],
    notices: Notices,
) -> tuple[NamedBox, ...] | None:
    """Return the boxes of one picture; None if its size is unknown or no line is left."""
    if not lines:
        return ()
    try:
        width, height = upright_size(picture)
    except CaptureError as error:
        notices.left_out.append(str(error))
        return None
    boxes = []
    for line in lines:
        where = f"{file}: line {line.number}"
        try:
            found = forms.read(line)
        except ValueError as error:
            notices.leave_out(where, str(error))
            continue
        for kind in found.kinds:
            notices.notice(KINDS[kind], where)
        x0, y0, x1, y1 = found.box
        box = (x0 * width, y0 * height, x1 * width, y1 * height)
        boxes.append(NamedBox(box, names[line.class_id], score=found.score))
    if not boxes:
        notices.leave_out(f"{picture}", lost_all(f"lines in {file.name}"))
        return None
    return tuple(boxes)


def write_yolo(pictures: Sequence[Annotation], names: Sequence[str], folder: Path) -> None:
    """Write `labels/`, the lists `train.txt` and so on, and a data.yaml; the pictures belong into `images/`.

    Fractions have eight decimals: a box that is read again differs by at most 1e-8 of the picture's width and height.
    A picture without a split gets one as readers give it. Scores are not written: training tools refuse such lines.

    Args:
        pictures: with declared_size_px; names may have folders.
        names: class names; their order gives the class ids.
        folder: made if it is not there.

    Raises:
        DataError: a picture has no size, two pictures would have one text file, a box has another name, or a file
            cannot be written.
    """
    ids = {name: number for number, name in reversed(list(enumerate(names)))}
    texts: dict[Path, str] = {}
    lists: dict[str, list[str]] = {}
    for number, one in enumerate(pictures):
        inner = Path(*parts_of(one.name))
        file = folder / "labels" / inner.parent / f"{inner.stem}.txt"
        if not inner.name or one.declared_size_px is None or min(one.declared_size_px) <= 0:
            raise DataError(f"{printable(one.name)!r}: has no name or no size; YOLO's boxes are fractions of the size")
        if file in texts:
            raise DataError(f"{printable(file)}: is the text file of several pictures; rename one")
        unknown = [box.item for box in one.boxes if box.item not in ids]
        if unknown:
            raise DataError(f"{printable(one.name)}: {unknown[0]} is not a class; names are {', '.join(names[:5])}")
        texts[file] = "".join(_line(box, ids[box.item], one.declared_size_px) for box in one.boxes)
        lists.setdefault(one.split or default_split(number), []).append(f"./images/{inner.as_posix()}\n")
    table = {split: f"{split}.txt" for split in lists} | {"names": dict(enumerate(names))}
    texts |= {folder / f"{split}.txt": "".join(lines) for split, lines in lists.items()}
    texts[folder / "data.yaml"] = yaml_text({"path": "."} | table)
    for file, text in texts.items():
        write_text(file, text)


def _line(box: NamedBox, class_id: int, size_px: tuple[int, int]) -> str:
    (x0, y0, x1, y1), (width, height) = box.box_px, size_px
    values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
    return f"{class_id} {' '.join(f'{value:.8f}' for value in values)}\n"
