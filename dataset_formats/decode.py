"""Decode pictures of data sets, refuse damaged ones, and read size and oddities from their headers.

Colour profiles are not applied: a device does not apply them either.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from dataset_formats import heif
from dataset_formats.text_files import read_data
from edge.errors import CaptureError, PictureError
from edge.imaging import tiff
from edge.imaging.formats import container_format, read_size
from edge.imaging.header import detect_format, read_header
from edge.imaging.image import IMAGE_SUFFIXES, decode_image
from edge.types import Image

PICTURE_SUFFIXES = (*IMAGE_SUFFIXES, ".gif", ".ppm", *heif.readable_suffixes())  # of what can be read here
_SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height
_CMYK = 5  # value of TIFF's PhotometricInterpretation
_UNCOMPRESSED = 1  # value of TIFF's Compression


@dataclass(frozen=True, slots=True)
class PictureInfo:
    """What the header of an encoded picture says."""

    size_px: tuple[int, int] | None  # width and height after turning upright; None: only decoding shows it
    oddities: tuple[str, ...] = ()  # any of: 16 bit, CMYK, animated, several pages, transparent


def read_picture(path: Path) -> tuple[Image, PictureInfo]:
    """Decode a picture: 8 bits, RGB, upright, the first frame of an animation.

    Raises:
        CaptureError: missing, empty, not a picture, too large, truncated or damaged.
    """
    return decode_picture(read_bytes(path), str(path))


def read_image(path: Path) -> Image:
    """Decode a picture as read_picture does; of more formats than a device reads.

    Raises:
        CaptureError: as read_picture.
    """
    return read_picture(path)[0]


def decode_picture(data: bytes, where: str) -> tuple[Image, PictureInfo]:
    """Decode a picture, see read_picture.

    Raises:
        CaptureError: as read_picture.
    """
    image = decode_pixels(data, where)
    if container_format(data):
        return image, PictureInfo(*heif.look_at(data, where))
    return image, picture_info(data)


def decode_pixels(data: bytes, where: str) -> Image:
    """Decode a picture, see read_picture.

    Raises:
        CaptureError: as read_picture.
    """
    if container_format(data):
        return heif.decode(data, where)
    image = decode_image(data, where)
    if tiff.is_tiff(data):
        _check_compressed_tiff(data, where)
    return image


def read_bytes(path: Path) -> bytes:
    """Return an encoded picture.

    Raises:
        CaptureError: it cannot be read.
    """
    return read_data(path, CaptureError)


def _check_compressed_tiff(data: bytes, where: str) -> None:
    """Raise PictureError for a TIFF whose compressed data is damaged: OpenCV only prints that."""
    if tiff.read_directory(data).first_values.get(tiff.COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED:
        return
    try:
        from PIL.TiffImagePlugin import TiffImageFile
    except ImportError:
        return
    try:
        TiffImageFile(io.BytesIO(data)).load()
    except OSError as error:
        raise PictureError("broken", f"{where}: the TIFF is damaged ({error}); give the whole file") from error
    except Exception:  # noqa: BLE001  Pillow reads fewer kinds of TIFF than OpenCV
        return


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height as decoding would give them.

    Raises:
        CaptureError: as read_picture.
    """
    data = read_bytes(path)
    if container_format(data):
        return heif.look_at(data, str(path))[0]
    try:
        stored = read_size(data)
        return picture_info(data).size_px or stored
    except PictureError as error:
        raise PictureError(error.reason, f"{path}: {error}") from error


def picture_info(data: bytes) -> PictureInfo:
    """Return what the header of a JPEG, PNG, WebP, GIF or TIFF says; empty information for other files.

    Raises:
        PictureError: the header is truncated.
    """
    if data[:6] in (b"GIF87a", b"GIF89a"):
        frames = data.count(b"\x21\xf9\x04")  # graphic control extensions: one before each frame
        return PictureInfo(None, ("animated",) if frames > 1 else ())
    if tiff.is_tiff(data):
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
        return tiff.read_directory(exif).first_values.get(tiff.ORIENTATION, 1)
    except PictureError:
        return 1


def _tiff(data: bytes) -> PictureInfo:
    directory = tiff.read_directory(data)
    tags, size = directory.first_values, directory.size
    oddities = ["16 bit"] * (tags.get(tiff.BITS) == 16) + ["CMYK"] * (tags.get(tiff.PHOTOMETRIC) == _CMYK)
    oddities += ["several pages"] * bool(directory.following)
    return PictureInfo(size[::-1] if tags.get(tiff.ORIENTATION, 1) in _SIDEWAYS else size, tuple(oddities))
