"""Refuse a picture that its decoder cannot vouch for: OpenCV fills lost parts with grey and returns the picture.

PNG has checksums, JPEG's decoder warns, TIFF says where its parts are. WebP, BMP and GIF are checked by their decoders
for their length only: nobody can tell other damage in them.
"""

from __future__ import annotations

import struct
import zlib

from edge.errors import PictureError
from edge.imaging import tiff
from edge.imaging.header import detect_format, read_header
from edge.imaging.jpeg_damage import find_jpeg_damage

_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_PNG_MARK_BYTES = 8


def intact(data: bytes) -> bytes:
    """Return a picture to decode: the data, without the animation of a PNG.

    Raises:
        PictureError: it is truncated or damaged; `reason` says which.
    """
    kind = detect_format(data)
    if kind is None:
        if tiff.is_tiff(data) and (found := tiff.find_tiff_damage(data)):
            raise PictureError(found[0], f"the TIFF {found[1]}")
        return data
    if not read_header(data, kind).is_complete:
        raise PictureError("truncated", f"the {kind} is truncated after {len(data)} bytes")
    if kind == "png":
        return _checked_png(data)
    if kind == "jpeg" and (found := find_jpeg_damage(data)):
        raise PictureError(found[0], f"the jpeg {found[1]}")
    return data


def _checked_png(data: bytes) -> bytes:
    """Check the checksums of the chunks that decoding needs, and leave the animation out (PNG 3rd ed., 5.3).

    OpenCV checks a still PNG, also whether its data inflates to the whole picture, but not an animated one.

    Raises:
        PictureError: a chunk is truncated, or its checksum is wrong.
    """
    at, view = _PNG_MARK_BYTES, memoryview(data)
    kept = [view[:at]]
    is_animated, name = False, b""
    while name != b"IEND":
        try:
            length, name = struct.unpack_from(">I4s", data, at)
            (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        except struct.error:
            raise PictureError("truncated", f"the png is truncated after {len(data)} bytes") from None
        is_critical = not name[0] & 0x20
        if is_critical and zlib.crc32(view[at + 4 : at + 8 + length]) != checksum:
            shown = name.decode("ascii", "backslashreplace")
            raise PictureError("broken", f"the png is damaged (the checksum of {shown} is wrong)")
        if name in _ANIMATION:
            is_animated = True
        else:
            kept.append(view[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept) if is_animated else data
