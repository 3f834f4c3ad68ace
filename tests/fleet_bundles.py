"""Bundles for many devices on one machine: one embedder of a few kilobytes, and a camera that shows four pictures.

Each fault of a release is deliberate, and is caught at a place of its own:

    "probes"  the golden probe expects what no model gives: the proof refuses it
    "blind"   the model gives one and the same vector for all pictures that are brighter than the probe: it passes its
              proof, knows nothing that the camera shows, and the trial undoes it
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from edge.gallery.generation import write_gallery_index
from edge.gallery.writer import GalleryWriter
from edge.manifest.embedder import Head
from tests.projection_model import MODEL, embedder, project, write_manifest, write_model

SIDE, DIM, ITEMS, CATEGORY, SPACE = 16, 64, 4, "shelf", "c" * 64
STILL = 4  # frames of each item in a row: a camera with framing: whole_frame waits until the picture is still
PROBE = ITEMS  # the number of its picture, darker than those of the items
_PROBE = "probes/0.png"
Fault = Literal["probes", "blind"]


def picture(number: int) -> np.ndarray:
    """Return a picture of noise, uint8 (SIDE, SIDE, 3) RGB: bright ones for items, a dark one for the probe."""
    low, high = (0, 100) if number == PROBE else (156, 256)
    return np.random.default_rng(number).integers(low, high, (SIDE, SIDE, 3), np.uint8)


def write_bundle(folder: Path, number: int, fault: Fault | None = None) -> Path:
    """Write a bundle `fleet-<number>`, with that sequence number."""
    write_model(folder, SIDE, DIM, is_blind=fault == "blind")
    (folder / _PROBE).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / _PROBE), _large(PROBE))
    vector = project(picture(PROBE)[None], DIM)[0] * (-1 if fault == "probes" else 1)
    embedding = np.rint(vector * 127 / np.abs(vector).max()).astype(int).tolist()
    probe = {"path": _PROBE, "category": CATEGORY, "item_id": "item-0", "embedding_i8": embedding}
    embedders = [embedder(SIDE, DIM, CATEGORY, SPACE)]
    write_manifest(folder, f"fleet-{number}", number, (MODEL, _PROBE), embedders=embedders, probes=[probe])
    return folder


def _large(number: int) -> np.ndarray:
    """Return a picture for a file, BGR as OpenCV writes it."""
    return cv2.resize(picture(number), (SIDE * 4, SIDE * 4), interpolation=cv2.INTER_NEAREST)[..., ::-1]


def write_gallery(folder: Path) -> Path:
    """Write the gallery of the items."""
    with GalleryWriter(folder, CATEGORY, SPACE, [Head(name="class", dim=DIM)]) as writer:
        for number in range(ITEMS):
            writer.add(f"item-{number}", f"Item {number}", project(picture(number)[None], DIM))
    write_gallery_index(folder, "2026-01-01T00:00:00Z")
    return folder


def write_pictures(folder: Path) -> Path:
    """Write what a camera shows: one item after the other, each for some frames."""
    folder.mkdir(parents=True)
    for number in range(ITEMS):
        for frame in range(STILL):
            cv2.imwrite(str(folder / f"{number}-{frame}.png"), _large(number))
    return folder
