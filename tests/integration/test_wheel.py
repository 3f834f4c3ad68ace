"""An ordinary install, not an editable one: the wheel holds what the commands and documents need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.fresh_checkout import copy_checkout

ROOT = Path(__file__).parents[2]
MAX_WHEEL_BYTES = 20 * 2**20
OLDEST_PYTHON = (3, 10)
EVERY_FRAME = """
site: test
device: test
state_dir: state
cameras: {{shelf: {{source: "file://{shipped}/demo/stream.mp4", pacing: every_frame}}}}
recognition: {{looks_per_s: 1000}}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: a build writes beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    copy_checkout(folder / "source")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, folder / "source"]
    subprocess.run(pip, check=True, capture_output=True, timeout=600)
    return next(folder.glob("finesight-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The commands of a new environment with the wheel; it finds the other packages in that of the tests."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True, capture_output=True, timeout=600)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (own / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder / "bin"


def run(*command: object, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_wheel_is_of_a_size_to_send_to_devices(wheel):
    assert wheel.stat().st_size <= MAX_WHEEL_BYTES


def test_wheel_holds_every_shipped_file(wheel):
    shipped = [path for name in ("configs", "demo", "systemd") for path in (ROOT / name).rglob("*") if path.is_file()]
    held = set(zipfile.ZipFile(wheel).namelist())
    assert [path for path in shipped if f"edge/shipped/{path.relative_to(ROOT)}" not in held] == []


def test_wheel_holds_the_pages_of_the_console(wheel):
    kinds = {".html", ".css", ".js", ".svg", ".json", ".LICENSE"}
    files = [path for path in (ROOT / "console").rglob("*") if path.suffix in kinds]
    held = set(zipfile.ZipFile(wheel).namelist())
    assert len(files) > 50
    assert [path for path in files if str(path.relative_to(ROOT)) not in held] == []


def test_wheel_holds_no_tests(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {re.sub(r"-.*", "", top) for top in tops} == {
        "console", "dataset_formats", "edge", "finesight", "gallery_sync", "learn", "quantize", "trainer",
    }  # fmt: skip


def test_command_is_that_of_the_wheel(installed, tmp_path):
    done = run(
        installed / "python", "-c", "import edge, trainer; print(edge.__file__, trainer.__file__)", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(installed.parent)) == 2


def test_demo_of_an_ordinary_install_passes(installed, tmp_path):
    done = run(installed / "edge", "demo", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "demo passed" in done.stdout
    assert (tmp_path / "build/demo/contact-sheet.png").is_file()


def test_printed_paths_work_in_a_folder_made_by_init(installed, tmp_path):
    assert run(installed / "edge", "init", ".", folder=tmp_path).returncode == 0
    state = ("--state-dir", "state")
    lines = [
        ("bundle", "install", "demo/bundle", "--gallery", "demo/gallery", *state),
        ("bundle", "activate", *state),
        ("gallery", "status", *state),
    ]
    done = [run(installed / "edge", *line, folder=tmp_path) for line in lines]
    assert [one.returncode for one in done] == [0, 0, 0], [one.stderr for one in done]


def pyenv_versions() -> Path:
    return Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"


def other_pythons() -> dict[str, Path]:
    """Return an interpreter of each other version that finesight supports, of those that pyenv has."""
    found = {}
    for python in sorted(pyenv_versions().glob("3.*/bin/python")):
        version = tuple(map(int, python.parts[-3].split(".")[:2]))
        if version >= OLDEST_PYTHON and version != sys.version_info[:2]:
            found[f"{version[0]}.{version[1]}"] = python
    return found


@pytest.mark.skipif(not pyenv_versions().is_dir(), reason="no pyenv: there is only the Python that runs the tests")
def test_pyenv_has_other_supported_pythons():
    assert other_pythons()


@pytest.mark.parametrize("version", dict.fromkeys([*other_pythons()][:1] + [*other_pythons()][-1:]))
def test_demo_passes_on_another_python_with_pinned_packages(version, wheel, tmp_path):
    subprocess.run([other_pythons()[version], "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile"]
    # without HNSWLIB_NO_NATIVE, hnswlib is built for this exact CPU and crashes on another
    done = subprocess.run(
        [*pip, "-c", ROOT / "constraints.txt", f"{wheel}[demo]"],
        env=os.environ | {"HNSWLIB_NO_NATIVE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shipped = run(python, "-c", "import edge.shipped as s; print(list(s.__path__)[0])", folder=tmp_path).stdout.strip()
    (tmp_path / "device.yaml").write_text(EVERY_FRAME.format(shipped=shipped), encoding="utf-8")
    done = run(tmp_path / "venv/bin/edge", "demo", "-c", "device.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "objects 30: right 30" in done.stdout
