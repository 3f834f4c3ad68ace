"""A bundle without classifier and a gallery of three items in two categories, loaded in milliseconds."""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from edge.bundle.active_pointer import ActivePointer, write_active_pointer
from edge.bundle.layout import gallery_folder, slot_folder
from edge.gallery.generation import read_gallery, write_gallery_index
from edge.gallery.writer import GalleryWriter
from edge.manifest.embedder import Head
from tests import projection_model

SPACE = "a" * 64
SIDE, DIM = 16, 8
ITEMS = {"i0": "shelf", "i1": "shelf", "i2": "drawer"}  # category by item
PICTURES = np.random.default_rng(5).integers(0, 255, (len(ITEMS), SIDE, SIDE, 3)).astype(np.uint8)  # of the items


def picture(number: int):
    """Return a picture of an item that is large enough to be recognised."""
    return PICTURES[number].repeat(4, axis=0).repeat(4, axis=1)


@functools.cache
def _made() -> tuple[tempfile.TemporaryDirectory[str], Path]:
    """Make the pair once; the folder lives as long as the process."""
    held = tempfile.TemporaryDirectory(prefix="finesight-small-pair-")
    folder = Path(held.name)
    projection_model.write_model(folder / "bundle", SIDE, DIM)
    spec = projection_model.embedder(SIDE, DIM, "shelf", SPACE) | {"categories": ["shelf", "drawer"], "open_set": {}}
    projection_model.write_manifest(folder / "bundle", "small-1", 1, [projection_model.MODEL], embedders=[spec])
    vectors = projection_model.project(PICTURES, DIM)
    for category in dict.fromkeys(ITEMS.values()):
        with GalleryWriter(folder / "gallery", category, SPACE, [Head(name="class", dim=DIM)]) as writer:
            for number, (item, of) in enumerate(ITEMS.items()):
                if of == category:
                    writer.add(item, f"Item {number}", vectors[[number]])
    write_gallery_index(folder / "gallery", "2026-01-01T00:00:00Z")
    return held, folder


def copy_pair(bundle: Path, gallery: Path) -> None:
    """Write a small bundle and gallery."""
    _, made = _made()
    shutil.copytree(made / "bundle", bundle)
    shutil.copytree(made / "gallery", gallery)


def make_device(state: Path) -> Path:
    """Make a state folder with the small pair active, without the proof that activating needs."""
    generation = read_gallery(_made()[1] / "gallery", verify=False).generation
    copy_pair(slot_folder(state, "a"), gallery_folder(state, generation))
    write_active_pointer(state, ActivePointer(slot="a", bundle_id="small-1", gallery=generation))
    return state
