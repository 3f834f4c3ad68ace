"""The imports that the runtime may make."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER_SIDE = ["torch", "torchvision", "timm", "onnx", "tuf", "matplotlib", "trainer", "quantize", "gallery_sync"]
BY_CHOICE = [
    "amqtt",
    "gi",
    "openvino",
    "tensorrt",
    "cuda",
    "starlette",
    "uvicorn",
    "python_multipart",
]  # loaded only if configured


def loaded_by(statement):
    """Return the top-level modules that a new interpreter has loaded after a statement."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["edge.cli", "edge.runtime"])
def test_runtime_loads_no_training_and_no_optional_library(module):
    loaded = loaded_by(f"import {module}")
    assert "edge" in loaded
    assert loaded.isdisjoint(SERVER_SIDE + BY_CHOICE)


def test_help_loads_no_inference_engine():
    loaded = loaded_by("import edge.cli, contextlib\nwith contextlib.suppress(SystemExit): edge.cli.main(['--help'])")
    assert loaded.isdisjoint(["onnxruntime", "hnswlib", *SERVER_SIDE, *BY_CHOICE])


def test_package_loads_no_library_before_its_api_is_used():
    assert loaded_by("import edge").isdisjoint(["numpy", "cv2", "onnxruntime", "pydantic"])
    assert {"numpy", "cv2"} <= loaded_by("from edge import Recogniser")
    assert loaded_by("from edge import Recogniser").isdisjoint(["paho", *SERVER_SIDE, *BY_CHOICE])
