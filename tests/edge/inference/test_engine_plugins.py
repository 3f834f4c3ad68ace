"""Engines that other installed packages offer."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import EngineError
from edge.inference.engine import choose_backend, choose_target, open_engine
from edge.inference.engine_plugins import load_plugin, plugin_names, plugin_versions
from edge.inference.machine import changes, describe_machine
from tests.engine_package import install_engine

GOOD = """
import numpy as np
forms = ["acme-bin", "fp32"]
def is_usable():
    return None
class Engine:
    inputs, outputs, library = [["image"]], [["sum"]], "acme 7"
    def run(self, batch):
        if not len(batch):
            raise MemoryError("chip is full")
        return [batch.sum(axis=1)]
def open(path, threads, max_batch, cache):
    if path.suffix != ".bin":
        raise RuntimeError("not\\na compiled model")
    return Engine()
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    install_engine(tmp_path / "site", "acme", GOOD, monkeypatch, version="2.5")
    return tmp_path


def test_engine_of_an_installed_package_runs(acme):
    assert plugin_names() == ["acme"]
    assert choose_backend("acme") == "acme"
    assert choose_target({"fp32": "a", "acme-bin": "b"}, "fp32", "acme", "int8") == "acme-bin"
    engine = open_engine(acme / "model.bin", "acme")
    assert engine.run(np.ones((2, 3)))[0].tolist() == [3, 3]
    assert engine.library == "acme: acme_engine 2.5, acme 7"
    assert (engine.inputs, engine.outputs) == ([("image",)], [("sum",)])


def test_whatever_a_plug_in_raises_is_an_engine_error_of_one_line(acme):
    with pytest.raises(EngineError, match=r"model\.hef: engine acme: RuntimeError: not a compiled model"):
        open_engine(acme / "model.hef", "acme")
    with pytest.raises(EngineError, match=r"model\.bin: engine acme: MemoryError: chip is full"):
        open_engine(acme / "model.bin", "acme").run(np.ones((0, 3)))


def test_unknown_engine_names_those_that_exist(acme):
    with pytest.raises(
        EngineError, match=r"engine tensort: no installed package offers it; choose one of auto, .*acme"
    ):
        choose_backend("tensort")


@pytest.mark.parametrize("name", ["onnxruntime-fast", "auto", "tensorrt", "Acme", "a", "acme npu", "a" * 41])
def test_name_of_a_built_in_engine_or_of_another_kind_is_ignored(tmp_path, monkeypatch, caplog, name):
    install_engine(tmp_path / "site", name, GOOD, monkeypatch)
    assert plugin_names() == []
    assert "is ignored" in caplog.text


def test_two_packages_with_one_engine_leave_the_first(tmp_path, monkeypatch, caplog):
    install_engine(tmp_path / "one", "acme", GOOD, monkeypatch)
    (tmp_path / "two").mkdir()
    install_engine(tmp_path / "two", "zzz", GOOD, monkeypatch)
    points = tmp_path / "two" / "zzz_engine-1.0.dist-info" / "entry_points.txt"
    points.write_text("[finesight.engines]\nacme = zzz_engine\n")
    assert plugin_versions() == {"acme": "acme_engine 1.0"}
    assert "two packages offer it" in caplog.text


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise OSError('libacme.so: no such file')", "its package cannot be loaded: OSError: libacme.so"),
        ("import no_such_vendor", "its package cannot be loaded: ModuleNotFoundError"),
        ("", "its package cannot be loaded: AttributeError"),
        ("forms = []", "its plug-in names no forms"),
        ("forms = [1]", "its plug-in names no forms"),
        ("forms = 5", "its package cannot be loaded: TypeError"),
    ],
)
def test_broken_package_is_an_engine_error(tmp_path, monkeypatch, code, why):
    install_engine(tmp_path / "site", "broken", code, monkeypatch)
    with pytest.raises(EngineError, match=f"engine broken: {why}"):
        load_plugin("broken")


def test_plug_in_that_cannot_tell_is_not_usable(tmp_path, monkeypatch):
    install_engine(tmp_path / "site", "acme", GOOD.replace("return None", "return 1 / 0", 1), monkeypatch)
    assert load_plugin("acme").is_usable() == "ZeroDivisionError: division by zero"


def test_machine_changes_with_the_package_the_threads_and_the_gpu(acme, monkeypatch):
    root = acme / "root"
    before = describe_machine(1, root=root)
    assert "acme (acme_engine 2.5)" in before["engines"]
    assert changes(before, describe_machine(1, root=root)) is None
    assert changes(before, describe_machine(2, root=root)) == "threads"
    driver = root / "proc/driver/nvidia"
    (driver / "gpus/0000:01:00.0").mkdir(parents=True)
    (driver / "version").write_text("NVRM version: NVIDIA UNIX  580.1\nGCC\n")
    (driver / "gpus/0000:01:00.0/information").write_text("Model: \t NVIDIA L4\nIRQ: 1\n")
    now = describe_machine(1, root=root)
    assert now["gpu"] == "NVRM version: NVIDIA UNIX 580.1; Model: NVIDIA L4"
    assert changes(before, now) == "gpu"
    monkeypatch.setattr("edge.inference.machine.ALGORITHM", 99)
    assert changes(now, describe_machine(1, root=root)) == "algorithm"
