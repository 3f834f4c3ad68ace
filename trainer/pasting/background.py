"""Backgrounds to paste on: crops of the photos in a folder, or drawn places."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_formats.decode import PICTURE_SUFFIXES, read_image
from edge.errors import CaptureError, TrainError
from trainer.synthetic.background import Kind, backdrop, surface

log = logging.getLogger(__name__)

Bytes = NDArray[np.uint8]
Background = Callable[[np.random.Generator, int, int], Bytes]  # width and height to a new (height, width, 3) picture


def drawn_background(rng: np.random.Generator, width: int, height: int) -> Bytes:
    """Draw a shelf, table or texture."""
    kinds: tuple[Kind, ...] = ("shelf", "table", "plain")
    return np.ascontiguousarray(backdrop(rng, kinds[int(rng.integers(3))], width, height)[0])


def drawn_counter(rng: np.random.Generator, width: int, height: int) -> Bytes:
    """Draw a counter seen from above: light board, wood or a dark belt, brighter under its lamp."""
    name = ("plaster", "plaster", "wood", "asphalt")[int(rng.integers(4))]
    image = cv2.GaussianBlur(surface(name, rng, width, height, zoom=float(rng.uniform(0.3, 0.7))), (0, 0), 1.0)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    lamp = rng.uniform(-0.5, 0.5, 2)
    light = 1.08 - rng.uniform(0.08, 0.25) * ((x - lamp[0]) ** 2 + (y - lamp[1]) ** 2)
    return np.asarray(np.clip(image * light[..., None], 0, 255), np.uint8)


def photo_backgrounds(folder: Path) -> tuple[Background, list[str]]:
    """Return a source of crops from the photos below a folder, and why some photos are skipped.

    Raises:
        TrainError: no photo can be read.
    """
    photos, skipped = [], []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES):
        try:
            read_image(path)
        except CaptureError as error:
            log.warning("skipped %s", error)
            skipped.append(str(error))
            continue
        photos.append(path)
    if not photos:
        raise TrainError(f"{folder}: holds no readable photo to paste on; give a folder of photos")
    return PhotoBackground(tuple(photos)), skipped


class PhotoBackground:
    """Crops a random part of a random photo, with the frame's aspect ratio. Pickles only the paths."""

    def __init__(self, photos: tuple[Path, ...]) -> None:
        self._photos = photos

    def __call__(self, rng: np.random.Generator, width: int, height: int) -> Bytes:
        """Return a random crop of this size."""
        photo = read_image(self._photos[int(rng.integers(len(self._photos)))])
        most = min(photo.shape[1] / width, photo.shape[0] / height)
        zoom = most * rng.uniform(0.55, 1.0)
        wide, high = max(1, int(width * zoom)), max(1, int(height * zoom))
        x, y = int(rng.integers(photo.shape[1] - wide + 1)), int(rng.integers(photo.shape[0] - high + 1))
        part = photo[y : y + high, x : x + wide]
        if rng.random() < 0.5:
            part = part[:, ::-1]
        how = cv2.INTER_AREA if zoom > 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=how))
