"""The demo's INT8 models with noise on their weights: a stand-in for a fine-tuning."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

DEMO = Path(__file__).parent.parent / "demo"
FORM = "ort-u8"


def noisy_bundle(folder: Path, number: int, noise: float) -> Path:
    """Write the demo's bundle with its INT8 forms alone, and noise on their weights."""
    manifest = json.loads((DEMO / "bundle/bundle.json").read_bytes())
    models = [manifest["detector"], manifest["classifier"], *manifest["embedders"]]
    for model in models:
        model |= {"files": {FORM: model["files"][FORM]}, "ship": FORM}
    manifest |= {"bundle_id": f"noisy-{number}", "sequence": number, "runtimes": [FORM]}
    manifest |= {"probes": [], "scene_probes": []}
    entries = []
    for path in [model["files"][FORM] for model in models]:
        out = folder / path
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(with_noise((DEMO / "bundle" / path).read_bytes(), noise))
        data = out.read_bytes()
        entries.append({"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    manifest["files"] = entries
    (folder / "bundle.json").write_text(json.dumps(manifest))
    return folder


def with_noise(model: bytes, noise: float) -> bytes:
    """Return an ONNX model with Gaussian noise on its weights, of this share of the deviation of each tensor."""
    import onnx
    from onnx import numpy_helper

    if not noise:
        return model
    random, loaded = np.random.default_rng(0), onnx.load_from_string(model)
    for tensor in loaded.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size < 16 or values.dtype not in (np.int8, np.uint8, np.float32):
            continue
        changed = values + random.normal(size=values.shape) * values.astype(np.float64).std() * noise
        if values.dtype != np.float32:
            limits = np.iinfo(values.dtype)
            changed = np.clip(np.rint(changed), limits.min, limits.max)
        tensor.CopyFrom(numpy_helper.from_array(changed.astype(values.dtype), tensor.name))
    return bytes(loaded.SerializeToString())
