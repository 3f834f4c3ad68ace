"""Tell the format of a picture by its first bytes, and its size by its header, before a decoder allocates memory."""

from __future__ import annotations

import contextlib
import re
import struct

from edge.errors import PictureError
from edge.imaging.header import detect_format, read_header
from edge.imaging.tiff import is_tiff, read_directory

_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_MAX_PNM_HEADER_BYTES = 4096
_RAW = "a raw photo"
_UNREAD = (  # offset, first bytes, name
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"%PDF", "a PDF"),
    (4, b"ftypcrx", _RAW),  # Canon CR3
    (8, b"CR\x02", _RAW),  # Canon CR2
    (0, b"FUJIFILMCCD-RAW", _RAW),
    (0, b"IIU\0", _RAW),  # Panasonic
    (0, b"IIRO", _RAW),  # Olympus
    (0, b"IIRS", _RAW),
    (0, b"MMOR", _RAW),
    (0, b"FOVb", _RAW),  # Sigma
)
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}


def container_format(data: bytes) -> str | None:
    """Return `HEIC` or `AVIF` for such a picture, by the brands of its first box (ISO 14496-12); None for others."""
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[at : at + 4] for at in (8, *range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else None


def unread_format(data: bytes) -> str | None:
    """Return the name of a well-known format that OpenCV does not read, or reads only a preview of; None for others."""
    if name := container_format(data):
        return name
    for offset, mark, name in _UNREAD:
        if data[offset : offset + len(mark)] == mark:
            return name
    with contextlib.suppress(PictureError):
        return _RAW if is_tiff(data) and read_directory(data).is_raw_photo else None
    return None


def read_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a JPEG, PNG, WebP, BMP, GIF, TIFF or PNM as stored, in pixels.

    Raises:
        PictureError: the data is of another format, or ends before the size.
    """
    if (kind := detect_format(data)) is not None:
        header = read_header(data, kind)
        return header.width, header.height
    if name := unread_format(data):
        raise PictureError("not_a_picture", f"{name} is not read; convert it to JPEG or PNG")
    try:
        return _stored_size(data)
    except struct.error:
        raise PictureError("truncated", f"the picture is truncated after {len(data)} bytes") from None


def _stored_size(data: bytes) -> tuple[int, int]:
    if is_tiff(data):
        return read_directory(data).size
    if data[:6] in (b"GIF87a", b"GIF89a"):
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if data[:2] == b"BM":
        width, height = struct.unpack_from("<HH" if data[14:18] == b"\x0c\0\0\0" else "<ii", data, 18)
        return abs(width), abs(height)
    if found := _PNM.match(data, 0, _MAX_PNM_HEADER_BYTES):
        return int(found[1]), int(found[2])
    raise PictureError("not_a_picture", f"the {len(data)} bytes are no picture; give JPEG, PNG, BMP, WebP or TIFF")
