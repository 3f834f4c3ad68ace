"""Import of boxes that people drew in other tools: COCO, Pascal VOC, CVAT and Label Studio."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataset_formats.coco.reader import parse_coco
from dataset_formats.cvat.reader import looks_like_cvat, parse_cvat
from dataset_formats.exported_names import ExportedNames
from dataset_formats.label_studio.reader import SizeOf, parse_label_studio
from dataset_formats.label_studio.tasks import is_label_studio
from dataset_formats.notices import in_bulk, printable
from dataset_formats.picture_names import match_names
from dataset_formats.records import Annotation, Annotations
from dataset_formats.text_files import read_data, read_json
from dataset_formats.voc.reader import parse_voc
from edge.errors import DataError
from trainer.labelling.label_file import LabelledPicture, clip_to_picture
from trainer.labelling.label_store import Edit, LabelStore
from trainer.labelling.proposals import Proposal

log = logging.getLogger(__name__)

KNOWN = "COCO, Pascal VOC, CVAT for images 1.1, or Label Studio JSON or JSON-MIN"
_SAME_SHAPE = 0.01  # share by which the ratio of width to height of a resized picture may differ
_SLACK_PX = 1.5  # by which boxes of tools reach outside a picture


@dataclass(slots=True)
class Imported:
    """What an import did."""

    left_out: list[str]  # which record, and why
    noticed: list[str]
    edits: list[Edit] = field(default_factory=list)
    boxes: int = 0  # confirmed
    resized: list[str] = field(default_factory=list)  # pictures that were annotated in another size
    cut: list[str] = field(default_factory=list)  # pictures with boxes that reached outside

    def boxes_in(self, picture: LabelledPicture, one: Annotation) -> list[Proposal] | None:
        """Return what a person drew in a picture, in its pixels; None, and it is named, if nothing can be used."""
        scale = _scale(one.declared_size_px, picture)
        here = f"{picture.width} x {picture.height}"
        if scale is None:
            there = "{} x {}".format(*one.declared_size_px or ())
            self.left_out.append(
                f"{one.name}: was annotated as {there}, and {picture.name} is {here}; annotate that one"
            )
            return None
        kept = []
        for box in one.boxes:
            x0, y0, x1, y1 = box.box_px
            scaled = (x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1])
            drawn = Proposal(scaled, 1.0, "human", {}, box.item)
            if clip_to_picture(drawn, picture) is not None:
                kept.append(drawn)
                continue
            sides = ", ".join(f"{side:.6g}" for side in scaled)
            told = f"box {sides} of {box.item!r:.40} lies outside the {here} picture or has no area; draw it again"
            self.left_out.append(f"{one.name}: {told}")
        if one.boxes and not kept:
            self.left_out.append(f"{one.name}: none of its {len(one.boxes)} boxes can be used, so that it is no answer")
            return None
        self.resized += [one.name] * (scale != (1.0, 1.0))
        self.cut += [one.name] * any(_reaches_outside(box, picture) for box in kept)
        return kept

    def report(self) -> dict[str, object]:
        """Return counts, and what the edits changed: mean overlap is that of the boxes that stayed or moved."""
        overlaps = [overlap for edit in self.edits for overlap in edit.overlaps]
        return {
            "pictures": len(self.edits),
            "boxes": self.boxes,
            "left_out": len(self.left_out),
            "noticed": len(self.noticed),
            "proposed": len(overlaps) + sum(edit.removed for edit in self.edits),
            "untouched": sum(edit.untouched for edit in self.edits),
            "added": sum(edit.added for edit in self.edits),
            "removed": sum(edit.removed for edit in self.edits),
            "mean_overlap": round(float(np.mean(overlaps)), 4) if overlaps else None,
        }


def read_annotations(source: Path, size_of: SizeOf = lambda _: None) -> Annotations:
    """Read the boxes of each picture; the format is detected from the contents.

    Args:
        source: a JSON or XML file; a folder of VOC files, or one that holds a single JSON or XML file.
        size_of: width and height of the picture that a name means, for files that do not state it.

    Raises:
        DataError: the file is missing, broken or of another format.
    """
    source = _annotations_in(source) if source.is_dir() else source
    if source.is_dir():
        return parse_voc(source)
    if _is_xml(source):
        return parse_cvat(source) if looks_like_cvat(source) else parse_voc(source)
    if read_data(source)[:2] == b"PK":
        raise DataError(f"{source}: is a ZIP archive; unpack it first")
    try:
        tree = read_json(source)
    except DataError as error:
        raise DataError(f"{error}; export {KNOWN} (not CSV, TSV, YOLO or CoNLL)") from error
    if isinstance(tree, dict) and "images" in tree:
        return parse_coco(source)
    if is_label_studio(tree):
        return parse_label_studio(source, size_of)
    raise DataError(f"{source}: is JSON of an unknown structure; export {KNOWN}")


def _annotations_in(folder: Path) -> Path:
    """Return the file of a folder to read, or the folder itself if it may hold Pascal VOC.

    Raises:
        DataError: it holds several files, or none.
    """
    files = sorted([*folder.glob("*.json"), *folder.glob("annotations/*.json"), *folder.glob("*.xml")])
    if len(files) == 1 and (not _is_xml(files[0]) or looks_like_cvat(files[0])):
        return files[0]
    if any(file.suffix == ".json" for file in files):
        raise DataError(f"{folder}: holds several annotation files ({files[0].name}, {files[1].name}); give one")
    if not files and not any(folder.rglob("*.[xX][mM][lL]")):
        raise DataError(f"{folder}: holds no JSON or XML; export {KNOWN} (not CSV, TSV, YOLO or CoNLL)")
    return folder


def import_edited(store: LabelStore, source: Path) -> Imported:
    """Import edited boxes, and confirm the pictures of the file that somebody answered for.

    A record that cannot be used is left out and named in the log; the others are imported.

    Raises:
        DataError: the file cannot be read, or confirms no picture.
        TrainError: an edit cannot be written. Pictures confirmed before the error stay confirmed.
    """
    names = ExportedNames(store.pictures)

    def size_of(name: str) -> tuple[int, int] | None:
        found = [store.pictures[one] for one in names.match(name)]
        return (found[0].width, found[0].height) if len(found) == 1 else None

    read = read_annotations(source, size_of)
    done = Imported(read.left_out, read.noticed)
    matches = match_names((one.name for one in read.pictures), names)
    done.left_out += [f"{name}: {problem}" for name, problem in matches.problems.items()]
    times = Counter(one.name for one in read.pictures)
    done.left_out += [f"{name}: {n} records name it; keep one" for name, n in times.items() if n > 1]
    for one in read.pictures:
        if one.name in matches.found and times[one.name] == 1:
            picture = store.pictures[matches.found[one.name]]
            boxes = done.boxes_in(picture, one)
            if boxes is not None:
                done.edits.append(store.confirm(picture.name, boxes))
                done.boxes += len(boxes)
    done.noticed += in_bulk("pictures whose boxes were scaled, as they were annotated in another size", done.resized)
    done.noticed += in_bulk("pictures whose boxes were cut at their edge", done.cut)
    told = [printable(line).removeprefix(f"{source}: ") for line in (*done.left_out, *done.noticed)]
    for line in told:
        log.warning("%s: %s", source, line)
    if not done.edits:
        first = f"{len(done.left_out)} records were left out; the first: {told[0]}" if done.left_out else "it has none"
        raise DataError(f"{source}: confirms no picture: {first}")
    return done


def _is_xml(source: Path) -> bool:
    head = read_data(source)[:200].replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")  # marks of any encoding
    return head.startswith(b"<")


def _scale(size_px: tuple[int, int] | None, picture: LabelledPicture) -> tuple[float, float] | None:
    """Return the factors from the annotated size to that of the picture; None if the two have different shapes."""
    if size_px is None or min(size_px) < 1 or size_px == (picture.width, picture.height):
        return 1.0, 1.0
    across, down = picture.width / size_px[0], picture.height / size_px[1]
    rounding = 1 / min(*size_px, picture.width, picture.height)
    return (across, down) if abs(across / down - 1) <= _SAME_SHAPE + rounding else None


def _reaches_outside(box: Proposal, picture: LabelledPicture) -> bool:
    x0, y0, x1, y1 = box.box_px
    return min(x0, y0, picture.width - x1, picture.height - y1) < -_SLACK_PX
