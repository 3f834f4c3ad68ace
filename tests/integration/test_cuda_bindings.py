"""The CUDA that finesight names is in the real Python bindings, and a machine without a driver is one clear error."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
runtime = pytest.importorskip(
    "cuda.bindings.runtime", reason="cuda-python is not installed; it comes with the extras gpu and tensorrt"
)


def names_used():
    """Every name after `runtime.` and `names.` in the source, and the statuses that mean a lost GPU."""
    tree = ast.parse((ROOT / "edge/inference/cuda_memory.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
        if name.startswith(("runtime.", "names.")) and "(" not in name:
            yield name.replace("names.", "runtime.cudaDeviceAttr.").removeprefix("runtime.")
        if isinstance(node, ast.Constant) and str(node.value).startswith("cudaError"):
            yield f"cudaError_t.{node.value}"


def test_every_name_is_in_the_bindings():
    used = set(names_used())
    assert {"cudaMallocHost", "cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal"} <= used
    for name in sorted(used):
        found = runtime
        for part in name.split("."):
            assert hasattr(found, part), name
            found = getattr(found, part)


def test_machine_without_a_driver_is_one_clear_error():
    if runtime.cudaDriverGetVersion()[1]:
        pytest.skip("this machine has an NVIDIA driver")
    code = "from edge.inference.cuda_memory import find_gpu; find_gpu()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    major = int(runtime.cudaRuntimeGetVersion()[1]) // 1000
    assert done.stderr.splitlines()[-1] == (
        f"edge.errors.GpuError: the NVIDIA driver is not installed; cuda-python here needs CUDA {major}.0 or later"
    )
