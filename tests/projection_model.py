"""A model of a few kilobytes for many devices on one machine: an embedder that projects a picture, and its bundle.

The projection is random, so that every picture has a vector of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "models/shelf.fp32.onnx"  # in the folder of a bundle


def project(pictures_rgb: np.ndarray, dim: int) -> np.ndarray:
    """Return what the embedder gives for uint8 (n, side, side, 3): unit vectors, (n, dim) float32."""
    rows = pictures_rgb.reshape(len(pictures_rgb), -1).astype(np.float32) - 127.5
    vectors = rows @ _weights(rows.shape[1], dim)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _weights(size: int, dim: int) -> np.ndarray:
    return (np.random.default_rng(7).normal(size=(size, dim)) / size).astype(np.float32)


def write_model(folder: Path, side: int, dim: int, *, is_blind: bool = False) -> None:
    """Write the model of a bundle, of uint8 (n, side, side, 3) to unit vectors (n, dim).

    Args:
        folder: of the bundle.
        side: of a picture, in pixels.
        dim: of a vector.
        is_blind: whether all pictures that are brighter than the middle get one and the same vector.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    size = side * side * 3
    values = {
        "middle": np.array(127.5, np.float32),
        "shape": np.array([-1, size], np.int64),
        "weights": _weights(size, dim),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["cast", "middle"], ["centred"]),
        helper.make_node("Reshape", ["centred", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["projected"]),
    ]
    if is_blind:
        direction = np.random.default_rng(8).normal(size=(1, dim))
        values["direction"] = (1000.0 * direction).astype(np.float32)
        nodes += [
            helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Relu", ["mean"], ["brightness"]),  # 0 for dark pictures
            helper.make_node("MatMul", ["brightness", "direction"], ["nothing"]),
            helper.make_node("Add", ["projected", "nothing"], ["sum"]),
        ]
    last = "sum" if is_blind else "projected"
    nodes.append(helper.make_node("LpNormalization", [last], ["vector"], axis=1, p=2))
    graph = helper.make_graph(
        nodes,
        "projection",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", side, side, 3])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", dim])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / MODEL).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / MODEL))


def embedder(side: int, dim: int, category: str, space: str) -> dict[str, Any]:
    """Return what a manifest says of the model, for a camera with framing: whole_frame."""
    return {
        "files": {"fp32": MODEL},
        "ship": "fp32",
        "input_name": "image",
        "output_names": ["vector"],
        "preprocess": {"width": side, "height": side, "resize": "stretch", "interpolation": "area", "crop_margin": 0.0},
        "categories": [category],
        "heads": [{"name": "class", "dim": dim}],
        "space_id": space,
        "open_set": {category: {"threshold": 0.7, "midpoint": 0.7}},
        "max_batch": 8,
    }


def write_manifest(folder: Path, bundle_id: str, sequence: int, paths: Iterable[str], **parts: Any) -> None:
    """Write the manifest of a bundle.

    Args:
        folder: of the bundle.
        bundle_id: of the bundle.
        sequence: its number.
        paths: of its files.
        parts: further keys, such as `embedders`.
    """
    files = []
    for path in paths:
        data = (folder / path).read_bytes()
        files.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    manifest = {
        "schema": 1,
        "bundle_id": bundle_id,
        "sequence": sequence,
        "created_at": "2026-01-01T00:00:00Z",
        "runtimes": ["fp32"],
        "files": files,
        **parts,
    }
    (folder / "bundle.json").write_text(json.dumps(manifest))
