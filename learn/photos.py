"""The photos to learn from: read once, turned upright, shrunk, and listed with what is held out."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dataset_formats.csv_table import read_table
from dataset_formats.decode import read_picture
from dataset_formats.layouts import read_listing
from dataset_formats.listings import single_objects
from dataset_formats.notices import printable, report
from dataset_formats.records import Sample
from dataset_formats.splits import split_from_name
from edge.durable import write_durably
from edge.errors import CaptureError, DataError, TrainError
from edge.imaging.image import crop, encode_image, shrink
from edge.types import Box
from trainer.data.duplicates import near_duplicate_of
from trainer.data.split import resplit
from trainer.recipe_parts import Split

log = logging.getLogger(__name__)

LONGEST_PX = 640  # of the copies that the models learn from
_QUALITY = 95
HELD_OUT = 0.15  # of the photos of each item that has three or more, but at least one


@dataclass(frozen=True, slots=True)
class PhotoSet:
    """The photos that can be used."""

    samples: list[Sample]  # copies, split as the data set or its reader says
    has_own_split: bool  # the data set itself says which photos are held out, as split `val`
    left_out: list[str]  # which photo cannot be used, and why
    lost: list[str] = field(default_factory=list)  # items of which no photo can be read
    # by file name of the copy: the photo, and where in it the object is (None: the whole photo)
    sources: Mapping[str, tuple[Path, Box | None]] = field(default_factory=dict)


def read_photos(
    source: Path,
    root: Path | None,
    folder: Path,
    progress: Callable[[Sequence[Sample], str], Iterable[Sample]],
    labels: Path | None = None,
) -> PhotoSet:
    """Read a data set of any layout and copy its pictures, turned upright and at most LONGEST_PX long.

    Pictures of split `test` are not touched. A copy that exists is not made again.

    Args:
        source: folder of one or two levels, CSV, or another layout.
        root: folder of the paths in a CSV; None: its own.
        folder: of the copies.
        progress: wraps the list of samples, with a description.
        labels: CSV with columns category, item, label: names for people, where the data set has none; None: no such.

    Raises:
        DataError: the data set cannot be read.
        TrainError: it holds no picture that can be used, or fewer than two.
    """
    listing = read_listing(source, root)
    for line in report(listing, source):
        log.warning("%s", line)
    folder.mkdir(parents=True, exist_ok=True)
    listed = [s for s in single_objects(listing, cut_to_box=False) if s.split != "test"]
    named = {} if labels is None else _read_labels(labels)
    if named and not named.keys() & {(one.category, one.item) for one in listed}:
        category, item = next(iter(named))
        raise TrainError(
            printable(f"{labels}: none of its rows names an item of {source}; the first: {category}, {item}")
        )
    kept, left_out, sources = [], list(listing.left_out), {}
    for sample in progress(listed, "reading photos"):
        try:
            copy = _copy(sample, folder)
            sources[copy.name] = (sample.path, sample.box_px)
            label = sample.label or named.get((sample.category, sample.item), "")
            kept.append(replace(sample, path=copy, label=label, box_px=None))
        except CaptureError as error:
            left_out.append(printable(str(error)))
            log.warning("%s", left_out[-1])
    if len(kept) < 2:
        first = f"; the first that cannot be read: {left_out[0]}" if left_out else ""
        raise TrainError(printable(f"{source}: {len(kept)} photos can be used; two are needed{first}"))
    has_own = (listing.layout != "folders" or _has_split_folders(source)) and {"train", "val"} <= {
        s.split for s in kept
    }
    learned = {(sample.category, sample.item) for sample in kept}
    lost = dict.fromkeys(printable(sample.item) for sample in listed if (sample.category, sample.item) not in learned)
    return PhotoSet(_distinct(kept), has_own, left_out, list(lost), sources)


def _read_labels(path: Path) -> dict[tuple[str, str], str]:
    """Return names for people by category and item.

    Raises:
        DataError: the file cannot be read, lacks a column, or has a row that cannot be read.
    """
    table = read_table(path)
    table.require("category", "item", "label")
    if table.left_out:
        raise DataError(table.left_out[0])
    return {(row["category"], row["item"]): row["label"] for _, row in table.rows}


def _distinct(samples: Sequence[Sample]) -> list[Sample]:
    """Return samples whose items differ in name: `Original` of two brands is two items."""
    own = list(dict.fromkeys((sample.category, sample.item) for sample in samples))
    owners = Counter(item for _, item in own)
    taken = {item for item, count in owners.items() if count == 1}
    names = {}
    for category, item in own:
        name = item
        while owners[item] > 1 and (name == item or name in taken):
            name = f"{category} {name}"
        taken.add(name)
        names[category, item] = name
    return [
        s if (name := names[s.category, s.item]) == s.item else replace(s, item=name, label=s.label or s.item)
        for s in samples
    ]


def _has_split_folders(source: Path) -> bool:
    """Return whether folders of a data set state the splits; else the reader makes them up."""
    return any(split_from_name(path.name) for path in source.iterdir() if path.is_dir())


def copy_path(picture: Path, folder: Path, *parts: object) -> Path:
    """Return where the copy of a picture lies, or of a part of it: a changed picture has another copy.

    Raises:
        CaptureError: the picture cannot be read.
    """
    try:
        status = picture.stat()
    except OSError as error:
        raise CaptureError(f"{picture}: cannot read: {error.strerror}") from error
    key = "\0".join(map(str, (picture.absolute(), status.st_size, status.st_mtime_ns, *parts)))
    return folder / f"{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}.jpg"


def _copy(sample: Sample, folder: Path) -> Path:
    """Return the path of a picture's copy; make it if there is none.

    Raises:
        CaptureError: the picture cannot be read.
    """
    path = copy_path(sample.path, folder, sample.box_px)
    if path.is_file():
        return path
    image_rgb = read_picture(sample.path)[0]
    if sample.box_px is not None:
        image_rgb = crop(image_rgb, sample.box_px, 0.0)
    write_durably(path, encode_image(shrink(image_rgb, LONGEST_PX), ".jpg", _QUALITY))
    return path


def hold_out(photos: PhotoSet) -> list[Sample]:
    """Return the samples split into `train` and `val`; photos that look the same stay together."""
    if photos.has_own_split:
        return photos.samples
    pooled = [replace(sample, split="train") for sample in photos.samples]
    how = Split(how="stratified", val=HELD_OUT)
    return resplit(pooled, how, near_duplicate_of(sample.path for sample in pooled))


def write_index(samples: Sequence[Sample], path: Path) -> Path:
    """Write the samples as a CSV that every command reads."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    names = sorted({name for one in samples for name, _ in one.attributes})
    writer.writerow(("path", "split", "category", "item", "label", *(f"attribute:{name}" for name in names)))
    for one in samples:
        known = dict(one.attributes)
        row = (one.path.absolute(), one.split, one.category, one.item, one.label)
        writer.writerow((*row, *(known.get(name, "") for name in names)))
    write_durably(path, text.getvalue().encode("utf-8"))
    return path
