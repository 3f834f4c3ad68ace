"""Record what an operation does to a folder: a preloaded library, compiled here, writes down every change and flush."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIM = Path(__file__).with_name("record_shim.c")


@dataclass(frozen=True)
class Step:
    """One change or flush of a folder."""

    kind: str  # create, write, truncate, fsync, rename, link, unlink, rmdir, mkdir
    inode: int = 0
    number: int = 0  # offset of a write, size of a truncated file
    data: bytes = b""
    path: str = ""  # below the folder
    to: str = ""  # of a rename or link


def compile_shim(folder: Path) -> Path:
    """Compile the library; skip the test where that is not possible."""
    compiler = shutil.which("gcc") or shutil.which("cc") or shutil.which("g++")
    if compiler is None or sys.platform != "linux":
        pytest.skip("crash states need Linux and a C compiler; `make test` installs one")
    shim = folder / "record_shim.so"
    command = [compiler, "-x", "c", "-shared", "-fPIC", "-O1", "-o", str(shim), str(SHIM), "-ldl", "-lpthread"]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    if compiled.returncode != 0:
        pytest.skip(f"crash states need a C compiler: {compiled.stderr[:200]}")
    return shim


def record(shim: Path, folder: Path, log: Path, call: str) -> list[Step]:
    """Run a call in a process of its own, and return what it does to a folder.

    Args:
        shim: the compiled library.
        folder: to watch.
        log: file to write.
        call: Python code, such as `from tests.crash.operations import confirm; confirm(FOLDER)`; FOLDER is the path.
    """
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path; FOLDER = Path(sys.argv[1]); {call}"
    )
    environment = os.environ | {"LD_PRELOAD": str(shim), "CRASH_ROOT": str(folder), "CRASH_LOG": str(log)}
    command = [sys.executable, "-B", "-c", code, str(folder)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr[-2000:]
    steps = read_log(log.read_bytes())
    assert steps, "the library recorded nothing"
    return steps


def read_log(data: bytes) -> list[Step]:
    """Return the steps of a log."""
    steps, at = [], 0
    while at < len(data):
        end = data.index(b"\n", at)
        kind, *numbers = data[at:end].decode().split()
        values = [int(one) for one in numbers]
        lengths = values if kind in ("rename", "link", "unlink", "rmdir") else values[-1:]
        parts, at = [], end + 1
        for length in lengths:
            parts.append(data[at : at + length])
            at += length
        at += 1  # the end of the line
        if kind in ("create", "mkdir"):
            steps.append(Step(kind, values[0], path=os.fsdecode(parts[0])))
        elif kind == "write":
            steps.append(Step(kind, values[0], values[1], parts[0]))
        elif kind in ("truncate", "fsync"):
            steps.append(Step(kind, values[0], values[1]))
        elif kind in ("unlink", "rmdir"):
            steps.append(Step(kind, path=os.fsdecode(parts[0])))
        else:
            steps.append(Step(kind, path=os.fsdecode(parts[0]), to=os.fsdecode(parts[1])))
    return steps
