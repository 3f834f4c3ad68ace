"""Small valid bundles and galleries, with placeholder bytes for the models."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from edge.gallery.generation import write_gallery_index
from edge.gallery.writer import GalleryWriter
from edge.manifest.embedder import Head

SPACE = "a" * 64
HEADS = [Head(name="class", dim=8), Head(name="local", dim=4)]


def unit_rows(n: int, dim: int = 12, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def trusted(*_: object) -> list[str]:
    """Prove nothing: placeholder models cannot run."""
    return []


def compatible_with(space_id: str, category: str = "tyre") -> dict[str, object]:
    """A declaration that galleries of another space are compatible."""
    measured = {"old_old": 0.8, "new_old": 0.85, "new_new": 0.9, "queries": 200, "change_95": [0.01, 0.09]}
    return {"space_id": space_id, "category": category, "open_set": {"threshold": 0.42}, **measured}


def make_bundle(
    folder: Path,
    bundle_id: str,
    sequence: int = 1,
    space_id: str = SPACE,
    compatible: tuple[str, ...] = (),
    *,
    probe: bool = False,
) -> Path:
    """Write a bundle with an embedder for `tyre`; the detector's bytes are the same in every bundle."""
    contents = {
        "detector.onnx": b"detector " * 9000,
        "models/tyre.onnx": f"embedder of {bundle_id} ".encode() * 500,
    }
    if probe:
        contents["probe.png"] = b"a picture"
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    model = {
        "files": {"ort-u8": "models/tyre.onnx"},
        "input_name": "image",
        "output_names": ["vector"],
        "preprocess": {"width": 96, "height": 96},
        "categories": ["tyre"],
        "heads": [head.model_dump() for head in HEADS],
        "space_id": space_id,
        "compatible": [compatible_with(other) for other in compatible],
    }
    manifest = {
        "schema": 1,
        "bundle_id": bundle_id,
        "sequence": sequence,
        "created_at": "2026-01-01T00:00:00Z",
        "runtimes": ["ort-u8"],
        "files": [
            {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in contents.items()
        ],
        "embedders": [model],
        "probes": [{"path": "probe.png", "category": "tyre", "item_id": "i0", "embedding_i8": [127] * 12}] * probe,
    }
    (folder / "bundle.json").write_text(json.dumps(manifest, indent=1))
    return folder


def make_gallery(folder: Path, n: int = 3, space_id: str = SPACE, categories: tuple[str, ...] = ("tyre",)) -> Path:
    for category in categories:
        with GalleryWriter(folder, category, space_id, HEADS) as writer:
            for i in range(n):
                writer.add(f"i{i}", f"Item {i}", unit_rows(2, seed=i))
    write_gallery_index(folder, "2026-01-01T00:00:00Z")
    return folder
