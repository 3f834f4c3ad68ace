"""Variants of the demo's bundle and gallery that are quick to publish and to prove: one form of each model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge.gallery.generation import read_gallery, write_gallery_index
from edge.gallery.writer import GalleryWriter
from tests.demo_bundles import DEMO, demo_manifest, write_variant

_PROBES = 2  # of each category


def small_bundle(folder: Path, number: int, *, wrong_probes: bool = False) -> Path:
    """Write the demo's bundle as `demo-<number>`, with that sequence number.

    Args:
        folder: new.
        number: of the bundle.
        wrong_probes: expect of each golden probe what no model gives.
    """
    manifest = demo_manifest()
    models = [manifest["detector"], manifest["classifier"], *manifest["embedders"]]
    for model in models:
        model["files"] = {model["ship"]: model["files"][model["ship"]]}
    manifest |= {
        "bundle_id": f"demo-{number}",
        "sequence": number,
        "finder": None,
        "runtimes": sorted({model["ship"] for model in models}),
        "probes": _some_probes(manifest["probes"], wrong=wrong_probes),
        "scene_probes": manifest["scene_probes"][:1],
    }
    return write_variant(folder, manifest)


def _some_probes(probes: list[dict[str, Any]], *, wrong: bool) -> list[dict[str, Any]]:
    kept: dict[str, list[dict[str, Any]]] = {}
    for probe in probes:
        if wrong:
            probe["embedding_i8"] = [-value for value in probe["embedding_i8"]]
        kept.setdefault(probe["category"], []).append(probe)
    return [probe for some in kept.values() for probe in some[:_PROBES]]


def foreign_gallery(folder: Path) -> Path:
    """Write a gallery in the demo's embedding spaces of items that nobody has seen: it is valid, and knows nothing."""
    random = np.random.default_rng(0)
    for category, entry in read_gallery(DEMO / "gallery").categories.items():
        rows = random.normal(size=(8, entry.dim)).astype(np.float32)
        with GalleryWriter(folder, category, entry.space_id, entry.heads) as writer:
            for number, row in enumerate(rows):
                writer.add(f"foreign-{number}", f"Foreign {number}", row[None] / np.linalg.norm(row))
    write_gallery_index(folder, "2026-01-01T00:00:00Z")
    return folder
