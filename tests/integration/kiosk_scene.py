"""The video of a kiosk in tests: an empty counter, a car that the gallery lacks, one that it has, and views."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from edge.bundle import slots
from edge.bundle.install import install_gallery
from edge.gallery.generation import write_gallery_index
from edge.gallery.store import store_path
from edge.gallery.writer import GalleryWriter
from edge.manifest.manifest import parse_manifest
from tests.integration.test_device import DEMO, install
from tests.store_samples import trusted

WIDTH, HEIGHT, FPS = 960, 540, 10
EMPTY_S = 4.0
KNOWN, KNOWN_LABEL = "car-04", "Merle hatch city"
UNKNOWN, UNKNOWN_LABEL = "car-03", "Merle hatch retro"  # both are probes of the demo's bundle
_POSES = ((0, 1.0, 0), (4, 1.06, 12), (-4, 1.1, -10), (2, 1.16, 22), (-2, 1.0, -24))  # degrees, zoom, brightness


def probe(item_id: str) -> np.ndarray:
    """The demo's picture of an item at the camera's size, BGR."""
    manifest = parse_manifest((DEMO / "bundle/bundle.json").read_text(), "demo")
    paths = {one.item_id: one.path for one in manifest.probes}
    return cv2.resize(cv2.imread(str(DEMO / "bundle" / paths[item_id])), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def poses(item_id: str) -> list[np.ndarray]:
    """Views of the item, as if somebody turned it by hand."""
    picture = probe(item_id)
    turned = []
    for degrees, zoom, brightness in _POSES:
        matrix = cv2.getRotationMatrix2D((WIDTH / 2, HEIGHT / 2), degrees, zoom)
        moved = cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE)
        turned.append(cv2.convertScaleAbs(moved, beta=brightness))
    return turned


def write_video(path: Path, known_s: float, poses_s: float, rounds: int, held_s: float = 0.0) -> None:
    """Write a video: an empty counter and the unknown car held still, the known car, then the poses of the unknown one.

    Args:
        path: of the video.
        known_s: how long the known car is shown.
        poses_s: how long each pose is shown.
        rounds: how often all poses are shown.
        held_s: how long the unknown car is held still at first; 0: neither it nor the empty counter is shown.
    """
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    empty = np.full((HEIGHT, WIDTH, 3), 150, np.uint8)
    shown = [(empty, EMPTY_S), (probe(UNKNOWN), held_s)] if held_s else []
    shown += [(probe(KNOWN), known_s)] + [(pose, poses_s) for pose in poses(UNKNOWN)] * rounds
    for picture, seconds in shown:
        for _ in range(round(seconds * FPS)):
            video.write(picture)
    video.release()


def install_without(item_id: str, state_dir: Path, scratch: Path) -> None:
    """Install the demo's bundle with a gallery that lacks an item."""
    category = item_id.partition("-")[0]
    gallery = shutil.copytree(DEMO / "gallery", scratch / "gallery")
    model = parse_manifest((DEMO / "bundle/bundle.json").read_text(), "demo").embedder_for(category)
    with GalleryWriter(
        gallery, category, model.space_id, model.heads, base=store_path(DEMO / "gallery", category)
    ) as writer:
        writer.delete(item_id)
    write_gallery_index(gallery, "2026-01-01T00:00:00Z")
    install(state_dir)
    slots.activate(state_dir, generation=install_gallery(gallery, state_dir), prove=trusted)
