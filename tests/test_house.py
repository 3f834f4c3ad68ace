"""The rules of the house that a machine can check: rooms, their docstrings, and the names of tests."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("dataset_formats", "edge", "gallery_sync", "learn", "quantize", "trainer")
ROOMS = sorted(path.parent for package in PACKAGES for path in (ROOT / package).rglob("__init__.py"))
ALL_CODE = (*PACKAGES, "benchmarks", "docs", "scripts", "tests")
MODULES_A_ROOM = 20  # about
NAME_LENGTH = 70


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_room_opens_with_one_docstring(room):
    body = ast.parse((room / "__init__.py").read_text(encoding="utf-8")).body
    assert ast.get_docstring(ast.Module(body, [])), "say what the room owns and what it never does"
    more = [ast.unparse(node) for node in body[1:] if not ast.unparse(node).startswith("__version__")]
    assert more == [] or room.name == "edge"  # it also names the Python API


def test_every_folder_of_modules_is_a_room():
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert sorted(name_of(folder) for folder in folders - set(ROOMS)) == []


@pytest.mark.parametrize("room", ROOMS, ids=name_of)
def test_room_is_small_enough_to_see_whole(room):
    modules = [path for path in room.glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MODULES_A_ROOM


def test_names_of_tests_are_short():
    names = [
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert [name for name in names if len(name) > NAME_LENGTH] == []


def test_every_module_opens_with_a_docstring():
    bare = [
        name_of(path)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("library", "door", "behind_it"),
    [
        (
            "onnxruntime",
            "edge/inference/onnxruntime_library.py",
            {"quantize/forms/ort_u8.py", "benchmarks/int8_peers.py"},
        ),
        ("openvino", "edge/inference/openvino_engine.py", set()),
        ("timm", "trainer/models/timm_library.py", set()),
    ],
)
def test_library_that_reports_has_one_door(library, door, behind_it):
    """Its door switches the reports off; also tests and benchmarks go through it."""
    importers = {}
    for path in sorted(path for folder in ALL_CODE for path in (ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if library in text and (imported := imports_of(text)):
            importers |= {name_of(path): imported} if any(is_within(name, library) for name in imported) else {}
    importers.pop("quantize/reports/kit_check.py", None)  # runs elsewhere, by itself; its own test checks the switch
    assert set(importers) == {door} | behind_it
    for name in behind_it:  # the door comes first
        opened = importers[name].index(door.removesuffix(".py").replace("/", "."))
        assert opened < min(n for n, module in enumerate(importers[name]) if is_within(module, library))


def imports_of(text: str) -> list[str]:
    """Return the modules that a module imports, in the order of its lines."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, node.module or ""))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found += [(node.lineno, arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)]
    return [name for _, name in sorted(found)]


def is_within(module: str, library: str) -> bool:
    return module == library or module.startswith(f"{library}.")


def test_import_contracts_hold():
    lint = shutil.which("lint-imports", path=sysconfig.get_path("scripts")) or "lint-imports"
    done = subprocess.run([lint, "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
