"""What an item of a gallery may hold: the limits that its writer and its readers keep."""

from __future__ import annotations

import json
from typing import Any

from edge.strict_json import parse_json

NEGATIVE = "negative"  # metadata key; true: the item must not be named, and vetoes a match when it is the nearest
ALSO = "also"  # metadata key; ids that the item had before or elsewhere, such as that of an item taught at a kiosk
MAX_ITEMS = 1_000_000  # in one category
MAX_VECTORS = 5_000_000  # in one category
MAX_VECTOR_BYTES = 1 << 30  # of all vectors of one category
MAX_STORE_BYTES = 8 << 30
MAX_CATEGORIES = 10_000
MAX_CATEGORY_CHARACTERS = 512  # also in a manifest
MAX_ID_CHARACTERS = MAX_LABEL_CHARACTERS = 1024
MAX_METADATA_BYTES, MAX_METADATA_DEPTH = 64 << 10, 16
MAX_THUMBNAIL_BYTES = 4 << 20
MAX_SILHOUETTES = 65_536  # of one item
LENGTH_TOLERANCE = 0.1  # a stored vector is int8, and an INT8 engine's rows are only nearly of unit length
_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False)  # one for all items
_PICTURE_STARTS = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"


def text_problem(text: object, most: int) -> str | None:
    """Return what is wrong with an id or a label, None if nothing is."""
    if not isinstance(text, str):
        return f"found a {type(text).__name__}, expected text"
    if len(text) > most:
        return f"found {len(text)} characters, expected {most} at most"
    if "\0" in text or not (text.isascii() or _is_unicode(text)):
        return f"found {text[:80]!r}, expected Unicode characters other than NUL"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def parse_metadata(text: object) -> dict[str, Any]:
    """Parse the metadata of an item.

    Raises:
        ValueError: it is no JSON object within the limits.
    """
    if not isinstance(text, str):
        raise ValueError(f"found a {type(text).__name__}, expected JSON")  # noqa: TRY004  as every other problem of it
    metadata = parse_json(text, MAX_METADATA_BYTES, MAX_METADATA_DEPTH)
    if not isinstance(metadata, dict):
        raise ValueError(f"found JSON of type {type(metadata).__name__}, expected an object")  # noqa: TRY004
    if not isinstance(metadata.get(NEGATIVE, False), bool):
        raise ValueError(f"found {NEGATIVE} {metadata[NEGATIVE]!r}, expected true or false")  # noqa: TRY004
    return metadata


def also_ids(metadata: dict[str, Any]) -> list[str]:
    """Return the other ids of an item; none if the metadata says something else there."""
    also = metadata.get(ALSO, [])
    return [one for one in also if isinstance(one, str)] if isinstance(also, list) else []


def metadata_json(metadata: dict[str, Any]) -> str:
    """Return metadata as it is stored.

    Raises:
        ValueError: it is not JSON within the limits.
    """
    try:
        text = _ENCODER.encode(metadata)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    parse_metadata(text)
    return text


def thumbnail_problem(data: object) -> str | None:
    """Return what is wrong with a thumbnail, None if it is absent or looks like a JPEG or PNG file of a sane size."""
    if data is None:
        return None
    if not isinstance(data, bytes) or not data.startswith(_PICTURE_STARTS):
        return "found a thumbnail that is neither JPEG nor PNG"
    if len(data) > MAX_THUMBNAIL_BYTES:
        return f"found a thumbnail of {len(data)} bytes, expected {MAX_THUMBNAIL_BYTES} at most"
    return None
