"""Tagged regions as fractions of the picture: the JSON that Custom Vision exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataset_formats.decode import upright_size
from dataset_formats.records import AnnotatedPicture, Listing, NamedBox, default_split
from dataset_formats.text_files import BAD_DATA, as_text, read_text, require_file
from edge.errors import CaptureError, DataError

_TAGS_FILE = "boxes.json"


def read_tags(path: Path) -> Listing:
    """Read `boxes.json`: files with a filename and tags, each with tag, left, top, width, height as fractions.

    Raises:
        DataError: the file cannot be read, or has another form.
    """
    file = require_file(path / _TAGS_FILE if path.is_dir() else path, "the boxes of the pictures beside it")
    listing = Listing("tags")
    record = "files"
    try:
        for number, entry in enumerate(json.loads(read_text(file))["files"]):
            record = f"file {number + 1}"
            picture = file.parent / as_text(entry["filename"])
            try:
                size = upright_size(picture)
            except CaptureError as error:
                listing.left_out.append(f"left out {error}")
                continue
            listing.scenes.append(
                AnnotatedPicture(picture, default_split(number), tuple(_region(tag, size) for tag in entry["tags"]))
            )
    except BAD_DATA as error:
        raise DataError(f"{file}: {record}: not a list of files with tags: {type(error).__name__} {error}") from error
    listing.names = sorted({box.item for scene in listing.scenes for box in scene.boxes})
    return listing


def _region(tag: dict[str, Any], size_px: tuple[int, int]) -> NamedBox:
    left, top, width, height = (float(tag[side]) for side in ("left", "top", "width", "height"))
    left, top, width, height = left * size_px[0], top * size_px[1], width * size_px[0], height * size_px[1]
    return NamedBox((left, top, left + width, top + height), as_text(tag["tag"]))
