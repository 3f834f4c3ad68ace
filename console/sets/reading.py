"""Reads files of pictures, which may be hostile: bounded, never a pipe or device, and never larger than they decode.

Rules this module keeps:
1. The header decides whether a picture is decoded; nothing is allocated for what a header merely claims.
2. A picture is what its bytes say, whatever its name says.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

from dataset_formats import heif
from dataset_formats.decode import decode_pixels, picture_info
from edge.errors import CaptureError, PictureError
from edge.imaging.formats import container_format, read_size
from edge.imaging.header import detect_format
from edge.imaging.image import MAX_PIXELS, decode_reduced
from edge.imaging.jpeg_decode import FULL_SIZE, DecodedPicture, Reduction

MAX_PICTURE_BYTES = 60 << 20
MIN_SIDE_PX = 4
DECODING = threading.BoundedSemaphore(2)  # held while a picture is read and decoded, which bounds the memory
_WHERE = "the picture"


@dataclass(frozen=True, slots=True)
class Looked:
    """What reading a file told, without decoding it."""

    sha256: str
    size: int  # bytes
    width: int  # upright, pixels
    height: int


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        PictureError: it is gone, not a regular file, empty or too large.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise PictureError("not_a_picture", "not a regular file; copy the picture here")
            if about.st_size > MAX_PICTURE_BYTES:
                raise PictureError("too_large", _too_large(about.st_size))
            data = file.read(MAX_PICTURE_BYTES + 1) or b""
            while part := file.read(MAX_PICTURE_BYTES + 1 - len(data)):
                data += part
    except FileNotFoundError:
        raise PictureError("left", "the file is gone; put it back, or delete the picture from the set") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its name is wrong"
        raise PictureError("broken", f"the file cannot be read: {why}; check its permissions") from error
    if len(data) > MAX_PICTURE_BYTES:
        raise PictureError("too_large", _too_large(len(data)))
    if not data:
        raise PictureError("empty", "the file is empty; give the whole picture")
    return data


def look_at(data: bytes) -> Looked:
    """Return the hash and upright size of a picture, by its header; nothing is decoded.

    Raises:
        PictureError: it is no picture, truncated before its size, too small or too large.
    """
    width, height = upright_size(data)
    return Looked(hashlib.sha256(data).hexdigest(), len(data), width, height)


def upright_size(data: bytes) -> tuple[int, int]:
    """Return width and height as decoding would give them.

    Raises:
        PictureError: see look_at.
    """
    try:
        if container_format(data):
            size = heif.look_at(data, _WHERE)[0]
        else:
            stored = read_size(data)
            size = picture_info(data).size_px or stored
    except CaptureError as error:
        raise _advised(error) from error
    if size[0] * size[1] > MAX_PIXELS:
        found = f"the picture has {size[0]:,} x {size[1]:,} pixels"
        raise PictureError("too_large", f"{found}, at most {MAX_PIXELS:,} are read; make it smaller")
    if min(size) < MIN_SIDE_PX:
        raise PictureError("broken", f"the picture has {size[0]} x {size[1]} pixels, which shows nothing; leave it out")
    return size


def decode(data: bytes, reduction: Reduction = FULL_SIZE) -> DecodedPicture:
    """Decode a picture: upright, RGB, 8 bits, the first frame; a JPEG smaller where that will do.

    Raises:
        PictureError: see look_at; or it is truncated or damaged.
    """
    upright_size(data)
    try:
        if detect_format(data) == "jpeg":
            return decode_reduced(data, _WHERE, reduction)
        image_rgb = decode_pixels(data, _WHERE)
    except CaptureError as error:
        raise _advised(error) from error
    return DecodedPicture(image_rgb, image_rgb.shape[1], image_rgb.shape[0])


def suffix_of(data: bytes) -> str:
    """Return the suffix of a picture by its content, such as `.jpg`."""
    if container := container_format(data):
        return f".{container.lower()}"
    if kind := detect_format(data):
        return {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}[kind]
    if data[:3] == b"GIF":
        return ".gif"
    return ".bmp" if data[:2] == b"BM" else ".ppm" if data[:1] == b"P" else ".tif"


def _advised(error: CaptureError) -> PictureError:
    """Return an error that does not name the file: its caller does."""
    text = str(error).removeprefix(f"{_WHERE}: ")
    return PictureError(getattr(error, "reason", "not_a_picture"), text)


def _too_large(size: int) -> str:
    return f"the file has {size >> 20} MB, at most {MAX_PICTURE_BYTES >> 20} MB are read; make the picture smaller"
