"""Says of each engine whether it is installed and runs here, and if not, why and what to do.

Rules:
1. "Runs" means that it ran: an engine for a GPU loads a network of one convolution, in a child that may crash or hang.
2. An engine that would bring nothing here is not advised: without an NVIDIA GPU no command for one is shown.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np

from edge.bundle.child_process import be_the_first_to_die, command, take_stdout
from edge.errors import FinesightError, one_line
from edge.extras import engine_problem, is_jetson
from edge.inference.engine import GPU_BACKENDS, RUNS, has_gpu_driver, open_engine

ENGINES = tuple(RUNS)
_TIMEOUT_S = 180.0  # TensorRT builds the network, and the first use of CUDA takes seconds
_NVIDIA, _DISPLAY = "0x10de", "0x03"  # vendor and class of a PCI device
# y = conv(x, w): x float (n, 1, 2, 2), w = 2.0; IR version 8, opset 17
PROBE = (
    b'\x08\x08:e\n\x0f\n\x01x\n\x01w\x12\x01y"\x04Conv\x12\x01p*\x13\x08\x01\x08\x01\x08\x01\x08\x01\x10\x01"\x04'
    b"\x00\x00\x00@B\x01wZ\x1c\n\x01x\x12\x17\n\x15\x08\x01\x12\x11\n\x03\x12\x01n\n\x02\x08\x01\n\x02\x08\x02\n\x02"
    b"\x08\x02b\x1c\n\x01y\x12\x17\n\x15\x08\x01\x12\x11\n\x03\x12\x01n\n\x02\x08\x01\n\x02\x08\x02\n\x02\x08\x02B"
    b"\x04\n\x00\x10\x11"
)
_PACKAGES = {  # that bring an engine; the first that is installed tells the version
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "onnxruntime-cuda": ("onnxruntime-gpu",),
    "onnxruntime-tensorrt": ("onnxruntime-gpu",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    "tensorrt-rtx": ("onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime-ep-nv-tensorrt-rtx-cu12"),
}


def check_engine(name: str, root: Path = Path("/")) -> tuple[bool, str]:
    """Return whether an engine runs here, and its version or the reason.

    Args:
        name: a key of RUNS.
        root: of the file system.
    """
    problem = engine_problem(name)
    if name in GPU_BACKENDS and not has_gpu_driver(root):
        if has_nvidia_gpu(root):
            return False, "there is an NVIDIA GPU, but no driver for it; install NVIDIA's driver and restart"
        installed = "not installed" if problem else f"{_version(name)} is installed"
        return False, f"{installed}; this machine has no NVIDIA GPU"
    problem = problem or try_engine(name)
    return (False, problem) if problem else (True, _version(name))


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Return whether there is an NVIDIA GPU, with or without a driver."""
    if is_jetson(root):
        return True
    for device in (root / "sys/bus/pci/devices").glob("*"):
        try:
            vendor, kind = ((device / one).read_text(encoding="ascii").strip() for one in ("vendor", "class"))
        except OSError:
            continue
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            return True
    return False


def _version(name: str) -> str:
    for package in _PACKAGES.get(name, (name,)):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def try_engine(name: str, timeout_s: float = _TIMEOUT_S) -> str | None:
    """Run a small network with an engine in a child; return what is wrong, or None."""
    try:
        child = subprocess.run(
            command(__name__, name), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it does not answer within {timeout_s:.0f} s"
    try:
        return str(json.loads(child.stdout)["problem"] or "") or None
    except (ValueError, TypeError, KeyError):
        return f"it crashes (exit status {child.returncode}); install its packages again, or choose another engine"


def main(argv: list[str]) -> None:
    """Run in the child: try the engine that is named, and answer on standard output."""
    parent, name = argv
    be_the_first_to_die(int(parent))
    answer = take_stdout()
    with open(answer, "w", encoding="utf-8") as out:  # noqa: PTH123  # a descriptor
        json.dump({"problem": _try_here(name)}, out)


def _try_here(name: str) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.onnx")
        path.write_bytes(PROBE)
        try:
            (output,) = open_engine(path, name, cache=Path(folder)).run(np.ones((1, 1, 2, 2), np.float32))
        except FinesightError as error:
            return one_line(str(error).removeprefix(f"{path}: ").removeprefix(f"engine {name}: "))
    return None if np.allclose(output, 2.0) else f"it computes {output.ravel()[0]} instead of 2"
