"""An ordinary install, not an editable one: the wheel holds what the commands and documents need."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_WHEEL_BYTES = 16 * 2**20

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy: a build writes beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(lambda name: name and not name.startswith(("tests/", "docs/")), listed):
        if (ROOT / name).is_symlink() or (ROOT / name).exists():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / "source" / name, follow_symlinks=False)
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


def test_wheel_holds_no_tests(wheel):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {re.sub(r"-.*", "", top) for top in tops} == {
        "dataset_formats", "edge", "finesight", "gallery_sync", "quantize", "trainer",
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
