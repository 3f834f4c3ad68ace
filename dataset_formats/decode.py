"""Decode pictures of data sets, reject truncated ones, and read size and oddities from their headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from dataset_formats.text_files import read_data
from edge.errors import CaptureError, PictureError
from edge.imaging.header import detect_format, read_header
from edge.imaging.image import decode_image
from edge.types import Image

_TIFF_MARKS = {b"II*\0": "<", b"MM\0*": ">"}
_SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _ORIENTATION = 256, 257, 258, 262, 274  # tags of TIFF 6.0
_CMYK = 5  # value of TIFF's PhotometricInterpretation


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What the header of an encoded picture says."""

    size_px: tuple[int, int] | None  # width and height after turning upright; None: only decoding shows it
    oddities: tuple[str, ...] = ()  # any of: 16 bit, CMYK, animated, several pages, transparent


def read_picture(path: Path) -> tuple[Image, PictureInfo]:
    """Decode a picture: 8 bits, RGB, upright, the first frame of an animation.

    Raises:
        CaptureError: missing, empty, not a picture, or truncated.
    """
    return decode_picture(read_bytes(path), str(path))


def decode_picture(data: bytes, where: str) -> tuple[Image, PictureInfo]:
    """Decode a picture, see read_picture.

    Raises:
        CaptureError: empty, not a picture, or truncated.
    """
    _reject_truncated(data, where)
    return decode_image(data, where), picture_info(data)


def read_bytes(path: Path) -> bytes:
    """Return an encoded picture.

    Raises:
        CaptureError: it cannot be read.
    """
    return read_data(path, CaptureError)


def _reject_truncated(data: bytes, where: str) -> None:
    """Raise CaptureError for a truncated picture: some decoders fill in grey, which a network would learn."""
    kind = detect_format(data)
    if kind is None:
        return
    try:
        whole = read_header(data, kind).is_complete
    except PictureError:
        whole = False
    if not whole:
        raise CaptureError(f"{where}: {kind} is truncated after {len(data)} bytes; copy the file again")


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height as decoding would give them.

    Raises:
        CaptureError: as read_picture.
    """
    data = read_bytes(path)
    try:
        size = picture_info(data).size_px
    except PictureError as error:
        raise CaptureError(f"{path}: {error}") from error
    if size is None:
        picture = decode_image(data, str(path))
        return picture.shape[1], picture.shape[0]
    return size


def picture_info(data: bytes) -> PictureInfo:
    """Return what the header of a JPEG, PNG, WebP, GIF or TIFF says; empty information for other files.

    Raises:
        PictureError: the header is truncated.
    """
    if data[:6] in (b"GIF87a", b"GIF89a"):
        frames = data.count(b"\x21\xf9\x04")  # graphic control extensions: one before each frame
        return PictureInfo(None, ("animated",) if frames > 1 else ())
    if data[:4] in _TIFF_MARKS:
        return _tiff(data)
    kind = detect_format(data)
    if kind is None:
        return PictureInfo(None)
    header = read_header(data, kind)
    size = (header.width, header.height)
    oddities: list[str] = []
    if kind == "png":
        ends = data.find(b"IDAT")
        oddities += ["16 bit"] * (data[24] == 16) + ["animated"] * (b"acTL" in data[:ends])
        oddities += ["transparent"] * (data[25] in (4, 6) or b"tRNS" in data[:ends])
    elif kind == "webp" and data[12:16] == b"VP8X":
        oddities += ["animated"] * bool(data[20] & 2) + ["transparent"] * bool(data[20] & 16)
    elif kind == "jpeg" and _components(data) == 4:
        oddities.append("CMYK")
    return PictureInfo(size[::-1] if _orientation(data, kind) in _SIDEWAYS else size, tuple(oddities))


def _components(jpeg: bytes) -> int:
    """Return the number of colour components of a JPEG, from its frame header (ITU T.81 B.2.2)."""
    at = 2
    while at + 9 < len(jpeg):
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at] != 0xFF:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return jpeg[at + 9]
        at += 2 + length
    return 0


def _orientation(data: bytes, kind: str) -> int:
    """Return the EXIF orientation of a JPEG, PNG or WebP; 1 if there is none."""
    mark, skipped = {"jpeg": (b"Exif\0\0", 6), "png": (b"eXIf", 4), "webp": (b"EXIF", 8)}[kind]
    at = data.find(mark)
    if at < 0:
        return 1
    exif = data[at + skipped :]
    exif = exif[6:] if exif[:6] == b"Exif\0\0" else exif  # some writers repeat JPEG's mark in a WebP
    try:
        return _tags(exif)[0].get(_ORIENTATION, 1)
    except (struct.error, KeyError):
        return 1


def _tags(tiff: bytes) -> tuple[dict[int, int], int]:
    """Return the short and long values of a TIFF's first directory by tag, and the offset of the next directory."""
    order = _TIFF_MARKS[tiff[:4]]
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    (count,) = struct.unpack_from(order + "H", tiff, at)
    values: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", tiff, entry)
        form = {3: "H", 4: "I"}.get(kind)
        if form is None:
            continue
        place = entry + 8
        if number * struct.calcsize(form) > 4:  # the values are stored elsewhere; read the first one
            (place,) = struct.unpack_from(order + "I", tiff, entry + 8)
        (values[tag],) = struct.unpack_from(order + form, tiff, place)
    (following,) = struct.unpack_from(order + "I", tiff, at + 2 + 12 * count)
    return values, following


def _tiff(data: bytes) -> PictureInfo:
    try:
        tags, following = _tags(data)
    except struct.error:
        raise PictureError("truncated", f"picture: tiff is truncated after {len(data)} bytes") from None

    size = (tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0))
    oddities = ["16 bit"] * (tags.get(_BITS) == 16) + ["CMYK"] * (tags.get(_PHOTOMETRIC) == _CMYK)
    oddities += ["several pages"] * bool(following)
    return PictureInfo(size[::-1] if tags.get(_ORIENTATION, 1) in _SIDEWAYS else size, tuple(oddities))
