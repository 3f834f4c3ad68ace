"""Bundles for many devices on one machine: one embedder of a few kilobytes, and a camera that shows four pictures.

What a release does wrong is made on purpose, and each is caught at another place:

    "probes"  the golden probe expects what no model gives: the proof refuses it
    "blind"   the model gives one and the same vector for all pictures that are brighter than the probe: it passes its
              proof, knows nothing that the camera shows, and the trial undoes it
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from edge.gallery.generation import write_gallery_index
from edge.gallery.writer import GalleryWriter
from edge.manifest import Head

SIDE, DIM, ITEMS, CATEGORY, SPACE = 16, 64, 4, "shelf", "c" * 64
STILL = 4  # frames of each item in a row: a camera with framing: whole_frame waits until the picture is still
PROBE = ITEMS  # the number of its picture, darker than those of the items
_MODEL, _PROBE = "models/shelf.fp32.onnx", "probes/0.png"
Fault = Literal["probes", "blind"]


def picture(number: int) -> np.ndarray:
    """Return a picture of noise, uint8 (SIDE, SIDE, 3) RGB: bright ones for items, a dark one for the probe."""
    low, high = (0, 100) if number == PROBE else (156, 256)
    return np.random.default_rng(number).integers(low, high, (SIDE, SIDE, 3), np.uint8)


def _projection() -> np.ndarray:
    size = SIDE * SIDE * 3
    return (np.random.default_rng(7).normal(size=(size, DIM)) / size).astype(np.float32)


def _vectors(pictures_rgb: np.ndarray) -> np.ndarray:
    rows = (pictures_rgb.reshape(len(pictures_rgb), -1).astype(np.float32) - 127.5) @ _projection()
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def write_bundle(folder: Path, number: int, fault: Fault | None = None) -> Path:
    """Write a bundle `fleet-<number>`, with that sequence number."""
    for path in (_MODEL, _PROBE):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    _write_model(folder / _MODEL, is_blind=fault == "blind")
    large = cv2.resize(picture(PROBE), (SIDE * 4, SIDE * 4), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(folder / _PROBE), large[..., ::-1])
    vector = _vectors(picture(PROBE)[None])[0] * (-1 if fault == "probes" else 1)
    embedding = np.rint(vector * 127 / np.abs(vector).max()).astype(int).tolist()
    embedder = {
        "files": {"fp32": _MODEL},
        "ship": "fp32",
        "input_name": "image",
        "output_names": ["vector"],
        "preprocess": {"width": SIDE, "height": SIDE, "resize": "stretch", "interpolation": "area", "crop_margin": 0.0},
        "categories": [CATEGORY],
        "heads": [{"name": "class", "dim": DIM}],
        "space_id": SPACE,
        "open_set": {CATEGORY: {"threshold": 0.7, "midpoint": 0.7}},
        "max_batch": 8,
    }
    probe = {"path": _PROBE, "category": CATEGORY, "item_id": "item-0", "embedding_i8": embedding}
    manifest = {
        "schema": 1,
        "bundle_id": f"fleet-{number}",
        "sequence": number,
        "created_at": "2026-01-01T00:00:00Z",
        "runtimes": ["fp32"],
        "files": [_entry(folder, path) for path in (_MODEL, _PROBE)],
        "embedders": [embedder],
        "probes": [probe],
    }
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def _entry(folder: Path, path: str) -> dict[str, object]:
    data = (folder / path).read_bytes()
    return {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _write_model(path: Path, *, is_blind: bool) -> None:
    """Write a model of uint8 (n, SIDE, SIDE, 3) to unit vectors (n, DIM): a projection of the picture."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    values = {
        "middle": np.array(127.5, np.float32),
        "shape": np.array([-1, SIDE * SIDE * 3], np.int64),
        "weights": _projection(),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["cast", "middle"], ["centred"]),
        helper.make_node("Reshape", ["centred", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["projected"]),
    ]
    if is_blind:
        direction = np.random.default_rng(8).normal(size=(1, DIM))
        values["direction"] = (1000.0 * direction).astype(np.float32)
        nodes += [
            helper.make_node("ReduceMean", ["flat"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Relu", ["mean"], ["brightness"]),  # 0 for dark pictures
            helper.make_node("MatMul", ["brightness", "direction"], ["nothing"]),
            helper.make_node("Add", ["projected", "nothing"], ["sum"]),
        ]
    last = "sum" if is_blind else "projected"
    nodes.append(helper.make_node("LpNormalization", [last], ["vector"], axis=1, p=2))
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "projection",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", DIM])],
        [numpy_helper.from_array(value, name) for name, value in values.items() if name in used],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def write_gallery(folder: Path) -> Path:
    """Write the gallery of the items."""
    with GalleryWriter(folder, CATEGORY, SPACE, [Head(name="class", dim=DIM)]) as writer:
        for number in range(ITEMS):
            writer.add(f"item-{number}", f"Item {number}", _vectors(picture(number)[None]))
    write_gallery_index(folder, "2026-01-01T00:00:00Z")
    return folder


def write_pictures(folder: Path) -> Path:
    """Write what a camera shows: one item after the other, each for some frames."""
    folder.mkdir(parents=True)
    for number in range(ITEMS):
        large = cv2.resize(picture(number), (SIDE * 4, SIDE * 4), interpolation=cv2.INTER_NEAREST)
        for frame in range(STILL):
            cv2.imwrite(str(folder / f"{number}-{frame}.png"), large[..., ::-1])
    return folder
