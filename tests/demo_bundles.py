"""Variants of the demo bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

DEMO = Path(__file__).parents[1] / "demo"


def demo_manifest() -> dict[str, Any]:
    """Return the manifest of the demo bundle, to be changed."""
    manifest: dict[str, Any] = json.loads((DEMO / "bundle/bundle.json").read_bytes())
    return manifest


def write_variant(folder: Path, manifest: dict[str, Any]) -> Path:
    """Write a bundle with a changed manifest, and with the files of the demo bundle that it still names.

    Args:
        folder: new.
        manifest: what became of `demo_manifest`.
    """
    named = json.dumps({key: value for key, value in manifest.items() if key != "files"})
    entries = [entry for entry in manifest["files"] if json.dumps(entry["path"]) in named]
    for entry in entries:
        (folder / entry["path"]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DEMO / "bundle" / entry["path"], folder / entry["path"])
    (folder / "bundle.json").write_text(json.dumps(manifest | {"files": entries}))
    return folder
