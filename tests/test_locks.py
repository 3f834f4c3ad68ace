"""Lock files: they hold what pyproject.toml asks for, hashed, whole, and as tested; licences are known and accepted."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.make_licences import LOCKS, PAGE, PYTHONS, Locked, installs, licences, main, not_accepted, read_lock

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS_OF = {
    "device": {"kiosk"},
    "demo": {"demo"},
    "gstreamer": {"gstreamer"},
    "openvino": {"openvino"},
    "server": {"learn", "matting"},
}
FILES = sorted(LOCKS.glob("*.txt"))
MACHINES = ("x86_64", "aarch64")


def asked_by(extras: set[str]) -> list[Requirement]:
    """Return what pyproject.toml asks for, extras of extras included."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    waiting = [Requirement(text) for extra in extras for text in PROJECT["optional-dependencies"][extra]]
    while waiting:
        one = waiting.pop()
        if one.name == PROJECT["name"]:
            waiting += [Requirement(text) for extra in one.extras for text in PROJECT["optional-dependencies"][extra]]
        else:
            found.append(one)
    return found


def locked_for(path: Path, python: str, machine: str) -> dict[str, str]:
    """Return the versions that one device installs."""
    chosen = [entry for entry in read_lock(path) if installs(entry, python, machine)]
    versions = {entry.name: entry.version for entry in chosen}
    assert len(versions) == len(chosen), "a package is locked twice for the same Python"
    return versions


def test_every_lock_is_known():
    assert {path.stem for path in FILES} == {*EXTRAS_OF, "build"}


@pytest.mark.parametrize("lock", EXTRAS_OF)
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_holds_what_the_project_asks_for(lock, python):
    asked = asked_by(EXTRAS_OF[lock])
    for machine in MACHINES:
        versions = locked_for(LOCKS / f"{lock}.txt", python, machine)
        for one in asked:
            version = versions.get(canonicalize_name(one.name))
            assert version, f"{lock}, Python {python}: {one.name} is missing; run make lock"
            assert one.specifier.contains(version), f"{lock}, Python {python}: {one} has {version}; run make lock"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_package_of_a_lock_has_hashes_and_names_no_place(path):
    text = path.read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) >= len(read_lock(path))
    assert [entry for entry in entries if not re.search(r" \\\n    --hash=sha256:[0-9a-f]{64}", entry)] == []
    options = [line for line in text.splitlines() if line.startswith("-")]
    assert options == []
    assert not re.search(r"://|file:|/home/|/root/|/tmp/", text)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_lock_has_the_versions_that_are_tested(path):
    tested = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            one = Requirement(line)
            for python in PYTHONS:
                if one.marker is None or one.marker.evaluate({"python_version": python, "python_full_version": python}):
                    tested[canonicalize_name(one.name), python] = str(one.specifier).removeprefix("==")
    for python in PYTHONS:
        for name, version in locked_for(path, python, "x86_64").items():
            assert version == tested.get((name, python), version), f"{name}, Python {python}; run make lock"


def test_locks_can_be_combined():
    for path in FILES:
        for python in PYTHONS:
            base, more = (locked_for(file, python, "x86_64") for file in (LOCKS / "device.txt", path))
            assert base
            assert {name: more[name] for name in more.keys() & base if more[name] != base[name]} == {}, path


@pytest.mark.parametrize("lock", EXTRAS_OF)
def test_lock_holds_what_its_packages_ask_for(lock):
    """Read from the packages that are installed here at the locked version."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    versions = locked_for(LOCKS / f"{lock}.txt", python, "x86_64")
    here = {"extra": "", "platform_machine": "x86_64", "sys_platform": "linux"}
    missing, seen = [], 0
    for name, version in versions.items():
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if found.version.partition("+")[0] != version:
            continue
        seen += 1
        needed = [one for one in map(Requirement, found.requires or []) if not one.marker or one.marker.evaluate(here)]
        missing += [f"{name} needs {one}" for one in needed if canonicalize_name(one.name) not in versions]
    assert missing == []
    assert seen >= 10


def test_page_of_licences_is_current(monkeypatch):
    monkeypatch.setattr("sys.argv", ["make_licences.py", "--check"])
    assert main() == 0, f"{PAGE} is stale; run make licences"


def test_no_lock_installs_a_package_under_the_gpl():
    strong = re.compile(r"(?<!L)A?GPL|SSPL|Commercial", re.IGNORECASE)
    assert {name: licence for name, (licence, _) in licences().items() if strong.search(licence)} == {}
    assert not {"pillow-heif"} & set(licences())


@pytest.mark.parametrize(
    ("expression", "refused"),
    [
        ("MIT", set()),
        ("EPL-2.0 OR BSD-3-Clause", set()),
        ("BSD-2-Clause AND Apache-2.0 WITH LLVM-exception", set()),
        ("LGPL-2.1-only OR MPL-1.1", set()),
        ("GPL-3.0-only", {"GPL-3.0"}),
        ("MIT AND AGPL-3.0-or-later", {"AGPL-3.0-or-later"}),
        ("some words", {"some words"}),
    ],
)
def test_licence_that_is_not_accepted_is_named(expression, refused):
    assert not_accepted(expression) == refused


def test_marker_chooses_python_and_machine():
    entry = Locked("x", "1", "python_full_version < '3.11' and platform_machine == 'aarch64'")
    assert installs(entry, "3.10", "aarch64")
    assert not installs(entry, "3.10", "x86_64")
    assert not installs(entry, "3.13", "aarch64")
