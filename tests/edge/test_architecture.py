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


def loaded_by(statement, depth=1):
    """Return the modules that a new interpreter has loaded after a statement, by so many of their names."""
    names = f"{{'.'.join(name.split('.')[:{depth}]) for name in sys.modules}}"
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted({names})))"
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


def test_models_load_before_the_rest_of_the_program_is_imported():
    loaded = loaded_by("import edge.run_device", depth=2)
    assert {"edge.build", "cv2"} <= loaded
    assert loaded.isdisjoint(["edge.runtime", "edge.capture", "edge.messaging", "edge.kiosk", "edge.frame_loop"])


def test_broker_library_is_left_to_the_thread_that_connects():
    assert loaded_by("import edge.runtime").isdisjoint(["paho", "ssl", "asyncio"])


def test_configuration_is_read_without_models_and_network():
    loaded = loaded_by("import edge.config.config_file", depth=2)
    assert loaded.isdisjoint(["numpy", "cv2", "onnxruntime", "sqlite3", "ssl", "asyncio", "edge.manifest"])


def test_validators_of_a_start_are_built_once():
    code = "from edge.config import schema; from edge.manifest import embedder, manifest, model, stages; import json"
    code += "; every = {**vars(schema), **vars(model), **vars(stages), **vars(embedder), **vars(manifest)}.items()"
    code += "; complete = '__pydantic_complete__'"
    code += "; print(json.dumps([name for name, kind in every if isinstance(kind, type) and vars(kind).get(complete)]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {"DeviceConfig", "Manifest", "FinderShape"}


def test_package_loads_no_library_before_its_api_is_used():
    assert loaded_by("import edge").isdisjoint(["numpy", "cv2", "onnxruntime", "pydantic"])
    assert {"numpy", "cv2"} <= loaded_by("from edge import Recogniser")
    assert loaded_by("from edge import Recogniser").isdisjoint(["paho", *SERVER_SIDE, *BY_CHOICE])
