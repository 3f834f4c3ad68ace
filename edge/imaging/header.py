"""Read the header of a JPEG, PNG or WebP file: format, size in pixels, and whether the file is complete.

A decoder allocates whatever size the header claims and fills missing parts with grey, so this is checked first.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

from edge.errors import PictureError

PictureFormat = Literal["jpeg", "png", "webp"]

_PNG = b"\x89PNG\r\n\x1a\n"
_LONE_MARKERS = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a length: TEM, RST0..7, SOI
# Fill bytes before a marker are skipped one by one: `\xff+` would try each of them again and again
MARKER = re.compile(rb"\xff([^\0\xff])", re.DOTALL)
MAX_SEGMENTS = 4000  # of a JPEG; cameras write about 20, and a long profile about 300
_FRAME_MARKERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..15 without DHT, JPG, DAC
_SCAN_MARKER = 0xDA


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """Format and size of an encoded picture."""

    format: PictureFormat
    width: int  # pixels as stored, before EXIF rotation
    height: int
    is_complete: bool  # the end marker is present

    @property
    def pixels(self) -> int:
        """The number of pixels that a decoder would allocate."""
        return self.width * self.height


def detect_format(data: bytes) -> PictureFormat | None:
    """Return the format of a picture by its first bytes; None for anything else."""
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == _PNG:
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def read_header(data: bytes, picture_format: PictureFormat) -> PictureHeader:
    """Read the header of an encoded picture.

    Raises:
        PictureError: the data ends before the size, or the size is empty.
    """
    try:
        width, height, is_complete = {"jpeg": _jpeg, "png": _png, "webp": _webp}[picture_format](data)
    except (struct.error, IndexError):
        raise PictureError("truncated", f"the {picture_format} ends after {len(data)} bytes, before its size") from None
    if width < 1 or height < 1:
        raise PictureError("broken", f"the {picture_format} has {width}x{height} pixels, expected at least 1x1")
    return PictureHeader(picture_format, width, height, is_complete)


def _jpeg(data: bytes) -> tuple[int, int, bool]:
    """Read the segments of marker and length up to the first scan (ITU T.81 B.1)."""
    position, size = 2, (0, 0)
    for _ in range(MAX_SEGMENTS):
        found = MARKER.search(data, position)
        if found is None:
            raise IndexError
        marker, position = found[1][0], found.end()
        if marker in _LONE_MARKERS:
            continue
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = (width, height)
        (length,) = struct.unpack_from(">H", data, position)
        position += length
        if marker == _SCAN_MARKER:  # cameras append pictures and films: the end marker need not be the last two bytes
            return *size, data.rfind(b"\xff\xd9", position) >= 0
    raise PictureError("broken", f"the jpeg has more than {MAX_SEGMENTS} segments")


def _png(data: bytes) -> tuple[int, int, bool]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height, data.rfind(b"IEND") > 0


def _webp(data: bytes) -> tuple[int, int, bool]:
    """Read the size from the first chunk, which each kind of WebP encodes differently (RFC 9649 2.4 to 2.7)."""
    (riff_bytes,) = struct.unpack_from("<I", data, 4)
    is_complete = len(data) >= riff_bytes + 8
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"), is_complete
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), is_complete
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF, is_complete
