"""Installs a package that offers an engine, as pip would, into a scratch folder on the path."""

from __future__ import annotations

import sys
from importlib import invalidate_caches
from pathlib import Path


def install_engine(site: Path, name: str, code: str, monkeypatch, *, version: str = "1.0", target: str = "") -> None:
    """Write a module and its .dist-info, and put the folder on the path of this process and of its children.

    Args:
        site: folder, which is made.
        name: of the engine; the package and the module are named after it.
        code: of the module.
        monkeypatch: undoes it.
        version: of the package.
        target: what the entry point names; default: the module.
    """
    module = f"{name.replace('-', '_')}_engine"
    information = site / f"{module}-{version}.dist-info"
    information.mkdir(parents=True)
    (site / f"{module}.py").write_text(code)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: {version}\n")
    (information / "entry_points.txt").write_text(f"[finesight.engines]\n{name} = {target or module}\n")
    monkeypatch.syspath_prepend(str(site))
    sys.modules.pop(module, None)
    invalidate_caches()
