"""Decodes pictures and crops to show them, and keeps the JPEGs in a bounded cache.

Rules this module keeps:
1. What is shown is a JPEG that we encoded, never the bytes of a file.
2. The bytes that are decoded have the hash of the picture's row: a file that changed is an error, not another picture.
3. Sizes are rounded up to a few steps, so that nobody fills the disk with sizes; the cache deletes its oldest files.
4. Two that ask for the same picture at once decode it once, and few pictures are decoded at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path

from console.sets.pictures import Picture
from console.sets.reading import DECODING, decode, read_file
from console.settings import Settings
from edge.durable import oldest_first
from edge.errors import PictureError
from edge.imaging.image import crop, encode_image, shrink
from edge.imaging.jpeg_decode import DecodedPicture
from edge.types import Box, Image

THUMBNAIL_PX = 256
STEPS_PX = (128, 256, 512, 1024, 1600, 2400, 4096)
MAX_CACHE_BYTES = 1 << 30
_MAX_DECODED_BYTES = 192 << 20  # of pictures that are kept decoded, because several crops of one are shown at once
_WRITES_BETWEEN_LOOKS = 200  # files of the cache that are written before its bytes are counted again
_QUALITY = 85
_HASH_CHARACTERS = 40


def picture_jpeg(settings: Settings, picture: Picture, longest_px: int) -> bytes:
    """Return a picture as JPEG, its longer side at most `longest_px` rounded up to a step.

    Raises:
        PictureError: the file is gone, changed since it was added, or cannot be decoded.
    """
    return crop_jpeg(settings, picture, None, longest_px, 0.0)


def crop_jpeg(settings: Settings, picture: Picture, box_px: Box | None, longest_px: int, margin: float = 0.08) -> bytes:
    """Return a box of a picture as JPEG, see picture_jpeg; None: the whole picture.

    Args:
        settings: where the cache lies.
        picture: which.
        box_px: in the upright picture.
        longest_px: of the result.
        margin: growth of the box on each side, as a share of its size.

    Raises:
        PictureError: see picture_jpeg.
    """
    step_px = next((step for step in STEPS_PX if step >= longest_px), STEPS_PX[-1])
    key, path = _place(settings, picture.sha256, box_px, margin, step_px)
    check_unchanged(picture)
    if data := _cached(path):
        return data
    with _CACHE.only_one(key):
        if data := _cached(path):
            return data
        decoded = _DECODED.picture(picture, _factor(picture, box_px, step_px))
        data = encode_image(shrink(_cut(decoded, box_px, margin), step_px), ".jpg", _QUALITY)
        _CACHE.keep(settings.thumbnails, path, data)
    return data


def keep_thumbnail(settings: Settings, sha256: str, image_rgb: Image) -> None:
    """Keep the thumbnail of a picture that is decoded already, perhaps smaller than it is."""
    if max(image_rgb.shape) >= THUMBNAIL_PX:
        _, path = _place(settings, sha256, None, 0.0, THUMBNAIL_PX)
        _CACHE.keep(settings.thumbnails, path, encode_image(shrink(image_rgb, THUMBNAIL_PX), ".jpg", _QUALITY))


def crop_pixels(picture: Picture, box_px: Box, margin: float = 0.0) -> Image:
    """Return a box of a picture at full size: RGB uint8, contiguous.

    Raises:
        PictureError: see picture_jpeg.
    """
    return _cut(_DECODED.picture(picture, 1), box_px, margin).copy()


def check_unchanged(picture: Picture) -> None:
    """Look whether a file is there and as long as it was.

    Raises:
        PictureError: it is gone or changed.
    """
    try:
        size = picture.path.stat().st_size
    except FileNotFoundError:
        raise PictureError("left", "the file is gone; put it back, or delete the picture from the set") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its name is wrong"
        raise PictureError("broken", f"the file cannot be read: {why}; check its permissions") from error
    if size != picture.size:
        raise PictureError("changed", CHANGED)


CHANGED = "the file changed since it was added; put the old one back, or delete the picture and look for new ones"


def forget_images(settings: Settings, hashes: Collection[str]) -> None:
    """Delete what the cache holds of deleted pictures."""
    gone = {one[:_HASH_CHARACTERS] for one in hashes}
    folders = {one[:2] for one in gone}
    for path in (one for folder in folders for one in (settings.thumbnails / folder).glob("*")):
        if path.name[:_HASH_CHARACTERS] in gone:
            with contextlib.suppress(OSError):
                path.unlink()


def _place(settings: Settings, sha256: str, box_px: Box | None, margin: float, step_px: int) -> tuple[str, Path]:
    """Return the key of a JPEG, and its file in the cache, which begins with the hash of its picture."""
    key = hashlib.sha256(f"{sha256}|{box_px}|{margin}|{step_px}".encode()).hexdigest()
    return key, settings.thumbnails / sha256[:2] / f"{sha256[:_HASH_CHARACTERS]}-{key[:24]}.jpg"


def _factor(picture: Picture, box_px: Box | None, step_px: int) -> int:
    """Return how many times smaller a picture may be decoded."""
    width, height = (
        (picture.width, picture.height) if box_px is None else (box_px[2] - box_px[0], box_px[3] - box_px[1])
    )
    return next((factor for factor in (8, 4, 2) if max(width, height) / factor >= step_px), 1)


def _cut(decoded: DecodedPicture, box_px: Box | None, margin: float) -> Image:
    image_rgb = decoded.image_rgb
    if box_px is None:
        return image_rgb
    x, y = image_rgb.shape[1] / decoded.width, image_rgb.shape[0] / decoded.height
    return crop(image_rgb, (box_px[0] * x, box_px[1] * y, box_px[2] * x, box_px[3] * y), margin)


def _cached(path: Path) -> bytes | None:
    """Return a file of the cache; None if there is none, or a power cut left a part of it."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data if data[:3] == b"\xff\xd8\xff" and data[-2:] == b"\xff\xd9" else None


