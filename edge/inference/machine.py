"""What a choice of engines depends on besides the bundle: when one of these changes, the device measures again.

Everything here is cheap to read: no library that runs models is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from edge.config.schema import TensorRtConfig
from edge.inference.engine_plugins import plugin_versions
from edge.inference.fingerprint import processor

# version of the trial and of the rule that chooses: a higher one makes every device measure again
ALGORITHM = 1
_PACKAGES = ("onnxruntime", "openvino", "tensorrt")  # and every package whose name starts with one of these
_DRIVER = ("/proc/driver/nvidia/version", "/etc/nv_tegra_release", "/proc/device-tree/model")
_GPUS = "/proc/driver/nvidia/gpus"
_MAX_CHARACTERS = 500


def describe_machine(threads: int, tensorrt: TensorRtConfig | None = None, root: Path = Path("/")) -> dict[str, str]:
    """Return everything that a choice depends on, by name.

    Args:
        threads: of one model, as configured.
        tensorrt: how TensorRT builds and runs; None: the defaults.
        root: of the file system.
    """
    lines = processor()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), lines[0])
    return {
        "algorithm": str(ALGORITHM),
        "cpu": model[:_MAX_CHARACTERS],
        "cpu_features": hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16],
        "cpus": str(os.cpu_count()),
        "threads": str(threads),
        "gpu": gpu_and_driver(root),
        "tensorrt": (tensorrt or TensorRtConfig()).model_dump_json(),
        "engines": ", ".join(_engine_versions())[:_MAX_CHARACTERS],
    }


def changes(before: dict[str, str], now: dict[str, str]) -> str | None:
    """Return what differs between two machines, in words; None if nothing does."""
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return ", ".join(name.replace("_", " ") for name in names) or None


def gpu_and_driver(root: Path = Path("/")) -> str:
    """Return the lines that name the NVIDIA driver and the GPUs, as one line; "" if there are none."""
    return "; ".join(_gpu(root))[:_MAX_CHARACTERS]


def _gpu(root: Path) -> Iterator[str]:
    files = [root / path.lstrip("/") for path in _DRIVER]
    files += sorted((root / _GPUS.lstrip("/")).glob("*/information"))
    for path in files:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").replace("\0", "").splitlines()
        except OSError:
            continue
        wanted = lines[:1] if "information" not in path.name else [one for one in lines if one.startswith("Model")]
        yield from (" ".join(line.split()) for line in wanted)


def _engine_versions() -> list[str]:
    found = {f"{name} ({package})" for name, package in plugin_versions().items()}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if name.startswith(_PACKAGES):
            found.add(f"{name} {distribution.version}")
    return sorted(found)
