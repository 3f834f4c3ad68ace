"""The command that installs an extra is one that the user can type as it is."""

from __future__ import annotations

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


def test_missing_package_of_an_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(extras._EXTRA_PACKAGES, "kiosk", ("no_such_package",))
    with pytest.raises(ConfigError, match=r"^kiosk: package 'no_such_package' is not installed; run: .*\[kiosk\]\"$"):
        extras.require_extra("kiosk")


def test_unknown_module_is_no_missing_extra():
    assert extras.install_hint(ModuleNotFoundError(name="edge.nothing"), "trainer") is None


def test_module_of_two_extras_names_that_of_the_command():
    hints = [extras.install_hint(ModuleNotFoundError(name="onnx.helper"), name) for name in ("trainer", "quantize")]
    assert ["trainer" in hints[0], "quantize" in hints[1]] == [True, True]
