"""The command that installs an extra is one that the user can type as it is."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edge import extras
from edge.errors import ConfigError


@pytest.fixture
def environment(tmp_path, monkeypatch):
    pip = tmp_path / "bin/pip"
    pip.parent.mkdir()
    pip.write_text("#!/bin/sh\n")
    pip.chmod(0o755)
    monkeypatch.setattr(extras.sys, "prefix", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin")
    return tmp_path


def test_pip_of_an_activated_environment_is_named_shortly(environment, monkeypatch):
    monkeypatch.setenv("PATH", f"{environment}/bin:/usr/bin")
    assert extras.install_command("kiosk") == 'pip install "finesight[kiosk]"'


def test_pip_of_another_environment_is_named_by_its_path(environment):
    assert extras.install_command("kiosk") == f'{environment}/bin/pip install "finesight[kiosk]"'


def test_environment_of_root_needs_sudo(environment, monkeypatch):
    monkeypatch.setattr(extras.os, "access", lambda path, _: path != str(environment))
    monkeypatch.setattr(extras.shutil, "which", lambda _: None)
    assert extras.install_command("kiosk") == f'sudo {environment}/bin/pip install "finesight[kiosk]"'


def test_gpu_is_installed_last(environment, monkeypatch):
    monkeypatch.setenv("PATH", f"{environment}/bin")
    assert extras.install_command("onnxruntime-cuda") == (
        'pip install "finesight[gpu]" && pip install --force-reinstall --no-deps onnxruntime-gpu'
    )


@pytest.fixture
def onnxruntime(environment, monkeypatch):
    """The folder of an installed ONNX Runtime; its packages are installed by `install`."""
    capi = environment / "onnxruntime/capi"
    capi.mkdir(parents=True)
    found = SimpleNamespace(origin="__init__.py", submodule_search_locations=[str(capi.parent)])
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: found if name == "onnxruntime" else None)
    monkeypatch.setattr(extras, "is_jetson", lambda: False)
    return SimpleNamespace(capi=capi, spec=found)


def install(capi, package):
    (capi / "build_and_package_info.py").write_text(f"package_name = '{package}'\n__version__ = '1.31.1'\n")
    if package == "onnxruntime-gpu":
        for name in extras.FILE_OF_ENGINE.values():
            (capi / name).touch()


REPAIR = "pip install --force-reinstall --no-deps onnxruntime-gpu"


@pytest.mark.parametrize("engine", ["onnxruntime-cuda", "onnxruntime-tensorrt"])
def test_gpu_package_is_found_by_its_files(onnxruntime, engine):
    install(onnxruntime.capi, "onnxruntime")
    assert extras.engine_problem("onnxruntime") is None
    assert extras.engine_problem(engine).startswith("package 'onnxruntime-gpu' is not installed; run: ")
    install(onnxruntime.capi, "onnxruntime-gpu")
    assert extras.engine_problem(engine) is None


def test_cpu_package_over_the_gpu_package_is_told_with_the_repair(onnxruntime):
    install(onnxruntime.capi, "onnxruntime-gpu")
    install(onnxruntime.capi, "onnxruntime")
    problem = extras.engine_problem("onnxruntime-cuda")
    assert "both installed and write the same files; onnxruntime came last" in problem
    assert problem.endswith(REPAIR)
    assert extras.engine_problem("onnxruntime") is None


@pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime-gpu"])
def test_rest_of_an_uninstalled_package_is_told_with_the_repair(onnxruntime, package):
    install(onnxruntime.capi, package)
    onnxruntime.spec.origin = None  # Python finds a folder without modules
    problem = extras.engine_problem("onnxruntime")
    assert "one of them was uninstalled" in problem
    assert problem.endswith(f"--no-deps {package}")


def test_links_that_an_uninstalled_plugin_left_are_no_plugin(onnxruntime, monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda _: SimpleNamespace(origin=None))
    assert "is not installed" in extras.engine_problem("tensorrt-rtx")


@pytest.mark.parametrize("engine", ["tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt-rtx"])
def test_nothing_of_pypi_is_advised_on_a_jetson(onnxruntime, monkeypatch, engine):
    monkeypatch.setattr(extras, "is_jetson", lambda: True)
    problem = extras.engine_problem(engine)
    assert "Jet" in problem
    assert "pip install" not in problem


@pytest.mark.parametrize(
    ("name", "text", "is_jetson"),
    [
        ("etc/nv_tegra_release", "# R36", True),
        ("proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0", True),
        ("proc/device-tree/model", "Raspberry Pi 5 Model B\0", False),
    ],
)
def test_jetson_is_recognised(tmp_path, name, text, is_jetson):
    assert extras.is_jetson(tmp_path) is False
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    assert extras.is_jetson(tmp_path) is is_jetson


def test_missing_package_of_an_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(extras._EXTRA_PACKAGES, "kiosk", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"^kiosk: package 'no_such_package' is not installed; run: .*\[kiosk\]\"$"):
        extras.require_extra("kiosk")


def test_unknown_module_is_no_missing_extra():
    assert extras.install_hint(ModuleNotFoundError(name="edge.nothing"), "trainer") is None


def test_module_of_two_extras_names_that_of_the_command():
    hints = [extras.install_hint(ModuleNotFoundError(name="onnx.helper"), name) for name in ("trainer", "quantize")]
    assert ["trainer" in hints[0], "quantize" in hints[1]] == [True, True]
