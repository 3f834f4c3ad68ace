"""Variants of the demo's bundle and gallery that are quick to publish and to prove: one form of each model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from edge.gallery.generation import read_gallery, write_gallery_index
from edge.gallery.writer import GalleryWriter

DEMO = Path(__file__).parents[2] / "demo"
_PROBES = 2  # of each category


def small_bundle(folder: Path, number: int, *, wrong_probes: bool = False) -> Path:
    """Write the demo's bundle as `demo-<number>`, with that sequence number.

    Args:
        folder: new.
        number: of the bundle.
        wrong_probes: expect of each golden probe what no model gives.
    """
    manifest = json.loads((DEMO / "bundle/bundle.json").read_bytes())
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
    named = {path for model in models for path in model["files"].values()}
    named |= {probe["path"] for probe in [*manifest["probes"], *manifest["scene_probes"]]}
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] in named]
    for path in named:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DEMO / "bundle" / path, folder / path)
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


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
