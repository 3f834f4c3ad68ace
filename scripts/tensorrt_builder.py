#!/usr/bin/env python3
"""Set up TensorRT's parser and builder in a folder, for the tests: they need no GPU.

    .venv/bin/python scripts/tensorrt_builder.py [FOLDER]     FOLDER: .tensorrt of the checkout

It downloads wheels of NVIDIA from the Python registry (150 MB) and keeps what is needed of them (245 MB):

* FOLDER/11.4: the Python bindings of TensorRT 11.4 on the libraries of TensorRT for RTX. It parses and builds networks.
* FOLDER/10.3, FOLDER/10.16: the Python bindings alone. They can be imported, to see which names a version has.

Put one of the three on PYTHONPATH, and `import tensorrt` finds it. The libraries are under NVIDIA's own licences. This
project contains nothing of them: they come to your machine only when you, or `make test`, run this script.

Exit status: 0 all is there, 3 something cannot be had here (it says why), 1 another error.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = ROOT / "packaging/tensorrt_builder"
FOLDER = ROOT / ".tensorrt"
VERSIONS = ("10.3", "10.16", "11.4")
BUILDER = "11.4"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
_HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64")
_NEEDED = ("libtensorrt_rtx.so.", "libtensorrt_onnxparser_rtx.so.", "Acknowledgements.txt", "README.txt")
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
_LOADER = '''"""Loads the libraries that the bindings want. NVIDIA's bindings import a module of this name first."""
import ctypes
import pathlib
for _path in sorted(pathlib.Path(__file__).parent.glob("libnv*")):
    ctypes.CDLL(str(_path))
'''
_MODULE = "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"  # as in NVIDIA's package


class NotHereError(Exception):
    """What cannot be had on this machine, and why."""


def prepare(folder: Path = FOLDER, python: str = _HERE) -> dict[str, str]:
    """Set up every version that this machine can have; quick when it is there.

    Args:
        folder: where to.
        python: the version of Python that will import it.

    Returns:
        why a version is missing, for each version that is.

    Raises:
        RuntimeError: a download is damaged, or a library does not compile.
    """
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        why = f"NVIDIA has no wheels of it for {platform.system()} on {platform.machine()}, only for Linux on x86-64"
        return dict.fromkeys(VERSIONS, why)
    folder.mkdir(parents=True, exist_ok=True)
    missing = {}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        for version in VERSIONS:
            try:
                _prepare_version(folder / version, version, python)
            except NotHereError as error:
                missing[version] = str(error)
    return missing


def _prepare_version(folder: Path, version: str, python: str) -> None:
    pins = PINS / f"{version}.txt"
    if python not in PYTHONS or (version == "10.3" and python == "3.13"):
        raise NotHereError(f"NVIDIA has no wheel of TensorRT {version} for Python {python}")
    inputs = [pins.read_bytes(), (PINS / "join.c").read_bytes(), Path(__file__).read_bytes(), python.encode()]
    digest = hashlib.sha256(b"\0".join(inputs)).hexdigest()
    stamp = folder / "stamp"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
        return
    libraries = folder / "tensorrt_libs"
    with tempfile.TemporaryDirectory(dir=folder.parent) as wheels:
        _download(pins, Path(wheels), python)
        shutil.rmtree(folder, ignore_errors=True)
        libraries.mkdir(parents=True)
        for wheel in sorted(Path(wheels).glob("*.whl")):
            _unpack(wheel, folder, libraries)
    for name in _LIBRARIES:
        _compile(libraries / f"lib{name}.so.{version.partition('.')[0]}")
    (libraries / "__init__.py").write_text(_LOADER, encoding="ascii")
    (folder / "tensorrt").mkdir()
    (folder / "tensorrt/__init__.py").write_text(_MODULE, encoding="ascii")
    stamp.write_text(digest, encoding="ascii")


def _download(pins: Path, folder: Path, python: str) -> None:
    """Download what a requirements file pins, and check its hashes."""
    options = ["--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={python}", "--retries=2"]
    options += [f"--platform={name}" for name in _PLATFORMS]
    if pins.stem == BUILDER:
        print("tensorrt_builder: downloading 148 MB of wheels, under NVIDIA's licences (see NOTICE)", flush=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "-d", str(folder)]
    done = subprocess.run([*pip, *options, "-r", str(pins)], capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr:
        line = next(line for line in done.stderr.splitlines() if "No matching distribution found" in line)
        raise NotHereError(f"pip found no registry that has it: {line.removeprefix('ERROR: ')}")
    if done.returncode != 0:
        raise RuntimeError(f"pip cannot download what {pins} names: {done.stderr.strip()}")


def _unpack(wheel: Path, folder: Path, libraries: Path) -> None:
    """Take the bindings, the two libraries and the licences out of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            name = Path(member.filename)
            if name.parts[0] == "tensorrt_bindings" or name.parts[0].endswith(".dist-info"):
                archive.extract(member, folder)
            elif name.name.startswith(_NEEDED):
                parts = name.name.partition(".so.")  # libtensorrt_rtx.so.1.7.1 is looked for as libtensorrt_rtx.so.1
                short = f"{parts[0]}.so.{parts[2].partition('.')[0]}" if parts[1] else name.name
                with archive.open(member) as source, (libraries / short).open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)


def _compile(library: Path) -> None:
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", f"-Wl,-soname,{library.name}", "-Wl,-rpath,$ORIGIN"]
    command = [os.environ.get("CC", "cc"), *options, "-o", str(library), str(PINS / "join.c"), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise RuntimeError(f"no C compiler {command[0]!r}; run: apt install gcc") from error
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="default: .tensorrt of the checkout")
    parser.add_argument("--python", choices=PYTHONS, default=_HERE, help="the Python that will import it")
    arguments = parser.parse_args()
    try:
        missing = prepare(arguments.folder, arguments.python)
    except RuntimeError as error:
        print(f"tensorrt_builder: {error}", file=sys.stderr)
        return 1
    for version in VERSIONS:
        why = missing.get(version)
        print(f"tensorrt_builder: TensorRT {version}: {why or arguments.folder / version}")
    return 3 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
