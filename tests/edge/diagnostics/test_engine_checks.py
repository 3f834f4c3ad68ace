"""What `edge doctor` says of engines."""

from __future__ import annotations

import numpy as np
import pytest

from edge.diagnostics import engine_checks
from edge.diagnostics.engine_checks import PROBE, check_engine, has_nvidia_gpu, try_engine
from edge.inference.onnxruntime_engine import open_session_from_bytes


def pci(root, vendor, kind):
    device = root / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")


def with_driver(root):
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev/nvidiactl").touch()


def test_probe_is_a_network_of_one_convolution():
    engine = open_session_from_bytes(PROBE)
    assert engine.run(np.full((1, 1, 2, 2), 3.0, np.float32))[0].tolist() == [[[[6.0, 6.0], [6.0, 6.0]]]]
    assert (engine.input_shape, engine.input_type) == (("n", 1, 2, 2), "tensor(float)")


def test_engine_that_runs_tells_its_version():
    runs, words = check_engine("onnxruntime")
    assert runs
    assert words.count(".") == 2


def test_engine_is_tried_in_a_child():
    assert try_engine("onnxruntime") is None
    assert "is not installed; run: " in try_engine("tensorrt-rtx")


@pytest.mark.parametrize(
    ("vendor", "kind", "found"),
    [
        ("0x10de", "0x030000", True),
        ("0x10de", "0x040300", False),  # the sound of a graphics card
        ("0x8086", "0x030000", False),
    ],
)
def test_nvidia_gpu_is_found_without_its_driver(tmp_path, vendor, kind, found):
    assert not has_nvidia_gpu(tmp_path)
    pci(tmp_path, vendor, kind)
    assert has_nvidia_gpu(tmp_path) is found


def test_gpu_without_a_driver_needs_the_driver_first(tmp_path):
    pci(tmp_path, "0x10de", "0x030200")
    assert check_engine("tensorrt", tmp_path) == (
        False,
        "there is an NVIDIA GPU, but no driver for it; install NVIDIA's driver and restart",
    )


def test_machine_without_a_gpu_gets_no_advice_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_checks, "engine_problem", lambda _: "package is not installed; run: pip install")
    assert check_engine("tensorrt", tmp_path) == (False, "not installed; this machine has no NVIDIA GPU")
    monkeypatch.setattr(engine_checks, "engine_problem", lambda _: None)
    monkeypatch.setattr(engine_checks, "_version", lambda _: "11.4")
    assert check_engine("tensorrt", tmp_path) == (False, "11.4 is installed; this machine has no NVIDIA GPU")


def test_engine_that_is_not_installed_beside_a_gpu_tells_how(tmp_path):
    with_driver(tmp_path)
    runs, words = check_engine("tensorrt-rtx", tmp_path)
    assert not runs
    assert "is not installed; run: " in words


def test_child_that_crashes_or_hangs_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_checks, "command", lambda *_: ["/bin/sh", "-c", "kill -SEGV $$"])
    assert try_engine("tensorrt-rtx").startswith("it crashes (exit status -11)")
    monkeypatch.setattr(engine_checks, "command", lambda *_: ["/bin/sh", "-c", "exec sleep 60"])
    assert try_engine("tensorrt-rtx", timeout_s=0.05) == "it does not answer within 0 s"


def test_wrong_result_is_reported(monkeypatch):
    class Wrong:
        def run(self, batch):
            return [np.full_like(batch, np.nan)]

    monkeypatch.setattr(engine_checks, "open_engine", lambda *_, **__: Wrong())
    assert engine_checks._try_here("tensorrt") == "it computes nan instead of 2"
