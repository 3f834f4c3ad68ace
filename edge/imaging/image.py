"""Decode, encode, crop, resize and draw pictures. The only user of OpenCV for stills; RGB everywhere else."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import CaptureError, PictureError
from edge.imaging.damage import intact
from edge.imaging.formats import read_size
from edge.imaging.header import detect_format
from edge.imaging.jpeg_decode import FULL_SIZE, DecodedPicture, Reduction, decode_vouched
from edge.types import Box, FloatArray, Image, Mask

MAX_PIXELS = 50_000_000
PLAIN = 12  # grey levels by which a plain background may vary
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_HAS_SCRIPTS = int(cv2.__version__.partition(".")[0]) >= 5
LIBRARY = f"opencv {cv2.__version__}"
_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}


def set_threads(count: int) -> None:
    """Limit the threads OpenCV uses, for the whole process."""
    cv2.setNumThreads(count)


def read_image(path: Path) -> Image:
    """Read a picture and rotate it upright by its EXIF tag.

    Raises:
        CaptureError: the file is missing, empty, no picture, truncated or damaged.
    """
    return read_reduced(path).image_rgb


def read_reduced(path: Path, reduction: Reduction = FULL_SIZE) -> DecodedPicture:
    """Read a picture as read_image does; reduced as by decode_reduced.

    Raises:
        CaptureError: as read_image.
    """
    return decode_reduced(read_encoded(path), str(path), reduction)


def read_encoded(path: Path) -> bytes:
    """Return a picture as it is encoded.

    Raises:
        CaptureError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise CaptureError(f"{path}: cannot read: {error.strerror}") from error


def decode_image(data: bytes, where: str) -> Image:
    """Decode an encoded picture: JPEG, PNG, WebP, BMP, TIFF, GIF or PNM; of an animation the first frame.

    Raises:
        PictureError: the data is empty, of another format, larger than MAX_PIXELS by its header, truncated or damaged.
    """
    return decode_reduced(data, where).image_rgb


def decode_reduced(data: bytes, where: str, reduction: Reduction = FULL_SIZE) -> DecodedPicture:
    """Decode a picture as decode_image does; a JPEG to a half, a quarter or an eighth of its sides where that will do.

    Args:
        data: the encoded picture.
        where: names it in messages.
        reduction: returns how many times smaller each side may become.

    Raises:
        PictureError: as decode_image.
    """
    if detect_format(data) == "jpeg":
        with contextlib.suppress(PictureError):  # which is raised again below
            _reject_too_large(read_size(data))
            if picture := decode_vouched(data, reduction):
                return picture
    image_rgb = from_bgr(_decode(data, where, cv2.IMREAD_COLOR, "a picture"))
    return DecodedPicture(image_rgb, image_rgb.shape[1], image_rgb.shape[0])


def _decode(data: bytes, where: str, flags: int, expected: str) -> NDArray[Any]:
    if not data:
        raise PictureError("empty", f"{where}: empty; give {expected}")
    try:
        _reject_too_large(read_size(data))
        data = intact(data)
        found = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except PictureError as error:
        advice = "; give the whole file" if error.reason in {"truncated", "broken"} else ""
        raise PictureError(error.reason, f"{where}: {error}{advice}") from None
    except cv2.error as error:
        raise PictureError("broken", f"{where}: cannot decode: {' '.join(str(error).split())}") from error
    if found is None:
        problem = f"{where}: the {len(data)} bytes cannot be decoded"
        raise PictureError("broken", f"{problem}; give {expected} as JPEG, PNG, BMP, WebP or TIFF")
    return np.asarray(found)