class _Cache:
    """Writes the files of caches, and keeps each below its bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: dict[str, tuple[threading.Lock, int]] = {}
        self._writes: dict[Path, int] = {}

    @contextlib.contextmanager
    def only_one(self, key: str) -> Iterator[None]:
        """Let one thread at a time work on a key."""
        with self._lock:
            lock, users = self._busy.get(key, (threading.Lock(), 0))
            self._busy[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._busy.pop(key)
                if users > 1:
                    self._busy[key] = (lock, users - 1)

    def keep(self, folder: Path, path: Path, data: bytes) -> None:
        """Write a file; a full disk only makes the cache useless."""
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        with contextlib.suppress(OSError):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(data)
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
        with self._lock:
            writes = self._writes.get(folder, 0)
            self._writes[folder] = writes + 1
        if writes % _WRITES_BETWEEN_LOOKS == 0:
            bound_cache(folder)


def bound_cache(folder: Path, most_bytes: int = MAX_CACHE_BYTES) -> None:
    """Delete the oldest files of a cache until nine tenths of its bytes are left, where it holds too many."""
    files = oldest_first(folder, "*/*")
    total = sum(size for _, size in files)
    if total <= most_bytes:
        return
    for path, size in files:
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size
        if total <= 0.9 * most_bytes:
            return


class _Decoded:
    """The pictures that were decoded last, bounded in bytes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], DecodedPicture] = OrderedDict()

    def picture(self, picture: Picture, factor: int) -> DecodedPicture:
        """Return a picture, decoded to at least 1 / `factor` of its sides."""
        key = (picture.sha256, factor)
        if found := self._find(key):
            return found
        with DECODING:
            if found := self._find(key):
                return found
            data = read_file(picture.path)
            if hashlib.sha256(data).hexdigest() != picture.sha256:
                raise PictureError("changed", CHANGED)
            decoded = decode(data, lambda *_: factor)
            with self._lock:
                self._kept[key] = decoded
                while (
                    len(self._kept) > 1
                    and sum(one.image_rgb.nbytes for one in self._kept.values()) > _MAX_DECODED_BYTES
                ):
                    self._kept.popitem(last=False)
        return decoded

    def _find(self, key: tuple[str, int]) -> DecodedPicture | None:
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found


_CACHE, _DECODED = _Cache(), _Decoded()
