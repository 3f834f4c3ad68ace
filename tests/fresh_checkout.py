"""A copy of the project as a new user has it, and an environment of that user."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def copy_checkout(folder: Path) -> Path:
    """Copy what git tracks or would track; no environment and nothing that was built."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_symlink() or (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    return folder


def new_user(home: Path) -> dict[str, str]:
    """Return the environment of a new user: no virtual environment on the PATH, nothing of ours set.

    pip keeps its cache, so that it does not download everything again.
    """
    path = [part for part in os.environ["PATH"].split(os.pathsep) if ".venv" not in part]
    kept = {key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    cache = os.environ.get("PIP_CACHE_DIR", str(Path.home() / ".cache/pip"))
    return kept | {"PATH": os.pathsep.join(path), "HOME": str(home), "PIP_CACHE_DIR": cache}


def distributions(*extras: str) -> set[str]:
    """Return the names of what an install of finesight with these extras brings."""
    found: set[tuple[str, str]] = set()
    wanted = [("finesight", extra) for extra in ("", *extras)]
    while wanted:
        name, extra = wanted.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for need in map(Requirement, importlib.metadata.requires(name) or []):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                wanted += [(canonicalize_name(need.name), one) for one in ("", *need.extras)]
    return {name for name, _ in found} - {"finesight"}


def make_venv(folder: Path, lent: set[str]) -> Path:
    """Make a fresh environment that finds some distributions, and no others, in that of the tests."""
    own = Path(sysconfig.get_path("purelib"))
    lending = folder.with_name(f"{folder.name}-lent")
    lending.mkdir()
    for name in lent:
        for top in {file.parts[0] for file in importlib.metadata.files(name) or []} - {"..", "__pycache__"}:
            if not (lending / top).is_symlink():
                (lending / top).symlink_to(own / top)
    subprocess.run([Path(sys.base_prefix) / "bin/python3", "-m", "venv", folder], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    (site / "lent.pth").write_text(f"{lending}\n", encoding="utf-8")
    return folder
