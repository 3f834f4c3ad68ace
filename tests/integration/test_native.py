"""C libraries that may conflict, each combination in its own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_engine_after_gstreamer_rejects_a_broken_model_cleanly(backend, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    done = python(
        """
import sys
import cv2
from edge.capture.gstreamer_source import elements_present
assert "appsink" in elements_present()
from pathlib import Path
from edge.inference.engine import open_engine
from edge.errors import EngineError
try:
    open_engine(Path(sys.argv[1]), sys.argv[2])
except EngineError as error:
    print("rejected:", error)
""",
        str(broken),
        backend,
    )
    assert (done.returncode, done.stdout.startswith(f"rejected: {broken}")) == (0, True), done.stderr


def test_loading_openvino_starts_no_telemetry():
    done = python("""
import sys, threading
import edge.inference.openvino_engine
print([name for name in sys.modules if name.startswith("openvino_telemetry.")], threading.active_count())
""")
    assert done.stdout.strip() == "[] 1", done.stderr


def test_heaps_are_limited_with_glibc():
    assert python("from edge.process import limit_heaps; print(limit_heaps())").stdout.strip() == "True"
