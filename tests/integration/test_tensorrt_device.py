"""A whole device whose GPU is a stand-in: the CPU serves until its engines are built, and after it is lost."""

from __future__ import annotations

import logging
import threading

import pytest

from edge import build
from edge.bundle import slots
from edge.bundle.bundle import read_bundle
from edge.bundle.install import install_bundle, install_gallery
from edge.cli import main
from edge.config.schema import DeviceConfig
from edge.inference import engine
from edge.inference.engine_choice import models_of
from edge.manifest.stages import FinderModel
from edge.runtime import Runtime
from tests.fakes_tensorrt import CudaStatus, installed, write_packages
from tests.integration.test_device import DEMO
from tests.store_samples import trusted
from tests.waiting import DEADLINE_S, until


@pytest.fixture
def trt(tmp_path, monkeypatch):
    """A TensorRT for this process, and one for the child that builds."""
    with installed() as fake:
        monkeypatch.syspath_prepend(write_packages(tmp_path / "site", "fake.cuda.free_bytes = 1 << 30"))
        fake.cuda.free_bytes = 1 << 30
        yield fake


@pytest.fixture
def runtime(trt, tmp_path):
    state = tmp_path / "state"
    slots.activate(state, install_bundle(DEMO / "bundle", state), install_gallery(DEMO / "gallery", state), trusted)
    camera = {"source": f"file://{DEMO / 'stream.mp4'}?loop=1"}
    config = {"state_dir": state, "cameras": {"shelf": camera}, "engine": {"backend": "tensorrt"}}
    stop = threading.Event()
    with Runtime(DeviceConfig.model_validate(config)) as runtime:
        thread = threading.Thread(target=runtime.run, args=(stop,))
        thread.start()
        yield runtime
        stop.set()
        thread.join(DEADLINE_S)


def backends(runtime):
    return {one.backend for one in runtime.models.stages.engines.values()}


def test_cpu_serves_until_the_engines_are_built_and_after_the_gpu_is_lost(runtime, trt):
    report = runtime.report()
    assert backends(runtime) == {"onnxruntime"}
    assert report.state == "degraded"
    assert report.gpu_fallback.startswith("building engine 1 of ")
    until(lambda: backends(runtime) == {"tensorrt"}, "the GPU serves")
    assert trt.builds == 0  # the child built them
    report = runtime.report()
    assert (report.state, report.gpu_fallback, report.engines_building) == ("running", None, 0)
    before = runtime.counters.total("frames_recognised")
    until(lambda: runtime.counters.total("frames_recognised") > before + 2, "frames are recognised")
    assert trt.cuda.calls.count("cudaGraphLaunch") > 0
    trt.cuda.lost = CudaStatus.cudaErrorLaunchFailure
    until(lambda: backends(runtime) == {"onnxruntime"}, "the CPU serves")
    report = runtime.report()
    assert report.state == "degraded"
    assert "cudaErrorLaunchFailure" in report.gpu_fallback
    before = runtime.counters.total("frames_recognised")
    until(lambda: runtime.counters.total("frames_recognised") > before + 2, "frames are recognised")
    assert runtime.counters.total("frames_failed") > 0
    assert runtime.counters.total("gpu_failures", reason="lost") == 1


def test_activation_builds_first_and_logs_its_progress(trt, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "edge")
    state, built_before = tmp_path / "state", []
    monkeypatch.setattr(engine, "_GPU_NODES", ("/dev/null",))

    def prove(bundle, gallery):  # the real one starts children that look for a GPU
        built_before.append(len(list((state / "cache").glob("*.plan"))))
        return []

    monkeypatch.setattr(build, "prover", lambda *_: prove)
    slots.stage(state, install_bundle(DEMO / "bundle", state), install_gallery(DEMO / "gallery", state))
    config = tmp_path / "device.yaml"
    config.write_text(
        f"state_dir: {state}\nengine: {{backend: tensorrt}}\ncameras: {{door: {{source: 'rtsp://h/a'}}}}\n"
    )
    assert main(["bundle", "activate", "-c", str(config)]) == 0
    models = models_of(read_bundle(DEMO / "bundle", verify=False).manifest)
    (built,) = built_before
    assert built >= sum(not isinstance(model, FinderModel) for model in models.values())
    assert "building engine 1 of " in caplog.text