def _reject_too_large(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise PictureError("too_large", f"found {size[0]}x{size[1]} pixels, expected at most {MAX_PIXELS}")


def encode_image(image_rgb: Image, suffix: Literal[".jpg", ".png"], quality: int = 90) -> bytes:
    """Encode a picture as JPEG or PNG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    ok, data = cv2.imencode(suffix, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), options)
    if not ok:
        raise CaptureError(f"cannot encode a {image_rgb.shape} picture as {suffix}")
    return bytes(data)


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """Encode an (h, w) uint8 mask as a grey PNG."""
    ok, data = cv2.imencode(".png", mask)
    if not ok:
        raise CaptureError(f"cannot encode a {mask.shape} mask as .png")
    return bytes(data)


def encode_cutout(cutout: NDArray[np.uint8]) -> bytes:
    """Encode an (h, w, 4) RGBA cut-out as PNG."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(cutout, cv2.COLOR_RGBA2BGRA))
    if not ok:
        raise CaptureError(f"cannot encode a {cutout.shape} cut-out as .png")
    return bytes(data)


def decode_mask(data: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a mask, (h, w) uint8, 255 where the object is, from the alpha channel if there is one, else from grey.

    A mask with only 0 and 1 is scaled to 0 and 255; 16 bits become 8.

    Raises:
        PictureError: as decode_image.
    """
    found = _decode(data, where, cv2.IMREAD_UNCHANGED, "a mask")
    if found.dtype == np.uint16:
        found = (found // 257).astype(np.uint8)
    if found.ndim == 3:
        found = found[..., 3] if found.shape[2] == 4 else cv2.cvtColor(found, cv2.COLOR_BGR2GRAY)
    mask = np.asarray(found, np.uint8)
    return mask * np.uint8(255) if mask.max(initial=0) == 1 else mask


def decode_opaque(data: bytes, where: str) -> Mask | None:
    """Return what is not transparent, (h, w), 0 or 1; None: nothing of the picture is transparent.

    Raises:
        PictureError: as decode_image.
    """
    if detect_format(data) == "jpeg":
        return None
    found = _decode(data, where, cv2.IMREAD_UNCHANGED, "a picture")
    if found.ndim != 3 or found.shape[2] != 4:
        return None
    opaque = np.asarray(found[..., 3] > np.iinfo(found.dtype).max // 2, np.uint8)
    return None if opaque.all() else opaque


def from_bgr(image_bgr: Image) -> Image:
    """Convert BGR to RGB, contiguous."""
    return np.asarray(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2RGB), np.uint8)


def without_fourth_channel(pixels: NDArray[np.uint8], *, is_bgr: bool) -> Image:
    """Return RGB from (height, width, 4) pixels, whose rows may be padded; True if blue comes first."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if is_bgr else cv2.COLOR_RGBA2RGB))


def crop(image_rgb: Image, box_px: Box, margin: float = 0.0) -> Image:
    """Cut out a box, grown by `margin` of its size on each side and clipped to the picture; a view, at least 1x1."""
    left, top, right, bottom = crop_bounds(image_rgb.shape[1], image_rgb.shape[0], box_px, margin)
    return image_rgb[top:bottom, left:right]


def crop_bounds(width: int, height: int, box_px: Box, margin: float) -> tuple[int, int, int, int]:
    """Return the pixels that `crop` cuts out of a picture of this size: left, top, right and bottom."""
    x0, y0, x1, y1 = box_px
    grow_x, grow_y = margin * (x1 - x0), margin * (y1 - y0)
    left = min(max(0, math.floor(x0 - grow_x)), width - 1)
    top = min(max(0, math.floor(y0 - grow_y)), height - 1)
    right = max(left + 1, min(width, math.ceil(x1 + grow_x)))
    bottom = max(top + 1, min(height, math.ceil(y1 + grow_y)))
    return left, top, right, bottom


def trim(image_rgb: Image, margin: float) -> Image:
    """Crop a picture of one object on a plain background as a device crops the object from a scene.

    Args:
        image_rgb: returned uncropped if its border is not plain.
        margin: growth of the object's box on each side, as a share of its size.
    """
    foreground = _foreground(image_rgb)
    if foreground is None:
        return image_rgb
    y, x = np.nonzero(foreground)
    return crop(image_rgb, (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)), margin)


def plain_background_mask(image_rgb: Image) -> Mask | None:
    """Return the mask of an object on a plain background, without holes: (h, w), 0 or 1; None on other backgrounds."""
    foreground = _foreground(image_rgb)
    if foreground is None:
        return None
    contours, _ = cv2.findContours(foreground.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(image_rgb.shape[:2], np.uint8)
    return np.asarray(cv2.drawContours(filled, contours, -1, 1, cv2.FILLED), np.uint8)


def _foreground(image_rgb: Image) -> NDArray[np.bool_] | None:
    """Return which pixels differ from a plain background; None if the border is not plain, or no pixel differs."""
    border = np.concatenate([image_rgb[0], image_rgb[-1], image_rgb[:, 0], image_rgb[:, -1]]).astype(np.int16)
    background = np.median(border, axis=0)
    if np.abs(border - background).max(axis=1).mean() > PLAIN:
        return None
    foreground = np.asarray(np.abs(image_rgb - background).max(axis=2) > 2 * PLAIN, np.bool_)
    return foreground if foreground.any() else None


def connected_components(mask: Mask) -> tuple[NDArray[np.int32], list[Box]]:
    """Return the 8-connected components of a mask: (h, w) with 0 or the component's number, and the box of each."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    boxes = [(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h, _ in stats[1:count]]
    return np.asarray(labels, np.int32), boxes


def resize_map(values: FloatArray, width: int, height: int) -> FloatArray:
    """Scale an (h, w) map of numbers to width x height, linearly."""
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def resize(image_rgb: Image, width: int, height: int, interpolation: Literal["linear", "area"] = "linear") -> Image:
    """Scale to exactly width x height. `area` averages when shrinking and is linear when growing."""
    if interpolation == "area" and (width > image_rgb.shape[1] or height > image_rgb.shape[0]):
        interpolation = "linear"
    return np.asarray(cv2.resize(image_rgb, (width, height), interpolation=_INTERPOLATION[interpolation]), np.uint8)


def resample(image_rgb: Image, width: int, height: int, factor_x: float, factor_y: float) -> Image:
    """Scale to width x height, linearly, by factors that need not fit the picture: what it lacks repeats its border.

    Args:
        image_rgb: the picture, or (h, w).
        width: of the result.
        height: of the result.
        factor_x: pixels of the picture per pixel of the result.
        factor_y: the same, for the rows.
    """
    matrix = np.array([[factor_x, 0.0, factor_x / 2 - 0.5], [0.0, factor_y, factor_y / 2 - 0.5]])  # pixel centres
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image_rgb, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def shrink(image_rgb: Image, longest_px: float) -> Image:
    """Return a picture or mask whose longer side is at most `longest_px`; a smaller one as it is."""
    height, width = image_rgb.shape[:2]
    scale = longest_px / max(height, width)
    if scale >= 1:
        return image_rgb
    return resize(image_rgb, max(1, round(width * scale)), max(1, round(height * scale)), "area")


def augmented(image_rgb: Image, degrees: float, zoom: float, gain: float, *, mirrored: bool = False) -> Image:
    """Return a picture rotated, zoomed and brightened about its centre, or mirrored; of the same size."""
    height, width = image_rgb.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, zoom)
    rotated = cv2.warpAffine(image_rgb, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    brightened = cv2.convertScaleAbs(rotated, alpha=gain)
    return np.ascontiguousarray(brightened[:, ::-1] if mirrored else brightened, np.uint8)


def grey(image_rgb: Image) -> NDArray[np.float32]:
    """Return the grey picture, (h, w), 0..1."""
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image_rgb), cv2.COLOR_RGB2GRAY) / np.float32(255), np.float32)


def box_mean(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Return the mean of each pixel's square window of 2 * radius + 1, with mirrored borders."""
    return np.asarray(cv2.blur(values, (2 * radius + 1, 2 * radius + 1)), np.float32)


def scale_about(mask: NDArray[np.uint8], centre_px: tuple[float, float], scale: float, side: int) -> NDArray[np.uint8]:
    """Scale an (h, w) mask and move `centre_px` to the middle of a `side` x `side` square; 0 outside the mask."""
    middle = (side - 1) / 2
    matrix = np.array([[scale, 0.0, middle - scale * centre_px[0]], [0.0, scale, middle - scale * centre_px[1]]])
    return np.asarray(cv2.warpAffine(mask, matrix, (side, side), flags=cv2.INTER_LINEAR), np.uint8)


def reverse_channels(picture: Image) -> Image:
    """Convert RGB to BGR or back."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)


def split_channels(picture: Image) -> list[NDArray[np.uint8]]:
    """Return the (height, width) planes of a picture: several times as fast as slicing."""
    return [np.asarray(plane, np.uint8) for plane in cv2.split(picture)]


def sharpness(image_rgb: Image) -> float:
    """Return the variance of the Laplacian of the grey picture, the usual focus measure; larger is sharper."""
    grey = cv2.cvtColor(np.ascontiguousarray(image_rgb), cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var())


def draw_box(image_rgb: Image, box_px: Box, colour_rgb: tuple[int, int, int], thickness: int = 2) -> None:
    """Draw a box, in place."""
    x0, y0, x1, y1 = (round(v) for v in box_px)
    cv2.rectangle(image_rgb, (x0, y0), (x1 - 1, y1 - 1), colour_rgb, thickness, cv2.LINE_AA)


def draw_text(
    image_rgb: Image, text: str, at_px: tuple[int, int], colour_rgb: tuple[int, int, int], scale: float = 0.45
) -> None:
    """Draw text with its lower left corner at a point and a dark edge for contrast, in place."""
    # OpenCV 5 has a font for many scripts, and widens bold text; OpenCV 4 has ASCII only
    printable = text.encode("utf-8", "replace").decode() if _HAS_SCRIPTS else text.encode("ascii", "replace").decode()
    around = [((0, 0, 0), x, y) for x in (-1, 1) for y in (-1, 1)]
    for colour, x, y in (*around, (colour_rgb, 0, 0)):
        at = (at_px[0] + x, at_px[1] + y)
        cv2.putText(image_rgb, printable, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
