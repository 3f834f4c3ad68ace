"""Read the first directory of a TIFF file: its size, and whether all of its data is there (TIFF 6.0, BigTIFF)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import PictureError

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706
_PLACES = ((273, 279), (324, 325))  # offsets and byte counts of strips, and of tiles
_DEFLATE = (8, 32946)  # values of COMPRESSION
_MAX_PIXEL_BYTES = 64
_PIECE_BYTES = 1 << 20
_FORMS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # unsigned types of the values, by TIFF's number
_MARKS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}  # a plus: BigTIFF, offsets of 8 bytes


@dataclass(frozen=True, slots=True)
class TiffDirectory:
    """The first directory of a TIFF."""

    first_values: dict[int, int]  # the first value of each unsigned tag
    following: int  # offset of the next directory; 0: there is none
    values: Callable[[int], tuple[int, ...]]  # all values of a tag

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as stored; 0 if there is none."""
        return self.first_values.get(WIDTH, 0), self.first_values.get(HEIGHT, 0)

    @property
    def is_raw_photo(self) -> bool:
        """Whether it is a camera's raw file, whose first picture is only a preview."""
        preview = bool(self.first_values.get(_SUBFILE_TYPE, 0) & 1) and _SUB_DIRECTORIES in self.first_values
        return preview or _DNG_VERSION in self.first_values


def is_tiff(data: bytes) -> bool:
    """Return whether data begins like a TIFF."""
    return data[:4] in _MARKS


def read_directory(data: bytes) -> TiffDirectory:
    """Read the first directory of a TIFF, also of one inside EXIF.

    Raises:
        PictureError: the data ends before or within the directory.
    """
    try:
        return _directory(data)
    except (struct.error, KeyError, OverflowError):
        raise PictureError("truncated", f"the TIFF is truncated after {len(data)} bytes") from None


def _directory(data: bytes) -> TiffDirectory:
    order, big = _MARKS[data[:4]], data[2:4] in (b"+\0", b"\0+")
    offset, counter, head, entry_bytes = ("Q", "Q", "HHQ", 20) if big else ("I", "H", "HHI", 12)
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + counter, data, at)
    first = at + struct.calcsize(counter)
    (following,) = struct.unpack_from(order + offset, data, first + entry_bytes * count)
    places: dict[int, tuple[str, int, int]] = {}
    for entry in range(first, first + entry_bytes * count, entry_bytes):
        tag, kind, number = struct.unpack_from(order + head, data, entry)
        if kind not in _FORMS or number == 0:
            continue
        place = entry + struct.calcsize(order + head)
        if number * struct.calcsize(_FORMS[kind]) > struct.calcsize(offset):  # the values are stored elsewhere
            (place,) = struct.unpack_from(order + offset, data, place)
        places[tag] = (_FORMS[kind], number, place)

    def values(tag: int) -> tuple[int, ...]:
        form, number, place = places.get(tag, ("B", 0, 0))
        if number > len(data):
            raise struct.error
        return struct.unpack_from(f"{order}{number}{form}", data, place)

    first_values = {
        tag: struct.unpack_from(order + form, data, place)[0]
        for tag, (form, _, place) in places.items()
        if place + struct.calcsize(order + form) <= len(data)
    }
    return TiffDirectory(first_values, following, values)


def find_tiff_damage(data: bytes) -> tuple[str, str] | None:
    """Return the reason (`truncated` or `broken`) and what is wrong with the parts of the first picture, or None.

    Deflated parts have a checksum, which libtiff does not check. Other compressed parts are not looked into.

    Raises:
        PictureError: the data ends before or within the directory.
    """
    directory = read_directory(data)
    try:
        parts = [part for tags in _PLACES for part in zip(*map(directory.values, tags), strict=False)]
    except struct.error:
        return "truncated", f"is truncated after {len(data)} bytes"
    if any(offset + count > len(data) for offset, count in parts):
        return "truncated", f"is truncated after {len(data)} bytes"
    are_apart = sum(count for _, count in parts) <= len(data)
    if directory.first_values.get(COMPRESSION) in _DEFLATE and are_apart:
        budget = _MAX_PIXEL_BYTES * max(1, directory.size[0] * directory.size[1])
        for offset, count in parts:
            budget -= _inflated_bytes(data[offset : offset + count], budget)
            if budget <= 0:
                return "broken", "is damaged (a part does not inflate)"
    return None


def _inflated_bytes(part: bytes, most: int) -> int:
    """Return how many bytes a part inflates to; more than `most` if it is more, or not whole zlib data."""
    inflater, total = zlib.decompressobj(), 0
    try:
        while not inflater.eof and total <= most:
            piece = inflater.decompress(part, _PIECE_BYTES)
            if not piece and not inflater.unconsumed_tail:
                break
            part, total = inflater.unconsumed_tail, total + len(piece)
    except zlib.error:
        return most + 1
    return total if inflater.eof else most + 1
