"""A repository whose gallery holds pictures of noise: each has a vector of its own, by a random projection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gallery_sync.command_line import utc_now

ITEMS, DIM = 20_000, 256
SIDE, CATEGORY, SPACE = 16, "shelf", "b" * 64


def make_repository(repo: Path) -> Any:
    """Make an empty repository with development keys."""
    from gallery_sync.repository.keys import KeyRing, keys_beside
    from gallery_sync.repository.metadata import SignedMetadata

    keys = KeyRing.development(keys_beside(repo))
    SignedMetadata.create(repo, "bench", "online", keys, utc_now())
    return keys


def publish(repo: Path, keys: Any, **what: Path) -> None:
    """Publish a bundle, a gallery or both."""
    from gallery_sync.repository import publish as room

    room.publish(repo, keys, utc_now(), **what)


def embed(pictures_rgb: np.ndarray) -> np.ndarray:
    """Return what the embedder gives for uint8 (n, SIDE, SIDE, 3), as unit vectors."""
    from tests.projection_model import project

    return project(pictures_rgb, DIM)


def make_bundle(folder: Path) -> Path:
    """Write a bundle with one embedder, for a camera with framing: whole_frame."""
    from tests.projection_model import MODEL, embedder, write_manifest, write_model

    write_model(folder, SIDE, DIM)
    write_manifest(folder, "bench-1", 1, [MODEL], embedders=[embedder(SIDE, DIM, CATEGORY, SPACE)])
    return folder


class Pictures:
    """Pictures of noise, by number. The first ITEMS are in the gallery at first."""

    def rgb(self, number: int) -> np.ndarray:
        """Return a picture, uint8 (SIDE, SIDE, 3)."""
        return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)

    def item(self, number: int) -> str:
        """Return the id of its item."""
        return f"item-{number:06d}"

    def encoded(self, number: int) -> bytes:
        """Return it for a look-up, large, as PNG."""
        large = cv2.resize(self.rgb(number), (SIDE * 16, SIDE * 16), interpolation=cv2.INTER_NEAREST)
        return bytes(cv2.imencode(".png", large[..., ::-1])[1])

    def thumbnail(self, number: int) -> bytes:
        """Return its thumbnail, a JPEG of about 1,200 bytes."""
        large = cv2.resize(self.rgb(number), (64, 64), interpolation=cv2.INTER_CUBIC)
        return bytes(cv2.imencode(".jpg", large[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 45])[1])


def make_gallery(folder: Path, pictures: Pictures) -> Path:
    """Write the gallery of the first release."""
    from edge.gallery.generation import write_gallery_index
    from edge.gallery.writer import GalleryWriter
    from edge.manifest.embedder import Head

    out = folder / "gallery"
    vectors = embed(np.stack([pictures.rgb(number) for number in range(ITEMS)]))
    with GalleryWriter(out, CATEGORY, SPACE, [Head(name="class", dim=DIM)]) as writer:
        for number in range(ITEMS):
            thumbnail = pictures.thumbnail(number)
            writer.add(pictures.item(number), f"Item {number}", vectors[number, None], {"sku": number}, thumbnail)
    write_gallery_index(out, "2026-01-01T00:00:00Z")
    return out
