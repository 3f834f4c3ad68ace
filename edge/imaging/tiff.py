"""Read the first directory of a TIFF file: its size, and whether all of its data is there (TIFF 6.0, BigTIFF)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import PictureError

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
_SAMPLES = 277
_SUBFILE_TYPE, _SUB_DIRECTORIES, _DNG_VERSION = 254, 330, 50706
_PLACES = ((273, 279), (324, 325))  # offsets and byte counts of strips, and of tiles
_DEFLATE = (8, 32946)  # values of COMPRESSION
_MAX_PIXEL_BYTES = 64
_PIECE_BYTES = 1 << 20
_LZW, _PACKBITS = 5, 32773
_MAX_RATIO = {_LZW: 2731, _PACKBITS: 64}  # of a compressed part: a longest string for each code
_FORMS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # unsigned types of the values, by TIFF's number
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_MAX_ENTRIES = 1000  # of a directory; cameras write about 60
_MAX_PARTS = 200_000  # strips or tiles of the first picture: tiles of 16 x 16 pixels
_MARKS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}  # a plus: BigTIFF, offsets of 8 bytes


@dataclass(frozen=True, slots=True)
class TiffDirectory:
    """The first directory of a TIFF."""

    first_values: dict[int, int]  # the first value of each unsigned tag
    following: int  # offset of the next directory; 0: there is none
    values: Callable[[int], tuple[int, ...]]  # all values of a tag
    claimed_bytes: int  # of the values of all tags

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels as stored; 0 if there is none."""
        return self.first_values.get(WIDTH, 0), self.first_values.get(HEIGHT, 0)

    @property
    def pixel_bytes(self) -> int:
        """The fewest bytes that the decompressed pixels take; subsampled colour halves them."""
        bits = self.first_values.get(BITS, 1) * self.first_values.get(_SAMPLES, 1)
        return self.size[0] * self.size[1] * bits // 16

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
    if count > _MAX_ENTRIES and at + count * entry_bytes <= len(data):
        raise PictureError("broken", f"the TIFF has {count} entries; at most {_MAX_ENTRIES} are read")
    first = at + struct.calcsize(counter)
    (following,) = struct.unpack_from(order + offset, data, first + entry_bytes * count)
    places: dict[int, tuple[str, int, int]] = {}
    claimed_bytes = 0
    for entry in range(first, first + entry_bytes * count, entry_bytes):
        tag, kind, number = struct.unpack_from(order + head, data, entry)
        claimed_bytes += number * _BYTES.get(kind, 1)
        if kind not in _FORMS or number == 0:
            continue
        place = entry + struct.calcsize(order + head)
        if number * struct.calcsize(_FORMS[kind]) > struct.calcsize(offset):  # the values are stored elsewhere
            (place,) = struct.unpack_from(order + offset, data, place)
        places[tag] = (_FORMS[kind], number, place)

    def values(tag: int) -> tuple[int, ...]:
        form, number, place = places.get(tag, ("B", 0, 0))
        if number > _MAX_PARTS:
            raise struct.error
        return struct.unpack_from(f"{order}{number}{form}", data, place)

    first_values = {
        tag: struct.unpack_from(order + form, data, place)[0]
        for tag, (form, _, place) in places.items()
        if place + struct.calcsize(order + form) <= len(data)
    }
    return TiffDirectory(first_values, following, values, claimed_bytes)


def find_tiff_damage(data: bytes) -> tuple[str, str] | None:
    """Return the reason (`truncated` or `broken`) and what is wrong with the parts of the first picture, or None.

    Deflated parts have a checksum, which libtiff does not check. Of other compressed parts, only the length is checked.

    Raises:
        PictureError: the data ends before or within the directory.
    """
    directory = read_directory(data)
    if directory.claimed_bytes > len(data):  # libtiff reads all tags, and some may lie on top of each other
        return "truncated", f"is truncated after {len(data)} bytes, or its tags overlap"
    try:
        parts = [part for tags in _PLACES for part in zip(*map(directory.values, tags), strict=False)]
    except struct.error:
        return "truncated", f"is truncated after {len(data)} bytes"
    if any(offset + count > len(data) for offset, count in parts):
        return "truncated", f"is truncated after {len(data)} bytes"
    part_bytes = sum(count for _, count in parts)
    ratio = _MAX_RATIO.get(directory.first_values.get(COMPRESSION, 0))
    if ratio is not None and directory.pixel_bytes > ratio * part_bytes:
        return "truncated", f"has {part_bytes} bytes for {directory.pixel_bytes} bytes of pixels"
    are_apart = part_bytes <= len(data)
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
