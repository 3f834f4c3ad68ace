"""Read HEIC and AVIF, which cameras of phones write: upright, 8 bits, RGB. Server only.

Pillow reads AVIF; pillow-heif, or its decoder-only edition pi-heif, reads HEIC. They are imported when needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from typing import Any

import numpy as np

from dataset_formats.text_files import BAD_DATA
from edge.errors import CaptureError, PictureError
from edge.extras import install_command
from edge.imaging.formats import container_format
from edge.imaging.image import MAX_PIXELS
from edge.types import Image

_HEIC_PACKAGES = ("pillow_heif", "pi_heif")
_ORIENTATION = 274  # EXIF
_BROKEN = (*BAD_DATA, EOFError, MemoryError, OSError, RuntimeError, SyntaxError)
_HOLE = bytes(64)  # coded pictures do not end in so many zero bytes; the file of a broken-off copy may


def readable_suffixes() -> tuple[str, ...]:
    """Return the suffixes of the formats that installed packages read."""
    heic = (".heic", ".heif", ".hif") if any(map(importlib.util.find_spec, _HEIC_PACKAGES)) else ()
    avif = (".avif",) if importlib.util.find_spec("PIL") and importlib.util.find_spec("PIL.AvifImagePlugin") else ()
    return heic + avif


def decode(data: bytes, where: str) -> Image:
    """Decode a HEIC or AVIF.

    Raises:
        CaptureError: no package reads it, it is larger than MAX_PIXELS, truncated or damaged.
    """
    picture = _open(data, where)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise PictureError("too_large", f"{where}: found {width}x{height} pixels, expected at most {MAX_PIXELS}")
    if _ends_in_zeros(data):
        raise PictureError("truncated", f"{where}: the {container_format(data)} ends in zeros; give the whole file")
    try:
        upright = _turned(picture)
        channels = np.asarray(upright, np.uint8).reshape(upright.size[1], upright.size[0], -1)
    except _BROKEN as error:
        raise _damaged(data, where, error) from error
    return np.ascontiguousarray(channels[..., :3] if channels.shape[2] >= 3 else channels[..., :1].repeat(3, 2))


def look_at(data: bytes, where: str) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Return width and height after turning upright, and what is unusual: deep, animated or transparent.

    Raises:
        CaptureError: no package reads it, or its header is truncated or damaged.
    """
    picture = _open(data, where)
    try:
        sideways = _orientation(picture) > 4
        depth = picture.info.get("bit_depth", 8)
        is_animated = container_format(data) == "AVIF" and getattr(picture, "n_frames", 1) > 1
        oddities = [f"{depth} bit"] * (depth > 8) + ["animated"] * is_animated
        oddities += ["transparent"] * (picture.mode.upper() in ("RGBA", "LA"))
    except _BROKEN as error:
        raise _damaged(data, where, error) from error
    return picture.size[::-1] if sideways else picture.size, tuple(oddities)


def _open(data: bytes, where: str) -> Any:
    """Return the opened picture; it is not decoded yet."""
    kind = container_format(data)
    package = _package(str(kind))
    if package is None:
        extra = "heic" if kind == "HEIC" else "trainer"
        raise CaptureError(f"{where}: to read {kind}, run: {install_command(extra)}; or convert it to JPEG")
    try:
        file = io.BytesIO(data)
        picture = package.open_heif(file) if kind == "HEIC" else package.AvifImageFile(file)
        _ = picture.size  # fails if no picture is the main one
    except _BROKEN as error:
        raise _damaged(data, where, error) from error
    return picture


def _package(kind: str) -> Any:
    """Return the module that opens pictures of a kind; None if it is not installed."""
    for name in _HEIC_PACKAGES if kind == "HEIC" else ("PIL.AvifImagePlugin",):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _orientation(picture: Any) -> int:
    """Return the EXIF orientation that is still to apply; libheif turns a HEIC itself."""
    return int(picture.getexif().get(_ORIENTATION, 1)) if hasattr(picture, "getexif") else 1


def _turned(picture: Any) -> Any:
    if _orientation(picture) == 1:
        return picture
    from PIL import ImageOps

    return ImageOps.exif_transpose(picture)


def _damaged(data: bytes, where: str, error: BaseException) -> PictureError:
    text = " ".join(str(error).split())
    reason = "truncated" if "nd of file" in text or "runcated" in text else "broken"
    problem = f"{where}: the {container_format(data)} cannot be decoded ({text})"
    return PictureError(reason, f"{problem}; give the whole file")


def _ends_in_zeros(data: bytes) -> bool:
    """Return whether the last bytes of some media data are zero (ISO 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(data):
        length, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if length == 1:
            length, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        stop = at + length if length else len(data)
        if data[at + 4 : at + 8] == b"mdat" and data[max(start, stop - len(_HOLE)) : stop] == _HOLE:
            return True
        at = max(stop, at + 8)
    return False
