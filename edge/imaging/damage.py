"""Refuse a picture that its decoder cannot vouch for: OpenCV fills lost parts with grey and returns the picture.

PNG has checksums, JPEG's decoder warns, TIFF says where its parts are. WebP, BMP and GIF are checked by their decoders
for their length only: nobody can tell other damage in them.
"""

from __future__ import annotations

from edge.errors import PictureError
from edge.imaging import tiff
from edge.imaging.header import detect_format, read_header
from edge.imaging.jpeg_damage import find_jpeg_damage
from edge.imaging.png_damage import checked_png


def intact(data: bytes) -> bytes:
    """Return a picture to decode: the data, without what decoding a PNG does not need.

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
        return checked_png(data)
    if kind == "jpeg" and (found := find_jpeg_damage(data)):
        raise PictureError(found[0], f"the jpeg {found[1]}")
    return data
