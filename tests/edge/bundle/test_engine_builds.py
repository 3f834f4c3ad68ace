"""Building TensorRT's engines in a child process, against a stand-in for TensorRT that the child imports."""

import sys
import textwrap

import pytest

from edge.bundle.engine_builds import BuildOptions, build_engines, describe, engines_missing
from edge.config.schema import TensorRtConfig
from edge.errors import EngineError, GpuError
from edge.types import BuildProgress
from tests.fakes_tensorrt import installed, write_packages
from tests.sample_models import sums_model


@pytest.fixture
def models(tmp_path):
    paths = [tmp_path / "detector.onnx", tmp_path / "embedder.onnx"]
    for side, path in enumerate(paths, 3):
        path.write_bytes(sums_model(side=side))
    return [(paths[0], 1), (paths[1], 4)]


@pytest.fixture
def options(tmp_path):
    return BuildOptions(tmp_path / "cache", TensorRtConfig(optimisation_level=1))


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Give children a stand-in that runs some lines of Python first; `fake` is what they may change."""

    def say(*lines):
        monkeypatch.syspath_prepend(write_packages(tmp_path / "site", textwrap.dedent("\n".join(lines))))

    say()
    return say


def test_child_builds_what_is_missing_and_tells_its_progress(models, options, child):
    told = []
    build_engines(models, options, told.append)
    assert [(one.built, one.of, one.model) for one in told if one.share == 0] == [
        (0, 2, "detector.onnx"),
        (1, 2, "embedder.onnx"),
    ]
    assert told[-1].left_s is not None
    with installed():
        assert engines_missing(models, options) == []
    build_engines(models, options, pytest.fail)


def test_device_loads_what_the_child_built(models, options, child):
    build_engines(models, options, lambda _: None)
    with installed() as trt:
        from edge.inference.tensorrt_engine import TensorRtEngine

        for path, rows in models:
            assert len(TensorRtEngine(path, options.cache, rows, options.tensorrt).outputs) == 2
        assert trt.builds == 0


def test_error_of_the_build_is_told_and_what_was_built_is_kept(models, options, child):
    models[1][0].write_bytes(b"no model")
    with pytest.raises(
        EngineError, match=r"embedder\.onnx: TensorRT cannot parse it: Shelf 'scores': No such operator; pack it again"
    ):
        build_engines(models, options, lambda _: None)
    with installed():
        assert engines_missing(models, options) == models[1:]


def test_child_without_a_gpu_is_a_gpu_error(models, options, child):
    child("fake.cuda.driver = 0")
    with pytest.raises(GpuError, match=r"the NVIDIA driver is not installed"):
        build_engines(models, options, lambda _: None)


@pytest.mark.parametrize(
    ("lines", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("import os; os._exit(7)", "exit status 7"),
        ("import os; os.write(1, b'printed by a library'); os._exit(0)", "exit status 0"),
    ],
)
def test_child_that_dies_is_one_clear_error(models, options, child, lines, how):
    child(lines)
    with pytest.raises(EngineError, match=rf"^building engines: the process ended with {how}$"):
        build_engines(models, options, lambda _: None)


def test_child_that_hangs_is_ended(models, tmp_path, child):
    child("import time; time.sleep(60)")
    options = BuildOptions(tmp_path / "cache", TensorRtConfig(), silence_limit_s=0.5)
    with pytest.raises(EngineError, match=r"^building engines: nothing happened for 0\.5 s; it was ended$"):
        build_engines(models, options, lambda _: None)


def test_library_that_raises_is_one_clear_error(models, options, child):
    child("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    with pytest.raises(EngineError, match=r"^building engines: ImportError: libnvinfer\.so\.10: cannot open"):
        build_engines(models, options, lambda _: None)


def test_missing_library_is_an_engine_error(models, options, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "edge.inference.tensorrt_engine", raising=False)
    with pytest.raises(EngineError, match=r"^engine tensorrt: installed but not usable: "):
        engines_missing(models, options)


@pytest.mark.parametrize(
    ("left_s", "text"),
    [
        (None, "building engine 2 of 7 (embedder.onnx, 25%)"),
        (10.0, "building engine 2 of 7 (embedder.onnx, 25%), about 1 min left"),
        (3000.0, "building engine 2 of 7 (embedder.onnx, 25%), about 50 min left"),
    ],
)
def test_progress_in_words(left_s, text):
    assert describe(BuildProgress(1, 7, "embedder.onnx", 0.25, left_s)) == text
